"""Sources compiled for real, on both engines: one product, shared by images and engines."""

from __future__ import annotations

import hashlib
import re
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest
from msgspec.structs import replace

from lading.engines import Engine, connect
from lading.engines.fake import RecordingEngine
from lading.layers import base as bases
from tests.conftest import needs
from tests.support import engines, images
from tests.support.index import tar
from tests.support.projects import DAY, FACTS, REPOSITORY, Trial, run_doit

TOOLS = ("chmod", "cp", "gzip", "head", "ln", "make", "mv", "nproc", "patch", "seq", "tar")
"""What sources are compiled with, beside what the tiny image has."""
CONFIGURE = b"""\
#!/bin/sh
for option; do echo "<$option>"; done >options
echo "version $LIB_VERSION, $A"; test "$A" = "b c"
"""
MAKEFILE = b"""\
all:
\techo "$(WORDS)" >words
install:
\tmkdir -p $(DESTDIR)/usr/lib $(DESTDIR)/usr/include $(DESTDIR)/usr/share/man/man1
\tcp options words text $(DESTDIR)/usr/lib/
\tcp text $(DESTDIR)/usr/include/lib.h
\tcp text $(DESTDIR)/usr/share/man/man1/lib.1
"""
PATCH = """\
--- a/text
+++ b/text
@@ -1 +1 @@
-as it came
+{text}
"""
YAML = """\
lading: 1
name: trial
bases: {{box: {{image: "{box}"}}}}
sources:
  lib:
    version: "1.0"
    urls: "file://{served}/lib-{{version}}.tar.gz"
    configure: --prefix=/usr 'one word' --home=$HOME --not=\\$HOME "--sum=$((1 + 2))"
    make: WORDS="a b"
    patches: recipes/fix.patch
    env: {{A: b c}}
    keep: usr/share/man/**
  tool.2-x:
    version: "2"
    urls: "file://{served}/flat.tar"
    needs: lib
    commands:
      - cat /usr/lib/text /usr/include/lib.h >seen
      - mkdir -p $DESTDIR/usr/bin $DESTDIR/opt/empty $DESTDIR/lib; chmod 700 $DESTDIR/opt/empty
      - cp a "$DESTDIR/usr/bin/tool"; chmod 755 $DESTDIR/usr/bin/tool; cp seen $DESTDIR/lib/seen
    then: cd $DESTDIR/usr/bin && ln tool same && ln -s tool link && ls
    drop: "**/nothing"
  headers:
    version: "3"
    urls: "file://{served}/flat.tar"
    commands: mkdir -p $DESTDIR/usr/include && cp a $DESTDIR/usr/include/only.h
  bad: {{version: "4", urls: "file://{served}/flat.tar", commands: [echo so far, ls /no/such]}}
images:
  one: {{base: box, source: [tool.2-x, headers]}}
  two: {{base: box, source: tool.2-x, env: {{A: B}}}}
  three: {{base: box, default: false, source: bad}}
"""
LOOK = """
exec 2>&1
cat /usr/lib/options /usr/lib/words /usr/lib/text /lib/seen /usr/share/man/man1/lib.1
ls -l /usr/bin/tool /usr/bin/link
/usr/bin/same
ls -d /opt/empty /usr/include /usr/include/only.h /lading
ls /
"""
SEEN = """\
<--prefix=/usr>
<one word>
<--home=/dev/shm>
<--not=$HOME>
<--sum=3>
a b
mended
mended
mended
mended
"""


@pytest.fixture(scope="module")
def box() -> images.TinyImage:
    """The tiny image with what sources are compiled with."""
    return with_tools()


def with_tools() -> images.TinyImage:
    """An image that autotools' sources can be compiled in, without a compiler."""
    lacking = [tool for tool in TOOLS if shutil.which(tool, path="/usr/bin:/bin") is None]
    if lacking:
        pytest.skip(f"not installed: {', '.join(lacking)}")
    return images.tiny_image((*images.TOOLS, *TOOLS))


@dataclass
class Clone:
    """A clone of the project on a machine with one engine."""

    trial: Trial
    engine: Engine

    def doit(self, *tasks: str) -> int:
        return run_doit(
            self.trial.root, tasks, self.trial.environ, lambda: cast(Engine, Kept(self.engine))
        )

    def products(self) -> dict[str, str]:
        """The sha256 of everything that was compiled, and of what images get of it, by its key."""
        return {
            path.parent.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in self._store()
        }

    def content(self, key: str, name: str) -> bytes:
        """What is in a file of a product."""
        (path,) = (path for path in self._store() if path.parent.name == key)
        with tarfile.open(path) as opened:
            file = opened.extractfile(name)
            assert file is not None
            return file.read()

    def _store(self) -> list[Path]:
        return list(Path(self.trial.environ["LADING_CACHE"]).glob("derived/*/product.tar"))

    def lent(self, image: str) -> dict[str, bytes]:
        """What an image's context has of sources."""
        folder = self.trial.root / f"build/{image}/context/sources"
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    def built(self) -> list[str]:
        return sorted(path.name[:-9] for path in (self.trial.root / "build/parts").glob("*"))

    def look(self, image: str) -> str:
        state = self.trial.state()
        name = state.name(self.trial.image(image))
        return self.engine.run(name, ["/bin/sh", "-c", LOOK]).output


class Kept:
    """An engine that outlives a run of doit."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> object:
        return (lambda: None) if name == "close" else getattr(self._engine, name)


@contextmanager
def clone(kind: str, root: Path, yaml: str, digest: str, cache: str) -> Iterator[Clone]:
    with engines.private_engine(kind) as running:
        engine = connect(running.environ)
        yield Clone(project(root, yaml, digest, cache), engine)
        engine.close()


def project(root: Path, yaml: str, digest: str, cache: str) -> Trial:
    (root / "recipes").mkdir(parents=True)
    (root / "recipes/fix.patch").write_text(PATCH.format(text="mended"))
    (root / "project.yaml").write_text(yaml)
    (root / "dodo.py").write_bytes((REPOSITORY / "dodo.py").read_bytes())
    trial = Trial(root, {"LADING_CACHE": cache})
    lock = bases.path(root, "box", "linux/amd64")
    base = trial.state().project.bases["box"]
    facts = replace(FACTS, package_manager="", python="", python_version="")
    text = bases.text_of(base, "linux/amd64", facts, None, digest=digest)
    lock.parent.mkdir(parents=True)
    lock.write_text(re.sub(r"# date: \S+", f"# date: {DAY}", text))
    return trial


def test_compiled_on_both_engines(
    box: images.TinyImage, registry: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    needs("docker")
    needs("podman")
    served = tmp_path / "served"
    served.mkdir()
    lib = {"configure": CONFIGURE, "Makefile": MAKEFILE, "text": b"as it came\n"}
    (served / "lib-1.0.tar.gz").write_bytes(with_modes({f"lib-1/{k}": v for k, v in lib.items()}))
    with tarfile.open(served / "flat.tar", "w") as flat:
        (tmp_path / "a").write_text("#!/bin/sh\necho a tool\n")
        flat.add(tmp_path / "a", "a")
        flat.add(tmp_path / "a", "below/b")
    digest = images.push(box, registry, "box", "1")
    yaml = YAML.format(box=f"{registry}/box:1", served=served)

    found = {}
    for kind in ("docker", "podman"):
        cache = str(tmp_path / f"{kind}.cache")
        with clone(kind, tmp_path / kind, yaml, digest, cache) as one:
            assert one.doit("build:one", "dockerfile:two") == 0, capsys.readouterr()
            # Both images stand on one compilation.
            assert one.built() == ["headers-box", "lib-box", "tool.2-x-box"]
            assert one.lent("two") == {n: d for n, d in one.lent("one").items() if "head" not in n}
            found[kind] = one.products()
            assert len(found[kind]) == 6
            seen = one.look("one")
            assert seen.startswith(SEEN)
            assert "-rwxr-xr-x" in seen
            assert "/usr/bin/link -> tool" in seen
            assert "a tool\n" in seen
            assert "\n/opt/empty\n" in seen
            for gone in ("/usr/include", "/usr/include/only.h", "/lading"):
                assert f"'{gone}'" in seen  # ls can't access it
            assert ".tar" not in seen, "what is empty was copied as a file"
            assert len(one.engine.images("lading.key")) == 1, "the engine keeps no part"

            capsys.readouterr()
            assert one.doit("build:source:bad@box") == 1
            said = capsys.readouterr().out
            assert "ls /no/such" in said
            assert "build/parts/bad-box-" in said
            (log,) = (tmp_path / kind / "build/parts").glob("bad-box-*/build.log")
            assert "so far" in log.read_text()

            # Another patch is another product, also where steps are kept by their text.
            fix = tmp_path / kind / "recipes/fix.patch"
            fix.write_text(PATCH.format(text="mended otherwise"))
            assert one.doit("build:source:lib@box") == 0
            fresh = set(one.products()) - set(found[kind])
            assert [one.content(key, "usr/lib/text") for key in fresh] == [
                b"mended otherwise\n"
            ] * 2
    assert found["docker"] == found["podman"]

    # What one engine compiled serves all others.
    nobody = RecordingEngine()
    shared = project(tmp_path / "shared", yaml, digest, str(tmp_path / "docker.cache"))
    assert Clone(shared, nobody).doit("dockerfile:one") == 0
    assert nobody.named("build") == []


def with_modes(files: dict[str, bytes]) -> bytes:
    """A tar.gz with a configure that can be run."""
    import gzip
    import io

    out = io.BytesIO()
    source = io.BytesIO(gzip.decompress(tar(files)))
    with tarfile.open(fileobj=source) as read, tarfile.open(fileobj=out, mode="w:gz") as made:
        for info in read:
            info.mode = 0o755 if info.name.endswith("configure") else 0o644
            made.addfile(info, read.extractfile(info))
    return out.getvalue()
