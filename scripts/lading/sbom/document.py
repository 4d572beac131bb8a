"""The bill of materials as CycloneDX 1.6 (ECMA-424), the same bytes for the same image."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.exception import CycloneDxException
from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.bom_ref import BomRef
from cyclonedx.model.component import Component as Described
from cyclonedx.model.component import ComponentScope, ComponentType
from cyclonedx.model.dependency import Dependency
from cyclonedx.model.license import License, LicenseExpression
from cyclonedx.model.tool import ToolRepository
from cyclonedx.output.json import JsonV1Dot6
from msgspec import Struct

from lading.sbom import FORMAT
from lading.sbom.listing import Component

_KINDS = {
    "library": ComponentType.LIBRARY,
    "container": ComponentType.CONTAINER,
    "operating-system": ComponentType.OPERATING_SYSTEM,
}


class Subject(Struct, frozen=True, kw_only=True):
    """The image that it is of: its key, the digest of its configuration ("sha256:…"), the day of
    its locks. unread: the package managers whose packages are not among the components.
    """

    name: str
    version: str
    key: str
    config: str
    day: date
    unread: tuple[str, ...] = ()


def text_of(subject: Subject, components: Sequence[Component]) -> str:
    """The whole document, JSON."""
    image = f"image:{subject.name}"
    said = [("lading:config", subject.config), ("lading:key", subject.key)]
    said += [("lading:not-listed", f"packages of {name}") for name in subject.unread]
    bom = Bom(
        # Of an image there is one: no clock, no chance.
        serial_number=uuid.uuid5(
            uuid.NAMESPACE_URL, f"urn:lading:sbom:{FORMAT}:{subject.key}:{subject.config}"
        ),
        metadata=BomMetaData(
            timestamp=datetime(subject.day.year, subject.day.month, subject.day.day, tzinfo=UTC),
            # Without its version: the image would be no other with another one.
            tools=ToolRepository(
                components=[Described(name="lading", type=ComponentType.APPLICATION)]
            ),
            component=Described(
                name=subject.name,
                version=subject.version,
                type=ComponentType.CONTAINER,
                bom_ref=image,
                properties=[Property(name=name, value=value) for name, value in said],
            ),
        ),
        components=[_described(one) for one in components],
        dependencies=_dependencies(image, components),
    )
    text: str = JsonV1Dot6(bom).output_as_string(indent=2)
    return text + "\n"


def _described(one: Component) -> Described:
    sums = [HashType(alg=HashAlgorithm.SHA_256, content=one.sha256)] if one.sha256 else []
    return Described(
        name=one.name,
        version=one.version or None,
        type=_KINDS[one.kind],
        bom_ref=one.ref,
        purl=one.purl,
        hashes=sums,
        licenses=_licences(one.licences),
        scope=ComponentScope.EXCLUDED if one.made_with else None,
        properties=[Property(name="lading:made-with", value=what) for what in one.made_with],
    )


def _licences(texts: Iterable[str]) -> list[License]:
    """As SPDX names or as one expression of them, where they are; else by their own names."""
    factory = LicenseFactory()
    made: list[License] = []
    for text in texts:
        try:
            made.append(factory.make_from_string(text))
        except (CycloneDxException, ValueError):
            continue
    # Beside an expression there can be nothing else (CycloneDX, 'licenses').
    for one in made:
        if isinstance(one, LicenseExpression):
            return [one]
    return made


def _dependencies(image: str, components: Sequence[Component]) -> Iterator[Dependency]:
    """What wants what. The image wants what is declared, and all that nobody else does."""
    yield _dependency(image, _first(components))
    for one in components:
        yield _dependency(one.ref, one.wants)


def _first(components: Sequence[Component]) -> list[str]:
    inside = {one.ref: one for one in components if not one.made_with}
    wanted = {ref for one in inside.values() for ref in one.wants}
    first = [ref for ref, one in inside.items() if one.declared or ref not in wanted]
    reached: set[str] = set()
    # Of some that want each other, and that nobody else does, one stands for them all.
    for ref in [*first, *inside]:
        if ref not in reached and ref not in first:
            first.append(ref)
        waiting = [ref]
        while waiting:
            at = waiting.pop()
            if at not in reached:
                reached.add(at)
                waiting += inside[at].wants if at in inside else ()
    return first


def _dependency(ref: str, wants: Iterable[str]) -> Dependency:
    return Dependency(BomRef(ref), [Dependency(BomRef(other)) for other in wants])
