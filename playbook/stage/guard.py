"""Who may: the host that a request names, the page that it comes from, and the token.

* `Host` must be an address in numbers, `localhost`, or the name that the server was given: a name that an attacker's server resolves to
  this machine (DNS rebinding) is none of them. Without `--host`, only names of this machine.
* `Origin`, where there is one, must be the same place; a page in another tab is another place.
* The token, where there is one, comes in `Authorization: Bearer …` or in a socket's first message, and is compared in constant time.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

DAILY = "https://*.daily.co"
DAILY_JS = "https://unpkg.com/@daily-co/"
"""Where the pages get Daily's library, which `pages/daily.js` pins."""


@dataclass(slots=True)
class Guard:
    """The rules of one server. `host` is what it listens on; `name` a further name that it answers to."""

    host: str
    token: str | None = None
    daily: bool = False
    """Whether sessions are shown in a room of Daily's: the content policy is then widened to Daily's hosts."""

    @classmethod
    def of(cls, host: str) -> Guard:
        """The rules for a server on this address: everywhere but on loopback a token of 128 bits is needed."""
        return cls(host, None if is_loopback(host) else secrets.token_urlsafe(16))

    def knows_host(self, host: str) -> bool:
        """Whether `Host` names us."""
        try:
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
        except ValueError:
            return False
        if self.token is None:
            return is_loopback(name)
        return name == self.host.lower() or name == "localhost" or _is_address(name)

    def knows_origin(self, origin: str | None, host: str) -> bool:
        """Whether a request comes from our own pages, or from no page."""
        return origin is None or origin in (f"http://{host}", f"https://{host}")

    def lets_in(self, token: object) -> bool:
        """Whether this is the token, where one is needed."""
        return self.token is None or (isinstance(token, str) and hmac.compare_digest(token.encode(), self.token.encode()))

    def policy(self, host: str) -> str:
        """The content policy of a page. Nothing but our own files; for a vendor's room its hosts as well."""
        daily = DAILY if self.daily else ""
        connect = f"'self' ws://{host} wss://{host}"
        rules = {
            "default-src": "'none'",
            "script-src": f"'self' {daily} {DAILY_JS if daily else ''}",
            "style-src": "'self'",
            "img-src": f"'self' data: {daily}",
            "font-src": "'self'",
            "media-src": f"'self' blob: {daily}",
            "worker-src": f"'self' {'blob:' if daily else ''}",
            "connect-src": f"{connect} {daily} {daily.replace('https:', 'wss:')}",
            "frame-src": daily or "'none'",
            "base-uri": "'none'",
            "form-action": "'none'",
            "frame-ancestors": "'none'",
        }
        return "; ".join(f"{name} {' '.join(value.split())}" for name, value in rules.items())


def bearer(headers: Headers) -> str | None:
    """The token of a request."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def is_loopback(host: str) -> bool:
    """Whether a name or address is this machine's own."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class Guarded:
    """The application behind the rules: what breaks them is answered here, and every answer has the headers that a browser should see."""

    def __init__(self, app: ASGIApp, guard: Guard) -> None:
        self._app, self._guard = app, guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        host = hosts[0] if len(hosts) == 1 else ""
        if len(origins) > 1 or not self._guard.knows_host(host) or not self._guard.knows_origin(origins[0] if origins else None, host):
            await self._refuse(scope, receive, send)
            return
        await self._app(scope, receive, self._with_headers(send, host) if scope["type"] == "http" else send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 4403})  # before it was accepted: the answer is 403
            return
        reason = "this address is not one of the stage's own, or the request comes from another page"
        await JSONResponse({"reason": reason}, 403)(scope, receive, send)

    def _with_headers(self, send: Send, host: str) -> Send:
        added: dict[str, Any] = {
            "Content-Security-Policy": self._guard.policy(host),
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Cache-Control": "no-store",
            "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
        }

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in added.items():
                    headers[name] = value
            await send(message)

        return with_headers
