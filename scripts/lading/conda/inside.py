"""What runs beside lading with py-rattler in it: `python -m lading.conda.inside`.

Reads one question from standard input and writes the answer to the file that it names, then ends
without waiting for py-rattler's own threads: py-rattler 0.28 crashes there in some runs.
"""

from __future__ import annotations

import asyncio
import difflib
import hashlib
import json
import os
import re
import sys
import traceback
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lading.conda import archives
from lading.conda.explicit import BASE
from lading.conda.worker import PHASE

if TYPE_CHECKING:
    from rattler import (
        Channel,
        Client,
        Config,
        Gateway,
        LockFile,
        MatchSpec,
        RepoDataRecord,
        Subdir,
    )

Question = dict[str, Any]
NEAREST = 3
"""How many names are offered in place of one that is not there."""
LISTED = 8
"""How many versions of a package are named."""
OTHERS = ("linux-64", "linux-aarch64", "osx-arm64", "win-64")
"""Where a package is looked for that the platform does not have."""


class Refusal(Exception):
    """What can't be done, as `worker.Refused` hands it on."""

    def __init__(self, kind: str, text: str, **found: Any) -> None:
        super().__init__(text)
        self.kind = kind
        self.found = found


def say(text: str) -> None:
    """What is being done now."""
    print(f"{PHASE}{text}", flush=True)


async def alias(_question: Question) -> str:
    """The URL that a channel's name stands behind where nothing else is configured."""
    from rattler import Channel

    url: str = Channel("x").base_url
    return url.rstrip("/").removesuffix("/x")


# -- resolving ------------------------------------------------------------------------------


async def solve(question: Question) -> str:
    """A LockFile's text, for one platform: URLs are `channel:///NAME/SUBDIR/FILE`."""
    import rattler
    from rattler import exceptions

    channels = {one["name"]: rattler.Channel(one["url"]) for one in question["channels"]}
    gateway = _gateway(question)
    platforms: list[Subdir] = [rattler.Subdir(question["subdir"]), rattler.Subdir("noarch")]
    # The solver compares a single package's channel with what it shows of it.
    specs = [_spec(masked(text)) for text in question["specs"]]
    say(f"reading what {', '.join(channels)} offer{'s' if len(channels) == 1 else ''}")
    try:
        kept = await _kept(question, channels, gateway, platforms)
        say(f"resolving {len(specs)} specs")
        records = await rattler.solve(
            list(channels.values()),
            specs,
            gateway=gateway,
            platforms=platforms,
            locked_packages=kept,
            virtual_packages=[
                rattler.GenericVirtualPackage(
                    rattler.PackageName(name), rattler.Version(version), rattler.BuildString(build)
                )
                for name, version, build in question["virtual"]
            ],
            channel_priority=getattr(rattler.ChannelPriority, question["priority"].capitalize()),
            exclude_newer=(
                datetime.fromisoformat(question["before"]) if question["before"] else None
            ),
            constraints=[_spec(text) for text in question["constraints"]],
        )
    except exceptions.SolverError as error:
        raise await _unsolved(str(error), channels, gateway, platforms) from error
    except exceptions.GatewayError as error:
        raise Refusal("channel", str(error)) from error
    await _hashed(records)
    return _lock_text(question["subdir"], channels, records, Path(question["folder"]))


async def exact(question: Question) -> str:
    """A LockFile's text of exactly these packages, (name, version, build, channel or nothing)."""
    import rattler
    from rattler import exceptions

    channels = {one["name"]: rattler.Channel(one["url"]) for one in question["channels"]}
    platforms: list[Subdir] = [rattler.Subdir(question["subdir"]), rattler.Subdir("noarch")]
    wanted = {(name, version, build): ch for name, version, build, ch in question["packages"]}
    say(f"reading what {', '.join(channels)} say of {len(wanted)} packages")
    try:
        found = await _gateway(question).query(
            list(channels.values()),
            platforms,
            sorted({name for name, _, _ in wanted}),
            recursive=False,
        )
    except exceptions.GatewayError as error:
        raise Refusal("channel", str(error)) from error
    order = list(channels)
    chosen: dict[tuple[str, str, str], tuple[int, RepoDataRecord]] = {}
    for record in (record for records in found for record in records):
        key = (record.name.normalized, str(record.version), str(record.build))
        channel = _channel_of(record, channels)
        if key not in wanted or channel not in order or wanted[key] not in ("", channel):
            continue
        rank = order.index(channel)  # the first channel that has it
        if key not in chosen or rank < chosen[key][0]:
            chosen[key] = rank, record
    if lacking := sorted("=".join(key) for key in wanted.keys() - chosen.keys()):
        raise Refusal("package", f"none of {', '.join(order)} has {', '.join(lacking)}")
    records = [record for _, record in chosen.values()]
    await _hashed(records)
    return _lock_text(question["subdir"], channels, records, Path(question["folder"]))


def _gateway(question: Question) -> Gateway:
    import rattler

    return rattler.Gateway.from_config(_config(), cache_dir=question["cache"], client=_client())


def _client() -> Client:
    import rattler

    return rattler.Client.from_config(_config())


def _config() -> Config:
    import rattler

    # The trusted certificates are the system's, or SSL_CERT_FILE's, as for lading itself.
    return rattler.Config.from_toml('tls-root-certs = "system"')


def _spec(text: str) -> MatchSpec:
    import rattler
    from rattler import exceptions

    try:
        return rattler.MatchSpec(text, strict=False)
    except exceptions.InvalidMatchSpecError as error:
        raise Refusal("spec", str(error).partition("\n")[0], spec=text) from error


async def _kept(
    question: Question, channels: dict[str, Channel], gateway: Gateway, platforms: list[Subdir]
) -> list[RepoDataRecord]:
    """The packages of the lock before, as the channels describe them today; what they have no
    more is left out, or it would be locked again.
    """
    pinned = {tuple(pin) for pin in question["kept"]}  # (file, sha256)
    if not pinned:
        return []
    names = sorted({file.rsplit("-", 2)[0] for file, _ in pinned})
    found = await gateway.query(list(channels.values()), platforms, names, recursive=False)
    return [
        record
        for records in found
        for record in records
        if record.sha256 is not None and (record.file_name, record.sha256.hex()) in pinned
    ]


async def _hashed(records: Sequence[RepoDataRecord]) -> None:
    """Measures the packages that their channel gives no sha256 of, as old ones do."""
    from rattler import exceptions
    from rattler.package_streaming import download_bytes

    for record in records:
        if record.sha256 is not None and record.size is not None:
            continue
        say(f"measuring {record.file_name}")
        try:
            data = await download_bytes(_client(), record.url)
        except exceptions.GatewayError as error:
            raise Refusal("channel", str(error)) from error
        except Exception as error:
            raise Refusal("channel", f"{record.file_name}: {error}") from error
        for known, made in ((record.md5, "md5"), (record.sha256, "sha256")):
            if known is not None and hashlib.new(made, data).digest() != known:
                raise Refusal(
                    "package", f"{record.file_name}: its content has not the {made} of its channel"
                )
        record.sha256 = hashlib.sha256(data).digest()
        record.size = len(data)


def _lock_text(
    subdir: str, channels: dict[str, Channel], records: Iterable[RepoDataRecord], folder: Path
) -> str:
    import rattler

    platform = rattler.LockPlatform(subdir)
    lock = rattler.LockFile([platform])
    lock.set_channels("default", [rattler.LockChannel(f"{BASE}{name}") for name in channels])
    for record in records:
        name = _channel_of(record, channels)
        if not name:
            raise Refusal("package", f"{record.file_name}: it comes from none of the channels")
        record.channel = f"{BASE}{name}"
        record.url = f"{BASE}{name}/{record.subdir}/{record.file_name}"
        lock.add_conda_package("default", platform, record)
    path = folder / "conda.lock"
    lock.to_path(path)
    # When a server took a package up differs from mirror to mirror.
    return re.sub(r"(?m)^  indexed_timestamp: .*\n", "", path.read_text(encoding="utf-8"))


def _channel_of(record: RepoDataRecord, channels: dict[str, Channel]) -> str:
    """The name of the channel that a record is from; py-rattler masks what is secret in `channel`
    and not in `url`, which may be elsewhere (CEP 15).
    """
    inside = [name for name, one in channels.items() if record.url.startswith(one.base_url)]
    known = [name for name, one in channels.items() if masked(one.base_url) == record.channel]
    return max([*inside, *known], key=lambda name: len(channels[name].base_url), default="")


def masked(url: str) -> str:
    """A channel's URL as py-rattler shows it."""
    url = re.sub(r"(?<=://)([^/:@]*):[^/@]*@", r"\1:********@", url)
    return re.sub(r"/t/[^/]+/", "/t/********/", url)


async def _unsolved(
    text: str, channels: dict[str, Channel], gateway: Gateway, platforms: list[Subdir]
) -> Refusal:
    """The explanation, and of packages without candidates what there is instead."""
    lacking: dict[str, dict[str, list[str]]] = {}
    wanted = r"candidates were found for ([^\s\[]+)|─ ([^\s\[]+)[^\n]*for which no candidates"
    names = {one or other for one, other in re.findall(wanted, text)}
    real = sorted(name for name in names if not name.startswith("__"))
    if real:
        say("looking for what there is instead")
        sources = list(channels.values())
        known = {name.normalized for name in await gateway.names(sources, platforms)}
        for name in real:
            plain = name.rpartition("::")[2]
            if plain not in known:
                lacking[plain] = {
                    "near": difflib.get_close_matches(plain, known, NEAREST, 0.6),
                    "elsewhere": await _elsewhere(plain, sources, gateway, platforms),
                }
                continue
            found = await gateway.query(sources, platforms, [plain], recursive=False)
            versions = {record.version for records in found for record in records}
            lacking[plain] = {"versions": [str(one) for one in sorted(versions)][-LISTED:]}
    return Refusal("unsolved", text, lacking=lacking)


async def _elsewhere(
    name: str, sources: list[Channel], gateway: Gateway, platforms: list[Subdir]
) -> list[str]:
    """The other platforms that a package is there for; a channel need not have any of them."""
    import rattler
    from rattler import exceptions

    found: list[str] = []
    for platform in map(rattler.Subdir, OTHERS):
        if platform in platforms:
            continue
        with suppress(exceptions.GatewayError):
            names = {one.normalized for one in await gateway.names(sources, [platform])}
            found += [str(platform)] if name in names else []
    return found


# -- packages -------------------------------------------------------------------------------


async def inspect(question: Question) -> dict[str, Any]:
    """What packages hold that matters here, by sha256; `archives.Contents` as plain data."""
    found: dict[str, Any] = {}
    for number, package in enumerate(question["packages"], 1):
        say(f"looking into packages, {number} of {len(question['packages'])}")
        found[package["sha256"]] = await _contents(
            Path(package["path"]), package["file"], package["subdir"]
        )
    return found


async def _contents(path: Path, file: str, subdir: str) -> dict[str, Any]:
    from rattler.package_streaming import PackageArchive

    try:
        archive = await PackageArchive.from_path(path)
        entries = [
            archives.Entry(
                name=entry.name,
                link="hard" if entry.is_hardlink else "symbolic" if entry.is_symlink else "",
                target=entry.link_target or "",
            )
            for section in ("info", "pkg")
            async for entry in archive.stream(cast(Any, section))
        ]
        index = json.loads(await archive.read_file("info/index.json") or b"{}")
        paths = json.loads(await archive.read_file("info/paths.json") or b"{}")
    except Exception as error:
        # py-rattler itself does not open an archive with some of the names that lead out.
        said = f"no conda package, or a damaged one: {error}"
        return archives.Contents(name=file, problems=(said,)).to_dict()
    return archives.contents(file, subdir, entries, index, paths).to_dict()


async def stage(question: Question) -> None:
    """Installs a lock's packages into a folder, patched for the prefix they are meant for."""
    import rattler
    from rattler import exceptions

    folder = Path(question["folder"])
    lock = folder / "conda.lock"
    lock.write_text(question["lock"], encoding="utf-8")
    records = _records(rattler.LockFile.from_path(lock))
    packages = folder / "packages"
    packages.mkdir()
    stored = {one["url"]: one["path"] for one in question["packages"]}
    if {record.url for record in records} != set(stored):
        raise Refusal("package", "explicit.txt names other packages than conda.lock")
    for record in records:
        at = packages / record.subdir / record.file_name
        at.parent.mkdir(exist_ok=True)
        at.symlink_to(stored[record.url])
        record.url = at.as_uri()
    say(f"installing {len(records)} packages")
    try:
        await rattler.install(
            records,
            question["staging"],
            cache_dir=folder / "cache",
            platform=rattler.Subdir(question["subdir"]),
            alternative_target_prefix=question["prefix"],
            execute_link_scripts=False,
            show_progress=False,
        )
    except exceptions.InstallerError as error:
        raise Refusal("package", str(error)) from error


def _records(lock: LockFile) -> list[RepoDataRecord]:
    environment = lock.default_environment()
    assert environment is not None
    (platform,) = lock.platforms()
    return list(environment.conda_repodata_records_for_platform(platform) or ())


TASKS: dict[str, Callable[[Question], Awaitable[Any]]] = {
    "alias": alias,
    "solve": solve,
    "exact": exact,
    "inspect": inspect,
    "stage": stage,
}


def main() -> int:
    """Answers one question; the exit code is 0 when there is an answer, also a refusal."""
    question = json.load(sys.stdin)
    try:
        answer: dict[str, Any] = {"found": asyncio.run(_answer(question))}
    except Refusal as refusal:
        answer = {"error": refusal.kind, "text": str(refusal), **refusal.found}
    except Exception:
        traceback.print_exc()
        return 1
    part = Path(f"{question['answer']}.part")
    part.write_text(json.dumps(answer), encoding="utf-8")
    part.replace(question["answer"])
    return 0


async def _answer(question: Question) -> Any:
    return await TASKS[question["task"]](question)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
