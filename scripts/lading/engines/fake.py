"""An engine in memory that records what it is asked; for tests of what uses engines."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lading.engines.model import ImageInfo, Listed, Mount, RunResult
from lading.errors import LadingError


class RecordingEngine:
    """Implements `Engine`. `calls` holds (method, its arguments) in order.

    Set `failures["build"] = SomeError(...)` to let a method fail, `results` to what `run` shall
    answer (the last one again and again), `archive` and `tree` to what `save` and `files` shall
    deliver.
    """

    kind = "docker"
    version = "20.10"
    where = "a fake engine"

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.failures: dict[str, Exception] = {}
        self.results: list[RunResult] = [RunResult(code=0, output="")]
        self.archive = self.tree = b""
        self.held: dict[str, ImageInfo] = {}
        self.used: set[str] = set()
        """The ids of images that a container stands on."""
        self.closed = False

    def named(self, method: str) -> list[dict[str, Any]]:
        """The arguments of every call of one method, in order."""
        return [arguments for name, arguments in self.calls if name == method]

    def hold(self, ref: str, labels: Mapping[str, str] | None = None) -> ImageInfo:
        """Puts an image into the engine, as if it had been there before."""
        digest = hashlib.sha256(f"{ref} {sorted((labels or {}).items())}".encode()).hexdigest()
        self.held[ref] = ImageInfo(
            id=f"sha256:{digest}",
            labels=dict(labels or {}),
            size=1000,
            diff_ids=(f"sha256:{digest}",),
            env=(),
            cmd=("/bin/bash",),
            entrypoint=(),
            user="",
            architecture="amd64",
            os="linux",
        )
        return self.held[ref]

    def _record(self, method: str, **arguments: Any) -> None:
        self.calls.append((method, arguments))
        if method in self.failures:
            raise self.failures[method]

    def _found(self, ref: str) -> ImageInfo | None:
        by_id = (info for info in self.held.values() if info.id == ref)
        return self.held.get(ref) or next(by_id, None)

    def images(self, label: str, *, apart: str = "") -> Mapping[str, str]:
        self._record("images", label=label)
        return {
            info.labels[label]: info.id
            for name, info in self.held.items()
            if label in info.labels and not (apart and name.startswith(apart))
        }

    def listed(self) -> Sequence[Listed]:
        self._record("listed")
        found: dict[str, Listed] = {}
        for name, info in self.held.items():
            before = found[info.id].names if info.id in found else ()
            found[info.id] = Listed(
                id=info.id,
                # One that lost its name is held by its id.
                names=before if name == info.id else (*before, name),
                labels=info.labels,
                size=info.size,
                used=info.id in self.used,
            )
        return list(found.values())

    def inspect(self, ref: str) -> ImageInfo | None:
        self._record("inspect", ref=ref)
        return self._found(ref)

    def build(
        self,
        context: Path,
        tag: str,
        *,
        platform: str,
        log: Callable[[str], None],
        cache: bool = True,
    ) -> str:
        log(f"building {tag}")
        self._record("build", context=context, tag=tag, platform=platform, cache=cache)
        return self.hold(tag, _labels(context / "Dockerfile")).id

    def run(
        self,
        image: str,
        command: Sequence[str],
        *,
        user: str = "",
        read_only: bool = False,
        tmpfs: Sequence[str] = (),
        network: str = "none",
        mounts: Sequence[Mount] = (),
        env: Mapping[str, str] | None = None,
        workdir: str = "",
        line: Callable[[str], None] | None = None,
    ) -> RunResult:
        self._record(
            "run",
            image=image,
            command=tuple(command),
            user=user,
            read_only=read_only,
            tmpfs=tuple(tmpfs),
            network=network,
            mounts=tuple(mounts),
            env=dict(env or {}),
            workdir=workdir,
        )
        result = self.results.pop(0) if len(self.results) > 1 else self.results[0]
        for text in result.output.splitlines():
            if line is not None:
                line(text)
        return result

    def interact(
        self,
        image: str,
        command: Sequence[str],
        *,
        network: str = "none",
        mounts: Sequence[Mount] = (),
        env: Mapping[str, str] | None = None,
    ) -> int:
        self._record(
            "interact",
            image=image,
            command=tuple(command),
            network=network,
            mounts=tuple(mounts),
            env=dict(env or {}),
        )
        return self.results[0].code

    def save(self, ref: str) -> Iterator[bytes]:
        self._record("save", ref=ref)
        for start in range(0, len(self.archive), 1 << 16):
            yield self.archive[start : start + (1 << 16)]

    def files(self, ref: str) -> Iterator[bytes]:
        self._record("files", ref=ref)
        yield self.tree

    def load(self, path: Path) -> str:
        self._record("load", path=path)
        return self.hold(f"localhost/loaded:{hashlib.sha256(path.read_bytes()).hexdigest()}").id

    def pull(self, ref: str, *, platform: str, log: Callable[[str], None]) -> str:
        self._record("pull", ref=ref, platform=platform)
        log(f"pulling {ref}")
        return self.hold(ref).id

    def tag(self, image: str, ref: str) -> None:
        self._record("tag", image=image, ref=ref)
        info = self._found(image)
        if info is None:
            raise LadingError(f"tagging {image} failed", why="no such image")
        self.held[ref] = info

    def remove(self, ref: str) -> None:
        self._record("remove", ref=ref)
        gone = [name for name, info in self.held.items() if ref in (name, info.id)]
        for name in gone:
            del self.held[name]

    def discard(self, image: Listed) -> None:
        self._record("discard", image=image)
        for ref in image.names or (image.id,):
            self.remove(ref)

    def close(self) -> None:
        self._record("close")
        self.closed = True


def _labels(dockerfile: Path) -> dict[str, str]:
    """The labels of a Dockerfile of ours: those of lines like `LABEL a="b" \\` and `  c="d"`."""
    import shlex

    text = dockerfile.read_text() if dockerfile.exists() else ""
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line.startswith("LABEL ")]
    pairs = (word.partition("=") for line in lines for word in shlex.split(line)[1:])
    return {name: value for name, _, value in pairs}
