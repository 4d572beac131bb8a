"""What is left to do where conda itself has installed packages, run by a Python of the image.

Takes the prefix and the folder that the packages were lent in. What would differ from build to
build, or tells of the build, goes: that folder's path, the time in conda's history, and bytecode
that is valid by the time of its source. Prints the modules that are to be compiled anew. For any
Python since 3.6, with nothing but its library.
"""

# A Python older than 3.9 knows no list[str].
# ruff: noqa: UP006, UP035

import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any, Dict, List

BASE = "channel:///"
EPOCH = "1980-01-01 00:00:00"
TESTS = re.compile("/tests?/")


def main(prefix: Path, folder: str) -> None:
    """Settles what was installed into `prefix` out of `folder`, CHANNEL/SUBDIR/FILE in it."""
    lent = f"file://{folder}/"
    found = [renamed(path, lent) for path in sorted(prefix.glob("conda-meta/*.json"))]
    installed = [record for record in found if record]
    for record in installed:
        forget(Path(record.get("extracted_package_dir") or record["link"]["source"]), lent)
    history = prefix / "conda-meta" / "history"
    write(history, settled(history.read_text(), folder))
    if Path(sys.prefix) == prefix and sys.version_info >= (3, 7):
        files = [file for record in installed for file in record.get("files", [])]
        print("\n".join(modules(prefix, files)))


def renamed(path: Path, lent: str) -> Dict[str, Any]:
    """Puts channels' names into a record that names the folder; it, or nothing for another's."""
    record: Dict[str, Any] = json.loads(path.read_text())
    url = str(record.get("url", ""))
    if not url.startswith(lent):
        return {}
    inside = url[len(lent) :]
    record["url"] = BASE + inside
    record["channel"] = inside.rsplit("/", 2)[0]
    if "schannel" in record:
        record["schannel"] = record["channel"]
    write(path, json.dumps(record, indent=2, sort_keys=True))
    return record


def forget(package: Path, lent: str) -> None:
    """Takes away what conda keeps of a package to install it again: not in an image."""
    shutil.rmtree(str(package), ignore_errors=True)
    for name in ("urls", "urls.txt"):
        path = package.parent / name
        if path.exists():
            lines = path.read_text().splitlines(True)
            write(path, "".join(line for line in lines if not line.startswith(lent)))


def settled(history: str, folder: str) -> str:
    """The history with no time in its entries of this build, and packages by their channels."""
    entries = re.split(r"(?m)^(?===> )", history)
    ours = str(Path(folder).parent)  # the list of packages lies there, which the command names
    for number, entry in enumerate(entries):
        if ours in entry:
            entry = re.sub(r"^==> .* <==", f"==> {EPOCH} <==", entry)
            entry = re.sub(r"(?m)^# cmd: .*$", "# cmd: lading", entry)
            entries[number] = re.sub(f"(file://)?{re.escape(folder)}/", "", entry)
    return "".join(entries)


def modules(prefix: Path, files: List[str]) -> List[str]:
    """Those among these files of the prefix that are to be compiled, not tests; their bytecode,
    which goes by their times, is gone.
    """
    for file in files:
        if re.search(r"/__pycache__/[^/]+\.pyc$", file) and (prefix / file).exists():
            (prefix / file).unlink()
    inside = f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/"
    found = [file for file in files if file.startswith(inside) and file.endswith(".py")]
    return [str(prefix / file) for file in found if not TESTS.search(file)]


def write(path: Path, text: str) -> None:
    """Writes a file anew, if it is another: it may be a link to one that conda has elsewhere."""
    if path.read_text() == text:
        return
    path.unlink()
    if text:
        path.write_text(text)


if __name__ == "__main__":
    os.umask(0o022)
    main(Path(sys.argv[1]), sys.argv[2])
