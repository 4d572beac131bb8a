"""Runs in a throwaway container of a base, by the base's own Python, and nothing else of lading's.

It is given the path of a file in JSON that says what is asked for (see pip_locker.py), and prints
what pip-compile, or pip, came to, as JSON on a line of its own. It knows Pythons from 3.8 on.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

MARK = "@lading answer "
LACKS = "@lading lacks pip"
BUILDS = "PIP_BUILD_CONSTRAINT"

LISTED = r"""
import importlib.metadata as metadata, json, os, platform, sys
version = sys.implementation.version
full = "{0.major}.{0.minor}.{0.micro}".format(version)
if version.releaselevel != "final":
    full += version.releaselevel[0] + str(version.serial)
print(json.dumps({
    "installed": [
        [one.metadata["Name"], one.version, one.requires or []] for one in metadata.distributions()
    ],
    "environment": {
        "implementation_name": sys.implementation.name,
        "implementation_version": full,
        "os_name": os.name,
        "platform_machine": platform.machine(),
        "platform_release": platform.release(),
        "platform_system": platform.system(),
        "platform_version": platform.version(),
        "python_full_version": platform.python_version(),
        "platform_python_implementation": platform.python_implementation(),
        "python_version": ".".join(platform.python_version_tuple()[:2]),
        "sys_platform": sys.platform,
    },
}))
"""
"""What is installed, what that requires, and what markers are compared with (PEP 508)."""


def relayed(path: str) -> int:
    """Listens on the loopback, and passes on what comes to a Unix socket; returns the port."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(64)

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while True:
                data = source.recv(1 << 16)
                if not data:
                    break
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def accept() -> None:
        while True:
            near, _ = listening.accept()
            far = socket.socket(socket.AF_UNIX)
            try:
                far.connect(path)
            except OSError as error:
                print(f"the package index can't be reached: {error}", flush=True)
                near.close()
                continue
            for ends in ((near, far), (far, near)):
                threading.Thread(target=pump, args=ends, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return int(listening.getsockname()[1])


def settings(asked: dict[str, Any], port: int) -> dict[str, str]:
    """The environment of pip: its own settings, and no others that it reads."""
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PIP_") and name not in ("PYTHONPATH", "PYTHONHOME")
    }
    around = [value for value in (env.get("NO_PROXY"), env.get("no_proxy")) if value]
    env["NO_PROXY"] = env["no_proxy"] = ",".join(["127.0.0.1", *around])
    if "SSL_CERT_FILE" in env:
        env["PIP_CERT"] = env["SSL_CERT_FILE"]
    env.update(
        PIP_CONFIG_FILE=os.devnull,
        PIP_INDEX_URL=f"http://127.0.0.1:{port}/{asked['secret']}/simple/",
        PIP_NO_CACHE_DIR="1",
        PIP_NO_INPUT="1",
        PIP_DISABLE_PIP_VERSION_CHECK="1",
        PIP_RETRIES="0",
        PYTHONNOUSERSITE="1",
        PYTHONWARNINGS="ignore",
    )
    if asked["build_constraints"]:
        env[BUILDS] = f"{asked['scratch']}/work/{asked['build_constraints']}"
    return env


class Place:
    """The folders that are worked in, and how commands are run there."""

    def __init__(self, asked: dict[str, Any], env: dict[str, str]) -> None:
        self.asked, self.env = asked, env
        scratch = asked["scratch"]
        self.work, self.venv, self.pip = (f"{scratch}/{one}" for one in ("work", "env", "pip"))
        self.python = f"{self.venv}/bin/python"
        shutil.copytree(asked["work"], self.work)

    def run(self, *command: str) -> None:
        """Runs a command, whose output is this one's; ends with its exit code if it fails."""
        sys.stdout.flush()
        code = subprocess.call(command, env=self.env, cwd=self.work, stderr=subprocess.STDOUT)
        if code:
            sys.exit(code)

    def said(self, *command: str) -> str:
        """What a command prints to its standard output."""
        return subprocess.check_output(command, env=self.env, cwd=self.work).decode()

    def write(self, name: str, lines: list[str]) -> str:
        """Writes a file of requirements in the work folder; its name."""
        Path(self.work, name).write_text("".join(f"{line}\n" for line in lines))
        return name

    def environment(self) -> None:
        """Makes a virtual environment with the base's Python, and nothing in it."""
        uv = self.asked["uv"]
        self.run(uv, "venv", "--quiet", "--no-config", "--python", sys.executable, self.venv)

    def prepare(self, pip: str) -> tuple[int, ...]:
        """Says what this version of pip has to know in its own words; its first two numbers."""
        numbers = tuple(int(part) for part in re.findall(r"\d+", pip)[:2])
        if numbers < (25, 3) and BUILDS in self.env:
            # Until there was a word for what only builds, what constrains reached builds, too.
            self.env["PIP_CONSTRAINT"] = self.env.pop(BUILDS)
        return numbers


def compiled(place: Place) -> dict[str, Any]:
    """What pip-compile answers."""
    asked = place.asked
    place.environment()
    wheels = sorted(map(str, Path(asked["tools"]).iterdir()))
    place.prepare(next(wheel for wheel in wheels if "/pip-" in wheel).rpartition("/pip-")[2])
    install = [asked["uv"], "pip", "install", "--quiet", "--no-config", "--no-index", "--no-deps"]
    place.run(*install, "--offline", "--python", place.python, *wheels)
    command = [f"{place.venv}/bin/pip-compile", "--quiet", "--generate-hashes", "--allow-unsafe"]
    command += ["--strip-extras", "--no-header", "--annotation-style", "split", "--no-config"]
    command += ["--no-emit-index-url", "--no-emit-trusted-host", "--no-emit-find-links"]
    command += ["--cache-dir", f"{asked['scratch']}/cache"]
    for path in asked["constraints"]:
        command += ["--constraint", path]
    if asked["no_binary"]:
        command += ["--pip-args", "--no-binary " + ",".join(asked["no_binary"])]
    # What is there already is kept, as far as it fits.
    answer = place.write("answer.txt", asked["pinned"])
    place.run(*command, "--output-file", answer, *asked["requirements"])
    return {"answer": Path(place.work, answer).read_text()}


def own_pip(place: Place) -> str:
    """Makes a folder that has pip, and nothing else of the base's; returns its version.

    It is the base's own; for a base without one, that of the wheel which was brought along.
    """
    folder = Path(place.pip)
    folder.mkdir()
    try:
        import pip
    except ImportError:
        wheels = list(Path(place.asked["tools"]).iterdir())
        if not wheels:
            print(f"\n{LACKS}", flush=True)
            sys.exit(1)
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as archive:
                members = [name for name in archive.namelist() if name.startswith("pip/")]
                archive.extractall(folder, members)
        text = (folder / "pip" / "__init__.py").read_text()
        found = re.search(r'__version__ = "([^"]+)"', text)
        return found[1] if found else ""
    (folder / "pip").symlink_to(Path(pip.__file__).resolve().parent)
    return str(pip.__version__)


def tried(place: Place) -> dict[str, Any]:
    """What `pip install` brings, as `pip freeze` says it."""
    asked = place.asked
    version = own_pip(place)
    numbers = place.prepare(version)
    place.environment()
    pip = [place.python, f"{place.pip}/pip"]
    command = [*pip, "install"]
    for path in asked["requirements"]:
        command += ["--requirement", path]
    for path in asked["constraints"]:
        command += ["--constraint", path]
    if asked["no_binary"]:
        command += ["--no-binary", ",".join(asked["no_binary"])]
    if asked["pinned"]:
        command += ["--constraint", place.write("pinned.txt", asked["pinned"])]
    place.run(*command)
    if numbers < (20, 3):
        # Until then pip installed also what does not go together.
        place.run(*pip, "check")
    listed = json.loads(place.said(place.python, "-c", LISTED))
    return {"pip": version, "frozen": place.said(*pip, "freeze", "--all"), **listed}


def main(path: str) -> None:
    """Does what is asked for in the file at this path."""
    asked = json.loads(Path(path).read_text())
    place = Place(asked, settings(asked, relayed(asked["socket"])))
    answer = compiled(place) if asked["locker"] == "pip-tools" else tried(place)
    print("\n" + MARK + json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
