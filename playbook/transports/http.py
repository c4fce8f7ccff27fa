"""HTTP to a vendor: the only place that knows httpx.

One `Http` per session: one client, a bound on every wait and on every body. Five rules:

* **At most once.** Every request names its retry class. What may have been carried out is never sent again, unless it is `SAFE` to repeat.
* **Every failure is a `ProviderError`** that says what is known: `refused` (surely not carried out), `ambiguous` (nobody knows). A
  vendor's file gives statuses their meaning by `explain`.
* **An answer belongs to its request.** A connection on which more has come than the answer that was asked for is thrown away before the
  next request could take the rest for its own answer.
* **A web page is no answer**, whatever its status says: a proxy or a network's login page sent it (`Answer.foreign`).
* **No credential leaves this room**: they are headers of the client, not of a `Request`, and are removed from what vendors say.

`Send` is the seam: cassettes wrap the real one (`Http.wrap`) and see requests without credentials. A connection that the server
closes in the very moment in which we use it again looks like an answer that was lost; connections idle for 4 seconds are therefore not
used again, and servers commonly close theirs after 5 or more.

httpx itself is imported with the first request, because it costs a tenth of a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import ipaddress
import json
import re
import socket
import ssl
import zlib
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass

from playbook.clock import Clock, wall_time
from playbook.errors import ProviderError, SetupError, reason_of
from playbook.record.redact import Redactor, quoted

if TYPE_CHECKING:
    import httpx

CONNECT_S = 5.0
ANSWER_S = 10.0
KEEPALIVE_S = 4.0
MAX_BODY = 1_000_000
UPLOAD_BYTES_PER_S = 50_000
"""The slowest line on which an upload may still succeed; it lengthens the whole request's time."""

BACKOFF_MS = (250, 500, 1_000, 2_000, 4_000)
MAX_SAID, MAX_MESSAGE = 300, 600
"""How many characters of what a vendor says are quoted, and may be in a whole message with that."""
MAX_NAME = 16_000
"""Tokens may have a few thousand characters; what is longer fits into no address and no header."""
SDP = "application/sdp"
"""The type of an answer that is a description of a stream, and so no JSON."""
PAGES = ("text/html", "application/xhtml")
"""The types of web pages."""
REAL_TIME = "on the virtual clock no service outside this process can answer (use --clock system, or rehearse with --emulate)"
"""What is to be said of a virtual clock."""


class Retry(enum.Enum):
    """What may be done when a request fails, and within how many milliseconds of its beginning."""

    SAFE = 12_000
    """Repeating changes nothing (an end, a keep-alive, a read): try again whatever went wrong, if time can mend it."""
    UNSENT = 4_000
    """Try again only if the connection was never made or the vendor surely refused (`refusals`)."""
    NEVER = 0


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked, without the host and without credentials. At most one of the four bodies is given."""

    method: str
    path: str
    json: Any = None
    data: Mapping[str, str] | None = None
    files: Mapping[str, tuple[str, bytes, str]] | None = None
    """Field to (file name, bytes, content type); goes together with `data` as multipart/form-data."""
    content: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. `headers` are looked up by lower-case name."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON; None when it is none."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None

    def fields(self) -> Mapping[str, Any]:
        """The body as a JSON object; empty when it is none."""
        value = self.json()
        return value if isinstance(value, dict) else {}

    @property
    def foreign(self) -> str:
        """What it is when something else than the service sent it: a web page, or success in anything but JSON (or SDP, which answers a
        stream's offer). Empty: the service's."""
        body = self.body.strip()
        if not body or body == b"null" or self.json() is not None or 300 <= self.status < 400:
            return ""
        kind = self.headers.get("content-type", "").lower()
        if kind.startswith(SDP):
            return ""
        if kind.startswith(PAGES) or body[:14].lower().startswith((b"<!doctype html", b"<html")):
            return "a web page"
        return "a text" if self.status < 300 and not kind.startswith("application/sdp") else ""

    def need(self, name: str) -> str:
        """A name or a token that this answer must have. Without it, or with nonsense in its place, nobody knows what the vendor did."""
        value = self.fields().get(name)
        if isinstance(value, str) and value.isprintable() and 0 < len(value) <= MAX_NAME:
            return value
        raise ProviderError(f"the service accepted the request, but its answer has no {name}", outcome="ambiguous", status=self.status)


Send = Callable[[Request], Awaitable[Answer]]
Explain = Callable[[Answer, str], ProviderError | None]
"""A vendor's meaning of an answer that is no 2xx: the answer and what it says (`said`, safe to show) to an error, or None for the
usual one. `status` and `retry_after_ms` are filled in."""


class NetworkError(ProviderError):
    """No answer at all. `passing` says whether it could be otherwise in a moment."""

    def __init__(self, message: str, *, outcome: Literal["refused", "ambiguous"], passing: bool = True, remedy: str = "") -> None:
        super().__init__(message, outcome=outcome, remedy=remedy)
        self.passing = passing


def base_address(url: str) -> str:
    """A base URL as scheme, host and port; `https` always, `http` only for this machine. Raises `SetupError`."""
    try:
        parts = urlsplit(url.strip())
        host, port = parts.hostname or "", parts.port
        host.encode("idna")
    except ValueError as error:
        raise SetupError(f"the base URL is not one: {error}", remedy="write it like https://api.example.com") from error
    if "@" in parts.netloc or not host or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise SetupError(
            "a base URL is a scheme, a host and perhaps a port, and nothing else",
            remedy="write it like https://api.example.com, without a path, a user or a query",
        )
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host)):
        raise SetupError(
            f"the base URL {parts.scheme}://{host} is not safe: credentials would travel unencrypted",
            remedy="use https; http is accepted only for this machine (127.0.0.1, localhost)",
        )
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}" + (f":{port}" if port is not None else "")


def address_of(told: object, variable: str, env: Mapping[str, str], default: str) -> str:
    """The address to which credentials may be sent: the one of the environment, which must be the one where the session was opened. What a
    file tells must not decide who gets them. Raises `SetupError`."""
    named = base_address(env.get(variable) or default)
    if not isinstance(told, str) or base_address(told) == named:
        return named
    there = "is not set" if variable not in env else f"names {named}"
    raise SetupError(
        f"the session was opened at {told}, but {variable} {there}, and credentials are sent nowhere else",
        remedy=f"if you know that address, set {variable} to it, and end the session again",
    )


def is_loopback(host: str) -> bool:
    """Whether a host is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Http:
    """The way to one vendor, for one session.

    `headers` carry the credentials; `authorize` changes them when the vendor does. `redact` hides whatever else must not be shown in
    an error (the values of `headers` are hidden anyway). `in_process`: the other side can only be in this process.
    """

    def __init__(
        self,
        base_url: str,
        *,
        headers: Mapping[str, str] | None = None,
        explain: Explain | None = None,
        redact: Callable[[str], str] | None = None,
        in_process: bool = False,
    ) -> None:
        self.in_process = in_process
        """Whether no other process can reach the other side."""
        self._wire = Wire(base_address(base_url), unanswered=f": {REAL_TIME}" if in_process else "")
        self._elsewhere: Send | None = None
        self._send: Send = self._to_network
        self._explain = explain
        self._redact = redact
        self._secrets = Redactor()
        self.authorize(headers or {})

    def authorize(self, headers: Mapping[str, str]) -> None:
        """Send these headers from now on, in place of the former ones."""
        for name, value in headers.items():
            if not re.fullmatch(r"[\x21-\x7e]+( [\x21-\x7e]+)*", value):
                raise SetupError(
                    f"the value for the header {name} is empty or has characters that no credential has",
                    remedy="look for a line break, a quote or a space that was copied along",
                )
            for part in {value, value.rpartition(" ")[2]}:
                if len(part) >= 4:
                    self._secrets.add(part)
        self._wire.authorize(headers)

    def wrap(self, before: Callable[[Send], Send]) -> Http:
        """Put something before what is there, such as a cassette before the network. Gives this `Http`."""
        self._send = before(self._send)
        return self

    @property
    def way(self) -> Mapping[str, Any]:
        """What another process of ours (`journal.courier`) must know to get there. It has the credentials."""
        return {"base_url": self._wire.base_url, "headers": dict(self._wire.headers)}

    def prepare(self) -> None:
        """Fetch what the first request needs, which otherwise may be a line of the show that it delays. Raises `NetworkError`."""
        self._wire.prepare()

    @contextlib.contextmanager
    def through(self, send: Send) -> Iterator[None]:
        """Meanwhile, let this reach the network in our place."""
        self._elsewhere = send
        try:
            yield
        finally:
            self._elsewhere = None

    async def request(
        self,
        method: str,
        path: str,
        *,
        retry: Retry,
        json: Any = None,
        data: Mapping[str, str] | None = None,
        files: Mapping[str, tuple[str, bytes, str]] | None = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        refusals: Collection[int] = (429,),
        budget_ms: int | None = None,
    ) -> Answer:
        """A 2xx answer, or `ProviderError`.

        `refusals` are the statuses that surely mean "not carried out, come again"; add 503 where the vendor's meaning is clear.
        """
        request = Request(method, path, json, data, files, content, headers or {}, params)
        clock = Clock()
        budget_ms = retry.value if budget_ms is None else budget_ms
        tries, doubtful = 0, False
        while True:
            try:
                answer = await self._send(request)
                if answer.foreign:
                    raise self._foreign(answer)
                if 200 <= answer.status < 300:
                    return answer
                raise self._refusal(answer, refusals)
            except ProviderError as error:
                error.repeated = doubtful
                doubtful = doubtful or error.outcome == "ambiguous"
                if not _may_repeat(error, retry, refusals):
                    raise
                wait_ms = max(BACKOFF_MS[min(tries, len(BACKOFF_MS) - 1)], error.retry_after_ms or 0)
                due_ms = clock.now_ms() + wait_ms
                if due_ms > budget_ms:
                    raise
            await clock.sleep_until(due_ms)
            tries += 1

    async def aclose(self) -> None:
        """Let go of the connections."""
        await self._wire.aclose()

    async def __aenter__(self) -> Http:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _to_network(self, request: Request) -> Answer:
        return await (self._elsewhere or self._wire.send)(request)

    def _foreign(self, answer: Answer) -> NetworkError:
        return NetworkError(
            f"{self._wire.host} answered {answer.status} with {answer.foreign}, not the service's answer",
            outcome="ambiguous",
            remedy="look for a proxy or a network's login page on the way, and check the base URL",
        )

    def _refusal(self, answer: Answer, refusals: Collection[int]) -> ProviderError:
        text = self.quote(said(answer))
        error = self._explain(answer, text) if self._explain else None
        if error is not None:
            error.message = self.quote(error.message, MAX_MESSAGE)  # it may quote more of the answer
        if error is None:
            surely = answer.status in refusals or is_refusal(answer.status)
            what = "points to another address, which is not followed" if 300 <= answer.status < 400 else text
            error = ProviderError(
                f"the service answered {answer.status}" + (f": {what}" if what else ""),
                outcome="refused" if surely else "ambiguous",
            )
        error.status = answer.status if error.status is None else error.status
        if error.retry_after_ms is None:
            error.retry_after_ms = _retry_after_ms(answer)
        return error

    def quote(self, text: str, most: int = MAX_SAID) -> str:
        """What a vendor says, as it may stand in a message."""
        return quoted(text, self._secrets, *([self._redact] if self._redact else []), most=most)


def is_refusal(status: int) -> bool:
    """Whether it says by itself that nothing was carried out."""
    return 300 <= status < 500 and status != 408


def said(answer: Answer) -> str:
    """What the vendor says in an error's body: `error`, `message` or `detail`. Anything may stand in it, also a secret: `Http.quote` shows
    it."""
    fields = answer.fields()
    for name in ("error", "message", "detail"):
        value = fields.get(name)
        if isinstance(value, dict):
            value = value.get("message")
        if isinstance(value, list):
            value = "; ".join(_violation(item) for item in value)
        if isinstance(value, str) and value.strip():
            return value
    return ""


def _violation(item: Any) -> str:
    """One entry of a 422's `detail` list (FastAPI's shape)."""
    if not isinstance(item, dict):
        return str(item)
    where = item.get("loc")
    path = ".".join(str(part) for part in where if part != "body") if isinstance(where, list) else ""
    return f"{path}: {item.get('msg', '')}" if path else str(item.get("msg", ""))


def _may_repeat(error: ProviderError, retry: Retry, refusals: Collection[int]) -> bool:
    if isinstance(error, NetworkError):
        return error.passing and (retry is Retry.SAFE or (retry is Retry.UNSENT and error.outcome == "refused"))
    if error.outcome == "lost" or error.status is None or retry is Retry.NEVER:
        return False
    if error.status in refusals:
        return True
    return retry is Retry.SAFE and (error.status in (408, 429) or error.status >= 500)


def _retry_after_ms(answer: Answer) -> int | None:
    value = answer.headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", value):
        return round(float(value) * 1000)
    try:
        date = answer.headers.get("date")  # the other side's clock; ours may be wrong, or be set right now
        now = parsedate_to_datetime(date) if date else wall_time()
        return max(0, round((parsedate_to_datetime(value) - now).total_seconds() * 1000))
    except (ValueError, TypeError, OverflowError):  # nothing, nonsense, a date without a zone, or one that no calendar has
        return None


# --- the real network ---------------------------------------------------------------------------------------------------


class Wire:
    """The real `Send`: httpx, with its exceptions translated. (Providers have an `Http`.)"""

    def __init__(self, base_url: str, answer_s: float = ANSWER_S, *, unanswered: str = "") -> None:
        self.base_url = base_url
        self._unanswered = unanswered
        self._answer_s = answer_s
        self.headers: Mapping[str, str] = {}
        self.host = urlsplit(base_url).hostname or ""
        self._client: httpx.AsyncClient | None = None

    def authorize(self, headers: Mapping[str, str]) -> None:
        if self._client is not None:
            for name in self.headers:
                del self._client.headers[name]
            self._client.headers.update(headers)
        self.headers = dict(headers)

    async def aclose(self) -> None:
        if self._client is not None:
            client, self._client = self._client, None
            await client.aclose()

    async def send(self, request: Request) -> Answer:
        import httpx

        client = self.prepare()
        try:
            call = client.build_request(
                request.method,
                request.path,
                json=request.json,
                data=request.data,
                files=request.files,
                content=request.content,
                headers=request.headers,
                params=request.params,
            )
        except httpx.InvalidURL as error:  # an id of tens of thousands of characters, say
            raise NetworkError(f"there can be no such address at {self.host}", outcome="refused", passing=False) from error
        size = int(call.headers.get("content-length", 0))
        # httpx bounds each read by itself; this bounds them together, so that an answer that drips in cannot hold a line for ever.
        total_s = CONNECT_S + self._answer_s + size / UPLOAD_BYTES_PER_S
        try:
            async with asyncio.timeout(total_s):
                response = await client.send(call, stream=True)
                try:
                    return Answer(response.status_code, response.headers, await self._body(response))
                finally:
                    await response.aclose()
                    await _keep_clean(client)
        except (httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise NetworkError(f"no connection to {self.host} within {CONNECT_S:g} s", outcome="refused") from error
        except (httpx.ConnectError, httpx.ProxyError, httpx.UnsupportedProtocol) as error:
            raise self._unreached(error) from error
        except httpx.InvalidURL as error:  # of a redirect, which httpx reads though it does not follow it
            raise NetworkError(f"{self.host} points to an address that is none", outcome="refused", passing=False) from error
        except httpx.ReadTimeout as error:
            raise NetworkError(
                f"the request was sent, but no answer came from {self.host} within {self._answer_s:g} s{self._unanswered}",
                outcome="ambiguous",
            ) from error
        except (httpx.WriteTimeout, TimeoutError) as error:
            raise NetworkError(f"{self.host} was too slow; the request may have arrived", outcome="ambiguous") from error
        except (httpx.TransportError, httpx.DecodingError, httpx.StreamError, OSError) as error:
            raise NetworkError(
                f"the connection to {self.host} broke while a request was under way ({_why(error)}); it may have arrived",
                outcome="ambiguous",
            ) from error

    def prepare(self) -> httpx.AsyncClient:
        """The client, made if there is none yet. Takes a tenth of a second for the first of a process."""
        if self._client is not None:
            return self._client
        import httpx

        # Loading the world's certificates takes 30 ms, which a server without TLS needs not cost.
        plain = self.base_url.startswith("http:")
        try:
            verify = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if plain else httpx.create_ssl_context()
        except OSError as error:  # which an `SSLError` is, too
            raise NetworkError(
                f"the certificates to be trusted cannot be loaded: {reason_of(error)}",
                outcome="refused",
                passing=False,
                remedy="check SSL_CERT_FILE and SSL_CERT_DIR",
            ) from error
        try:
            self._client = self._new_client(verify)
        except (httpx.InvalidURL, ValueError, ImportError) as error:  # whose texts may quote a proxy's password
            raise NetworkError(
                f"{self.host} cannot be reached: the proxies that the environment names cannot be used",
                outcome="refused",
                passing=False,
                remedy="check HTTPS_PROXY, ALL_PROXY and NO_PROXY (which takes host names and addresses, not networks such as fe80::/10)",
            ) from error
        return self._client

    def _new_client(self, verify: ssl.SSLContext) -> httpx.AsyncClient:
        import httpx

        return httpx.AsyncClient(
            base_url=self.base_url,
            headers={"Accept-Encoding": "identity", "User-Agent": "avatar-playbook", **self.headers},
            timeout=httpx.Timeout(self._answer_s, connect=CONNECT_S, pool=CONNECT_S),
            limits=httpx.Limits(max_connections=20, max_keepalive_connections=4, keepalive_expiry=KEEPALIVE_S),
            follow_redirects=False,
            trust_env=not is_loopback(self.host),  # a proxy that is set for the world must not be asked for this machine
            verify=verify,
        )

    async def _body(self, response: httpx.Response) -> bytes:
        """What came, which was asked for as it is. One gzip is taken off all the same, but never more than the bound comes out of it."""
        raw, packed = await self._raw(response), response.headers.get("content-encoding", "identity").strip().lower()
        if packed in ("", "identity") or not raw:
            return raw
        with contextlib.suppress(zlib.error):
            body = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16).decompress(raw, MAX_BODY + 1) if packed in ("gzip", "x-gzip") else None
            if body is not None and len(body) <= MAX_BODY:
                return body
        if response.status_code >= 300:  # the status has said it all
            return b""
        text = f"the answer from {self.host} is compressed ({quoted(packed)}), which was not asked for, and was not unpacked"
        raise NetworkError(text, outcome="ambiguous", passing=False)

    async def _raw(self, response: httpx.Response) -> bytes:
        parts: list[bytes] = []
        size = 0
        async for part in response.aiter_raw():
            size += len(part)
            if size > MAX_BODY:
                if response.status_code >= 300:  # the status has said it all
                    return b"".join(parts)
                raise NetworkError(
                    f"the answer from {self.host} is longer than {MAX_BODY // 1000} kB and was not read on",
                    outcome="ambiguous",
                    passing=False,
                )
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _proxy(self) -> str:
        """The host and port of the proxy on the way, without credentials; empty where there is none."""
        known = getproxies_environment()
        if is_loopback(self.host) or proxy_bypass(self.host):
            return ""
        parts = urlsplit(known.get(urlsplit(self.base_url).scheme) or known.get("all", ""))
        return parts.netloc.rpartition("@")[2]

    def _unreached(self, error: Exception) -> NetworkError:
        import httpx

        causes = list(_causes(error))
        proxy = self._proxy()
        if isinstance(error, httpx.ProxyError):
            status = re.match(r"\d{3}\b", str(error))  # never its whole text
            what = f"refused the connection to {self.host}" + (f" ({status[0]})" if status else "")
            remedy = "check the proxy's address and credentials in HTTPS_PROXY"
            return NetworkError(f"the proxy {proxy} {what}", outcome="refused", passing=False, remedy=remedy)
        for cause in causes:
            if isinstance(cause, socket.gaierror):
                return NetworkError(
                    f"host name not found: {self.host}",
                    outcome="refused",
                    passing=cause.errno == socket.EAI_AGAIN,
                    remedy="check the base URL and this machine's network",
                )
            if isinstance(cause, ssl.SSLCertVerificationError):
                return NetworkError(
                    f"the TLS certificate of {self.host} is not trusted: {cause.verify_message}",
                    outcome="refused",
                    passing=False,
                    remedy="check the base URL; behind a company proxy, set SSL_CERT_FILE to its certificate",
                )
            if isinstance(cause, ssl.SSLError):
                reason = (cause.reason or "handshake failed").replace("_", " ").lower()
                return NetworkError(f"no TLS connection to {self.host}: {reason}", outcome="refused", passing=False)
        if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
            if proxy:
                return NetworkError(f"connection refused by the proxy {proxy}", outcome="refused", remedy="check HTTPS_PROXY")
            return NetworkError(f"connection refused by {self.host}", outcome="refused", remedy="nothing listens there: check the base URL")
        return NetworkError(f"no connection to {self.host}: {_why(error)}", outcome="refused")


async def _keep_clean(client: httpx.AsyncClient) -> None:
    """Close every idle connection on which more has been read than the answers that were asked for.

    (What comes later, while a connection is idle, httpcore itself takes for a reason to close it.) httpcore has no public way to tell what
    it has read; where that cannot be found, the connection is closed.
    """
    transports = (client._transport, *client._mounts.values())
    for connection in [kept for transport in transports for kept in getattr(getattr(transport, "_pool", None), "connections", ())]:
        inner = connection
        while hasattr(inner, "_connection"):
            inner = inner._connection
        state = getattr(inner, "_h11_state", None)
        if connection.is_idle() and (state is None or state.trailing_data[0]):
            await connection.aclose()


def _causes(error: BaseException | None, depth: int = 12) -> Iterator[BaseException]:
    """An exception, what it came from, and the members of groups: asyncio tries several addresses and reports them together."""
    if error is None or depth == 0:
        return
    yield error
    if isinstance(error, BaseExceptionGroup):
        for member in error.exceptions:
            yield from _causes(member, depth - 1)
    yield from _causes(error.__cause__ or error.__context__, depth - 1)


def _why(error: BaseException) -> str:
    """The operating system's word for it, where there is one; never a library's text, which may quote a header."""
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.strerror:
            return reason_of(cause)
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__).lower()
    return "closed by the other side" if name in ("remote protocol error", "read error") else name
