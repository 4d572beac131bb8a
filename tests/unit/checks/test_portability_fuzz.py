"""Archives out of a small corpus, changed where it hurts: headers whose checksums are right again,
layers whose digests are. Whatever comes of it is a report or an error, in bounded time, and nothing
is written.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lading.checks.portability import examine
from lading.errors import LadingError
from tests.unit.checks import made
from tests.unit.checks import test_portability_table as table
from tests.unit.checks.made import PLATFORM, SOUND, Item, folder, hard, layer_of, link

BLOCK = 512
ELVES = layer_of(
    {
        **table.VENV,
        **table.WHEEL,
        **table.modules(3, 1),
        "opt/venv/lib/libmpi.so.12": Item(data=table.MPICH),
        "etc/ld.so.cache": Item(data=made.cache_of({"libmpi.so.12": "/opt/venv/lib/libmpi.so.12"})),
    }
)
LINKS = layer_of(
    [
        ("opt", folder()),
        ("opt/a", Item(pax={"SCHILY.xattr.user.x": "1", "mtime": "1.5"})),
        ("opt/b", hard("opt/a")),
        ("opt/c", link("../usr/bin")),
        ("opt/" + "long/" * 40 + "name", Item()),
        ("opt/" + "l" * 120, link("t" * 150)),
        ("dev/null", Item(kind=tarfile.CHRTYPE)),
        ("run/pipe", Item(kind=tarfile.FIFOTYPE)),
    ]
)
WHITEOUTS = layer_of([("opt/.wh.a", Item(data=b"")), ("usr/.wh..wh..opq", Item(data=b""))])
LAYERS = (layer_of(SOUND), ELVES, LINKS, WHITEOUTS)

FIELDS = {
    "name": (0, 100),
    "mode": (100, 8),
    "uid": (108, 8),
    "gid": (116, 8),
    "size": (124, 12),
    "mtime": (136, 12),
    "type": (156, 1),
    "link": (157, 100),
    "magic": (257, 8),
    "device": (329, 16),
    "prefix": (345, 155),
}
"""Of a USTAR header: where each field begins, and how many bytes it has."""

HOSTILE = (
    *(b"../../x", b"/x", b"opt/a/../../..", b"\xff\xfe", b"", b"a/" * 49, b".wh.", b".wh..wh..opq"),
    *(b"77777777777", b"-1", b"\x80" + b"\xff" * 11, b"\xff" * 12, b"\x80" + bytes(10) + b"\x01"),
    *(b"x", b"g", b"L", b"K", b"S", b"1", b"2", b"5", b"\0", b"9", b"ustar  \0", b"ustar\x0000"),
)

Change = tuple[int, str, bytes]


def headers(tar: bytes) -> list[int]:
    """Where the headers of a tar begin."""
    with tarfile.open(fileobj=io.BytesIO(tar)) as read:
        return [member.offset_data - BLOCK for member in read]


def changed(tar: bytes, changes: Sequence[Change]) -> bytes:
    """The tar with fields of its headers replaced, and their checksums right again."""
    data, places = bytearray(tar), headers(tar)
    for which, field, value in changes:
        at = places[which % len(places)]
        start, width = FIELDS[field]
        data[at + start : at + start + width] = value[:width].ljust(width, b"\0")
        data[at + 148 : at + 156] = b" " * 8
        data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + BLOCK])
    return bytes(data)


changes = st.lists(
    st.tuples(
        st.integers(0, 200),
        st.sampled_from(sorted(FIELDS)),
        st.sampled_from(HOSTILE) | st.binary(max_size=100),
    ),
    max_size=4,
)
noise = st.lists(st.tuples(st.integers(0, 1 << 20), st.binary(min_size=1, max_size=16)), max_size=3)


@settings(max_examples=int(os.environ.get("LADING_FUZZ", "200")))
@given(
    layer=st.integers(0, len(LAYERS) - 1),
    inside=changes,
    bits=noise,
    outside=changes,
    kind=st.sampled_from(["docker", "docker-gzip", "oci", "oci-nested"]),
)
def test_whatever_is_in_an_archive_is_a_report_or_an_error(
    layer: int,
    inside: Sequence[Change],
    bits: Sequence[tuple[int, bytes]],
    outside: Sequence[Change],
    kind: str,
) -> None:
    layers = list(LAYERS)
    hurt = bytearray(changed(layers[layer], inside))
    for at, new in bits:
        at %= len(hurt)
        hurt[at : at + len(new)] = new
    layers[layer] = bytes(hurt)
    config = made.settings(layers, {})
    if kind.startswith("docker"):
        whole = made.docker_archive(layers, config, packed="gzip" in kind)
    else:
        whole = made.oci_archive(layers, config, nested="nested" in kind)
    made.assert_read(changed(whole, outside))


CORPUS = Path(__file__).with_name("corpus")
OUTCOMES: dict[str, str] = json.loads((CORPUS / "outcomes.json").read_text())
"""What such changes have come to: archives, and what is said of each (or the findings' ids)."""


@pytest.mark.parametrize(("name", "outcome"), OUTCOMES.items(), ids=OUTCOMES)
def test_the_corpus(tmp_path: Path, name: str, outcome: str) -> None:
    file = tmp_path / "image.tar"
    file.write_bytes(gzip.decompress((CORPUS / f"{name}.tar.gz").read_bytes()))
    try:
        report = examine(file, platform=PLATFORM)
    except LadingError as error:
        assert outcome in str(error)
    else:
        assert " ".join(sorted({finding.id for finding in report.findings})) == outcome


def test_all_of_the_corpus_is_read() -> None:
    assert {path.name for path in CORPUS.glob("*.gz")} == {f"{name}.tar.gz" for name in OUTCOMES}
