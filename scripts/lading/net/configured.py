"""The Python package indexes the user has configured, for uv, pip and our own downloads alike.

Read, never written: uv's variables, else uv's own configuration files, else pip's variables
and configuration files in the order that pip documents ('Configuration' in pip's manual).
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from msgspec import Struct, ValidationError, convert, field

from lading import files

SYSTEM = Path("/etc")
"""Where configuration files of the whole machine are."""

CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "PIP_CERT")
"""Variables that name a site's own CA certificates; the first that is set counts."""

_NOT_UVS = frozenset(CA_VARIABLES) - {"SSL_CERT_FILE"}
_UV_VARIABLES = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL")
_PLACES = {
    **dict.fromkeys(_UV_VARIABLES, re.compile(r"(?P<name>[\w.-]+=)?(?P<place>\S+)")),
    "UV_FIND_LINKS": re.compile(r"(?P<name>)(?P<place>[^,]+)"),
    **dict.fromkeys(CA_VARIABLES, re.compile(r"(?P<name>)(?P<place>.+)")),
    "SSL_CERT_DIR": re.compile(r"(?P<name>)(?P<place>[^:]+)"),
}
"""Variables that name places, which may be paths, and where in their texts each of them stands."""
_PIP_SECTIONS = ("global", "install", "download")
_PORTS = {"http": 80, "https": 443}


class Indexes(Struct, frozen=True, kw_only=True):
    """Where Python packages come from. `default` is None for the tool's own default.

    URLs are whole, credentials included: `net.redact` them wherever they are shown.
    `no_index`: pip was told to ask none of the indexes, only `find_links`. A path is absolute.
    """

    default: str | None = None
    extra: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    no_index: bool = False
    from_pip: bool = False

    def all(self) -> tuple[str, ...]:
        """Every place, the first to be asked first."""
        first = () if self.default is None else (self.default,)
        return (*self.extra, *first, *self.find_links)


def indexes(environ: Mapping[str, str]) -> Indexes:
    """The indexes in force for a process with this environment."""
    if any(environ.get(name) for name in _UV_VARIABLES):
        return _from_uv_variables({**environ, **_absolute(environ)})
    return _from_uv_files(environ) or _from_pip(environ)


def uv_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What to add to `environ` so that uv asks the same indexes and trusts the same CA as pip.

    uv knows neither PIP_* nor pip.conf. Indexes as file:// URLs may stay: uv goes on to the next
    one when a folder, or a package in it, is missing (tried with uv 0.13). UV_NO_INDEX is none of
    uv's variables: `lading.uv` makes the option of it. Paths are absolute, for uv runs in a folder
    of its own.
    """
    added = {"UV_PYTHON_DOWNLOADS": "never", "UV_NO_PROGRESS": "1"}
    added |= {name: text for name, text in _absolute(environ).items() if name not in _NOT_UVS}
    certificates = ca_bundle(environ)
    if certificates is not None and not environ.get("SSL_CERT_FILE"):
        kind = "SSL_CERT_DIR" if Path(certificates[1]).is_dir() else "SSL_CERT_FILE"
        added[kind] = certificates[1]
    if any(environ.get(name) for name in _UV_VARIABLES):
        return added  # uv reads those itself
    # uv's own files count too: their indexes are handed over here, nothing else in them, since
    # what they may say of versions is no input of a lock.
    places = indexes(environ)
    if places.no_index:
        added["UV_NO_INDEX"] = "1"
    if places.default is not None and not places.no_index:
        added["UV_DEFAULT_INDEX"] = places.default
    if places.extra and not places.no_index:
        added["UV_INDEX"] = " ".join(places.extra)
        # pip takes the best version of all its indexes; uv, by itself, the first that has any.
        if places.from_pip and not environ.get("UV_INDEX_STRATEGY"):
            added["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    # pip warns about a missing folder, uv would stop there.
    links = [link for link in places.find_links if "://" in link or Path(link).exists()]
    if links and not environ.get("UV_FIND_LINKS"):
        added["UV_FIND_LINKS"] = ",".join(links)
    return added


def ca_bundle(environ: Mapping[str, str]) -> tuple[str, str] | None:
    """Who names the CA certificates to trust, and their path; None: nobody does."""
    for name in CA_VARIABLES:
        if environ.get(name):
            return name, str(Path(environ[name]).absolute())
    path = _pip_settings(environ).get("cert", "")
    return ("pip's `cert`", str(files.at_home(path).absolute())) if path else None


def credentials(
    url: str, environ: Mapping[str, str] | None = None, known: Indexes | None = None
) -> tuple[str, str] | None:
    """User and password for a download, from the configured index on the same origin.

    Same origin: scheme, host and port. Of several such indexes, the one that shares most of the
    path counts. With many URLs, pass what `indexes(environ)` said as `known`.
    """
    wanted = _split(url)
    if wanted is None:
        return None
    best: tuple[int, tuple[str, str]] | None = None
    for place in (known or indexes(os.environ if environ is None else environ)).all():
        index = _split(place)
        if index is None or _origin(index) != _origin(wanted):
            continue
        _, found = without_credentials(place)
        shared = _shared(index.path, wanted.path)
        if found is not None and (best is None or shared > best[0]):
            best = (shared, found)
    return None if best is None else best[1]


def without_credentials(url: str) -> tuple[str, tuple[str, str] | None]:
    """A URL without its user and password, and these (percent-decoded), if it had any."""
    parts = _split(url)
    if parts is None or "@" not in parts.netloc:
        return url, None
    userinfo, _, host = parts.netloc.rpartition("@")
    user, _, password = userinfo.partition(":")
    return urlunsplit(parts._replace(netloc=host)), (unquote(user), unquote(password))


def _shared(one: str, other: str) -> int:
    """How many leading path components are the same."""
    pairs = zip(one.split("/"), other.split("/"), strict=False)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), one.count("/") + 1)


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises when it is no number
    except ValueError:
        return None
    return parts if parts.hostname else None


def _origin(parts: SplitResult) -> tuple[str, str, int | None]:
    return parts.scheme, parts.hostname or "", parts.port or _PORTS.get(parts.scheme)


def _absolute(environ: Mapping[str, str]) -> dict[str, str]:
    """Of the variables that name places those with a path that is not absolute, made so."""

    def one(found: re.Match[str]) -> str:
        return f"{found['name'] or ''}{_place(found['place'])}"

    whole = {
        name: pattern.sub(one, environ[name])
        for name, pattern in _PLACES.items()
        if environ.get(name)
    }
    return {name: text for name, text in whole.items() if text != environ[name]}


def _place(text: str, folder: Path | None = None) -> str:
    """A URL as it is; a path as from a folder, or else from where lading runs."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", text):
        return text
    return str((folder or Path.cwd()) / text)


# uv


def _from_uv_variables(environ: Mapping[str, str]) -> Indexes:
    default = environ.get("UV_DEFAULT_INDEX") or environ.get("UV_INDEX_URL")
    extra = f"{environ.get('UV_INDEX', '')} {environ.get('UV_EXTRA_INDEX_URL', '')}".split()
    return Indexes(
        default=_named(default, environ) if default else None,
        extra=tuple(_named(text, environ) for text in extra),
        find_links=_uv_find_links(environ),
    )


def _uv_find_links(environ: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(link for link in environ.get("UV_FIND_LINKS", "").split(",") if link)


def _named(text: str, environ: Mapping[str, str]) -> str:
    """The URL in uv's `name=URL`; its credentials can stand in variables of the index's name."""
    match = re.match(r"([\w.-]+)=(.+)", text)
    return _with_variables(match[2], match[1], environ) if match else text


def _with_variables(url: str, name: str, environ: Mapping[str, str]) -> str:
    prefix = "UV_INDEX_" + re.sub(r"\W", "_", name.upper())
    user, password = environ.get(f"{prefix}_USERNAME"), environ.get(f"{prefix}_PASSWORD")
    parts = _split(url)
    if parts is None or "@" in parts.netloc or not (user or password):
        return url
    from urllib.parse import quote

    userinfo = f"{quote(user or '', safe='')}:{quote(password or '', safe='')}"
    return urlunsplit(parts._replace(netloc=f"{userinfo}@{parts.netloc}"))


class _UvTable(Struct, rename="kebab"):
    index_url: str | None = None
    extra_index_url: list[str] | None = None
    find_links: list[str] | None = None


class _UvIndex(Struct):
    url: str = ""
    name: str = ""
    default: bool = False


class _UvFile(_UvTable):
    """What counts here of a uv.toml."""

    index: list[_UvIndex] = field(default_factory=list)
    pip: _UvTable = field(default_factory=_UvTable)


def _from_uv_files(environ: Mapping[str, str]) -> Indexes | None:
    """What uv.toml says, if it names an index; the user's file goes before the machine's."""
    for path in _uv_files(environ):
        found = _uv_file(path, environ)
        if found is not None:
            return found
    return None


def _uv_files(environ: Mapping[str, str]) -> Iterator[Path]:
    if environ.get("UV_NO_CONFIG"):
        return
    if environ.get("UV_CONFIG_FILE"):
        yield Path(environ["UV_CONFIG_FILE"])
        return
    yield _user_configuration(environ) / "uv" / "uv.toml"
    yield SYSTEM / "uv" / "uv.toml"


def _uv_file(path: Path, environ: Mapping[str, str]) -> Indexes | None:
    if not path.is_file():
        return None
    import tomllib

    try:
        found = convert(tomllib.loads(path.read_text(encoding="utf-8")), _UvFile)
    except (OSError, ValueError, ValidationError):
        return None  # uv itself reports it, better than we could
    tables = [found.pip, found]
    default = next((t.index_url for t in tables if t.index_url is not None), None)
    extra = next(([*t.extra_index_url] for t in tables if t.extra_index_url is not None), [])
    for entry in found.index:
        url = _with_variables(entry.url, entry.name, environ)
        if entry.default:
            default = url
        else:
            extra.append(url)
    if default is None and not extra:
        return None
    links = next((t.find_links for t in tables if t.find_links is not None), [])
    # For uv, too, a path in its file is one from where that is.
    folder = path.absolute().parent
    return Indexes(
        default=None if default is None else _place(default, folder),
        extra=tuple(_place(url, folder) for url in extra),
        find_links=_uv_find_links({**environ, **_absolute(environ)})
        or tuple(_place(link, folder) for link in links),
    )


# pip


def _from_pip(environ: Mapping[str, str]) -> Indexes:
    settings = _pip_settings(environ)
    default = settings.get("index-url", "").strip()
    links = settings.get("find-links", "").split()
    return Indexes(
        default=_place(default) if default else None,
        extra=tuple(map(_place, settings.get("extra-index-url", "").split())),
        find_links=_uv_find_links({**environ, **_absolute(environ)})
        or tuple(_place(str(files.at_home(link)) if link[0] == "~" else link) for link in links),
        no_index=settings.get("no-index", "").lower() in ("1", "true", "yes", "on", "y", "t"),
        from_pip=True,
    )


def _pip_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """pip's settings by key: a later file beats an earlier one, a section [global], PIP_* all."""
    found: dict[str, dict[str, str]] = {}
    for path in _pip_files(environ):
        for section, values in _ini(path).items():
            found.setdefault(section, {}).update(values)
    settings: dict[str, str] = {}
    for section in _PIP_SECTIONS:
        settings.update(found.get(section, {}))
    for name in ("cert", "index-url", "extra-index-url", "find-links", "no-index"):
        value = environ.get("PIP_" + name.upper().replace("-", "_"))
        if value:
            settings[name] = value
    return settings


def _pip_files(environ: Mapping[str, str]) -> Iterator[Path]:
    """The machine's, the user's, the virtual environment's, and PIP_CONFIG_FILE's."""
    chosen = environ.get("PIP_CONFIG_FILE", "")
    if chosen == os.devnull:
        return
    for folder in reversed((environ.get("XDG_CONFIG_DIRS") or str(SYSTEM / "xdg")).split(":")):
        yield Path(folder) / "pip" / "pip.conf"
    yield SYSTEM / "pip.conf"
    if not (chosen and Path(chosen).exists()):
        yield _home(environ) / ".pip" / "pip.conf"
        yield _user_configuration(environ) / "pip" / "pip.conf"
    yield Path(sys.prefix) / "pip.conf"
    if chosen:
        yield Path(chosen)


def _ini(path: Path) -> dict[str, dict[str, str]]:
    if not path.is_file():
        return {}
    import configparser

    parser = configparser.RawConfigParser()
    try:
        parser.read(path, encoding="utf-8")
    except (OSError, ValueError, configparser.Error):
        return {}  # pip itself reports it; it is no reason not to start
    # Like pip, take `index_url` for `index-url`.
    return {
        section: {key.replace("_", "-"): value for key, value in parser.items(section) if value}
        for section in parser.sections()
    }


def _home(environ: Mapping[str, str]) -> Path:
    return Path(environ["HOME"]) if environ.get("HOME") else files.at_home("~")


def _user_configuration(environ: Mapping[str, str]) -> Path:
    folder = environ.get("XDG_CONFIG_HOME")
    return Path(folder) if folder else _home(environ) / ".config"
