"""The `apt:` section of an image: what the base's own packages are joined by."""

from __future__ import annotations

from msgspec import Struct

from lading.schema.scalars import Text
from lading.schema.shapes import Converted, Either, Field, List, Record

# Debian policy, 5.6.1 and 5.6.12. A last '-' would be apt's way to say "not this one".
_NAME = r"[a-z0-9][a-z0-9+.-]*[a-z0-9+.]"
_VERSION = r"(?:[0-9]+:)?[0-9][A-Za-z0-9.+~-]*"


class AptSection(Struct, frozen=True, kw_only=True):
    """Packages by name, or by name and version, as gfortran=4:12.2.0-3.

    build: only where something is built. run: in the image, and where something is built.
    """

    build: tuple[str, ...] = ()
    run: tuple[str, ...] = ()


_PACKAGES = List(
    item=Text(
        pattern=rf"{_NAME}(?:={_VERSION})?",
        longest=256,
        expected="a Debian package, as gfortran or gfortran=4:12.2.0-3",
    ),
    or_one=True,
    unique=True,
    expected="a list of Debian packages",
)

LONG = Record(
    make=AptSection,
    expected="a mapping with the keys 'build' and 'run', or a list of packages",
    fields={
        "build": Field(
            kind=_PACKAGES, about="packages to build with, as gfortran; they stay behind"
        ),
        "run": Field(kind=_PACKAGES, about="packages that go into the image, as libgomp1"),
    },
)

SECTION: Either[AptSection] = Either(
    long=LONG,
    # A list alone: what is named without a word more is wanted in the image.
    short=Converted(kind=_PACKAGES, into=lambda packages: AptSection(run=packages)),
)
