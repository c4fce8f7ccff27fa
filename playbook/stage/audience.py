"""Who watches, by which viewer, and what the pages' ears tell of the show.

The viewer that a session offers is shown on every audience page, unless it has room for one: then on the page that came last, and the
others show captions. A stream's signalling is done here (`transports.whep.Place`), so that no page knows where the stream is, and its place
is given back when the page's socket closes, whatever became of the page.

One ear counts: that of the page which has joined for longest. It tells edges with their age by the page's audio clock; half of the round
trip is added, and how sure that is stands in the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from playbook.errors import PlaybookError
from playbook.events import Event, Silence, Sound, SourceJoined, SourceLeft, ViewerJoined, ViewerLeft
from playbook.model import Evidence
from playbook.ports import Viewer
from playbook.stage.hub import Hub, Page
from playbook.transports.http import is_loopback
from playbook.transports.whep import TURN_WAYS, ViewerPlace

EAR = "page"
BLOCK_MS = 5
"""What the ear's blocks of samples and the page's clocks add to the doubt of an edge."""
MAX_AGO_MS = 60_000
TAKES_S = 15.0
"""How long a stream may take to answer an offer."""

MakePlace = Callable[[Viewer], ViewerPlace]


class Audience:
    """The audience of one stage. `emit` tells the performance, where there is one that listens."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._viewer: Viewer | None = None
        self._resting = "local"
        self._make_place: MakePlace | None = None
        self._places: dict[Page, ViewerPlace] = {}
        self._emit: Callable[[Event], None] | None = None
        self._told: dict[Page, str] = {}
        self._ears = True
        self._ear: Page | None = None
        self._numbers: dict[Page, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    # --- the viewer ---------------------------------------------------------------------------------------------------

    def rest(self, kind: str) -> None:
        """What is shown while no session is open: our face, or nothing but the title of a show that somebody else's face performs."""
        self._resting = kind if kind in ("local", "captions") else "none"
        if self._viewer is None:
            self._show_all()

    def offer(self, viewer: Viewer | None, make_place: MakePlace | None = None) -> None:
        """A session offers this viewer; None: it is over."""
        if viewer == self._viewer:
            return
        self._viewer, self._make_place = viewer, make_place
        self._show_all()

    def _show_all(self) -> None:
        for page in self._hub.pages("audience"):
            self.show(page)

    def show(self, page: Page) -> None:
        """Send a page what it shows now."""
        viewer = self._viewer
        if viewer is not None and viewer.kind == "whep":
            last = list(self._hub.pages("audience"))[-1]
            if page is last:
                for other in self._hub.pages("audience"):
                    if other is not page and other in self._places:
                        other.send({"type": "viewer", "viewer": {"kind": "captions"}})
                        self._leave(other)
            else:
                page.send({"type": "viewer", "viewer": {"kind": "captions"}})
                return
        if viewer is not None and viewer.kind != "local":
            page.status = "stalled"  # until it says that it receives something
        page.send({"type": "viewer", "viewer": {"kind": self._resting} if viewer is None else _for_page(viewer)})

    async def hear(self, page: Page, message: Mapping[str, Any]) -> None:
        """What an audience's page says."""
        kind = message.get("type")
        if kind == "offer" and isinstance(sdp := message.get("sdp"), str):
            await self._take_place(page, sdp)
        elif kind == "leave":
            self._leave(page)
        elif kind == "edge" and message.get("kind") in ("sound", "silence"):
            ago = message.get("ago_ms")
            if isinstance(ago, (int, float)) and 0 <= ago <= MAX_AGO_MS:
                self._edge(page, message["kind"], ago)

    async def _take_place(self, page: Page, sdp: str) -> None:
        if self._viewer is None or self._viewer.kind != "whep" or self._make_place is None:
            return
        if (old := self._places.pop(page, None)) is not None:
            await old.give_back()
        await asyncio.gather(*self._tasks)  # whoever had the place before has given it back
        place = self._places[page] = self._make_place(self._viewer)
        try:
            async with asyncio.timeout(TAKES_S):
                page.send({"type": "answer", "sdp": await place.take(sdp)})
        except PlaybookError as error:
            page.send({"type": "answer", "reason": error.message})
        except TimeoutError:
            page.send({"type": "answer", "reason": "the stream did not answer"})

    def _leave(self, page: Page) -> None:
        if (place := self._places.pop(page, None)) is not None:
            task = asyncio.ensure_future(place.give_back())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def went(self, page: Page) -> None:
        """Its socket is closed."""
        held = page in self._places
        self._leave(page)
        if held and (rest := list(self._hub.pages("audience"))):
            self.show(rest[-1])

    async def close(self) -> None:
        """Give every place back."""
        for page in tuple(self._places):
            self._leave(page)
        await asyncio.gather(*self._tasks)

    # --- what is told of them -----------------------------------------------------------------------------------------

    def tell(self, emit: Callable[[Event], None] | None, *, ears: bool = True) -> None:
        """Tell a performance from now on, beginning with who is there; None: it listens no more. Without `ears` only who watches: to a
        voice that is exact, an ear that cannot part two lines without a gap has nothing to add."""
        self._emit, self._ear, self._ears = emit, None, ears
        self._told.clear()
        self.changed()

    def changed(self) -> None:
        """Pages have come, gone, or changed what they are."""
        if self._emit is None:
            return
        there = {page: page.status for page in self._hub.pages("audience")}
        for page in {**self._told, **there}:
            before, now = self._told.get(page), there.get(page)
            if (before == "joined") == (now == "joined"):
                continue
            self._told[page] = now or "gone"
            name = f"page-{self._numbers.setdefault(page, len(self._numbers) + 1)}"
            self._emit(ViewerJoined(name) if now == "joined" else ViewerLeft(name, now or "closed"))
        if self._ears:
            self._choose_ear()

    def _choose_ear(self) -> None:
        assert self._emit is not None
        if self._ear is not None and self._told.get(self._ear) == "joined":
            return
        before, self._ear = self._ear, next((page for page, state in self._told.items() if state == "joined"), None)
        if before is not None and self._ear is None:
            self._emit(SourceLeft(EAR, self._told[before]))
        elif before is None and self._ear is not None:
            self._emit(SourceJoined(EAR, Evidence.heard))

    def _edge(self, page: Page, kind: str, ago_ms: float) -> None:
        if self._emit is None or page is not self._ear:
            return
        half = (page.rtt_ms or 0) / 2
        edge = Sound if kind == "sound" else Silence
        self._emit(edge(EAR, round(ago_ms + half), round(half + BLOCK_MS)))

    @property
    def seen(self) -> bool:
        """Whether the show is seen by somebody, or nobody is there who could see it."""
        pages = list(self._hub.pages("audience"))
        return not pages or any(page.joined for page in pages)


def _for_page(viewer: Viewer) -> dict[str, Any]:
    """What a page is told of a viewer: of a stream only how it is reached by WebRTC, of a room its address and what lets one in."""
    if viewer.kind == "whep":
        turn = viewer.turn
        if turn is None or not turn.get("url"):
            return {"kind": "whep"}
        if is_loopback(turn["url"]):
            return {"kind": "whep"}
        urls = [way.format(host=turn["url"]) for way in TURN_WAYS]
        server = {"urls": urls, "username": turn.get("username", ""), "credential": turn.get("credential", "")}
        return {"kind": "whep", "ice": [server], "relay": True}
    if viewer.kind == "daily":
        return {"kind": "daily", "room_url": viewer.url, "token": viewer.token}
    return {"kind": "local"}
