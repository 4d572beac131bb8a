"""The one place that speaks HTTP: proxies, a site's CA, credentials, retries, plain words.

What a library reads by itself from the process's environment (`requests`: proxies, NO_PROXY,
.netrc and NETRC) is left to it. No error and no log shows a credential.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from lading.errors import EnvironmentProblem, LadingError
from lading.net.configured import (
    Indexes,
    ca_bundle,
    credentials,
    indexes,
    uv_environment,
    without_credentials,
)

if TYPE_CHECKING:
    import requests
    from requests.adapters import HTTPAdapter

__all__ = [
    "CutOff",
    "Indexes",
    "Stopped",
    "answer_problem",
    "ask",
    "ca_bundle",
    "credentials",
    "host_of",
    "indexes",
    "local_path",
    "problem",
    "redact",
    "session",
    "settings_hint",
    "uv_environment",
    "without_credentials",
]

CONNECT_TIMEOUT = 15.0
"""Seconds until a connection stands."""
READ_TIMEOUT = 60.0
"""Seconds without a byte."""
RETRIES = 3
"""How often a request is made again that found no connection, or 429 or 5xx for an answer."""
BACKOFF = 0.5
"""Seconds; doubled with each try."""
RETRY_AFTER_LIMIT = 30.0
"""The longest wait, in seconds, that a server's Retry-After gets from us."""
POOL = 16
"""Connections kept open to one host."""

_USER_AGENT = "lading"
_RETRIED = (429, 500, 502, 503, 504)

_CUT_OFF = "the connection was cut off"

# As texts: `re` compiles them when they are first used, which most runs never do.
_USERINFO = r"""(?x)(?P<scheme>\b[A-Za-z][\w+.-]*://)
        (?: [^\s/"'<>]* @                       # user:password@, also with an @ in the password
          | [^\s/@:"'<>]+ : (?!\d+/) [^\s"'<>]* @ )   # … or, wrongly, with a / in it
    """
_SECRET_PARAMETER = (
    r"(?i)([?&][^=&\s]*(?:token|sig|secret|passw|key|credential|auth)[^=&\s]*=)[^&\s\"'<>)]+"
)


class Stopped(LadingError):
    """What was asked for is not wanted any more, for something else failed or the user said so."""


class CutOff(EnvironmentProblem):
    """The connection ended before the answer did: the next one may last."""


def redact(text: str) -> str:
    """A text without the credentials that stand in its URLs."""
    text = re.sub(_SECRET_PARAMETER, r"\1***", re.sub(_USERINFO, r"\g<scheme>***@", text))
    # The token of a conda channel is a part of the path.
    return re.sub(r"(/t/)[^/\s]+(?=/)", r"\1***", text)


def host_of(url: str) -> str:
    """Host, and port where one is given, for messages; of any text, also one that is no URL."""
    found = re.match(r"[\w+.-]+://(?:[^/?#]*@)?([^/?#]+)", redact(url))
    return found[1] if found else redact(url)


def local_path(url: str) -> Path:
    """The path that a file:// URL names (RFC 8089)."""
    return Path(unquote(urlsplit(url).path))


def session(
    environ: Mapping[str, str] | None = None,
    *,
    stop: Event | None = None,
    retries: int | None = None,
) -> requests.Session:
    """A session that can be shared by threads. `stop` ends its waiting between tries.

    Raises `EnvironmentProblem` when a variable names CA certificates that are not there.
    """
    import requests

    made = requests.Session()
    made.headers["User-Agent"] = _USER_AGENT
    certificates = ca_bundle(os.environ if environ is None else environ)
    if certificates is not None:
        name, path = certificates
        if not Path(path).exists():
            raise EnvironmentProblem(
                f"{name} names CA certificates that are not there: {path}",
                do=f"correct {name}, or unset it",
            )
        made.verify = path
    adapter = _adapter(stop or Event(), RETRIES if retries is None else retries)
    made.mount("https://", adapter)
    made.mount("http://", adapter)
    return made


def ask(
    session: requests.Session,
    url: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    auth: tuple[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
    stream: bool = False,
) -> requests.Response:
    """Makes one request, redirects followed; any status is an answer.

    Without `auth`, the user and password in the URL count, then .netrc's. Neither is sent to
    another host that a redirect leads to. Raises `EnvironmentProblem` when there is no answer.
    """
    import requests

    bare, found = without_credentials(url)
    try:
        return session.request(
            method,
            bare,
            headers=dict(headers or {}),
            auth=auth or found,
            stream=stream,
            allow_redirects=True,
        )
    except (requests.RequestException, OSError, ValueError) as error:
        raise problem(error, bare, environ) from error


def problem(
    error: BaseException, url: str, environ: Mapping[str, str] | None = None
) -> EnvironmentProblem:
    """What to tell the user when `url` could not be had: host, reason, settings in force."""
    reason = _reason(error)
    kind = CutOff if _CUT_OFF in reason else EnvironmentProblem
    # "certificate is not yet valid", "certificate has expired", as OpenSSL says it.
    clock = any(word in reason for word in ("not yet valid", "has expired"))
    what = "the clock of this machine and of that one" if clock else "the network"
    return kind(
        f"{host_of(url)} can't be reached: {reason}",
        why=settings_hint(url, environ),
        do=f"check {what} and these settings, then run it again; what is there is kept",
    )


def answer_problem(
    status: int, url: str, environ: Mapping[str, str] | None = None
) -> EnvironmentProblem:
    """What to tell the user when `url` answered with a status that is no content."""
    bare, _ = without_credentials(url)
    advice = {
        401: "give user and password in the index's URL or in ~/.netrc",
        403: "the credentials in the index's URL or in ~/.netrc may not read this",
        407: "give user and password in the proxy's URL",
        429: "wait some minutes, then run it again; what is there is kept",
    }
    return EnvironmentProblem(
        f"{host_of(url)} answered HTTP {status} {_phrase(status)}".rstrip(),
        why=f"{redact(bare)}\n{settings_hint(url, environ)}",
        do=advice.get(status, "run it again later; what is there is kept"),
    )


def settings_hint(url: str = "", environ: Mapping[str, str] | None = None) -> str:
    """In one line, without credentials: the proxy (for `url`, if given), the indexes and the CA."""
    environ = os.environ if environ is None else environ
    places = indexes(environ)
    own = () if places.no_index else (places.default, *places.extra)
    named = [place for place in (*own, *places.find_links) if place]
    nowhere = "none, by pip's `no-index`" if places.no_index else "the default"
    certificates = ca_bundle(environ)
    return redact(
        f"in force: proxy: {_proxy(url) or 'none'}; "
        f"package indexes: {' '.join(named) or nowhere}; "
        f"CA certificates: {' = '.join(certificates) if certificates else 'the default'}"
    )


def _proxy(url: str) -> str:
    """The proxy for this URL; all proxies, if it is none."""
    from urllib.request import getproxies

    from requests.utils import get_environ_proxies, select_proxy

    try:
        if url:
            return select_proxy(url, get_environ_proxies(url)) or ""
    except ValueError:
        pass  # no URL that could be read
    return " ".join(sorted(set(getproxies().values())))


def _adapter(stop: Event, retries: int) -> HTTPAdapter:
    from requests.adapters import HTTPAdapter
    from urllib3.exceptions import SSLError
    from urllib3.util.retry import Retry

    class Patient(Retry):
        """Retries whose waiting is bounded and can be stopped; no second try for a bad CA."""

        def sleep(self, response: Any = None) -> None:
            seconds = (self.get_retry_after(response) if response else None) or 0.0
            seconds = min(seconds, RETRY_AFTER_LIMIT) or self.get_backoff_time()
            if stop.wait(seconds):
                raise Stopped("stopped")

        def increment(self, *args: Any, **kwargs: Any) -> Any:
            distrust = isinstance(kwargs.get("error"), SSLError)
            return super(Patient, self.new(total=0) if distrust else self).increment(
                *args, **kwargs
            )

    class Adapter(HTTPAdapter):
        def send(self, request: Any, *args: Any, **kwargs: Any) -> requests.Response:
            if kwargs.get("timeout") is None:
                kwargs["timeout"] = (CONNECT_TIMEOUT, READ_TIMEOUT)
            if stop.is_set():
                raise Stopped("stopped")
            return super().send(request, *args, **kwargs)

    patience = Patient(
        total=retries,
        read=min(retries, 1),
        status_forcelist=_RETRIED,
        backoff_factor=BACKOFF,
        raise_on_status=False,
    )
    return Adapter(max_retries=patience, pool_connections=POOL, pool_maxsize=POOL)


def _phrase(status: int) -> str:
    from http import HTTPStatus

    try:
        return f"({HTTPStatus(status).phrase})"
    except ValueError:
        return ""


def _reason(error: BaseException) -> str:
    """The innermost cause, in plain words."""
    import socket
    import ssl

    from urllib3 import exceptions as urllib3

    causes = list(_causes(error))
    through = "the proxy: " if _any(causes, urllib3.ProxyError) else ""
    words: list[tuple[type[BaseException] | tuple[type[BaseException], ...], str]] = [
        ((socket.gaierror, urllib3.NameResolutionError), "its name is not known (DNS)"),
        (ConnectionRefusedError, "nothing listens there (connection refused)"),
        (ssl.SSLCertVerificationError, "its TLS certificate is not trusted"),
        ((ssl.SSLError, urllib3.SSLError), "no TLS connection"),
        (urllib3.ReadTimeoutError, f"no byte came for {READ_TIMEOUT:.0f} s"),
        (urllib3.NewConnectionError, "no connection"),
        (urllib3.ConnectTimeoutError, f"no connection within {CONNECT_TIMEOUT:.0f} s"),
        ((urllib3.ProtocolError, ConnectionError), _CUT_OFF),
    ]
    for kinds, text in words:
        found = _any(causes, kinds)
        if found is not None:
            return through + text + _detail(found)
    return redact(through + (str(causes[-1]) or type(causes[-1]).__name__))


def _detail(error: BaseException) -> str:
    """What a TLS library or the operating system adds, if it says something of its own."""
    text = getattr(error, "verify_message", "") or ""
    if not text and isinstance(getattr(error, "strerror", None), str):
        text = str(getattr(error, "strerror", ""))
    return f" ({redact(text)})" if text and "refused" not in text.lower() else ""


def _any(
    causes: list[BaseException], kinds: type[BaseException] | tuple[type[BaseException], ...]
) -> BaseException | None:
    return next((cause for cause in causes if isinstance(cause, kinds)), None)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what caused it, as requests and urllib3 nest them."""
    seen: set[int] = set()
    open_ends: list[Any] = [error]
    while open_ends:
        cause = open_ends.pop(0)
        if isinstance(cause, BaseException) and id(cause) not in seen:
            seen.add(id(cause))
            yield cause
            inner = [getattr(cause, "reason", None), getattr(cause, "original_error", None)]
            open_ends += [*inner, *cause.args, cause.__cause__, cause.__context__]
