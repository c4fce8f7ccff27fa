"""Where Kaltura's stream is given back.

Rules from what was seen of the vendor's own viewer (https://github.com/kaltura/intelligent-agents-sdk, `src/experience/whep.js`): the
`Location` is counted from the media server's root and lacks the prefix under which the edge publishes it, so resolved in the usual way it
misses, and the only viewer's place stays taken.
"""

from __future__ import annotations

from urllib.parse import urljoin, urlsplit


def resource_of(posted: str, location: str | None) -> str | None:
    """The address to DELETE when listening is over, from the address that was posted to and the answer's `Location`."""
    if not location:
        return None
    parts = urlsplit(location)
    if parts.scheme:
        return location
    if "/viewer/" in parts.path:
        base = urlsplit(posted)
        return f"{base.scheme}://{base.netloc}{base.path.rstrip('/')}{parts.path[parts.path.index('/viewer/') :]}"
    return urljoin(posted, location)
