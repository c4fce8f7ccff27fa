"""Which PAL (formerly persona) a conversation is opened with: found or made by its name, and judged before anything is paid for.

Both generations of names work (https://docs.tavus.io/llms.txt); `pal_id` and `face_id` were `persona_id` and `replica_id`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from playbook.errors import ProviderError
from playbook.transports.http import Answer, Http, Retry

NAMES = ("pal_id", "persona_id")
"""What a PAL's id is called."""
_OTHER = {"pal_id": "persona_id", "face_id": "replica_id"}
_OTHER |= {old: new for new, old in _OTHER.items()}
PAGE = 100
MAX_PAGES = 50


@dataclass(frozen=True, slots=True)
class Chosen:
    """A PAL: how the create request names it (where the settings do not), what it is called, and a remark for the log."""

    fields: Mapping[str, str] = field(default_factory=dict)
    name: str | None = None
    remark: str | None = None


async def choose(http: Http, settings: Mapping[str, Any], *, microphone: bool) -> Chosen:
    """The PAL that the settings ask for; `microphone`: it is to hear one. Raises `ProviderError` for one that would not do as told."""
    wanted = settings.get("pal")
    if wanted is not None:
        id, remark = await _find(http, wanted), None
        if id is None:
            id = await _make(http, wanted, microphone=microphone)
            remark = f"made the PAL '{wanted['name']}' ({id}), which stays in your account"
        return Chosen({"pal_id": id, "face_id": wanted["face_id"]}, wanted["name"], remark)
    name, path = ("pal_id", "/v2/pals") if "pal_id" in settings else ("persona_id", "/v2/personas")
    if name not in settings:
        return Chosen()
    try:
        answer = await http.request("GET", f"{path}/{quote(settings[name], safe='')}", retry=Retry.SAFE)
    except ProviderError as error:
        if error.status not in (400, 403, 404):  # not to be seen is not the same as not to be had: creating will tell
            raise
        return Chosen()
    return Chosen(name=_judge(_one(answer)))


def in_other_names(body: Mapping[str, Any]) -> dict[str, Any]:
    """A create request in the other generation's names."""
    return {_OTHER.get(name, name): value for name, value in body.items()}


async def _find(http: Http, wanted: Mapping[str, Any]) -> str | None:
    async for pal in pages(http, "/v2/pals", {"pal_type": "user"}):
        if either(pal, "pal_name", "persona_name") == wanted["name"]:
            _judge(pal)
            return either(pal, *NAMES)
    return None


async def _make(http: Http, wanted: Mapping[str, Any], *, microphone: bool) -> str:
    layers = dict(wanted.get("layers") or {})
    if microphone:
        layers.setdefault("transport", {"transport_type": "daily", "input_settings": {"microphone": {"isEnabled": True}}})
    body = {"pal_name": wanted["name"], "pipeline_mode": "echo", "default_face_id": wanted["face_id"]}
    answer = await http.request("POST", "/v2/pals", json=body | ({"layers": layers} if layers else {}), retry=Retry.UNSENT)
    return answer.need("pal_id")


def _judge(pal: Mapping[str, Any]) -> str | None:
    """The PAL's name."""
    name, mode = either(pal, "pal_name", "persona_name"), pal.get("pipeline_mode")
    if mode not in (None, "echo"):
        what = f"the PAL '{name}' is in the mode '{mode}', in which it leads a conversation of its own"
        raise ProviderError(what, remedy="name a PAL whose pipeline_mode is echo")
    return name


# --- reading answers ----------------------------------------------------------------------------------------------------


async def pages(http: Http, path: str, query: Mapping[str, str]) -> AsyncIterator[dict[str, Any]]:
    """Every item of a list that comes in pages."""
    for page in range(1, MAX_PAGES + 1):
        answer = await http.request("GET", path, params={**query, "limit": str(PAGE), "page": str(page)}, retry=Retry.SAFE)
        items = answer.fields().get("data")
        for item in dicts(items):
            yield item
        if not isinstance(items, list) or len(items) < PAGE:
            return


def dicts(value: Any) -> list[dict[str, Any]]:
    """The objects of a list; nothing else."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def either(item: Mapping[str, Any], *names: str) -> str | None:
    """What stands under the first of these names, in whichever generation the answer is."""
    return next((value for name in names if isinstance(value := item.get(name), str) and value), None)


def _one(answer: Answer) -> Mapping[str, Any]:
    """The one item of an answer; it is documented as a list of one and was seen without."""
    return next(iter(dicts(answer.fields().get("data"))), answer.fields())
