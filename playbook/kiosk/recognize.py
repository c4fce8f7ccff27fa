"""Whether a file is a kiosk's; apart, because every check of a playbook asks it."""

from __future__ import annotations

from pathlib import Path

from playbook.formats.findings import Findings
from playbook.formats.source import MAX_BYTES, Node, absolute, parse


def is_kiosk(node: Node | None) -> bool:
    """Whether a file is meant to be a kiosk's: it has keys that no playbook has."""
    return node is not None and isinstance(node.data, dict) and ("kiosk" in node.data or "ladder" in node.data)


def is_kiosk_file(path: Path) -> bool:
    """Whether a file is meant to be a kiosk's. One that cannot be read is not."""
    try:
        raw = path.read_bytes()[:MAX_BYTES] if path.is_file() else b""
    except OSError:
        return False
    return (b"kiosk" in raw or b"ladder" in raw) and is_kiosk(parse(raw, absolute(path), str(path), Findings()))
