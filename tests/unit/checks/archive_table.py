"""A1, A2, A3 and F13 in a table: archives that have the fault, and such as nearly have it."""

from __future__ import annotations

import gzip
import json
import lzma
from typing import Any

from tests.unit.checks.made import (
    SOUND,
    Item,
    Layer,
    digest,
    docker_archive,
    layer_of,
    oci_archive,
    settings,
    tar_of,
)

BASE = layer_of(SOUND)
OTHER = layer_of({"opt/y": Item()})


def config(*layers: bytes, **more: Any) -> bytes:
    return settings(layers, {}, **more)


def archive(*layers: bytes, packed: bool = False) -> bytes:
    return docker_archive(layers, config(*layers), packed)


def of_layer(*layers: Layer | list[tuple[str, Item]]) -> bytes:
    """An archive with these layers on a sound one."""
    return archive(BASE, *map(layer_of, layers))


def listed(*entries: Any) -> bytes:
    """An archive whose manifest has these entries."""
    files = [("c.json", config(BASE)), ("l.tar", BASE)]
    return tar_of([*files, ("manifest.json", json.dumps(entries).encode())])


ENTRY = {"Config": "c.json", "Layers": ["l.tar"]}
DEEP = "a/" * 2000
"""A path as long as one can be, nearly: 4,000 bytes of 4,096."""

# id, level, what is named, the fault, and what nearly is one.
TABLE: list[tuple[str, str, str, bytes, bytes]] = [
    ("A1", "error", "image.tar", gzip.compress(archive(BASE)), archive(BASE, packed=True)),
    ("A1", "error", "image.tar", lzma.compress(archive(BASE)), oci_archive([BASE], config(BASE))),
    ("A2", "error", "manifest.json", listed(ENTRY, ENTRY), listed(ENTRY)),
    ("A2", "error", "manifest.json", listed(), listed({**ENTRY, "RepoTags": None})),
    (
        "A2",
        "error",
        "manifest.json",
        BASE,  # as docker export writes it
        oci_archive([BASE], config(BASE), nested=True),
    ),
    (
        "A3",
        "error",
        f"{digest(OTHER)}.tar",
        docker_archive([BASE, OTHER], config(BASE, BASE)),
        archive(BASE, BASE),
    ),
    (
        "A3",
        "error",
        f"{'0' * 64}.json",
        tar_of(
            [
                (f"{'0' * 64}.json", config(BASE)),
                ("l.tar", BASE),
                (
                    "manifest.json",
                    json.dumps([{**ENTRY, "Config": f"{'0' * 64}.json"}]).encode(),
                ),
            ]
        ),
        listed(ENTRY),  # a name that is no digest claims nothing
    ),
    (
        "F13",
        "error",
        "/opt/../../x",
        of_layer({"opt/../../x": Item()}),
        of_layer({"opt/..x": Item()}),
    ),
    ("F13", "info", "/opt/x", of_layer([("opt/x", Item())] * 2), of_layer(SOUND, SOUND)),
    ("F13", "info", "/opt/\\xff", of_layer({"opt/\udcff": Item()}), of_layer({"opt/ÿ": Item()})),
    (
        "F13",
        "error",
        f"/{'b' * 200}",
        of_layer({"b" * 256: Item()}),
        of_layer({"b" * 255: Item(), f"{DEEP}x": Item()}),
    ),
]
