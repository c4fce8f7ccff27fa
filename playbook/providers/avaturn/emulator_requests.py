"""What a request to Avaturn's emulator may hold: the vendor's fields, and its words (FastAPI's) for what is wrong with them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

Loc = tuple[str, ...]
Wrong = dict[str, Any]
Check = Callable[[Loc, Any], Iterator[Wrong]]


def _wrong(loc: Loc, message: str, type: str) -> Wrong:
    return {"loc": list(loc), "msg": message, "type": type}


def _text(loc: Loc, value: Any) -> Iterator[Wrong]:
    if not isinstance(value, str):
        yield _wrong(loc, "Input should be a valid string", "string_type")


def _whole(least: int, most: int | None = None) -> Check:
    def check(loc: Loc, value: Any) -> Iterator[Wrong]:
        if not isinstance(value, int) or isinstance(value, bool):
            yield _wrong(loc, "Input should be a valid integer", "int_type")
        elif value < least:
            yield _wrong(loc, f"Input should be greater than or equal to {least}", "greater_than_equal")
        elif most is not None and value > most:
            yield _wrong(loc, f"Input should be less than or equal to {most}", "less_than_equal")

    return check


def _one_of(*allowed: Any) -> Check:
    def check(loc: Loc, value: Any) -> Iterator[Wrong]:
        if value not in allowed or isinstance(value, bool):
            yield _wrong(loc, f"Input should be {' or '.join(map(repr, allowed))}", "literal_error")

    return check


def _texts(loc: Loc, value: Any) -> Iterator[Wrong]:
    if value is not None and not isinstance(value, dict):
        yield _wrong(loc, "Input should be a valid dictionary", "dict_type")
    for key, item in (value or {}).items() if isinstance(value, dict) else ():
        yield from _text((*loc, key), item)


def _fields(required: Mapping[str, Check], optional: Mapping[str, Check] | None = None) -> Check:
    """An object with these fields; others are let pass, as the vendor did."""

    def check(loc: Loc, value: Any) -> Iterator[Wrong]:
        if not isinstance(value, dict):
            yield _wrong(loc, "Input should be a valid dictionary", "dict_type")
            return
        for name in required:
            if name not in value:
                yield _wrong((*loc, name), "Field required", "missing")
        for name, item in {**required, **(optional or {})}.items():
            if name in value:
                yield from item((*loc, name), value[name])

    return check


_TEXT_ECHO = _fields({"tts": _fields({"voice_id": _text}, {"engine": _one_of("elevenlabs")})})
_ENGINES: Mapping[str, Check] = {
    "text-echo": _TEXT_ECHO,
    "openai-realtime": _fields({"client_secret": _text}),
    "cartesia": _fields({"access_token": _text, "agent_id": _text}),
    "external": _fields(
        {"url": _text},
        {"audio": _fields({}, {"user": _fields({}, {"sample_rate": _one_of(16_000, 24_000)})}), "headers": _texts},
    ),
}


def _engine(loc: Loc, value: Any) -> Iterator[Wrong]:
    if value is None:
        return
    kind = value.get("type") if isinstance(value, dict) else None
    if kind is None:
        yield _wrong(loc, "Unable to extract tag using discriminator 'type'", "union_tag_not_found")
    elif kind not in _ENGINES:
        yield _wrong(loc, f"Input tag '{kind}' does not match any of the expected tags", "union_tag_invalid")
    else:
        yield from _ENGINES[kind]((*loc, kind), value)


SESSION = _fields(
    {},
    {
        "avatar_id": _text,
        "conversation_engine": _engine,
        "background": _one_of("transparent", "default"),
        "model": _one_of("delta", "golf"),
        "render_model": _one_of("delta", "golf"),
        "user_absent_timeout": _whole(10),
        "max_duration": _whole(60, 86_400),
    },
)
TASK = _fields({"text": _text})
CONFIG = _fields({"conversation_engine": _engine})


async def read_body(request: Request, check: Check, default: Any = None) -> tuple[dict[str, Any], list[Wrong]]:
    """The request's JSON, and what is wrong with it."""
    raw = await request.body()
    if not raw:
        return ({}, [_wrong(("body",), "Field required", "missing")]) if default is None else (default, [])
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return {}, [_wrong(("body",), "JSON decode error", "json_invalid")]
    return value, list(check(("body",), value))


def unprocessable(wrong: list[Wrong]) -> Response:
    return JSONResponse({"detail": wrong}, 422)
