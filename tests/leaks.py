"""The search for secrets in what a run leaves behind. It knows nothing of how the package hides them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote, quote_plus


def spellings(secret: str) -> set[bytes]:
    """How a secret may be written, also when its end was cut off."""
    texts = {secret, secret.upper(), secret[:12], quote(secret), quote(secret, safe=""), quote_plus(secret), repr(secret)[1:-1]}
    texts |= {json.dumps(secret, ensure_ascii=ascii)[1:-1] for ascii in (True, False)}
    return {text.encode() for text in texts}


def found(secrets: Iterable[str], folder: Path, *streams: str) -> list[str]:
    """Where a secret stands: files below a folder, and streams."""
    forms = set().union(*map(spellings, secrets))
    places = {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    places |= {f"stream {n}": stream.encode() for n, stream in enumerate(streams, 1)}
    return [f"{place}: {form.decode()}" for place, data in places.items() for form in forms if form in data]
