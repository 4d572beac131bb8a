"""Parts: what is compiled by itself, once, and kept in the store under its key.

A part is built as an image of its own that holds nothing but what came out (its last stage is
FROM scratch). It is shared by all images that stand on the same base and options, and by all
engines.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct, field
from msgspec.structs import replace

from lading import keys, plan
from lading.plan import Contribution, Part
from lading.steps import AS_ROOT, Arg, Content, Copy, Stage, Step

OUT = "/lading/out"
"""Where a part puts what is kept of it."""
PRODUCT = "product.tar"
"""What came out, whole, as a deterministic tar in the store."""


FILES = "files"
"""What came out, as a folder of files, where these go into a context one by one."""

LEFT_BEHIND = (
    "**/include/**",
    "**/*.a",
    "**/*.la",
    "**/*.mod",
    "**/pkgconfig/**",
    "**/lib/cmake/**",
    "**/share/aclocal/**",
    "**/share/doc/**",
    "**/share/info/**",
    "**/share/man/**",
    "**/bin/mpicc",
    "**/bin/mpicxx",
    "**/bin/mpic++",
    "**/bin/mpiCC",
    "**/bin/mpif77",
    "**/bin/mpif90",
    "**/bin/mpifort",
    "**/bin/h5cc",
    "**/bin/h5c++",
    "**/bin/h5fc",
    "**/bin/h5pcc",
    "**/bin/h5pfc",
    "**/bin/*-config",
)
"""What only a compiler needs, or a reader: it stays where things are built."""


class Start(Struct, frozen=True, kw_only=True):
    """Where building starts: the base, and the steps that bring what is built with; `user` is whom
    the base runs as, where that is not root.
    """

    reference: str
    platform: str
    root: Path
    epoch: int
    steps: tuple[Step, ...] = ()
    files: Mapping[str, Content] = field(default_factory=dict)
    parts: tuple[Part, ...] = ()
    user: str = ""

    def part(
        self,
        name: str,
        what: str,
        steps: tuple[Step, ...],
        files: Mapping[str, Content],
        why: str,
    ) -> Part:
        """A part that is built upon this start; its steps leave what is kept in `OUT`."""
        epoch = Arg(
            name="SOURCE_DATE_EPOCH",
            value=str(self.epoch),
            why="The times that steps write: the locks' date, never the clock.",
        )
        host = Arg(
            name="HOSTNAME",
            value="localhost",
            why="What asks for it by this name is not told what an engine calls its container.",
        )
        as_root = (AS_ROOT,) if self.user else ()
        build = Stage(
            name="build",
            base=self.reference,
            steps=(epoch, host, *as_root, *self.steps, *steps),
            why=why,
        )
        out = Copy(source=f"{OUT}/", target="/", stage="build", why="Nothing else is kept.")
        last = Stage(base="scratch", steps=(out,), why="What came out, and what is taken from it.")
        made = plan.make(
            name,
            f"{what}: written by lading; what it leaves is kept in the store.",
            (build, last),
            {**self.files, **files},
        )
        return Part(
            what=what,
            key=keys.key_of(made, {}, self.platform, self.root),
            plan=made,
            epoch=self.epoch,
            parts=self.parts,
        )

    def with_tools(self, added: Contribution) -> Start:
        """This start with what a layer brings to build with."""
        if not added.tools:
            return self
        return replace(
            self,
            steps=(*self.steps, *added.tools),
            files={**self.files, **added.tool_files},
            parts=(*self.parts, *added.parts),
            epoch=max([self.epoch, *(part.epoch for part in added.parts)]),
        )
