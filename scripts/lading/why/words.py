"""What is said of a package: its version and file, who wants it, and what bounds its version."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date

from lading.console import size
from lading.why.graph import Chain, Graph, Want, chains

SHOWN = 12
"""Of many that want a package, how many are named."""

_BOUND = re.compile(r"(?<![<>!=~])(?:<{1,2}(?!=)|<=|={1,3}|~=)\s*v?\d|(?<=[\w*-])\s\d|@ \S")
"""A version that is bounded from above: PEP 440's, conda's (also `NAME 1.2.*`) and Debian's."""


def told(graph: Graph, name: str, as_of: date | None, every: bool = False) -> str:
    """A package of a lock, explained, in lines. as_of: the day that was resolved for, if any.
    every: name all who want it.
    """
    node = graph.nodes[name]
    found = chains(graph, name)
    lines = [f"{name} {node.version}: {graph.layer}, in {graph.lock}"]
    if node.file:
        lines.append(f"  file   {node.file}" + (f", {size(node.size)}" if node.size else ""))
    shown = found if every else found[:SHOWN]
    lines.append("  wanted by" if found else "  wanted by nothing that is known here")
    previous: Sequence[str] = ()
    for chain in shown:
        rows = _rows(graph, chain)
        same = 0
        while same < min(len(rows) - 1, len(previous)) and rows[same] == previous[same]:
            same += 1
        lines += [f"    {row}" for row in rows[same:]]
        previous = rows
    if len(found) > len(shown):
        lines.append(f"    and {len(found) - len(shown)} more (--all names them)")
    for limit in graph.limits.get(name, ()):
        lines.append(f"  limit  {limit}")
    if as_of is not None:
        lines.append(f"  limit  as of {as_of}: what came later does not count")
    lines.append(f"  newer  {_newer(graph, name, as_of)}")
    if graph.note and (not found or any(not want.text for want in graph.wants[name])):
        lines.append(f"  note   {graph.note}")
    return "\n".join(lines)


def _rows(graph: Graph, chain: Chain) -> list[str]:
    """A chain, a step a line, each further in than the one before."""
    rows: list[str] = []
    for depth, want in enumerate(chain):
        rows.append(f"{'  ' * depth}{_step(graph, want)}")
    return rows


def _step(graph: Graph, want: Want) -> str:
    if not want.by:
        return f"{want.where}: {want.text}" if want.text else want.where
    version = graph.nodes[want.by].version if want.by in graph.nodes else ""
    return f"{want.by} {version}".rstrip() + (f": {want.text}" if want.text else "")


def _newer(graph: Graph, name: str, as_of: date | None) -> str:
    """What keeps a newer version out, as far as it is known here."""
    bounds = [
        _step(graph, want) for want in graph.wants.get(name, ()) if _BOUND.search(f"{want.text} ")
    ]
    for limit in graph.limits.get(name, ()):
        if _BOUND.search(f"{limit.rpartition(': ')[2]} "):
            bounds.append(limit)
    if as_of is not None:
        bounds.append(f"as of {as_of}")
    ask = "`doit outdated` asks whether there is one"
    if not bounds:
        wants = graph.wants.get(name, ())
        known = wants and all(want.text for want in wants)
        kept = "nothing here keeps one out" if known else "what is known here keeps none out"
        return f"{kept}; {ask}"
    more = f" and {len(bounds) - 4} more" if len(bounds) > 4 else ""
    return f"bounded by {'; '.join(bounds[:4])}{more}; {ask}"
