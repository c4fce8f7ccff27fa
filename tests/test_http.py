"""The HTTP transport over real sockets: what is known after each failure, and what is sent twice (nothing that may have arrived)."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import email.utils
import gzip
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trustme

from playbook.clock import Clock, ClockName, run, wall_time
from playbook.errors import ProviderError, SetupError
from playbook.transports.http import Answer, Http, NetworkError, Request, Retry, Send, base_address

T = TypeVar("T")
KEY = "key-0123456789"
AUTH = {"Authorization": f"Bearer {KEY}"}

# What a server does with a request: answer these bytes, or something worse.
CLOSE, EAT, STALL = "close at once", "read, then close", "read, then say nothing"


def answer(status: int = 200, body: bytes | str = '{"task_id": "t-1"}', *headers: str, length: int | None = None) -> bytes:
    data = body.encode() if isinstance(body, str) else body
    head = [f"HTTP/1.1 {status} X", f"content-length: {len(data) if length is None else length}", *headers]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + data


class Server:
    """A server that follows a script, one entry for each request; the last entry goes on for ever."""

    def __init__(self, *script: bytes | str | Callable[[asyncio.StreamWriter], Awaitable[None]]) -> None:
        self.script = list(script)
        self.requests: list[bytes] = []
        self.connections = 0

    @contextlib.asynccontextmanager
    async def serve(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._talk, "127.0.0.1", 0, ssl=tls)
        port = server.sockets[0].getsockname()[1]
        self._tasks: set[asyncio.Task[Any]] = set()
        try:
            yield f"{'https' if tls else 'http'}://127.0.0.1:{port}"
        finally:
            server.close()
            for task in list(self._tasks):
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while await self._exchange(reader, writer):
                pass
        writer.close()
        self._tasks.discard(task)

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        act = self.script[0]
        if act == CLOSE:
            self._turn()
            return False
        head = await reader.readuntil(b"\r\n\r\n")
        size = next((int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
        self.requests.append(head + await reader.readexactly(size))
        act = self._turn()
        if act == EAT:
            return False
        if act == STALL:  # until the test is over
            await asyncio.get_running_loop().create_future()
        if callable(act):
            await act(writer)
            return False
        assert isinstance(act, bytes)
        writer.write(act)
        await writer.drain()
        return b"content-length: 100\r\n" not in act  # a body that was cut short

    def _turn(self) -> Any:
        return self.script.pop(0) if len(self.script) > 1 else self.script[0]


def virtually(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    return run(main(), "virtual")


def ask(server: Server, retry: Retry = Retry.NEVER, **options: Any) -> tuple[Answer | ProviderError, int]:
    """One POST to this server: what came of it, and how many milliseconds it took."""
    refusals = options.pop("refusals", (429,))

    async def main() -> tuple[Answer | ProviderError, int]:
        async with server.serve() as url, Http(url, headers=AUTH, **options) as http:
            clock = Clock()
            try:
                return await http.request("POST", "/say", json={"text": "Hello."}, retry=retry, refusals=refusals), clock.now_ms()
            except ProviderError as error:
                return error, clock.now_ms()

    return virtually(main)


def failure(server: Server, retry: Retry = Retry.NEVER, **options: Any) -> ProviderError:
    result, _ = ask(server, retry, **options)
    assert isinstance(result, ProviderError), result
    return result


# --- it works ---------------------------------------------------------------------------------------------------------


def test_requests_share_one_connection_and_carry_the_credentials() -> None:
    """Several requests of every kind of body go over one kept-alive connection with the same headers."""
    server = Server(answer())

    async def main() -> None:
        async with server.serve() as url, Http(url, headers=AUTH) as http:
            for body in (
                {"json": {"a": 1}},
                {"data": {"a": "1"}},
                {"content": b"raw"},
                {"data": {"a": "1"}, "files": {"f": ("f.mp3", b"snd", "audio/mpeg")}},
            ):
                got = await http.request("POST", "/x", retry=Retry.NEVER, **body)  # type: ignore[arg-type]
                assert (got.status, got.need("task_id")) == (200, "t-1")

    virtually(main)
    assert server.connections == 1
    assert all(f"authorization: bearer {KEY}".encode() in request.lower() for request in server.requests)
    assert server.requests[0].endswith(b'{"a":1}')
    assert b'name="f"; filename="f.mp3"' in server.requests[3]


def test_authorize_replaces_the_credentials() -> None:
    """After `authorize` the former credential is sent no more, on the same connection."""
    server = Server(answer())

    async def main() -> None:
        async with server.serve() as url, Http(url, headers={"Authorization": "KS first-secret"}) as http:
            await http.request("POST", "/create", retry=Retry.NEVER)
            http.authorize({"Authorization": "Bearer second-secret"})
            await http.request("POST", "/say", retry=Retry.NEVER)

    virtually(main)
    assert b"first-secret" in server.requests[0]
    assert b"first-secret" not in server.requests[1]
    assert b"Bearer second-secret" in server.requests[1]
    assert server.connections == 1


@pytest.mark.parametrize("late_ms", [0, 50])
def test_an_answer_that_comes_twice_is_no_answer_to_the_next_request(late_ms: int) -> None:
    """A line that the service refuses is refused, also when the answer to the line before it came twice, at once or later."""

    async def twice(writer: asyncio.StreamWriter) -> None:
        writer.write(answer())
        await writer.drain()
        clock = Clock()
        await clock.sleep_until(late_ms)
        writer.write(answer())
        await writer.drain()

    async def main() -> None:
        async with Server(twice, answer(418, '{"error": "refused"}')).serve() as url, Http(url, headers=AUTH) as http:
            assert (await http.request("POST", "/say", retry=Retry.NEVER)).status == 200
            await Clock().sleep_until(2 * late_ms)
            with pytest.raises(ProviderError, match="418: refused"):
                await http.request("POST", "/say", retry=Retry.NEVER)

    virtually(main)


# --- proxies ------------------------------------------------------------------------------------------------------------


def unreached(monkeypatch: pytest.MonkeyPatch, **env: str) -> ProviderError:
    """What a request to a host beyond the proxies of this environment comes to."""
    for name in ("HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)

    async def main() -> ProviderError:
        async with Http("https://api.example.invalid") as http:
            with pytest.raises(ProviderError) as caught:
                await http.request("POST", "/x", retry=Retry.NEVER)
            return caught.value

    return run(main(), "system")


@pytest.mark.parametrize("no_proxy", ["localhost,127.0.0.1,::1,[::1]", "fd00::/8,10.0.0.0/8", "fe80::/10"])
def test_proxies_that_cannot_be_used_are_no_bug_of_ours(no_proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is sent, and the message says which settings to look at; if the list can be read, the proxy itself is named."""
    error = unreached(monkeypatch, HTTPS_PROXY="http://127.0.0.1:9", NO_PROXY=no_proxy)
    assert error.outcome == "refused"
    assert "prox" in error.message
    assert "HTTPS_PROXY" in error.remedy


def test_a_proxy_that_is_not_there_is_named_without_its_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the proxy that refused, not the service."""
    error = unreached(monkeypatch, HTTPS_PROXY="http://me:hunter2@127.0.0.1:9")
    assert error.message == "connection refused by the proxy 127.0.0.1:9"


# --- what is no answer of the service's ---------------------------------------------------------------------------------

PAGE = "<!DOCTYPE html><html><head><title>Hotel</title></head><body>Please log in.</body></html>"


@pytest.mark.parametrize("status", [200, 204, 401, 403, 404, 410, 429, 503])
@pytest.mark.parametrize(("body", "kind"), [(PAGE, "text/plain"), ("<h1>nginx</h1>", "text/html; charset=utf-8")])
def test_a_web_page_is_no_answer(status: int, body: str, kind: str) -> None:
    """Whatever its status says: nobody knows what became of the request, and what may not arrive twice is not repeated."""
    if status == 204:  # which cannot have a body
        status = 201
    server = Server(answer(status, body, f"content-type: {kind}"))
    error = failure(server, Retry.UNSENT)
    assert (error.outcome, error.status) == ("ambiguous", None)
    assert error.message == f"127.0.0.1 answered {status} with a web page, not the service's answer"
    assert len(server.requests) == 1


@pytest.mark.parametrize(("body", "kind"), [("{}", "text/html"), ("null", "text/html"), ("", "text/html"), ("[1]", "text/plain")])
def test_json_and_silence_are_answers_whatever_their_type(body: str, kind: str) -> None:
    """Services that forget to say that they answer in JSON are believed."""
    result, _ = ask(Server(answer(200, body, f"content-type: {kind}")))
    assert isinstance(result, Answer)


def test_an_end_is_repeated_until_the_service_itself_answers() -> None:
    """A login page's 200 is not believed, and then the service's own 404 tells that the first request may have been carried out."""
    result, _ = ask(Server(answer(200, PAGE, "content-type: text/html"), answer(404, '{"detail": "no such session"}')), Retry.SAFE)
    assert isinstance(result, ProviderError)
    assert (result.status, result.repeated) == (404, True)
    alone = failure(Server(answer(404, "{}")), Retry.SAFE)
    assert (alone.status, alone.repeated) == (404, False)


def test_a_trusted_certificate_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TLS works where SSL_CERT_FILE names the authority."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    assert isinstance(_tls(authority), Answer)


def _tls(authority: trustme.CA) -> Answer | ProviderError:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)

    async def main() -> Answer | ProviderError:
        async with Server(answer()).serve(context) as url, Http(url) as http:
            try:
                return await http.request("GET", "/", retry=Retry.SAFE)
            except ProviderError as error:
                return error

    return virtually(main)


# --- never connected: refused, with the cause -------------------------------------------------------------------------


def _unreached(url: str, kind: ClockName = "virtual") -> ProviderError:
    async def main() -> None:
        async with Http(url) as http:
            await http.request("POST", "/say", retry=Retry.NEVER)

    with pytest.raises(NetworkError) as caught:
        run(main(), kind)
    assert caught.value.outcome == "refused"
    return caught.value


def test_connection_refused() -> None:
    """A port where nothing listens is named as such."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening
        assert "connection refused" in _unreached(f"http://127.0.0.1:{taken.getsockname()[1]}").message


def test_host_name_not_found() -> None:
    """A name that does not exist is named as such."""
    assert "host name not found: no-such-host.invalid" in _unreached("https://no-such-host.invalid", "system").message


def test_an_answer_that_can_only_come_from_this_process() -> None:
    """One process further it would come too late on the virtual clock, and is told as that."""
    late = failure(Server(STALL), in_process=True)
    assert late.outcome == "ambiguous"
    assert "no answer came from 127.0.0.1 within 10 s: on the virtual clock no service outside this process can answer" in late.message


def test_an_address_that_cannot_be() -> None:
    """An id that is longer than any address is a refusal, and no bug of ours."""

    async def main() -> None:
        async with Server(answer()).serve() as url, Http(url) as http:
            await http.request("POST", "/" + "x" * 70_000, retry=Retry.SAFE)

    with pytest.raises(NetworkError, match="no such address"):
        virtually(main)


def test_no_certificates_to_trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong SSL_CERT_FILE is named as such, before anything is asked."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    wrong = _unreached("https://127.0.0.1:9")
    assert "the certificates to be trusted cannot be loaded: no such file or directory" in wrong.message
    assert "SSL_CERT_FILE" in wrong.remedy


def test_certificate_not_trusted() -> None:
    """A certificate of an unknown authority is refused at once, also where repeating is safe."""
    result = _tls(trustme.CA())
    assert isinstance(result, ProviderError)
    assert result.outcome == "refused"
    assert "TLS certificate of 127.0.0.1 is not trusted" in result.message


def test_no_tls_at_all() -> None:
    """https to a server that speaks plain HTTP says so."""

    async def main() -> None:
        def shout(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(answer(400))
            writer.close()

        plain = await asyncio.start_server(shout, "127.0.0.1", 0)
        async with plain, Http(f"https://127.0.0.1:{plain.sockets[0].getsockname()[1]}") as http:
            await http.request("POST", "/say", retry=Retry.NEVER)

    with pytest.raises(NetworkError, match="no TLS connection") as caught:
        virtually(main)
    assert caught.value.outcome == "refused"


def test_time_out_before_the_request_was_sent() -> None:
    """A host that does not take connections is `refused` after 5 s: nothing was sent."""
    with socket.socket() as deaf, socket.socket() as first, socket.socket() as second:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for filler in (first, second):  # they fill the queue of connections that nobody takes
            filler.setblocking(False)
            filler.connect_ex(deaf.getsockname())
        assert "no connection to 127.0.0.1 within 5 s" in _unreached(f"http://127.0.0.1:{deaf.getsockname()[1]}").message


# --- sent, and then: ambiguous ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (STALL, "no answer came from 127.0.0.1 within 10 s"),
        (EAT, "broke while a request was under way"),
        (answer(200, "{", length=100), "broke while a request was under way"),
        (b"what?\r\n\r\n", "broke while a request was under way"),
    ],
    ids=["no answer", "closed", "half a body", "not HTTP"],
)
def test_what_was_sent_and_not_answered_is_ambiguous(act: Any, says: str) -> None:
    """A line whose answer never came whole is ambiguous, and is not sent again even where it may be repeated when unsent."""
    server = Server(act, answer())
    error = failure(server, Retry.UNSENT)
    assert error.outcome == "ambiguous"
    assert says in error.message
    assert len(server.requests) == 1


def test_an_answer_that_drips_in_is_given_up() -> None:
    """A byte every nine seconds does not hold a request for ever."""

    async def drip(writer: asyncio.StreamWriter) -> None:
        clock = Clock()
        writer.write(answer(200, "", length=1000))
        while True:
            writer.write(b" ")
            await writer.drain()
            await clock.sleep_until(clock.now_ms() + 9_000)

    result, took_ms = ask(Server(drip))
    assert isinstance(result, ProviderError)
    assert (result.outcome, took_ms // 1000) == ("ambiguous", 15)


def test_what_is_compressed_is_unpacked_once_and_never_beyond_the_bound() -> None:
    """An answer that was packed though nobody asked for it is read; a bomb, packed once or twice, and what is unknown are ambiguous."""
    small, bomb = gzip.compress(b'{"task_id": "t-1"}'), gzip.compress(bytes(50_000_000))
    result, _ = ask(Server(packed(small, "gzip")))
    assert isinstance(result, Answer)
    assert result.need("task_id") == "t-1"
    for body, how in ((bomb, "gzip"), (gzip.compress(small), "gzip, gzip"), (small, "br"), (b"no gzip", "gzip")):
        error = failure(Server(packed(body, how)))
        assert (error.outcome, f"is compressed ({how})" in error.message) == ("ambiguous", True)
    assert failure(Server(packed(bomb, "gzip, gzip", 401))).status == 401


def packed(body: bytes, how: str, status: int = 200) -> bytes:
    return f"HTTP/1.1 {status} X\r\ncontent-encoding: {how}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


def test_fifty_megabytes_are_refused_while_they_stream() -> None:
    """Of an absurd answer about one megabyte is read; what it meant is then unknown."""
    written = 0

    async def flood(writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(answer(200, "", length=50_000_000))
        while written < 50_000_000:
            writer.write(bytes(100_000))
            await writer.drain()
            written += 100_000

    error = failure(Server(flood), Retry.SAFE)
    assert error.outcome == "ambiguous"
    assert "longer than 1000 kB" in error.message
    assert written < 20_000_000


@pytest.mark.parametrize("body", ["", "[]", "{}", '{"task_id": 7}', "null"])
def test_an_answer_that_makes_no_sense_is_ambiguous(body: str) -> None:
    """A 200 without the id that it owes: the line may be spoken, and nobody can say."""
    result, _ = ask(Server(answer(200, body.encode("utf-8", "surrogateescape"))))
    assert isinstance(result, Answer)
    with pytest.raises(ProviderError, match="no task_id") as caught:
        result.need("task_id")
    assert caught.value.outcome == "ambiguous"


def test_a_redirect_to_no_address_is_a_refusal() -> None:
    """Nothing was carried out, and nobody is led astray."""
    error = failure(Server(answer(302, "", "location: " + "a" * 65_530)))
    assert (error.outcome, error.message) == ("refused", "127.0.0.1 points to an address that is none")


@pytest.mark.parametrize("body", ["[" * 200_000, "\udcff", "OK"])
def test_success_in_anything_but_json_is_ambiguous(body: str) -> None:
    """All services answer in JSON, or say nothing."""
    error = failure(Server(answer(200, body.encode("utf-8", "surrogateescape"))))
    assert error.outcome == "ambiguous"
    assert "answered 200 with a text, not the service's answer" in error.message


# --- statuses ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        *((status, "refused") for status in (302, 400, 401, 403, 404, 410, 422, 429)),
        *((status, "ambiguous") for status in (408, 500, 502, 503, 504)),
    ],
)
def test_what_a_status_proves(status: int, outcome: str) -> None:
    """A refusal was surely not carried out; behind a server's error it may have been."""
    error = failure(Server(answer(status, "{}", "location: /elsewhere")))
    assert (error.status, error.outcome) == (status, outcome)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ('{"error": "Text is required"}', "Text is required"),
        ('{"message": "Invalid\\naccess token"}', "Invalid access token"),
        ('{"error": {"message": "deep"}}', "deep"),
        (
            '{"detail": [{"loc": ["body", "text"], "msg": "Field required", "type": "missing"}, {"msg": "x"}, 3]}',
            "text: Field required; x; 3",
        ),
        (f'{{"error": "bad key {KEY} or hunter2"}}', "bad key *** or [hidden]"),
        ('{"error": "' + "é" * 1000 + '"}', "é" * 300),
        ("{}", ""),
    ],
)
def test_what_the_vendor_says_is_quoted_short_and_without_secrets(body: str, says: str) -> None:
    """The vendor's text in one line, at most 300 characters, our credential and what the caller seals removed."""
    error = failure(Server(answer(400, body)), redact=lambda text: text.replace("hunter2", "[hidden]"))
    assert error.message == "the service answered 400" + (f": {says}" if says else "")


def test_a_vendor_explains_its_statuses() -> None:
    """`explain` gives meaning, outcome and remedy; the status and Retry-After are filled in."""

    def explain(got: Answer, text: str) -> ProviderError | None:
        return ProviderError(f"gone: {text}", outcome="lost", remedy="begin anew") if got.status == 410 else None

    error = failure(Server(answer(410, '{"error": "x"}', "retry-after: 2")), explain=explain)
    assert (error.message, error.outcome, error.remedy, error.status, error.retry_after_ms) == ("gone: x", "lost", "begin anew", 410, 2000)
    assert failure(Server(answer(400)), explain=explain).message == "the service answered 400"


# --- again ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "waited_ms"),
    [((), 250), (("retry-after: 2",), 2000), (("retry-after: 0",), 250), (("retry-after: soon",), 250)]
    + [((f"retry-after: Mon, 01 Jan 2024 00:00:00 +{'9' * digits}",), 250) for digits in (4, 20, 400)]
    + [((f"retry-after: {number}",), 250) for number in ("1e308", "9" * 400, "-1", "nan", "٣")],
)
def test_too_many_requests_are_repeated_when_the_vendor_says(headers: tuple[str, ...], waited_ms: int) -> None:
    """A 429 was surely not carried out: the line is sent again after Retry-After, or a short back-off without it."""
    server = Server(answer(429, "", *headers), answer())
    result, took_ms = ask(server, Retry.UNSENT)
    assert isinstance(result, Answer)
    assert (len(server.requests), took_ms) == (2, waited_ms)


def test_a_retry_after_beyond_the_budget_fails_at_once() -> None:
    """Nobody is kept waiting for a time that is longer than the budget; the error says how long it would have been."""
    in_an_hour = email.utils.format_datetime(wall_time() + datetime.timedelta(hours=1), usegmt=True)
    for header, about_ms in (("retry-after: 60", 60_000), (f"retry-after: {in_an_hour}", 3_600_000)):
        server = Server(answer(429, "", header))
        result, took_ms = ask(server, Retry.UNSENT)
        assert isinstance(result, ProviderError)
        assert result.retry_after_ms == pytest.approx(about_ms, abs=2_000)
        assert (len(server.requests), took_ms) == (1, 0)


def test_the_retry_classes() -> None:
    """503 for ever: never, surely refused, and safe requests are sent as often as their class allows, within its budget."""
    for retry, refusals, times, within_ms in (
        (Retry.NEVER, (429, 503), 1, 0),
        (Retry.UNSENT, (429,), 1, 0),
        (Retry.UNSENT, (429, 503), 5, 4_000),
        (Retry.SAFE, (429,), 7, 12_000),
    ):
        server = Server(answer(503))
        result, took_ms = ask(server, retry, refusals=refusals)
        assert isinstance(result, ProviderError)
        assert (result.status, result.outcome) == (503, "refused" if 503 in refusals else "ambiguous")
        assert len(server.requests) == times, retry
        assert took_ms <= within_ms


@pytest.mark.parametrize("act", [answer(500), answer(503), EAT, CLOSE, STALL, answer(200, "{", length=100)])
def test_what_is_safe_is_repeated_whatever_happened(act: Any) -> None:
    """An end or a keep-alive goes out again after a server's error, a broken connection and a lost answer."""
    server = Server(act, answer())
    result, _ = ask(server, Retry.SAFE)
    assert isinstance(result, Answer)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 422])
def test_a_refusal_that_time_cannot_mend_is_not_repeated(status: int) -> None:
    """Asking again does not make a key valid."""
    server = Server(answer(status), answer())
    assert failure(server, Retry.SAFE).status == status
    assert len(server.requests) == 1


def test_a_connection_that_was_never_made_is_tried_again() -> None:
    """A server that begins to listen a second late still gets the line, once."""
    server = Server(answer())

    async def main() -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        clock = Clock()
        async with Http(f"http://127.0.0.1:{port}") as http:
            pending = asyncio.ensure_future(http.request("POST", "/say", json={}, retry=Retry.UNSENT))
            await clock.sleep_until(1_000)
            listening = await asyncio.start_server(server._talk, "127.0.0.1", port)
            server._tasks = set()
            assert (await pending).status == 200
            listening.close()

    virtually(main)
    assert len(server.requests) == 1


def test_a_connection_the_server_closed_meanwhile_is_replaced() -> None:
    """A kept-alive connection that was closed while idle costs no line: the next request opens another."""
    closing = asyncio.Event()

    async def answer_and_close(writer: asyncio.StreamWriter) -> None:
        writer.write(answer())
        await writer.drain()
        writer.close()
        closing.set()

    server = Server(answer_and_close, answer())

    async def main() -> None:
        async with server.serve() as url, Http(url) as http:
            await http.request("POST", "/say", retry=Retry.NEVER)
            await closing.wait()
            await Clock().sleep_until(1_000)
            await http.request("POST", "/say", retry=Retry.NEVER)

    virtually(main)
    assert (server.connections, len(server.requests)) == (2, 2)


# --- the rest ---------------------------------------------------------------------------------------------------------


def test_wrap_stands_before_the_network() -> None:
    """A cassette sees requests without credentials, and can answer or fail in the network's place."""
    seen: list[Request] = []

    def cassette(_: Send) -> Send:
        async def send(request: Request) -> Answer:
            seen.append(request)
            return Answer(429, {"retry-after": "1"}, b"") if len(seen) == 1 else Answer(200, {}, b'{"task_id": "recorded"}')

        return send

    async def main() -> str:
        async with Http("https://api.example.com", headers=AUTH).wrap(cassette) as http:
            return (await http.request("POST", "/say", json={"text": "x"}, retry=Retry.UNSENT)).need("task_id")

    assert virtually(main) == "recorded"
    assert len(seen) == 2
    assert KEY not in repr(seen)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("https://api.example.com", "https://api.example.com"),
        (" https://api.example.com:8443/ ", "https://api.example.com:8443"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://localhost", "http://localhost"),
        ("http://[::1]:80", "http://[::1]:80"),
    ],
)
def test_base_addresses(url: str, address: str) -> None:
    """https anywhere, http on this machine."""
    assert base_address(url) == address


@pytest.mark.parametrize(
    "url",
    [
        "http://api.example.com",
        "http://127.0.0.1.evil.example",
        "ftp://x.example",
        "api.example.com",
        "",
        "https://",
        "https://u:p@x.example",
        "https://x.example/v1",
        "https://x.example?a=1",
        "https://x.example:port",
        f"https://{'a' * 70}.example",
        "http://10.0.0.1",
    ],
)
def test_base_addresses_that_are_refused(url: str) -> None:
    """Anything else is a `SetupError` before a byte is sent, and the message shows no user or password."""
    with pytest.raises(SetupError) as caught:
        base_address(url)
    assert "u:p" not in caught.value.message


@pytest.mark.parametrize("key", ["Bearer ", "Bearer two\nlines", "Bearer schlüssel", "", "Bearer x\x00"])
def test_a_credential_that_cannot_be_one_is_refused_without_being_shown(key: str) -> None:
    """A key with a line break or a stray character fails at once, and the message does not quote it."""
    with pytest.raises(SetupError) as caught:
        Http("https://api.example.com", headers={"Authorization": key})
    assert not key.strip() or key not in caught.value.message
