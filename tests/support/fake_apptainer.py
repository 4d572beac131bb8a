"""An Apptainer for tests without one: it unpacks nothing and runs nothing, but writes a real SIF.

`python fake_apptainer.py ARGUMENTS`. What it shall do is in a file "orders" beside it, a line each:
"version TEXT" is what it calls itself; "fail VERB TEXT" and "kill VERB" end it there; "exec CODE"
is how commands end whose text has "bad" in it; "unpacks" has it say that it can't mount a SIF;
"has PATH" has it unpack one more folder.
All that it is told goes into "calls", as JSON, a line each.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import sys
import time
from pathlib import Path

HEADER = struct.Struct("<32s10s3s3s16s8q")
DESCRIPTOR = struct.Struct("<i?3I7q128s384s")


def main(words: list[str]) -> int:
    """Runs one command; returns the exit code."""
    here = Path(__file__).parent
    orders = (here / "orders").read_text().splitlines() if (here / "orders").exists() else []
    with (here / "calls").open("a") as calls:
        told = {name: text for name, text in os.environ.items() if "APPTAINER" in name}
        calls.write(json.dumps([words, told, os.environ.get("PYTHONPATH", "")]) + "\n")
    if words == ["--version"]:
        said = [order[8:] for order in orders if order.startswith("version ")]
        sys.stdout.write((said or ["apptainer version 1.4.5"])[0] + "\n")
        return 0
    verb = " ".join(words[: 2 if words[0] == "sif" else 1])
    for order in orders:
        if order.startswith(f"fail {verb} "):
            sys.stderr.write(order.removeprefix(f"fail {verb} ") + "\n")
            return 255
        if order == f"kill {verb}":
            os.kill(os.getpid(), signal.SIGKILL)
    if verb == "build" and words[-1] == "oci:layout":
        unpack(Path(words[-2]))
        for order in orders:
            if order.startswith("has "):
                Path(words[-2], order.removeprefix("has ")).mkdir(parents=True)
    elif verb == "build":
        Path(words[-2]).mkdir()
    elif verb == "sif new":
        new(Path(words[-1]))
    elif verb == "sif add":
        add(words)
    elif "unpacks" in orders and words[-4].endswith(".part"):
        sys.stderr.write("INFO:    Converting SIF file to temporary sandbox...\n")
    codes = [int(order[5:]) for order in orders if order.startswith("exec ")]
    return codes[0] if codes and "bad" in words[-1] else 0


def unpack(root: Path) -> None:
    """A folder as Apptainer leaves it, with its clock in it."""
    own = root / ".singularity.d"
    (own / "env").mkdir(parents=True)
    (own / "env/10-docker2singularity.sh").write_text("export A=b\n")
    (own / "runscript").write_text("#!/bin/sh\nexec true\n")
    labels = {
        "mine": "kept",
        "org.label-schema.build-date": time.asctime(),
        "org.label-schema.usage.singularity.deffile.from": str(root),
    }
    (own / "labels.json").write_text(json.dumps(labels))
    (own / "Singularity").write_text(f"from: {root}\n")


def new(path: Path) -> None:
    """An empty SIF, as `sif new` writes it: without a launch script, with a random UUID."""
    now = int(time.time())
    sizes = (48, 48, 4096, 48 * DESCRIPTOR.size, 32176, 0)
    head = HEADER.pack(b"", b"SIF_MAGIC", b"01", b"00", os.urandom(16), now, now, *sizes)
    path.write_bytes(head.ljust(32176, b"\0"))


def add(words: list[str]) -> None:
    """One more object at the end, with a descriptor."""
    path, data = Path(words[-2]), Path(words[-1]).read_bytes()
    made = bytearray(path.read_bytes())
    *head, free, total, at, length, start, size = HEADER.unpack_from(made)
    now, kind = int(time.time()), 0x4000 + int(words[words.index("--datatype") + 1])
    fields = (kind, True, 49 - free, 0xF0000001, 0, len(made), len(data), len(data), now, now, 7, 7)
    called = words[words.index("--filename") + 1] if "--filename" in words else words[-1]
    DESCRIPTOR.pack_into(
        made, at + (48 - free) * DESCRIPTOR.size, *fields, Path(called).name.encode(), b""
    )
    HEADER.pack_into(made, 0, *head, free - 1, total, at, length, start, size + len(data))
    path.write_bytes(made + data)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
