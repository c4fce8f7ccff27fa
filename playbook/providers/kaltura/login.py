"""How a Kaltura Session (KS) is had: given ready-made, or minted by the core API from a partner's secret or an appToken.

Three ways, first to last: an appToken (it can be revoked, and its privileges are fixed), the partner's administrator secret, and
`KALTURA_KS`. The calls are those of Kaltura's guides to sessions and appTokens (https://github.com/kaltura/kaltura-agents-api-guides):
forms, answered in JSON. The KS that comes back is wrapped in several ways, and a refusal may come as a 200 with an exception in it.

The KS is an administrator's (type 2), because only that one may open an avatar session, and short-lived, because nothing else is done
with it. Secrets travel in bodies, never in URLs. Used by `kaltura` alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from playbook.errors import ProviderError, SetupError
from playbook.transports.http import Answer, Http, Retry

WAYS = (
    ("KALTURA_PARTNER_ID", "KALTURA_APP_TOKEN_ID", "KALTURA_APP_TOKEN"),
    ("KALTURA_PARTNER_ID", "KALTURA_ADMIN_SECRET"),
    ("KALTURA_KS",),
)
HASHES = ("SHA1", "SHA256", "SHA512", "MD5")
KS_LIFE_S = 3600
_ADMINISTRATOR = "2"


@dataclass(frozen=True, slots=True)
class Login:
    """What the environment gave: a ready KS, a partner with its secret, or a partner with an appToken."""

    ks: str = field(default="", repr=False)
    partner: str = ""
    secret: str = field(default="", repr=False)
    token_id: str = ""
    token: str = field(default="", repr=False)
    token_hash: str = "SHA1"

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must never be shown."""
        return tuple(value for value in (self.ks, self.secret, self.token) if value)


def read_login(env: Mapping[str, str]) -> Login:
    """The first way that the environment has all of. Raises `SetupError` when there is none."""
    given = {name: env.get(name, "").strip() for way in WAYS for name in way}
    way = next((way for way in WAYS if all(given[name] for name in way)), None)
    if way is None:
        begun = next((way for way in WAYS if any(given[name] for name in way if name != "KALTURA_PARTNER_ID")), None)
        missing = [name for name in begun or () if not given[name]]
        raise SetupError(
            f"the credentials for Kaltura are incomplete: {' and '.join(missing)} missing" if missing else "no credentials for Kaltura",
            remedy="set KALTURA_KS, or KALTURA_PARTNER_ID with KALTURA_ADMIN_SECRET, or with KALTURA_APP_TOKEN_ID and KALTURA_APP_TOKEN",
        )
    if way == ("KALTURA_KS",):
        return Login(ks=given["KALTURA_KS"])
    partner = given["KALTURA_PARTNER_ID"]
    if not partner.isdecimal():
        raise SetupError("KALTURA_PARTNER_ID is not a number", remedy="it is the number of your Kaltura account")
    if "KALTURA_ADMIN_SECRET" in way:
        return Login(partner=partner, secret=given["KALTURA_ADMIN_SECRET"])
    algorithm = env.get("KALTURA_APP_TOKEN_HASH", "").strip().upper().replace("-", "") or "SHA1"
    if algorithm not in HASHES:
        raise SetupError(f"KALTURA_APP_TOKEN_HASH is none of {', '.join(HASHES)}", remedy="it was chosen when the appToken was made")
    return Login(partner=partner, token_id=given["KALTURA_APP_TOKEN_ID"], token=given["KALTURA_APP_TOKEN"], token_hash=algorithm)


async def mint(login: Login, service: Http, seal: Callable[[str], None]) -> str:
    """The KS. Raises `ProviderError`; nothing that costs has happened then."""
    if login.ks:
        return login.ks
    if login.secret:
        form = {"partnerId": login.partner, "secret": login.secret, "type": _ADMINISTRATOR, "expiry": str(KS_LIFE_S)}
        return await _ask(service, "session/action/start", form, seal)
    basic = await _ask(service, "session/action/startWidgetSession", {"widgetId": f"_{login.partner}"}, seal)
    digest = hashlib.new(login.token_hash, (basic + login.token).encode()).hexdigest()
    seal(digest)
    form = {"ks": basic, "id": login.token_id, "tokenHash": digest, "type": _ADMINISTRATOR, "expiry": str(KS_LIFE_S)}
    return await _ask(service, "apptoken/action/startSession", form, seal)


async def _ask(service: Http, call: str, form: Mapping[str, str], seal: Callable[[str], None]) -> str:
    # A KS that nobody got to know costs nothing, so asking again is safe.
    answer = await service.request("POST", f"/api_v3/service/{call}", retry=Retry.SAFE, data={**form, "format": "1"})
    ks = _ks(service, answer, call.partition("/")[0])
    seal(ks)
    return ks


def _ks(service: Http, answer: Answer, what: str) -> str:
    value: Any = answer.json()
    if isinstance(value, dict) and "result" in value:
        value = value["result"]
    if isinstance(value, dict) and isinstance(value.get("error"), dict):
        value = value["error"]
    if isinstance(value, dict) and (value.get("objectType") == "KalturaAPIException" or ("code" in value and "ks" not in value)):
        why = service.quote(f"{value.get('code')}: {value.get('message', '')}")
        raise ProviderError(f"Kaltura gave no KS ({what}): {why}", status=answer.status)
    if isinstance(value, dict):
        value = value.get("ks")
    if isinstance(value, str) and value:
        return value
    raise ProviderError(f"Kaltura's answer has no KS in it ({what})", status=answer.status)
