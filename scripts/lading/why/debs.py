"""Who wants a Debian package: out of a lock, declarations, and the .debs that the store has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from lading.debian import Deb, repository
from lading.debian.relations import provided, relations
from lading.store import Artifact, Store
from lading.why.graph import Graph, Node, Want, collected


def of(
    debs: Sequence[Deb],
    declared: Mapping[str, Sequence[str]],
    store: Store,
    *,
    layer: str,
    lock: str,
    fetch: str,
    place: Callable[[str, str], str],
) -> Graph:
    """The packages of a lock. declared: what asks for which packages, by where that is written;
    `place` makes words of it. fetch: the command that gets the .debs.
    """
    nodes = {
        deb.name: Node(name=deb.name, version=deb.version, file=deb.file, size=deb.size)
        for deb in debs
    }
    wants: list[tuple[str, Want]] = []
    for where, packages in declared.items():
        for text in packages:
            wants.append((text.partition("=")[0], Want(where=place(where, text), text=text)))
    controls = {deb.name: _control(deb, store) for deb in debs}
    virtual = provided(controls)
    for name, control in controls.items():
        for said in ("Essential", "Priority"):
            if control.get(said) in ("yes", "required"):
                wants.append((name, Want(where="Debian", text=f"{said}: {control[said]}")))
                break
        for wanted, text in relations(control):
            for package in [wanted] if wanted in nodes else virtual.get(wanted, ()):
                if package != name and package in nodes:
                    wants.append((package, Want(by=name, text=text)))
    lacking = [name for name, control in controls.items() if not control]
    note = (
        f"what {len(lacking)} of the {len(debs)} packages ask stands in .debs that are not in "
        f"the store: `{fetch}` gets them"
    )
    return Graph(
        layer=layer,
        lock=lock,
        nodes=nodes,
        wants={name: found for name, found in collected(wants).items() if name in nodes},
        note=note if lacking else "",
    )


def _control(deb: Deb, store: Store) -> Mapping[str, str]:
    """A package's control fields; none where the store has it not."""
    artifact = Artifact(name=deb.file, sha256=deb.sha256, size=deb.size)
    if not store.has(artifact):
        return {}
    try:
        return repository.control_of(store.path(deb.sha256))
    except (OSError, ValueError, EOFError, KeyError):
        return {}
