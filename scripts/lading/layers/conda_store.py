"""A conda layer's packages in the store: fetched, looked into, and installed into a prefix there.

What follows from packages alone is kept under their sha256, and made once.
"""

from __future__ import annotations

import json
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lading import locks, net
from lading.conda import activation, archives, prefix, worker
from lading.conda.activation import Variable
from lading.conda.archives import Contents
from lading.conda.channels import Channels
from lading.conda.condarc import Settings
from lading.conda.explicit import Package
from lading.errors import EnvironmentProblem, LadingError
from lading.layers.conda import TAR
from lading.layers.kind import Tools
from lading.store import Artifact, Source, Store

if TYPE_CHECKING:
    from lading.layers.conda import CondaLock, Request

_LOOKED = "conda-2.json"
"""What was found in a package; another name where something else is looked for."""


def answered(
    task: str, question: Mapping[str, Any], tools: Tools, settings: Settings | None = None
) -> Any:
    """What py-rattler answers, under the user's own settings for the network."""
    with tempfile.TemporaryDirectory(prefix="lading-conda-") as folder:
        return worker.ask(
            task,
            {**question, "folder": folder},
            environ=environment(tools.environ, settings),
            note=tools.note,
        )


def environment(environ: Mapping[str, str], settings: Settings | None) -> dict[str, str]:
    """The variables that py-rattler reads: proxies and certificates, also those of .condarc."""
    found = dict(environ)
    if settings is not None:
        for scheme, proxy in settings.proxies.items():
            name = f"{scheme.partition(':')[0].upper()}_PROXY"
            if not environ.get(name) and not environ.get(name.lower()):
                found[name] = proxy
    bundle = net.ca_bundle(environ)
    certificates = bundle[1] if bundle else settings.certificates if settings else ""
    if certificates and not environ.get("SSL_CERT_FILE"):
        kind = "SSL_CERT_DIR" if Path(certificates).is_dir() else "SSL_CERT_FILE"
        found[kind] = certificates
    return found


# -- packages -------------------------------------------------------------------------------


def sources(
    packages: Sequence[Package], lacking: Sequence[Artifact], channels: Channels
) -> dict[str, list[Source]]:
    """Where these packages can be had today, by sha256."""
    wanted = {artifact.sha256 for artifact in lacking}
    bases = {
        name: net.without_credentials(channels.one(name).url)
        for name in sorted({p.channel for p in packages if p.sha256 in wanted})
    }
    found: dict[str, list[Source]] = {}
    for package in packages:
        if package.sha256 in wanted:
            base, auth = bases[package.channel]
            url = f"{base.rstrip('/')}/{package.subdir}/{package.file}"
            found[package.sha256] = [Source(url=url, auth=auth)]
    return found


def fetched(packages: Sequence[Package], channels: Channels, tools: Tools) -> tuple[Contents, ...]:
    """Brings the packages into the store; what they hold."""
    artifacts = [package.artifact for package in packages]
    lacking = tools.store.lacking(artifacts)
    if lacking:
        total = sum(artifact.size or 0 for artifact in lacking)
        tools.note(f"  fetching {len(lacking)} packages, {total / 1e6:.0f} MB, to look into them")
        tools.store.fetch(
            artifacts, lambda wanted: sources(packages, wanted, channels), environ=tools.environ
        )
    return looked_into(packages, tools)


def looked_into(packages: Sequence[Package], tools: Tools) -> tuple[Contents, ...]:
    """What packages that are in the store hold; each is looked into once.

    Raises `LadingError` for one that must not be unpacked.
    """
    store = tools.store
    unknown = [package for package in packages if not store.has_derived(package.sha256, _LOOKED)]
    if unknown:
        with tempfile.TemporaryDirectory(prefix="lading-conda-") as folder:
            listed = []
            for number, package in enumerate(unknown):
                # By its name py-rattler tells one format from the other.
                at = Path(folder) / str(number) / package.file
                at.parent.mkdir()
                at.symlink_to(store.path(package.sha256))
                listed.append(
                    {
                        "file": package.file,
                        "subdir": package.subdir,
                        "sha256": package.sha256,
                        "path": str(at),
                    }
                )
            found = _asked("inspect", {"packages": listed}, tools)
        contents = {p.sha256: Contents.from_dict(found[p.sha256]) for p in unknown}
        refuse_dangerous(unknown, [contents[package.sha256] for package in unknown])
        for package in unknown:
            _remember(store, package.sha256, found[package.sha256])
    known = tuple(
        Contents.from_dict(
            json.loads((store.root / "derived" / package.sha256 / _LOOKED).read_text())
        )
        for package in packages
    )
    refuse_dangerous(packages, known)
    return known


def _remember(store: Store, sha256: str, found: Mapping[str, Any]) -> None:
    def make(out: Path) -> None:
        out.write_text(json.dumps(found), encoding="utf-8")

    store.derived(sha256, _LOOKED, make)


def refuse_dangerous(packages: Sequence[Package], contents: Sequence[Contents]) -> None:
    """Raises `LadingError` for packages that would write outside of a prefix, or are others than
    they are called.
    """
    wrong = [(p.file, one.problems) for p, one in zip(packages, contents, strict=True)]
    wrong = [(file, problems) for file, problems in wrong if problems]
    together = archives.together(contents)
    if wrong or together:
        said = [f"{file}: {problem}" for file, problems in wrong for problem in problems[:3]]
        several = f"{len(wrong)} packages" if wrong else "these packages, into one prefix,"
        raise LadingError(
            f"{wrong[0][0] if len(wrong) == 1 else several} can't be unpacked safely",
            why="\n".join([*said, *together[:5]]),
            do="ask whoever runs that channel; such a package is broken, or an attack",
        )


def _asked(task: str, question: Mapping[str, Any], tools: Tools) -> Any:
    try:
        return answered(task, question, tools)
    except worker.Refused as refused:
        raise LadingError(refused.text) from refused


# -- the prefix -----------------------------------------------------------------------------


def prepared(asked: Request, lock: CondaLock, tools: Tools) -> Path:
    """The prefix of a lock as a tar in the store: staged where its packages are, if it is not
    there yet. Raises `LadingError`.
    """
    return tools.store.derived(lock.key, TAR, lambda out: _stage(asked, lock, tools, out))


def _stage(asked: Request, lock: CondaLock, tools: Tools, out: Path) -> None:
    looked_into(lock.packages, tools)
    # Beside the archive, so that files are linked out of py-rattler's cache, and not copied.
    with tempfile.TemporaryDirectory(dir=out.parent, prefix="staged-") as folder:
        staged = Path(folder) / "prefix"
        (Path(folder) / "work").mkdir()
        question = {
            "lock": _body(lock),
            "packages": [
                {"url": p.url, "path": str(tools.store.path(p.sha256))} for p in lock.packages
            ],
            "subdir": asked.subdir,
            "prefix": lock.prefix,
            "staging": str(staged),
            "folder": str(Path(folder) / "work"),
        }
        try:
            worker.ask("stage", question, environ=tools.environ, note=tools.note)
        except worker.Refused as refused:
            raise LadingError(
                f"{asked.where}: its packages can't be installed", why=refused.text
            ) from refused
        prefix.as_conda_leaves_it(staged, lock.prefix, lock.packages, lock.specs)
        prefix.write(staged, lock.prefix, out)


def _body(lock: CondaLock) -> str:
    text = lock.texts["conda.lock"]
    return locks.split(text, "conda.lock")[1] if text.startswith("#") else text


# -- activation -----------------------------------------------------------------------------


def activated(
    asked: Request, lock: CondaLock, contents: Sequence[Contents], tools: Tools
) -> tuple[Variable, ...]:
    """The variables that conda's activation would set, found out in a container of the base.

    No container is started where no package has such scripts. Raises `LadingError` for a value
    that would not arrive under Apptainer, and `EnvironmentProblem` without an engine.
    """
    scripts = {path: one.name for one in contents for path in one.activation}
    files = {path: one.name for one in contents for path in one.variables}
    if not scripts and not files:
        return ()
    tar = prepared(asked, lock, tools)
    found: dict[str, Variable] = {}
    for variable in _written(tar, lock.prefix, sorted(files)):
        found[variable.name] = variable
    if scripts:
        for variable in _sourced(asked, lock, tar, sorted(scripts), tools):
            found[variable.name] = variable
    variables = tuple(v for name, v in sorted(found.items()) if name not in asked.overridden)
    activation.refuse_mangled(variables, {**files, **scripts})
    return variables


def _written(tar: Path, below: str, files: Sequence[str]) -> list[Variable]:
    """The variables in a prefix's env_vars.d."""
    found: list[Variable] = []
    with tarfile.open(tar) as archive:
        for path in files:
            member = archive.extractfile(f"{below.strip('/')}/{path}")
            try:
                said = json.loads(member.read()) if member is not None else {}
                found += [
                    Variable(name=str(name), value=str(value), script=path)
                    for name, value in dict(said).items()
                ]
            except ValueError as error:
                raise LadingError(f"{below}/{path} is not JSON", why=str(error)) from error
    return found


def _sourced(
    asked: Request, lock: CondaLock, tar: Path, scripts: Sequence[str], tools: Tools
) -> tuple[Variable, ...]:
    from lading.engines import Mount

    try:
        in_base = tools.in_base()
    except EnvironmentProblem as error:
        raise EnvironmentProblem(
            f"{asked.where}: packages set variables when conda activates; what they "
            "set is found out in the base, which takes an engine",
            why=f"{', '.join(scripts)}\n{error.what}\n{error.why}".strip(),
            do=error.do,
        ) from error
    begin = 'exec env -i HOME=/tmp LANG=C.UTF-8 PATH="$PATH" "$(command -v bash || command -v sh)"'
    with tempfile.TemporaryDirectory(prefix="lading-conda-") as folder:
        script = Path(folder) / "activation.sh"
        script.write_text(activation.script(lock.prefix, scripts))
        with tarfile.open(tar) as archive:
            # Written by ourselves; a filter by name is not known to every Python 3.11.
            archive.extraction_filter = lambda member, _: member
            archive.extractall(folder)
        result = in_base(
            ["sh", "-c", f"{begin} /lading/activation.sh"],
            mounts=[
                Mount(source=Path(folder) / lock.prefix.strip("/"), target=lock.prefix),
                Mount(source=script, target="/lading/activation.sh"),
            ],
        )
    return activation.compared(result.output)
