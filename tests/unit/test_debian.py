"""Debian bases without Debian: a mirror of five tiny packages, signed with a key of its own."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import re
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from lading import debian, platforms
from lading.debian import Deb, mirrorlist, mmdebstrap, packages, repository, rootfs, solver
from lading.debian.aptroot import suites_in
from lading.errors import DeclarationError, EnvironmentProblem, LadingError
from lading.facts import Facts
from lading.layers import apt_resolve
from lading.layers.base import BaseLock
from lading.layers.kind import Tools
from lading.locks import Header
from lading.process import Finished
from lading.store import Gone, Store
from lading.store.download import Artifact

needs_apt = pytest.mark.skipif(
    not all(map(shutil.which, ("apt-get", "dpkg-deb", "gpg"))), reason="needs apt, dpkg and gpg"
)

# -- a mirror -------------------------------------------------------------------------------


@dataclass
class Mirror:
    """A Debian mirror in a folder: pool/ and dists/, for one architecture."""

    root: Path
    home: Path
    stanzas: dict[str, list[str]] = field(default_factory=dict)

    @property
    def keyring(self) -> Path:
        return self.home / "keys.gpg"

    def add(self, suite: str, name: str, version: str, **fields: str) -> Path:
        """Builds a package into the pool and the suite's index."""
        tree = self.root / "tree" / name
        shutil.rmtree(tree, ignore_errors=True)
        (tree / "DEBIAN").mkdir(parents=True)
        (tree / "usr/share" / name).mkdir(parents=True)
        (tree / "usr/share" / name / "text").write_text(f"{name} {version}\n" * 100)
        control = {
            "Package": name,
            "Version": version,
            "Architecture": "amd64",
            "Maintainer": "Nobody <nobody@invalid>",
            "Description": "of no use\n to anyone",
            **{key.replace("_", "-"): value for key, value in fields.items()},
        }
        text = "".join(f"{key}: {value}\n" for key, value in control.items())
        (tree / "DEBIAN" / "control").write_text(text)
        file = f"{name}_{version.rpartition(':')[2]}_{control['Architecture']}.deb"
        path = Path("pool/main") / name[0] / name / file
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        command = ["dpkg-deb", "-Zxz", "--root-owner-group", "--build"]
        command += [str(tree), str(self.root / path)]
        subprocess.run(command, check=True, capture_output=True)
        data = (self.root / path).read_bytes()
        self.stanzas.setdefault(suite, []).append(
            f"{text}Filename: {path}\nSize: {len(data)}\n"
            f"SHA256: {hashlib.sha256(data).hexdigest()}\n"
        )
        return self.root / path

    def publish(self, *suites: str) -> None:
        for suite in suites:
            dist = self.root / "dists" / suite
            index = dist / "main/binary-amd64/Packages"
            index.parent.mkdir(parents=True, exist_ok=True)
            index.write_text("\n".join(self.stanzas.get(suite, [])))
            data = index.read_bytes()
            label = "Debian-Security" if suite.endswith("-security") else "Debian"
            (dist / "Release").write_text(
                f"Origin: Debian\nLabel: {label}\nSuite: {suite}\nCodename: {suite}\n"
                "Date: Sat, 01 Feb 2020 00:00:00 UTC\nArchitectures: amd64\nComponents: main\n"
                f"SHA256:\n {hashlib.sha256(data).hexdigest()} {len(data)} "
                "main/binary-amd64/Packages\n"
            )
            (dist / "InRelease").unlink(missing_ok=True)
            self.gpg("--clearsign", "-o", str(dist / "InRelease"), str(dist / "Release"))

    def gpg(self, *arguments: str) -> None:
        command = ["gpg", "--batch", "--quiet", "--pinentry-mode=loopback", "--passphrase", ""]
        environment = {**os.environ, "GNUPGHOME": str(self.home)}
        subprocess.run([*command, *arguments], check=True, env=environment, capture_output=True)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mirror]:
    """A signed mirror of `trixie`, which no test changes."""
    home = tmp_path_factory.mktemp("gpg")
    home.chmod(0o700)
    mirror = Mirror(root=tmp_path_factory.mktemp("mirror"), home=home)
    mirror.gpg("--quick-gen-key", "nobody@invalid", "ed25519", "sign", "never")
    mirror.gpg("--export", "-o", str(mirror.keyring))
    essential = {"Essential": "yes", "Priority": "required"}
    mirror.add(
        "trixie", "base-files", "13.8+deb13u1", **essential, Depends="usrmerge | usr-is-merged"
    )
    mirror.add("trixie", "usrmerge", "39", Depends="perl")
    mirror.add("trixie", "usr-is-merged", "39", Architecture="all")
    mirror.add("trixie", "perl", "5.40-1")
    mirror.add("trixie", "apt", "3.0", Priority="required")
    mirror.add("trixie", "libc6", "2.41-12", Priority="optional")
    mirror.add("trixie", "python3-minimal", "3.13.5-1", Depends="libc6, python3.13-minimal")
    mirror.add("trixie", "python3.13-minimal", "3.13.5-2", Recommends="perl", Suggests="perl")
    mirror.add("trixie", "astro++", "1:2.0~rc1-1", Depends="python3-minimal")
    mirror.add("trixie", "broken", "1", Depends="nowhere")
    mirror.add("trixie-security", "libc6", "2.41-12+deb13u4")
    mirror.publish("trixie", "trixie-updates", "trixie-security")
    yield mirror
    environment = {**os.environ, "GNUPGHOME": str(home)}
    subprocess.run(["gpgconf", "--kill", "gpg-agent"], env=environment, check=False)


@pytest.fixture
def mirror(pristine: Mirror, tmp_path: Path) -> Mirror:
    """A copy of the mirror, to do with as one likes."""
    root = tmp_path / "mirror"
    shutil.copytree(pristine.root, root)
    stanzas = {suite: list(texts) for suite, texts in pristine.stanzas.items()}
    return dataclasses.replace(pristine, root=root, stanzas=stanzas)


@pytest.fixture
def serve() -> Iterator[Callable[[Path], dict[str, str]]]:
    """Serves a folder on the loopback; gives the mirrors as `debian.mirrors` would."""
    servers = []

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Says nothing."""

    def start(folder: Path) -> dict[str, str]:
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        return {"debian": url, "debian-security": url}

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


# -- resolving ------------------------------------------------------------------------------


@needs_apt
def test_resolve_takes_minbase_and_what_is_asked_for(
    pristine: Mirror, serve: Callable[[Path], dict[str, str]]
) -> None:
    debs = debian.resolve(
        "trixie", ["astro++"], "amd64", serve(pristine.root), keyring=pristine.keyring
    )
    assert [(deb.name, deb.version) for deb in debs] == [
        ("apt", "3.0"),
        ("astro++", "1:2.0~rc1-1"),
        ("base-files", "13.8+deb13u1"),
        ("libc6", "2.41-12+deb13u4"),  # security's
        ("python3-minimal", "3.13.5-1"),
        ("python3.13-minimal", "3.13.5-2"),  # without what it recommends
        ("usr-is-merged", "39"),  # and not usrmerge, with perl
    ]
    by_name = {deb.name: deb for deb in debs}
    assert by_name["astro++"].path == "debian:pool/main/a/astro++/astro++_2.0~rc1-1_amd64.deb"
    assert by_name["usr-is-merged"].architecture == "all"
    for deb in debs:
        data = (pristine.root / deb.path.partition(":")[2]).read_bytes()
        assert (deb.size, deb.sha256) == (len(data), hashlib.sha256(data).hexdigest())


@needs_apt
def test_resolve_reads_local_mirrors_and_keeps_their_indexes(
    pristine: Mirror, tmp_path: Path
) -> None:
    # Two archives, as Debian has them: the security archive is told by where it comes from.
    urls = {"debian": f"file://{pristine.root}", "debian-security": f"file:{pristine.root}/./"}
    urls["debian-security"] = f"file://{pristine.root}"
    for _ in range(2):
        debs = debian.resolve(
            "trixie", [], "amd64", urls, cache=tmp_path / "apt", keyring=pristine.keyring
        )
        assert [deb.name for deb in debs] == ["apt", "base-files", "usr-is-merged"]
    assert list((tmp_path / "apt/trixie-amd64/state/lists").glob("*Packages*"))


@needs_apt
def test_unknown_packages_are_named_with_their_likes(pristine: Mirror) -> None:
    urls = dict.fromkeys(("debian", "debian-security"), f"file://{pristine.root}")
    with pytest.raises(LadingError) as caught:
        debian.resolve(
            "trixie", ["pyhton3-minimal", "qqq", "perl"], "amd64", urls, keyring=pristine.keyring
        )
    assert "no package pyhton3-minimal, qqq" in caught.value.what
    assert "did you mean python3-minimal" in caught.value.why
    assert caught.value.exit_code == 1


@needs_apt
def test_a_package_that_cannot_be_installed(pristine: Mirror) -> None:
    urls = dict.fromkeys(("debian", "debian-security"), f"file://{pristine.root}")
    with pytest.raises(LadingError, match="no way to install broken") as caught:
        debian.resolve("trixie", ["broken"], "amd64", urls, keyring=pristine.keyring)
    assert "nowhere" in caught.value.why


@needs_apt
def test_an_unknown_suite_lists_what_the_mirror_has(
    pristine: Mirror, serve: Callable[[Path], dict[str, str]]
) -> None:
    with pytest.raises(LadingError) as caught:
        debian.resolve("trixy", [], "amd64", serve(pristine.root), keyring=pristine.keyring)
    assert "no complete Debian trixy" in caught.value.what
    assert "the mirror has trixie" in caught.value.do


@needs_apt
def test_a_mirror_that_does_not_answer(
    pristine: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tmp_path / "apt.conf"  # the user's own settings count
    settings.write_text('Acquire::Retries "0";')
    monkeypatch.setenv("APT_CONFIG", str(settings))
    urls = dict.fromkeys(("debian", "debian-security"), "http://127.0.0.1:9")
    with pytest.raises(EnvironmentProblem, match="no mirror of Debian trixie can be reached"):
        debian.resolve("trixie", [], "amd64", urls, keyring=pristine.keyring)


@needs_apt
def test_only_the_given_keys_are_believed(pristine: Mirror, tmp_path: Path) -> None:
    other = Mirror(root=tmp_path, home=tmp_path / "gpg")
    other.home.mkdir(mode=0o700)
    other.gpg("--quick-gen-key", "mallory@invalid", "ed25519", "sign", "never")
    other.gpg("--export", "-o", str(other.keyring))
    urls = dict.fromkeys(("debian", "debian-security"), f"file://{pristine.root}")
    with pytest.raises(LadingError, match="signature") as caught:
        debian.resolve("trixie", [], "amd64", urls, keyring=other.keyring)
    assert caught.value.exit_code == 1
    subprocess.run(
        ["gpgconf", "--kill", "gpg-agent"],
        env={**os.environ, "GNUPGHOME": str(other.home)},
        check=False,
    )


@needs_apt
def test_a_changed_index_is_not_believed(mirror: Mirror) -> None:
    index = mirror.root / "dists/trixie/main/binary-amd64/Packages"
    index.write_text(index.read_text().replace("SHA256: ", "SHA256: 0"))
    urls = dict.fromkeys(("debian", "debian-security"), f"file://{mirror.root}")
    with pytest.raises(LadingError, match="just being updated"):
        debian.resolve("trixie", [], "amd64", urls, keyring=mirror.keyring)


@needs_apt
def test_a_mirror_that_moved_on(
    mirror: Mirror, serve: Callable[[Path], dict[str, str]], tmp_path: Path
) -> None:
    urls = serve(mirror.root)
    before = debian.resolve("trixie", ["libc6"], "amd64", urls, keyring=mirror.keyring)
    shutil.rmtree(mirror.root / "pool/main/l/libc6")
    mirror.stanzas["trixie-security"].clear()
    mirror.add("trixie-security", "libc6", "2.41-12+deb13u5")
    mirror.publish("trixie-security")

    store = Store(tmp_path / "store")
    wanted = [Artifact(name=deb.file, sha256=deb.sha256, size=deb.size) for deb in before]
    with pytest.raises(Gone) as caught:
        store.fetch(wanted, lambda _: debian.locate(before, urls))
    assert [gone.name for gone in caught.value.artifacts] == ["libc6_2.41-12+deb13u4_amd64.deb"]

    after = debian.resolve("trixie", ["libc6"], "amd64", urls, keyring=mirror.keyring)
    assert {deb.version for deb in after} - {deb.version for deb in before} == {"2.41-12+deb13u5"}


@pytest.mark.parametrize(
    "name", ["python3=3.13", "python3-", "?essential", "-oX=y", "A", "a b", ""]
)
def test_names_that_cannot_be_packages(name: str) -> None:
    with pytest.raises(DeclarationError, match="not the name of a Debian package"):
        debian.resolve("trixie", [name], "amd64", {})


@pytest.mark.parametrize("name", ["../x", "trixie main", "Trixie", "", "a$)"])
def test_names_that_cannot_be_suites(name: str) -> None:
    with pytest.raises(DeclarationError, match="not the name of a Debian suite"):
        debian.resolve(name, [], "amd64", {})


def test_a_missing_keyring_is_named(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem) as caught:
        debian.resolve("trixie", [], "amd64", {}, keyring=tmp_path / "none.gpg")
    assert "debian-archive-keyring" in caught.value.do


@pytest.mark.parametrize(
    ("output", "kind", "what"),
    [
        ("E: Release file for http://m.example/d is expired (invalid since 3d).", 1, "out of date"),
        ("E: Release file for http://m.example/d is not valid yet", 1, "out of date"),
        ("W: GPG error: InRelease: signatures couldn't be verified: NO_PUBKEY 64", 1, "signature"),
        ("E: The repository 'x InRelease' is not signed.", 1, "signature"),
        ("E: The repository 'x Release' does not have a Release file.", 1, "no complete Debian"),
        ("Err:1 x Release\n  Could not resolve 'm.example'", 2, "can be reached"),
        ("Err:1 x\n  503  Service Unavailable [IP: 127.0.0.1 80]", 2, "can be reached"),
        ("E: Failed to fetch x  Certificate verification failed", 2, "can be reached"),
        ("E: Failed to fetch x  File has unexpected size (1 != 2).", 2, "just being updated"),
        ("E: Write error - write (28: No space left on device)", 2, "no room"),
        ("E: something else", 2, "can't read the indexes"),
    ],
)
def test_what_update_fails_of(output: str, kind: int, what: str) -> None:
    error = solver.update_error(
        "trixie", {"debian": "http://m.example/d"}, Finished(code=100, output=output), list
    )
    assert what in error.what
    assert error.exit_code == kind
    assert output.splitlines()[-1].strip() in error.why


def test_parsed_refuses_what_it_does_not_know() -> None:
    urls = {"debian": "http://m.example/debian", "debian-security": "http://m.example/debian-x"}
    good = f"'http://m.example/debian-x/pool/a%2bb_1_all.deb' a+b_2%3a1_all.deb 7 SHA256:{'a' * 64}"
    (deb,) = solver.parsed(good, urls)
    assert (deb.name, deb.version, deb.path) == ("a+b", "2:1", "debian-security:pool/a+b_1_all.deb")
    for bad in (
        good.replace("SHA256", "MD5Sum"),
        good.replace("m.example", "n.example"),
        good.replace("SHA256:" + "a" * 64, ""),
        "",
    ):
        with pytest.raises(LadingError, match="apt's answer"):
            solver.parsed(bad, urls)


def test_credentials_in_a_mirror_are_not_in_apts_answer() -> None:
    line = f"'http://m.example/d/pool/a_1_all.deb' a_1_all.deb 7 SHA256:{'a' * 64}"
    (deb,) = solver.parsed(line, {"debian": "http://me:secret@m.example/d"})
    assert deb.path == "debian:pool/a_1_all.deb"


def test_suites_in_a_listing() -> None:
    page = '<a href="../">up</a> <a href="trixie/">t</a> <a href="./sid/">s</a>'
    page += '<a href="stable/">x</a> <a href="trixie-updates/">x</a> <a href="README">x</a>'
    assert suites_in(page) == ["sid", "trixie"]


# -- mirrors --------------------------------------------------------------------------------

HERE = "http://m.example"


@pytest.mark.parametrize(
    ("targets", "codename", "expected"),
    [
        (
            f"Debian\tDebian\tbookworm\tmain\t{HERE}/debian/\n"
            f"Debian\tDebian-Security\tbookworm-security\tmain\t{HERE}/sec/\n",
            "bookworm",
            {"debian": f"{HERE}/debian", "debian-security": f"{HERE}/sec"},
        ),
        (f"Ubuntu\tUbuntu\tnoble\tmain\t{HERE}/ubuntu/\n", "", {}),
        (f"Raspbian\tRaspbian\ttrixie\tmain\t{HERE}/debian/\n", "trixie", {}),
        (f"Debian\tDebian Backports\tx-backports\tmain\t{HERE}/debian/\n", "x", {}),
        (
            f"$(ORIGIN)\t$(LABEL)\tbookworm\tmain\t{HERE}/debian/\n"
            f"$(ORIGIN)\t$(LABEL)\tbookworm-security\tmain\t{HERE}/debian-security/\n",
            "bookworm",
            {"debian": f"{HERE}/debian", "debian-security": f"{HERE}/debian-security"},
        ),
        # Other projects' folders of that name, and hosts that aren't Debian.
        (f"$(ORIGIN)\t$(LABEL)\tstable\tmain\t{HERE}/debian/\n", "bookworm", {}),
        (f"$(ORIGIN)\t$(LABEL)\tbookworm\tstable\t{HERE}/debian/\n", "bookworm", {}),
        (f"$(ORIGIN)\t$(LABEL)\tbookworm\tmain\t{HERE}/tools/\n", "bookworm", {}),
        (f"$(ORIGIN)\t$(LABEL)\tnoble\tmain\t{HERE}/debian/\n", "", {}),
        ("nothing\n", "bookworm", {}),
    ],
)
def test_configured(targets: str, codename: str, expected: Mapping[str, str]) -> None:
    assert mirrorlist.configured(targets, codename) == expected


def test_a_list_of_mirrors_in_a_file(tmp_path: Path) -> None:
    listed = tmp_path / "debian.list"
    listed.write_text(f"# first\n{HERE}/debian\tpriority:1\n{HERE}/other\n")
    target = f"Debian\tDebian\tbookworm\tmain\tmirror+file:{listed}/\n"
    assert mirrorlist.configured(target, "") == {"debian": f"{HERE}/debian"}


def test_variables_win_over_apt_over_mmdebstrap(monkeypatch: pytest.MonkeyPatch) -> None:
    apt = {"debian": "http://apt.example/d"}
    own = {"debian": "http://own.example/d", "debian-security": "http://own.example/s"}
    monkeypatch.setattr(mirrorlist, "_from_apt", lambda: apt)
    monkeypatch.setattr(mirrorlist, "_from_mmdebstrap", lambda: own)
    assert debian.mirrors({}) == {**own, **apt}
    said = {"LADING_DEBIAN_MIRROR": f"{HERE}/d/", "LADING_DEBIAN_SECURITY_MIRROR": f"{HERE}/s"}
    assert debian.mirrors(said) == {"debian": f"{HERE}/d", "debian-security": f"{HERE}/s"}


def test_with_both_variables_nothing_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    said = {"LADING_DEBIAN_MIRROR": f"{HERE}/d", "LADING_DEBIAN_SECURITY_MIRROR": f"{HERE}/s"}
    assert debian.mirrors(said)["debian"] == f"{HERE}/d"
    with pytest.raises(EnvironmentProblem, match="no apt"):
        debian.mirrors({})


@pytest.mark.parametrize(
    "url", ["m.example/debian", "ftp://m.example", "http://a b", "http://a[x]"]
)
def test_a_variable_that_is_no_url(url: str) -> None:
    with pytest.raises(EnvironmentProblem, match="LADING_DEBIAN_MIRROR"):
        debian.mirrors({"LADING_DEBIAN_MIRROR": url})


def test_mmdebstraps_own_mirrors() -> None:
    text = f'I: x\ndeb [signed-by="/k"] {HERE}/d/ stable main\ndeb {HERE}/d stable-updates main\n'
    text += f"deb {HERE}/s stable-security main\n"
    assert mirrorlist.by_suite(text) == {"debian": f"{HERE}/d", "debian-security": f"{HERE}/s"}


@pytest.mark.skipif(shutil.which("mmdebstrap") is None, reason="needs mmdebstrap")
def test_mmdebstrap_says_its_mirrors() -> None:
    found = mirrorlist._from_mmdebstrap()
    assert set(found) == {"debian", "debian-security"}
    assert all(re.match(r"https?://", url) for url in found.values())


# -- what follows from packages -------------------------------------------------------------


def deb(name: str, version: str, **more: str) -> Deb:
    values = {"architecture": "amd64", "path": f"debian:pool/{name}.deb", "sha256": "0" * 64}
    return Deb(name=name, version=version, size=1, **{**values, **more})


@pytest.mark.parametrize(
    ("version", "upstream"),
    [
        ("3.13.5-2+deb13u1", "3.13.5"),
        ("1:2.41-5", "2.41"),
        ("39", "39"),
        ("1:39", "39"),
        ("1.2-3-4", "1.2-3"),
        ("2:6.2.1+dfsg1-1.1", "6.2.1+dfsg1"),
    ],
)
def test_upstream_version(version: str, upstream: str) -> None:
    assert packages.upstream_version(version) == upstream


def test_facts() -> None:
    debs = [
        deb("apt", "3.0.4"),
        deb("base-files", "13.8+deb13u1"),
        deb("libc6", "2.41-12+deb13u4"),
        deb("python3-minimal", "3.13.5-1"),
        deb("python3.13-minimal", "3.13.6-2+deb13u5"),
        deb("python3.14-minimal", "3.14.0~rc2-1"),
    ]
    assert debian.facts_of(debs) == Facts(
        python="/usr/bin/python3",
        python_version="3.13.6",
        glibc="2.41",
        os="debian 13",
        package_manager="apt",
    )
    candidate = [deb("python3-minimal", "3.14.0~rc2-1"), deb("python3.14-minimal", "3.14.0~rc2-1")]
    assert debian.facts_of(candidate).python_version == "3.14.0rc2"
    assert debian.facts_of([deb("libc6", "2.36-9+deb12u14")]) == Facts(os="debian", glibc="2.36")


def test_facts_to_and_from_a_lock() -> None:
    facts = Facts(python="/usr/bin/python3", glibc="2.41")
    assert Facts.from_dict(facts.to_dict()) == facts
    for wrong in ({"colour": "blue"}, {"glibc": 2.41}):
        with pytest.raises(ValueError, match="facts"):
            Facts.from_dict(wrong)


def test_locate() -> None:
    one = deb("g++", "1", path="debian:pool/main/g/g++/g++_1~rc+b 1_amd64.deb", sha256="1" * 64)
    two = deb("x", "1", path="debian-security:pool/x.deb", sha256="2" * 64)
    urls = {"debian": f"{HERE}/debian", "debian-security": "https://me:a%40b@m.example:8443/s/"}
    found = debian.locate([one, two], urls)
    assert found["1" * 64][0].url == f"{HERE}/debian/pool/main/g/g++/g++_1~rc+b%201_amd64.deb"
    assert found["2" * 64][0].url == "https://m.example:8443/s/pool/x.deb"
    assert found["2" * 64][0].auth == ("me", "a@b")
    with pytest.raises(LadingError, match="archive called 'other'"):
        debian.locate([deb("x", "1", path="other:pool/x.deb")], urls)


def test_architectures() -> None:
    names = ["amd64", "linux/amd64", "arm64", "arm64/v8", "arm/v7", "ppc64le", "ppc64el"]
    found = [debian.debian_architecture(name) for name in names]
    assert found == ["amd64", "amd64", "arm64", "arm64", "armhf", "ppc64el", "ppc64el"]
    with pytest.raises(DeclarationError, match="m68000"):
        debian.debian_architecture("m68000")


def test_image_config() -> None:
    assert debian.image_config("amd64", 1_760_000_000) == {
        "architecture": "amd64",
        "os": "linux",
        "created": "2025-10-09T08:53:20Z",
        "config": {"Env": [f"PATH={packages.PATH}"], "Cmd": ["/bin/bash"]},
        "history": [
            {
                "created": "2025-10-09T08:53:20Z",
                "created_by": "lading: mmdebstrap, from the base's lock",
            }
        ],
    }
    assert debian.image_config("arm/v7", 0)["variant"] == "v7"
    assert debian.image_config("ppc64el", 0)["architecture"] == "ppc64le"


# -- the local repository -------------------------------------------------------------------


def test_packages_and_release_texts() -> None:
    packed = repository.Packed(
        control="Package: g++\nVersion: 1:2", file="g++_2_all.deb", size=7, sha256="a" * 64
    )
    index = repository.packages_text([packed, replace(packed, size=8)])
    assert index == (
        "Package: g++\nVersion: 1:2\nFilename: ./g++_2_all.deb\nSize: 7\n"
        f"SHA256: {'a' * 64}\n\n"
        "Package: g++\nVersion: 1:2\nFilename: ./g++_2_all.deb\nSize: 8\n"
        f"SHA256: {'a' * 64}\n"
    )
    assert repository.release_text("trixie", "amd64", "x") == (
        "Origin: lading\nSuite: trixie\nCodename: trixie\nDate: Thu, 01 Jan 1970 00:00:00 UTC\n"
        "Architectures: amd64\nComponents: main\nSHA256:\n"
        f" {hashlib.sha256(b'x').hexdigest()} 1 Packages\n"
    )


@needs_apt
@pytest.mark.parametrize("compression", ["xz", "gzip", "none"])
def test_a_repacked_deb_is_the_same_package(
    pristine: Mirror, tmp_path: Path, compression: str
) -> None:
    shutil.copytree(pristine.root / "tree/astro++", tmp_path / "tree")
    old = tmp_path / "old.deb"
    command = ["dpkg-deb", f"-Z{compression}", "--root-owner-group", "-b"]
    subprocess.run([*command, str(tmp_path / "tree"), str(old)], check=True, capture_output=True)
    one = deb("astro++", "1:2.0~rc1-1")
    packed = repository.repacked(one, old, tmp_path)
    new = tmp_path / packed.file
    assert packed.file == "astro++_2.0~rc1-1_amd64.deb"
    assert (packed.size, packed.sha256) == (
        new.stat().st_size,
        hashlib.sha256(new.read_bytes()).hexdigest(),
    )
    for option in ("--fsys-tarfile", "--ctrl-tarfile", "--field"):
        was, now = (
            subprocess.run(["dpkg-deb", option, path], check=True, capture_output=True).stdout
            for path in (old, new)
        )
        assert was == now, option
    with new.open("rb") as file:
        assert [name for name, _ in repository.members(file)][-1] == "data.tar"


@needs_apt
def test_a_deb_that_is_another_package(pristine: Mirror, tmp_path: Path) -> None:
    source = next(pristine.root.glob("pool/main/a/apt/*.deb"))
    with pytest.raises(LadingError, match="not the package apt 4"):
        repository.repacked(deb("apt", "4"), source, tmp_path)


@needs_apt
@settings(deadline=None)
@given(data=st.data())
def test_damaged_debs_are_an_error_and_nothing_worse(pristine: Mirror, data: st.DataObject) -> None:
    source = next(pristine.root.glob("pool/main/a/apt/*.deb"))
    content = bytearray(source.read_bytes())
    cut = data.draw(st.integers(0, len(content)))
    flips = data.draw(st.lists(st.integers(0, len(content) - 1), max_size=3))
    for place in flips:
        content[place] ^= 0xFF
    folder = source.parent / "damaged"
    folder.mkdir(exist_ok=True)
    damaged = folder / "x"
    damaged.write_bytes(content[:cut])
    try:
        packed = repository.repacked(deb("apt", "3.0"), damaged, folder)
        assert fields(packed.control)["Package"] == "apt"
    except LadingError as error:
        assert "not the package apt 3.0" in error.what
    finally:
        shutil.rmtree(folder)


fields = repository.fields_of
NAME = st.from_regex(r"[A-Za-z][A-Za-z0-9-]{0,9}", fullmatch=True)
VALUE = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), max_size=20)


@settings(deadline=None)
@given(st.dictionaries(NAME, st.lists(VALUE, min_size=1, max_size=3)))
def test_fields_of_reads_what_was_written(stanza: dict[str, list[str]]) -> None:
    text = "".join(
        f"{name}: {lines[0]}\n" + "".join(f" {line or '.'}\n" for line in lines[1:])
        for name, lines in stanza.items()
    )
    expected = {
        name: "\n".join([lines[0], *(line or "." for line in lines[1:])])
        for name, lines in stanza.items()
    }
    assert fields(text) == expected


@settings(deadline=None)
@given(st.text())
def test_fields_of_takes_anything(text: str) -> None:
    assert isinstance(fields(text), dict)


# -- the root file system -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "stays"),
    [
        ("usr/bin/python3", tarfile.SYMTYPE, True),
        ("usr/share/doc/apt/copyright", tarfile.REGTYPE, True),
        ("usr/share/doc/apt/changelog.gz", tarfile.REGTYPE, False),
        ("usr/share/doc/apt/copyright.old", tarfile.REGTYPE, False),
        ("usr/share/doc/apt", tarfile.DIRTYPE, True),
        ("usr/share/doc/apt/examples", tarfile.DIRTYPE, False),
        ("usr/share/doc/libstdc++6", tarfile.SYMTYPE, True),
        ("usr/share/doc/apt/NEWS", tarfile.SYMTYPE, False),
        ("usr/share/doc-base", tarfile.DIRTYPE, True),
        ("usr/share/man/man1", tarfile.DIRTYPE, True),
        ("usr/share/man/man1/ls.1.gz", tarfile.REGTYPE, False),
        ("usr/share/man/de", tarfile.DIRTYPE, False),
        ("usr/share/man/de/man1", tarfile.DIRTYPE, False),
        ("usr/share/locale", tarfile.DIRTYPE, True),
        ("usr/share/locale/de", tarfile.DIRTYPE, False),
        ("usr/share/locale/de/LC_MESSAGES/bash.mo", tarfile.REGTYPE, False),
        ("usr/share/locale/locale.alias", tarfile.REGTYPE, True),
        ("usr/lib/locale/C.utf8/LC_CTYPE", tarfile.REGTYPE, True),
        ("usr/share/info/dir", tarfile.REGTYPE, False),
        ("usr/share/zoneinfo/UTC", tarfile.REGTYPE, True),
        ("dev", tarfile.DIRTYPE, True),
        ("dev/null", tarfile.CHRTYPE, False),
        ("dev/fd", tarfile.SYMTYPE, False),
        ("opt/pipe", tarfile.FIFOTYPE, False),
        ("tmp", tarfile.DIRTYPE, True),
        ("tmp/x", tarfile.DIRTYPE, False),
        ("run/lock", tarfile.DIRTYPE, True),
        ("run/x.pid", tarfile.REGTYPE, False),
        ("var/log", tarfile.DIRTYPE, True),
        ("var/log/apt", tarfile.DIRTYPE, True),
        ("var/log/apt/term.log", tarfile.REGTYPE, False),
        ("var/cache/apt", tarfile.DIRTYPE, True),
        ("var/cache/apt/pkgcache.bin", tarfile.REGTYPE, False),
        ("var/cache/ldconfig/aux-cache", tarfile.REGTYPE, False),
        ("var/cache/debconf/templates.dat", tarfile.REGTYPE, True),
        ("var/cache/debconf/templates.dat-old", tarfile.REGTYPE, False),
        ("var/lib/apt/lists/partial", tarfile.DIRTYPE, False),
        ("var/lib/dpkg/status", tarfile.REGTYPE, True),
        ("var/lib/dpkg/status-old", tarfile.REGTYPE, False),
        ("var/lib/dpkg/info/apt.list", tarfile.REGTYPE, True),
        ("var/lib/dpkg/lock", tarfile.REGTYPE, False),
        ("etc/passwd", tarfile.REGTYPE, True),
        ("etc/passwd-", tarfile.REGTYPE, False),
        ("etc/.pwd.lock", tarfile.REGTYPE, False),
    ],
)
def test_what_stays(name: str, kind: bytes, stays: bool) -> None:
    assert rootfs.kept(name, kind) is stays


STATUS = "Package: apt\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1:3\n\n"
STATUS += "Package: gone\nStatus: deinstall ok config-files\nArchitecture: all\nVersion: 1\n"


def root_tar(path: Path, entries: list[tuple[str, bytes, str]], **more: object) -> Path:
    """A tar as mmdebstrap writes it: entries are name, type, and content or link target."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, kind, text in [("var/lib/dpkg/status", tarfile.REGTYPE, STATUS), *entries]:
            member = tarfile.TarInfo(f"./{name}")
            member.type, member.mtime, member.mode = kind, 1_700_000_000.5, 0o4755
            member.uid, member.uname = 7, "machine"
            for key, value in more.items():
                setattr(member, key, value)
            if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
                member.linkname = text
                archive.addfile(member)
            else:
                data = text.encode("latin-1") if kind == tarfile.REGTYPE else b""
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return path


def written(source: Path, epoch: int = 1_600_000_000) -> tuple[bytes, dict[str, tuple[str, str]]]:
    out = io.BytesIO()
    installed = rootfs.write(source, out, epoch)
    return out.getvalue(), installed


def read(data: bytes) -> dict[str, tuple[tarfile.TarInfo, bytes]]:
    found = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive:
            file = archive.extractfile(member) if member.isreg() else None
            found[member.name] = (member, file.read() if file else b"")
    return found


def test_the_root_file_system_in_its_final_form(tmp_path: Path) -> None:
    name = "usr/share/Főtanúsítvány.crt"
    entries = [
        ("etc/hostname", tarfile.REGTYPE, "cray-17\n"),
        ("etc/resolv.conf", tarfile.SYMTYPE, "../run/resolv.conf"),
        ("etc/apt/sources.list", tarfile.REGTYPE, "deb [trusted=yes] copy:/tmp/x ./\n"),
        ("usr/share", tarfile.DIRTYPE, ""),
        (name, tarfile.REGTYPE, "x" * 600),
        ("usr/bin/aaa", tarfile.LNKTYPE, "./usr/bin/zzz"),
        ("usr/bin/zzz", tarfile.REGTYPE, "z"),
        ("usr/" + "long/" * 30 + "f", tarfile.SYMTYPE, "t" * 150),
        ("dev/null", tarfile.CHRTYPE, ""),
    ]
    data, installed = written(root_tar(tmp_path / "a.tar", entries))
    assert installed == {"apt": ("1:3", "amd64")}
    found = read(data)
    assert list(found) == [
        "etc/apt/sources.list",
        "etc/dpkg/dpkg.cfg.d/lading",
        "etc/hostname",
        "etc/machine-id",
        "etc/resolv.conf",
        "usr/bin/zzz",
        "usr/" + "long/" * 30 + "f",
        "usr/share",
        name,
        "var/lib/dpkg/status",
        "usr/bin/aaa",
    ]
    assert {
        key: found[key][1] for key in ("etc/hostname", "etc/machine-id", "etc/resolv.conf")
    } == {
        "etc/hostname": b"",
        "etc/machine-id": b"",
        "etc/resolv.conf": b"",
    }
    assert found["etc/resolv.conf"][0].isreg()
    assert found["etc/apt/sources.list"][1].startswith(b"# Empty")
    assert found["usr/bin/aaa"][0].linkname == "usr/bin/zzz"
    assert found["usr/" + "long/" * 30 + "f"][0].linkname == "t" * 150
    for member, _ in found.values():
        assert member.mtime == 1_600_000_000
        assert (member.uname, member.gname) == ("", "")
    assert found["usr/share"][0].mode == 0o4755
    assert found["usr/share"][0].uid == 7
    assert found[name][1] == b"x" * 600
    assert len(data) % 10240 == 0
    again, _ = written(root_tar(tmp_path / "b.tar", entries[::-1], uname="other", gname="x"))
    assert again == data


def test_file_capabilities_stay(tmp_path: Path) -> None:
    headers = {
        "SCHILY.xattr.security.capability": "\x01\0\0\x02",
        "SCHILY.xattr.security.selinux": "x",
    }
    source = root_tar(tmp_path / "a.tar", [("bin/ping", tarfile.REGTYPE, "x")], pax_headers=headers)
    member, _ = read(written(source)[0])["bin/ping"]
    assert member.pax_headers == {"SCHILY.xattr.security.capability": "\x01\0\0\x02"}


PARTS = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=60)


@settings(deadline=None)
@given(st.lists(st.lists(PARTS, min_size=1, max_size=4), max_size=6), st.binary(max_size=2000))
def test_any_name_and_content_comes_back(
    tmp_path_factory: pytest.TempPathFactory, names: list[list[str]], content: bytes
) -> None:
    wanted = {"/".join(["opt", *parts]) for parts in names}
    wanted = {name for name in wanted if ".." not in name.split("/") and "." not in name.split("/")}
    source = root_tar(
        tmp_path_factory.getbasetemp() / "any.tar",
        [(name, tarfile.REGTYPE, content.decode("latin-1")) for name in sorted(wanted)],
    )
    found = read(written(source)[0])
    assert {name for name in found if name.startswith("opt/")} == wanted
    for name in wanted:
        assert found[name][1] == content


def test_a_tar_without_dpkg_or_cut_off(tmp_path: Path) -> None:
    empty = tmp_path / "empty.tar"
    with tarfile.open(empty, "w"):
        pass
    with pytest.raises(LadingError, match="no dpkg"):
        written(empty)
    whole = root_tar(tmp_path / "whole.tar", [("a", tarfile.REGTYPE, "x" * 9000)])
    cut = tmp_path / "cut.tar"
    cut.write_bytes(whole.read_bytes()[:3000])
    with pytest.raises(LadingError, match="damaged"):
        written(cut)


# -- assembling -----------------------------------------------------------------------------


def test_what_is_installed_must_be_what_is_locked() -> None:
    debs = [deb("a", "1"), deb("b", "1:2")]
    mmdebstrap.check_installed(debs, {"a": ("1", "amd64"), "b": ("1:2", "amd64")})
    with pytest.raises(LadingError, match="not the one that is locked") as caught:
        mmdebstrap.check_installed(debs, {"a": ("2", "amd64"), "c": ("1", "all")})
    assert caught.value.why.splitlines() == [
        "a: locked 1 amd64, installed 2 amd64",
        "b: locked 1:2 amd64, installed not",
        "c: locked not, installed 1 all",
    ]


def test_a_missing_mmdebstrap_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    monkeypatch.setenv("PATH", str(bin_))
    with pytest.raises(EnvironmentProblem, match="Debian and Ubuntu only"):
        debian.assemble([], "trixie", 0, {}, tmp_path / "out.tar")
    (bin_ / "apt-get").write_text("#!/bin/sh\n")
    (bin_ / "apt-get").chmod(0o755)
    with pytest.raises(EnvironmentProblem) as caught:
        debian.assemble([], "trixie", 0, {}, tmp_path / "out.tar")
    assert caught.value.do == "apt-get install mmdebstrap"


@needs_apt
def test_a_failing_mmdebstrap_leaves_nothing(
    pristine: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "bin" / "mmdebstrap"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\nseq 100\necho 'E: dpkg: error processing apt'\nexit 1\n")
    fake.chmod(0o755)
    path = f"{fake.parent}:{os.environ['PATH']}"
    monkeypatch.setenv("PATH", path)
    monkeypatch.setattr(mmdebstrap, "PATH", path)
    source = next(pristine.root.glob("pool/main/a/apt/*.deb"))
    one = deb("apt", "3.0")
    lines: list[str] = []
    with pytest.raises(LadingError, match="could not make the base Debian trixie") as caught:
        debian.assemble(
            [one],
            "trixie",
            0,
            {one.sha256: source},
            tmp_path / "out.tar",
            lines.append,
            work=tmp_path / "work",
        )
    assert caught.value.why.splitlines()[-1] == "E: dpkg: error processing apt"
    assert len(caught.value.why.splitlines()) == 20
    assert lines[0] == "1"
    assert len(lines) == 101
    assert not (tmp_path / "out.tar").exists()
    assert list((tmp_path / "work").iterdir()) == []


@pytest.mark.parametrize(
    ("output", "kind"),
    [
        ("tar: x: No space left on device", EnvironmentProblem),
        ("E: newuidmap failed", EnvironmentProblem),
        ("E: what", LadingError),
    ],
)
def test_what_mmdebstrap_fails_of(output: str, kind: type[LadingError]) -> None:
    error = mmdebstrap.failure("trixie", output)
    assert type(error) is kind
    assert output in error.why


def test_folders_of_killed_runs_are_swept_up_and_those_in_use_are_not(tmp_path: Path) -> None:
    dead = tmp_path / f"{mmdebstrap.PREFIX}dead"
    dead.mkdir()
    (dead / "taken").write_text("")
    with mmdebstrap._workplace(tmp_path) as first:
        assert not dead.exists()
        assert first.stat().st_mode & 0o777 == 0o755
        with mmdebstrap._workplace(tmp_path) as second:
            assert first.is_dir()
            assert second.is_dir()
    assert list(tmp_path.iterdir()) == []


def test_one_architecture_at_a_time() -> None:
    assert mmdebstrap._architecture([deb("a", "1"), deb("b", "1", architecture="all")]) == "amd64"
    with pytest.raises(LadingError, match="one architecture"):
        mmdebstrap._architecture([deb("a", "1"), deb("b", "1", architecture="arm64")])


# -- what apt adds to a base that can't be run here -------------------------------------------


@needs_apt
def test_of_a_base_that_does_not_run_here_this_machines_apt_is_asked(
    pristine: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    urls = dict.fromkeys(("debian", "debian-security"), f"file://{pristine.root}")
    debs = debian.resolve("trixie", ["libc6"], "amd64", urls, keyring=pristine.keyring)
    base = BaseLock(
        header=Header(command="x", date=date(2026, 11, 22), inputs="0" * 64),
        facts=Facts(os="debian 13", package_manager="apt"),
        text="",
        suite="trixie",
        debs=debs,
    )

    def in_base() -> Any:
        raise AssertionError("no container runs it")

    tools = Tools(
        environ={
            "LADING_DEBIAN_MIRROR": urls["debian"],
            "LADING_DEBIAN_SECURITY_MIRROR": urls["debian"],
        },
        store=Store(tmp_path / "store"),
        note=print,
        in_base=in_base,
    )
    monkeypatch.setattr(apt_resolve, "KEYRING", str(pristine.keyring))
    monkeypatch.setattr(platforms, "runs", lambda platform: platform != "linux/amd64")
    found = apt_resolve.resolve({"run": ["astro++"], "build": ["libc6", "perl"]}, base, tools)
    # libc6 is there already, and python3-minimal is on this machine, but not on the base.
    assert [(deb.name, deb.version) for deb in found.sets["run"]] == [
        ("astro++", "1:2.0~rc1-1"),
        ("python3-minimal", "3.13.5-1"),
        ("python3.13-minimal", "3.13.5-2"),
    ]
    assert [deb.name for deb in found.sets["build"]] == ["perl"]
    with pytest.raises(LadingError, match="has no package astro"):
        apt_resolve.resolve({"run": ["astro"]}, base, tools)
    # Where its programs run, the base itself is asked.
    monkeypatch.setattr(platforms, "runs", lambda platform: platform == "linux/amd64")
    with pytest.raises(AssertionError, match="no container"):
        apt_resolve.resolve({"run": ["astro++"]}, base, tools)
