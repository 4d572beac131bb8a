"""E*, C*, and F2 as far as settings go: what becomes of an image's configuration under Apptainer.

Apptainer turns ENV into a shell script and ENTRYPOINT and CMD into a runscript (user guide,
'Support for Docker and OCI Containers'); it was seen with Apptainer 1.4.5 what it makes of values.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from lading.checks.portability.findings import Found
from lading.checks.portability.subject import Subject

_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_CHANGED = re.compile(r'[$"\\\n]')
_SEARCHED = ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH")
_C_LOCALES = ("", "C", "POSIX", "C.UTF-8", "C.utf8")
_WRITABLE = ("/tmp", "/var/tmp", "/dev/shm")
# Caches whose folder a variable names, and the package that writes there.
_CACHES = {
    "MPLCONFIGDIR": "matplotlib",
    "NUMBA_CACHE_DIR": "numba",
    "PYTHONPYCACHEPREFIX": "",
    "XDG_CACHE_HOME": "",
    "XDG_CONFIG_HOME": "",
    "TRITON_CACHE_DIR": "triton",
    "HF_HOME": "huggingface_hub",
    "JUPYTER_RUNTIME_DIR": "jupyter_core",
    "IPYTHONDIR": "IPython",
}
_AS_ROOT = ("gosu", "su-exec", "sudo", "runuser", "setpriv", "chroot")
_INITS = ("/init", "/sbin/init", "/lib/systemd/systemd", "/usr/lib/systemd/systemd")


def check(subject: Subject) -> Iterator[Found]:
    """All findings about settings."""
    for name, value in subject.env.items():
        yield from _value(name, value)
    yield from _python(subject)
    yield from _locale(subject)
    yield from _caches(subject)
    yield from _conda(subject)
    yield from _idle(subject)
    yield from _commands(subject)
    yield from _under_root(subject)


def _value(name: str, value: str) -> Iterator[Found]:
    at = f"ENV {name}"
    if "`" in value:
        yield Found(
            "E1",
            "error",
            at,
            "a backtick in a value: Apptainer drops all of the image's ENV, with exit status 0",
            "write the value without it",
        )
    if _CHANGED.search(value):
        searched = name in _SEARCHED
        yield Found(
            "E2",
            "error" if searched else "warn",
            at,
            'a $, ", \\ or newline in a value: Apptainer changes it'
            + (", and what it names is not found" if searched else ""),
            "write the value without it",
        )
    if not _NAME.fullmatch(name):
        yield Found(
            "E3",
            "warn",
            at,
            "Apptainer drops a variable of such a name",
            "use letters, digits and _ only",
        )
    elif name == "HOME":
        yield Found(
            "E3", "warn", at, "Apptainer ignores it: HOME is the user's own", "leave it out"
        )
    if name == "LD_PRELOAD" and value:
        # ld.so(8): what can't be preloaded is a message on standard error of every process;
        # Apptainer's own --nv and a site's tools set it as well, and one replaces the other.
        yield Found(
            "E6",
            "warn",
            at,
            "it goes into every process, also Apptainer's own scripts, and replaces what a site "
            "sets (or is replaced by it)",
            "set it in the one command that needs it",
        )
    if name in _SEARCHED and value:
        # apptainer/singularity#1140: the working directory is the host's, often a slow shared one.
        bad = [part for part in value.split(":") if not part.startswith("/")]
        if bad:
            yield Found(
                "E12",
                "warn",
                at,
                f"an entry is {'empty' if not bad[0] else 'relative'}: the folder in which the "
                "user stands on the host is searched, and its files run",
                "name folders in full, and leave no : at an end",
            )
    if name == "LD_LIBRARY_PATH" and value:
        yield Found(
            "M7",
            "info",
            at,
            "APPTAINERENV_LD_LIBRARY_PATH, with which a host's MPI comes in, replaces it",
            "have ldconfig or RUNPATH find the image's own libraries",
        )


def _python(subject: Subject) -> Iterator[Found]:
    if not subject.python:
        return
    if not subject.env.get("PYTHONNOUSERSITE"):
        yield Found(
            "E4",
            "warn",
            "ENV PYTHONNOUSERSITE",
            "not set: packages in ~/.local of the host's user shadow the image's",
            "ENV PYTHONNOUSERSITE=1",
        )
    if "PYTHONPATH" not in subject.env:
        yield Found(
            "E5",
            "warn",
            "ENV PYTHONPATH",
            "not set: the host's leaks in, and its packages shadow the image's",
            "ENV PYTHONPATH= (empty does)",
        )


def _locale(subject: Subject) -> Iterator[Found]:
    """Locales and time zones that are named and not there: setlocale(3), tzset(3) fall back."""
    for name in ("LC_ALL", "LANG"):
        value = subject.env.get(name, "")
        if value in _C_LOCALES or subject.view.find("/usr/lib/locale/locale-archive"):
            continue
        bare = value.partition("@")[0]
        kin = {value, bare, value.replace("UTF-8", "utf8"), bare.replace("UTF-8", "utf8")}
        folders = ("/usr/lib/locale", "/usr/share/i18n/locales/musl", "/usr/share/locale-langpack")
        musl = any(library.startswith("ld-musl-") for library in subject.view.names("/lib"))
        if musl or any(subject.view.find(f"{at}/{one}") for at in folders for one in kin):
            continue
        yield Found(
            "E7",
            "warn",
            f"ENV {name}",
            f"the image has no locale {value}: programs warn, and fall back to ASCII",
            "ENV LANG=C.UTF-8, or generate the locale",
        )
    if "LANG" not in subject.env and "LC_ALL" not in subject.env:
        # Apptainer's user guide, 'Environment and Metadata': host-only variables come in.
        yield Found(
            "E7",
            "info",
            "ENV LANG",
            "not set: it is the host's, for which the image may have no locale",
            "ENV LANG=C.UTF-8",
        )
    zone = subject.env.get("TZ", "").removeprefix(":")
    named = re.fullmatch(r"[A-Z]\w+/[\w/+-]+", zone, re.ASCII)
    if named and subject.view.find(f"/usr/share/zoneinfo/{zone}") is None:
        yield Found(
            "E11",
            "warn",
            "ENV TZ",
            f"the image has no time zone {zone}: times are UTC, and nothing says so",
            "install tzdata, or leave TZ out: Apptainer brings the host's /etc/localtime",
        )


def _caches(subject: Subject) -> Iterator[Found]:
    """Caches that a read-only root does not take.

    numba/numba#4908 and #5566 ('cannot cache function: no locator available'), which many an
    HPC pipeline met under Singularity; matplotlib's FAQ on MPLCONFIGDIR.
    """
    for name in _CACHES:
        value = subject.env.get(name, "")
        if not value.startswith("/"):
            continue
        if not any(value == top or value.startswith(top + "/") for top in _WRITABLE):
            yield Found(
                "E8",
                "warn",
                f"ENV {name}",
                f"the cache is at {value}, where Apptainer's root is read-only: what writes there "
                "fails, or does its work at each start again",
                "leave it to the user, or name a folder in /tmp",
            )
    effects = {
        "numba": "with cache=True it writes beside its modules or into ~/.cache; with a home "
        "that can't be written, importing fails",
        "matplotlib": "it writes its font cache into ~/.cache; with a home that can't be "
        "written, it is made anew at each start",
    }
    for package, effect in effects.items():
        variable = "NUMBA_CACHE_DIR" if package == "numba" else "MPLCONFIGDIR"
        if variable not in subject.env:
            for path in subject.packages(package)[:1]:
                yield Found(
                    "E9", "info", path, effect, f"jobs without a home set {variable} to a folder"
                )


def _conda(subject: Subject) -> Iterator[Found]:
    """Environments that only a shell's start-up files or an ENTRYPOINT activate.

    apptainer/singularity#5075 and #5752, mamba-org/micromamba-docker#155: `exec` and `shell` run
    neither.
    """
    prefixes = sorted(
        path.removesuffix("/conda-meta")
        for path, node in subject.files
        if path.endswith("/conda-meta") and "history" in (node.children or {})
    )
    named = set(subject.path)
    active = [prefix for prefix in prefixes if f"{prefix}/bin" in named]
    of_envs = any("/envs/" in one for one in active)
    for prefix in prefixes:
        # Where one environment is on PATH, others are there to be called by their paths; only
        # a base that stands there for the sake of `conda` says nothing.
        if not active or ("/envs/" in prefix and not of_envs):
            yield Found(
                "E10",
                "warn",
                prefix,
                "this conda environment is not on PATH: apptainer exec runs neither .bashrc nor "
                "ENTRYPOINT, so nothing activates it",
                f"ENV PATH={prefix}/bin:$PATH",
            )
    seen: set[str] = set()
    for prefix in active:
        folder = subject.view.find(f"{prefix}/etc/conda/activate.d")
        if folder is None or folder.path in seen:
            continue
        seen.add(folder.path)
        for name in subject.view.names(folder.path):
            script = subject.view.file(f"{folder.path}/{name}")
            if script is None or script.path in seen or not name.endswith(".sh"):
                continue
            seen.add(script.path)
            text = script.node.content.decode("utf-8", "replace")
            # In a line: \s would go through all the empty ones again and again.
            sets = set(re.findall(r"^[ \t]*export[ \t]+([A-Za-z]\w*)=", text, re.MULTILINE))
            # What conda keeps for deactivation is of no use to anyone else.
            kept = {name for name in sets if re.match(r"_?CONDA_(BACKUP|SET)_", name)}
            missing = sorted(sets - kept - subject.env.keys())
            if missing:
                yield Found(
                    "E10",
                    "warn",
                    script.path,
                    f"nothing runs this script, so {', '.join(missing[:4])} "
                    f"{'is' if len(missing) == 1 else 'are'} not set",
                    "set them by ENV",
                )


def _idle(subject: Subject) -> Iterator[Found]:
    """C1: settings that do nothing under Apptainer."""
    user = str(subject.config.get("User") or "")
    if user.partition(":")[0] not in ("", "0", "root"):
        yield Found(
            "C1",
            "warn",
            "USER",
            f"{user} is ignored: it runs as whoever calls it",
            "let everybody read what the image needs",
        )
    folder = str(subject.config.get("WorkingDir") or "")
    if folder not in ("", "/"):
        yield Found(
            "C1",
            "warn",
            "WORKDIR",
            f"{folder} is ignored: it starts where the user stands on the host",
            "use full paths, or apptainer's --cwd",
        )
    if subject.config.get("Volumes"):
        yield Found("C1", "warn", "VOLUME", "it is ignored: nothing is mounted there", "use --bind")
    health = subject.config.get("Healthcheck")
    if isinstance(health, dict) and health.get("Test") not in (None, [], ["NONE"]):
        yield Found("C1", "warn", "HEALTHCHECK", "it is ignored: nobody asks", "leave it out")


def _commands(subject: Subject) -> Iterator[Found]:
    """C2, C3: commands that rely on being root, or on WORKDIR.

    s6-overlay's and gosu's documentation: both need root, and s6 a writable /run.
    """
    for setting, key in (("ENTRYPOINT", "Entrypoint"), ("CMD", "Cmd")):
        words = subject.command(key)
        if not words:
            continue
        first = words[0]
        if first.rpartition("/")[2] in _AS_ROOT or first in _INITS:
            yield Found(
                "C2",
                "warn",
                setting,
                f"{first} needs root, which nobody is under Apptainer: apptainer run fails",
                "start the program itself",
            )
        folder = str(subject.config.get("WorkingDir") or "/").rstrip("/")
        if setting == "CMD" and subject.command("Entrypoint"):
            words = words[:1]
        for word in words[:2]:
            inside = subject.view.file(f"{folder}/{word}") if "\0" not in word else None
            relative = "/" in word or subject.which(word) is None
            if word and not word.startswith(("/", "-")) and inside is not None and relative:
                yield Found(
                    "C3",
                    "warn",
                    setting,
                    f"{word} is meant in WORKDIR {folder or '/'}, which is ignored: apptainer run "
                    "does not find it",
                    f"write {inside.path}",
                )
                break


def _under_root(subject: Subject) -> Iterator[Found]:
    """F2 in settings: nobody but root enters /root."""
    places: list[tuple[str, list[str]]] = [
        ("ENTRYPOINT", subject.command("Entrypoint")),
        ("CMD", subject.command("Cmd")),
        ("ENV PATH", subject.env.get("PATH", "").split(":")),
        ("WORKDIR", [str(subject.config.get("WorkingDir") or "")]),
    ]
    for place, words in places:
        for word in words:
            if word == "/root" or word.startswith("/root/"):
                yield Found(
                    "F2",
                    "error",
                    place,
                    f"{word} is under /root, which no user may enter",
                    "install it under /opt",
                )
                break
