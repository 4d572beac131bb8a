"""Dockerfiles as people have them: what is carried over, and what is listed with the reason."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lading.errors import DeclarationError
from lading.new import reading
from lading.new.draft import Draft, requirement_file, section
from lading.new.instructions import read as instructions
from lading.new.shell import NotPlainError, commands, substituted


@dataclass
class Row:
    """A Dockerfile with the files beside it, and what comes of it."""

    text: str
    section: dict[str, Any]
    requirements: str = ""
    sources: dict[str, Any] = field(default_factory=dict)
    left: list[tuple[str, str]] = field(default_factory=list)
    beside: dict[str, str] = field(default_factory=dict)


PIP = {"requirements": "recipes/mine/requirements.in"}
MPICH = "https://mpich.example/static/downloads/{0}/mpich-{0}.tar.gz"
MPI4PY = f"""\
FROM python:3.9-slim
ARG MPI_VERSION=4.0.2
ARG MPI_CONFIGURE_OPTIONS="--prefix=/usr --enable-fast=all,O3"
ARG MPI_MAKE_OPTIONS="-j4"
RUN apt-get update \\
    && apt-get install -y --no-install-recommends build-essential gfortran wget ca-certificates \\
    && apt-get clean && rm -rf /var/lib/apt/lists/*
RUN mkdir -p /tmp/mpich-build \\
    && cd /tmp/mpich-build \\
    && wget {MPICH.format("${MPI_VERSION}")} \\
    && tar xvzf mpich-${{MPI_VERSION}}.tar.gz \\
    && cd mpich-${{MPI_VERSION}} \\
    # how it is made
    && ./configure ${{MPI_CONFIGURE_OPTIONS}} \\
    && make ${{MPI_MAKE_OPTIONS}} \\
    && make install \\
    && ldconfig \\
    && cp -p /tmp/mpich-build/mpich-${{MPI_VERSION}}/examples/cpi /usr/bin/ \\
    && cd / && rm -rf /tmp/mpich-build
RUN pip install --no-cache-dir mpi4py==3.1.3
"""
MPICH_SOURCE = {
    "mpich": {
        "version": "4.0.2",
        "urls": [MPICH.format("{version}")],
        "configure": "--prefix=/usr --enable-fast=all,O3",
        "apt": {"build": ["gfortran"]},
    }
}

LESSON = {
    "pip 1": Row(
        text="FROM python:3.9-slim\nRUN pip install astropy\n",
        section={"base": "python:3.9-slim", "pip": PIP},
        requirements="astropy\n",
    ),
    "pip 2": Row(
        text="FROM python:3.9-slim\n\nRUN pip3 install --no-cache-dir astropy==4.3\n",
        section={"base": "python:3.9-slim", "pip": PIP},
        requirements="astropy==4.3\n",
    ),
    "pip 3": Row(
        text=(
            'FROM python:3.9-slim\n\nLABEL maintainer="Jane Doe <jane@hpc.example>"\n'
            "ARG ASTRO_VERSION=4.3\n"
            "RUN python3 -m pip install --no-cache-dir astropy==$ASTRO_VERSION\n"
        ),
        section={
            "base": "python:3.9-slim",
            "pip": PIP,
            "labels": {"maintainer": "Jane Doe <jane@hpc.example>"},
        },
        requirements="astropy==4.3\n",
    ),
    "pip 4": Row(
        text=(
            "FROM python:3.9-slim\n"
            'LABEL maintainer="Jane Doe" \\\n      description="What astronomers want" \\\n'
            '      python.packages="astropy"\n'
            "COPY requirements.txt .\n"
            "RUN pip install --no-cache-dir -r requirements.txt\n"
            'CMD ["/bin/bash"]\n'
        ),
        beside={"requirements.txt": "astropy==4.3  # as in the paper\nnumpy<1.22\n"},
        section={
            "description": "What astronomers want",
            "base": "python:3.9-slim",
            "pip": {"requirements": "recipes/mine/requirements.txt"},
            "labels": {"maintainer": "Jane Doe"},
            "cmd": ["/bin/bash"],
        },
        requirements="astropy==4.3  # as in the paper\nnumpy<1.22\n",
        left=[("Dockerfile:2", "written by itself")],
    ),
    "conda 1": Row(
        text=(
            "FROM continuumio/miniconda3:4.10.3\n"
            "RUN conda install -y -c conda-forge astropy=4.3 && conda clean --all -f -y\n"
        ),
        section={
            "base": "continuumio/miniconda3:4.10.3",
            "conda": {
                "channels": ["conda-forge"],
                "packages": ["astropy=4.3"],
                "installer": "conda",
            },
        },
    ),
    "conda 2": Row(
        text=(
            "FROM continuumio/miniconda3:4.10.3\n"
            "COPY environment.yml /tmp/\n"
            "RUN conda env update -n base --file /tmp/environment.yml && conda clean -afy\n"
        ),
        beside={"environment.yml": "channels: [conda-forge]\ndependencies:\n  - astropy=4.3\n"},
        section={
            "base": "continuumio/miniconda3:4.10.3",
            "conda": {"file": "recipes/mine/environment.yaml", "installer": "conda"},
        },
    ),
    "conda 3": Row(
        text=(
            "FROM continuumio/miniconda3:4.10.3\n"
            "RUN conda config --add channels conda-forge && \\\n"
            "    conda create -y -n lesson python=3.9 astropy\n"
            "ENV PATH /opt/conda/envs/lesson/bin:$PATH\n"
            'SHELL ["conda", "run", "-n", "lesson", "/bin/bash", "-c"]\n'
        ),
        section={
            "base": "continuumio/miniconda3:4.10.3",
            "conda": {
                "channels": ["conda-forge"],
                "packages": ["python=3.9", "astropy"],
                "prefix": "/opt/lesson",
            },
        },
        left=[("Dockerfile:4", "the base's PATH"), ("Dockerfile:5", "/bin/sh's")],
    ),
    "mpi4py": Row(
        text=MPI4PY,
        section={
            "base": "python:3.9-slim",
            "apt": {"build": ["build-essential", "gfortran"]},
            "source": ["mpich"],
            "pip": {**PIP, "no-binary": ["mpi4py"]},
            "mpi": "mpich",
        },
        requirements="mpi4py==3.1.3\n",
        sources=MPICH_SOURCE,
        left=[("Dockerfile:18", "`then:` of that source")],
    ),
}

OTHERS = {
    "quotes that are missing": Row(
        text="FROM a:1\nRUN pip install six numpy>=1.2\nRUN pip install six\n",
        section={"base": "a:1", "pip": PIP},
        requirements="six\n",
        left=[("Dockerfile:2", "quotes are missing")],
    ),
    "what pip can't lock": Row(
        text=(
            "FROM a:1\nRUN pip install --upgrade pip setuptools && pip install -e . "
            "git+https://x.example/y six --target /opt/x --no-binary six,numpy "
            "--extra-index-url https://x.example/simple\n"
        ),
        section={"base": "a:1", "pip": {**PIP, "no-binary": ["six", "numpy"]}},
        requirements="--extra-index-url https://x.example/simple\nsix\n",
        left=[
            ("Dockerfile:2", "local or editable"),
            ("Dockerfile:2", "no counterpart"),
            ("Dockerfile:2", "checkout"),
        ],
    ),
    "a variable for a build": Row(
        text="FROM a:1\nRUN MPICC=/usr/bin/mpicc pip install mpi4py\n",
        section={"base": "a:1", "pip": {**PIP, "build-env": {"MPICC": "/usr/bin/mpicc"}}},
        requirements="mpi4py\n",
    ),
    "a file that is not there": Row(
        text="FROM a:1\nCOPY x.txt y.txt /opt/\nRUN pip install six -r /opt/z.txt\n",
        section={"base": "a:1", "pip": PIP},
        requirements="six\n",
        left=[
            ("Dockerfile:2", "no x.txt"),
            ("Dockerfile:2", "no y.txt"),
            ("Dockerfile:3", "no COPY brings"),
        ],
    ),
    "files": Row(
        text=(
            "FROM a:1\nWORKDIR /app\nCOPY . .\nCOPY run.sh conf /opt/own/\nCOPY run.sh /root/\n"
            "RUN pip install -r requirements.txt\n"
        ),
        beside={"run.sh": "true\n", "conf": "a\n", "requirements.txt": "six\n"},
        section={
            "base": "a:1",
            "pip": {"requirements": "recipes/mine/requirements.txt"},
            "files": {
                "/opt/own/run.sh": "recipes/mine/run.sh",
                "/opt/own/conf": "recipes/mine/conf",
            },
        },
        requirements="six\n",
        left=[("Dockerfile:2", "starts where its caller is"), ("Dockerfile:5", "is the host's")],
    ),
    "stages": Row(
        text=(
            "ARG TAG=3.9\nFROM gcc:9 AS build\nRUN make\n"
            "FROM python:${TAG} AS start\nENV A=1 B='x y'\n"
            'FROM start\nCOPY --from=build /x /y\nRUN pip install six\nENTRYPOINT ["x"]\nUSER 1\n'
        ),
        section={"base": "python:3.9", "pip": PIP, "env": {"A": "1", "B": "x y"}},
        requirements="six\n",
        left=[
            ("Dockerfile:2", "in a stage"),
            ("Dockerfile:3", "in a stage"),
            ("Dockerfile:7", "other stages"),
            ("Dockerfile:9", "call programs by their name"),
            ("Dockerfile:10", "whoever calls it"),
        ],
    ),
    "shells": Row(
        text=(
            "# escape=`\nFROM a:1\n"
            "RUN set -eux; pip install six `\n  # why\n  && if x; then y; fi\n"
            "RUN pip install packaging | tee log\nRUN echo $(date) > /opt/day\n"
            "RUN ln -s /usr/bin/python3 /usr/local/bin/py && frobnicate\n"
        ),
        section={"base": "a:1", "run": ["ln -s /usr/bin/python3 /usr/local/bin/py"]},
        left=[
            ("Dockerfile:3", "a shell's own words"),
            ("Dockerfile:6", "pipe"),
            ("Dockerfile:7", "only a shell"),
            ("Dockerfile:8", "not known"),
        ],
    ),
    "here-documents": Row(
        text=(
            "FROM a:1\nRUN --mount=type=cache,target=/root/.cache <<EOF\napt-get update\n"
            "apt-get install -y bc\npip install six\nEOF\nRUN python3 <<-'END'\nimport x\n\tEND\n"
        ),
        section={"base": "a:1", "apt": {"run": ["bc"]}, "pip": PIP},
        requirements="six\n",
        left=[("Dockerfile:7", "make it a file")],
    ),
    "a tarball by curl, and one that is not finished": Row(
        text=(
            "FROM a:1\nRUN apt-get install -y gcc curl libx-dev libgomp1\n"
            "RUN curl -sSL https://h.example/hdf5-1.12.1.tar.gz | tar xz && cd hdf5-1.12.1 && \\\n"
            "  CC=gcc ./configure --prefix=/usr && make -j $(nproc) V=1 && make install\n"
            "ADD https://h.example/other-2.tar.gz /tmp/\nRUN tar xf /tmp/other-2.tar.gz\n"
        ),
        section={
            "base": "a:1",
            "apt": {"build": ["gcc", "libx-dev"], "run": ["curl", "libgomp1"]},
            "source": ["hdf5"],
        },
        sources={
            "hdf5": {
                "version": "1.12.1",
                "urls": ["https://h.example/hdf5-{version}.tar.gz"],
                "configure": "--prefix=/usr",
                "make": "V=1",
                "env": {"CC": "gcc"},
                "apt": {"build": ["gcc", "libx-dev"]},
            }
        },
        left=[("Dockerfile:5", "does not come to"), ("Dockerfile:6", "does not come to")],
    ),
    "a tarball under another name": Row(
        text=(
            "FROM a:1\nWORKDIR /tmp\nRUN wget -qO x.tgz https://h.example/a_b-1.2/a_b-1.2.tgz\n"
            "RUN tar xf x.tgz\nWORKDIR a_b-1.2\nRUN ./configure && make -j4 && make install\n"
        ),
        section={"base": "a:1", "source": ["a-b"]},
        sources={
            "a-b": {
                "version": "1.2",
                "urls": ["https://h.example/a_b-{version}/a_b-{version}.tgz"],
                "configure": "",
            }
        },
        left=[("Dockerfile:5", "starts where its caller is")],
    ),
    "an environment of its own name": Row(
        text=(
            "FROM a/conda:1\nADD environment.yml .\nRUN conda env create -f environment.yml\n"
            "RUN conda install -n lab six && conda install -n mybase numpy\n"
        ),
        beside={"environment.yml": "name: lab\nchannels: [c]\ndependencies: [astropy]\n"},
        section={
            "base": "a/conda:1",
            "conda": {"file": "recipes/mine/environment.yaml", "prefix": "/opt/lab"},
        },
        left=[("Dockerfile:4", "stand in one place"), ("Dockerfile:4", "a second environment")],
    ),
    "packages that are taken away again": Row(
        text=(
            "FROM a:1\nRUN apt-get install -y swig4.0 bc && pip install six==1.0 && \\\n"
            "  apt-get purge -y --auto-remove swig4.0 && rm -rf /usr/share/doc\n"
        ),
        section={
            "base": "a:1",
            "apt": {"build": ["swig4.0"], "run": ["bc"]},
            "pip": PIP,
            "run": ["rm -rf /usr/share/doc"],
        },
        requirements="six==1.0\n",
    ),
    "other systems": Row(
        text="FROM centos:7\nRUN yum install -y gcc\nRUN pip install six\nEXPOSE 80\n",
        section={"base": "centos:7", "pip": PIP},
        requirements="six\n",
        left=[("Dockerfile:2", "only Debian's"), ("Dockerfile:4", "ports")],
    ),
}


def drafted(folder: Path, row: Row, arguments: dict[str, str] | None = None) -> Draft:
    for name, content in {**row.beside, "Dockerfile": row.text}.items():
        (folder / name).write_text(content)
    draft = Draft()
    reading.read(draft, folder / "Dockerfile", arguments=arguments)
    return draft


@pytest.mark.parametrize("name", [*LESSON, *OTHERS])
def test_what_a_dockerfile_becomes(tmp_path: Path, name: str) -> None:
    row = {**LESSON, **OTHERS}[name]
    draft = drafted(tmp_path, row)
    file, content = requirement_file(draft)
    assert section(draft, "recipes/mine", draft.base, file) == row.section
    kept = draft.recipe[file] if content is None and file else content
    assert (kept or b"") == row.requirements.encode()
    assert draft.sources == row.sources
    found = [(left.where, left.why) for left in draft.left]
    assert [where for where, _ in found] == [where for where, _ in row.left], found
    for (_, why), (_, part) in zip(found, row.left, strict=True):
        assert part in why


def test_an_argument_has_the_value_that_is_given(tmp_path: Path) -> None:
    row = Row(text="ARG T\nFROM python:$T\nARG V=1\nRUN pip install six==$V\n", section={})
    draft = drafted(tmp_path, row, {"T": "3.9", "V": "2"})
    assert (draft.base, draft.requirements) == ("python:3.9", ["six==2"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hello world\n", "Dockerfile:1: HELLO stands before any FROM"),
        ("", "there is no FROM in it"),
        ("FROM scratch\nCOPY x /\n", "Dockerfile:1: FROM scratch"),
        ("FROM a:$X\n", "$X has no value"),
        ("FROM a:1\nFRUM b\n", "Dockerfile:2: FRUM is no instruction"),
        ("FROM a:1\n===\n", "Dockerfile:2: this is no instruction"),
        ("FROM a:1\nRUN <<EOF\nx\n", "Dockerfile:2: <<EOF has no end"),
        ("FROM a:1\nRUN frobnicate\nUSER x\n", "nothing of Dockerfile but its base"),
        ("FROM a:1\nRUN 'x\nEXPOSE 1\n", "a quote that does not close"),
        ("\x00\xff", "no instruction"),
    ],
)
def test_what_can_not_be_carried_over(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        drafted(tmp_path, Row(text=text, section={}))
    assert said in str(caught.value)


PIECES = st.lists(
    st.one_of(
        st.sampled_from(
            [
                *[
                    "FROM a:1\n",
                    "RUN ",
                    "COPY ",
                    "ENV A=",
                    "ARG V=1\n",
                    "LABEL ",
                    "\\\n",
                    "\n",
                    " ",
                ],
                *["pip install ", "six", "-r x.txt", "conda install ", "apt-get install ", "&& "],
                *["| ", "; ", "wget https://a.example/b-1.tar.gz ", "tar x b-1.tar.gz", "make "],
                *[
                    "./configure ",
                    "make install",
                    "$V",
                    "${V:-x}",
                    "$(x)",
                    "'",
                    '"',
                    "<<E\n",
                    "E\n",
                ],
                *[
                    "[",
                    "]",
                    "--mount=type=bind,target=/x ",
                    "#",
                    "> ",
                    "ENTRYPOINT ",
                    "AS ",
                    "env ",
                ],
            ]
        ),
        st.text(max_size=4),
    ),
    max_size=40,
).map("".join)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(text=PIECES)
def test_whatever_stands_in_it(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    folder = tmp_path_factory.getbasetemp() / "any"
    folder.mkdir(exist_ok=True)
    (folder / "Dockerfile").write_bytes(f"FROM a:1\n{text}".encode("utf-8", "surrogatepass"))
    try:
        reading.read(Draft(), folder / "Dockerfile")
    except DeclarationError as error:
        assert str(error)


# -- the parts ------------------------------------------------------------------------------


def test_instructions_know_their_lines() -> None:
    text = '# syntax=x\nfrom a\n\nRUN a \\\n# no\n\n  b \\\n  c\nRUN --x=1 --y ["a", "b"]\n'
    found = instructions("f", text)
    assert [(one.line, one.word) for one in found] == [(2, "FROM"), (4, "RUN"), (9, "RUN")]
    assert found[1].text == "RUN a b c"
    assert [found[1].line_at(found[1].rest.index(word)) for word in "abc"] == [4, 7, 8]
    assert found[2].flags == (("x", "1"), ("y", ""))
    assert found[2].listed == ["a", "b"]


def test_commands() -> None:
    found = commands(
        "A=1 b \"$X y\" 'z $X' \\\n -c # d\n e=2; f ${e} $Y 2>&1 > /dev/null || g $XS > log",
        {"X": "x", "XS": "p q"},
    )
    assert [one.words for one in found] == [
        ("b", "x y", "z $X", "-c"), ("f", "2", "$Y"), ("g", "p", "q"),
    ]  # fmt: skip
    assert [one.joint for one in found] == ["", ";", "||"]
    assert found[0].variables == {"A": "1"}
    assert found[1].unknown == ("Y",)
    assert [one.into for one in found] == ["", "", "log"]


@pytest.mark.parametrize(
    "text", ["(a)", "a `b`", "a $(b)", "for x in y; do z; done", "a 'b", "a <<E"]
)
def test_what_only_a_shell_knows(text: str) -> None:
    with pytest.raises(NotPlainError):
        commands(text, {})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("$A", "a"), ("${A}b", "ab"), ("${E:-x}", "x"), ("${E-x}", ""), ("${N:-x}", "x"),
        ("${N-x}", "x"), ("${A:+x}", "x"), ("${N:+x}", ""), ("${E:+x}", ""), (r"\$A", "$A"),
        ("$N", "$N"),
    ],
)  # fmt: skip
def test_variables(text: str, value: str) -> None:
    found, unknown = substituted(text, {"A": "a", "E": ""})
    assert (found, unknown) == (value, ("N",) if text == "$N" else ())
