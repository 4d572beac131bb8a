"""What the MPI checks found, as plain data: for check.json and for the console."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

YES, NO, NOT_SHOWN = "yes", "no", "not shown"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Something that was run in the image: whether it passed, why not, what it printed, seconds
    (0 where it was not measured by itself).
    """

    name: str
    passed: bool
    why: str = ""
    output: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Swap:
    """One way to let a host's MPI take the place of the image's: `YES`, `NO` or `NOT_SHOWN`.

    version: the MPI that answered. mapped: the files of an MPI that were in memory.
    why: what stands in the way; do: how to mend it.
    """

    way: str
    verdict: str
    version: str = ""
    mapped: tuple[str, ...] = ()
    why: str = ""
    do: str = ""
    output: str = ""


@dataclass(frozen=True, kw_only=True)
class MpiReport:
    """The MPI of an image, how it ran, and whether a host's can take its place.

    mpi: what answers in the image, as "MPICH 4.0.2". abi: of which family its interface to
    programs is. soname: the name by which the programs ask for it. library: its file.
    glibc: the image's; a host's library that needs a newer one does not load. host: the stand-in.
    """

    flavour: str
    mpi: str
    abi: str
    soname: str
    library: str
    glibc: str
    host: str
    outcomes: tuple[Outcome, ...]
    swaps: tuple[Swap, ...]

    @property
    def swap(self) -> str:
        """Whether a host's MPI takes over: in every way that was tried."""
        verdicts = {swap.verdict for swap in self.swaps}
        return NO if NO in verdicts else YES if YES in verdicts else NOT_SHOWN

    @property
    def problems(self) -> tuple[str, ...]:
        """What speaks against the image, a few lines each."""
        failed: dict[str, list[str]] = {}
        for one in self.outcomes:
            if not one.passed:
                failed.setdefault(one.why, []).append(one.name)
        found = [f"{', '.join(names)}: {why}" for why, names in failed.items()]
        reasons: dict[str, list[Swap]] = {}
        for swap in self.swaps:
            if swap.verdict == NO:
                reasons.setdefault(swap.why, []).append(swap)
        for why, swaps in reasons.items():
            text = f"a host's MPI does not take over ({', '.join(s.way for s in swaps)}): {why}"
            mend = next((f"\n-> {swap.do}" for swap in swaps if swap.do), "")
            found.append(text + mend)
        return tuple(found)

    @property
    def passed(self) -> bool:
        return not self.problems

    def lines(self) -> list[str]:
        """For the console."""
        about = f"ABI of {self.abi or '?'}, {self.soname or 'no soname'}"
        shown = [f"MPI: {self.mpi or 'not found'}, {about}"]
        if self.glibc:
            shown.append(f"glibc: {self.glibc}; a host's MPI must not need a newer one")
        for one in self.outcomes:
            taken = f"  {one.seconds * 1000:.1f} ms" if one.seconds else ""
            shown.append(f"{'passed' if one.passed else 'failed'}  {one.name}{taken}")
        shown.append(f"swap: {self.swap}" + (f" ({self.host})" if self.host else ""))
        for swap in self.swaps:
            why = f": {swap.why}" if swap.why else ""
            shown.append(f"  {swap.verdict}  {swap.way}{why}")
        return shown

    def to_dict(self) -> dict[str, Any]:
        """For check.json; of what was printed, the end."""
        found = asdict(self)
        for one in (*found["outcomes"], *found["swaps"]):
            one["output"] = one["output"][-10_000:]
        return {**found, "swap": self.swap, "passed": self.passed}
