"""Kaltura with an ear: `session.listen: true`. We are the stream's only viewer, and hear when speech begins and ends.

Kaltura reports nothing of speech, and its stream has room for one viewer (`stream` has its rules). Where the place is taken or the stream
cannot be reached, the show goes on with estimated ends, and the log says so once.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from playbook.errors import ProviderError
from playbook.events import Silence, Sound, SourceJoined, SourceLeft
from playbook.model import Evidence
from playbook.providers.kaltura.stream import resource_of
from playbook.transports.whep import Stream, StreamAddress, StreamEdge, StreamLost

if TYPE_CHECKING:
    from collections.abc import Callable

    from playbook.events import Event
    from playbook.ports import Transports

TAKEN = "somebody watches already, and the stream has room for one viewer"


class Listening:
    """The ear of one session."""

    def __init__(self, transports: Transports, emit: Callable[[Event], None], base_url: str) -> None:
        self._transports, self._emit = transports, emit
        self._host = urlsplit(base_url).hostname or ""
        self._stream: Stream | None = None
        self._joined = False

    async def begin(self, address: StreamAddress, file: Path | None) -> str | None:
        """Listen from now on. A remark where we cannot."""
        self._stream = self._transports.whep(address, self._told, vendor_host=self._host, resource_of=resource_of, file=file)
        try:
            await self._stream.open()
        except ProviderError as error:
            await self.end()
            why = TAKEN if error.status == 409 else "; ".join(filter(None, (error.message, error.remedy)))
            return f"ends are estimated: we do not hear the stream: {why}"
        self._joined = True
        self._emit(SourceJoined("ear", Evidence.heard))
        return None

    async def end(self) -> None:
        """Give the viewer's place back."""
        self._joined = False
        stream, self._stream = self._stream, None
        if stream is not None:
            await stream.aclose()

    def _told(self, what: StreamEdge | StreamLost) -> None:
        if not self._joined:
            return
        if isinstance(what, StreamEdge):
            self._emit(Sound("ear", what.ago_ms) if what.what == "began" else Silence("ear", what.ago_ms))
        else:
            self._joined = False
            self._emit(SourceLeft("ear", what.reason))
