"""Speaking to a Tavus face by REST, `echo_via: rest`: the same messages, without a room and without the native Daily library.

What the vendor says of it (https://docs.tavus.io/api-reference/conversations/send-app-message): messages go straight to the face, in the
order sent; before the face has come they are kept. 200 means queued, not spoken. A body has at most 64 KiB, and there are at most 120
requests in a minute. 502 says that nothing was delivered; after 504 nobody knows, and a line is not sent again. Nothing tells of speech:
with `listen: true` we join the room all the same and hear it there; alone, ends are estimated.

No call of ours is a participant of the room, so `participant_absent_timeout` is raised to the conversation's longest, unless it was set.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Any

from playbook.clock import Clock
from playbook.errors import ProviderError
from playbook.providers.tavus.echo import EchoSession
from playbook.providers.tavus.session import conversation_path
from playbook.transports.http import BACKOFF_MS, Retry

MAX_BODY_BYTES = 65_536
MOST, WINDOW_MS = 120, 60_000
"""How many requests in which time."""
PIECE_MS = 900
"""Of a sound in one request: base64 of this much at 24 kHz stays below the largest body."""
TRIES = 4
"""How often a message is sent that surely was not delivered."""


class RestSession(EchoSession):
    """One conversation by requests."""

    max_bytes = MAX_BODY_BYTES - 1
    piece_ms = PIECE_MS
    untaken = 1

    _sent_ms: deque[int]
    _order: asyncio.Lock

    async def _prepare(self) -> None:
        self._sent_ms, self._order = deque(maxlen=MOST), asyncio.Lock()
        await super()._prepare()

    @property
    def joins(self) -> bool:
        return bool(self.settings.get("listen"))

    async def _enter(self) -> None:
        if self.joins:
            await super()._enter()

    def deliver(self, message: Mapping[str, Any]) -> asyncio.Future[None]:
        return asyncio.ensure_future(self._post(message))

    async def _post(self, message: Mapping[str, Any]) -> None:
        """Send one message, in its turn and at the pace that is allowed."""
        interrupts = message["event_type"] == "conversation.interrupt"
        async with self._order:
            for wait_ms in (*BACKOFF_MS[: TRIES - 1], None):
                await self._allowed()
                try:
                    path = f"{conversation_path(self.session_id or '')}/send-app-message"
                    await self._http.request("POST", path, json=message, retry=Retry.SAFE if interrupts else Retry.UNSENT)
                    return
                except ProviderError as error:
                    if error.status != 502 or error.outcome != "refused" or wait_ms is None:
                        raise
                clock = Clock()
                await clock.sleep_until(clock.now_ms() + wait_ms)

    async def _allowed(self) -> None:
        """Wait until one more request is allowed."""
        clock = self.context.clock
        if len(self._sent_ms) == MOST and (due_ms := self._sent_ms[0] + WINDOW_MS) > clock.now_ms():
            await clock.sleep_until(due_ms)
        self._sent_ms.append(clock.now_ms())
