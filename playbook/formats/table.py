"""CSV with positions: a header that names the columns, and rows of cells that know where they stand.

Columns are parted by commas, or by the semicolon or tab that the header has instead; Excel's first line `sep=;` says so as well. Rows
without anything in them are none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from playbook.errors import Place
from playbook.formats.findings import Findings
from playbook.formats.malformed import Malformed
from playbook.formats.source import Document, Node, decode

_SEPARATOR = re.compile(r"sep=(.)\r?\n")


@dataclass(frozen=True, slots=True)
class Table:
    """The rows, as nodes by the names of their columns. `place` is where the header stands."""

    columns: tuple[str, ...]
    rows: tuple[dict[str, Node], ...]
    place: Place


def parse_table(raw: bytes, path: Path, file: str, findings: Findings, needed: Sequence[str]) -> Table | None:
    """The table of a CSV text that has these columns, or None with the reason among the findings."""
    document = Document(file, path, "")
    try:
        document = Document(file, path, decode(raw))
        findings.documents[file] = document
        return _table(document, needed)
    except Malformed as bad:
        findings.add(bad.code, bad.message, document.place(bad.start or 0, bad.end), bad.remedy)
        return None


def _table(document: Document, needed: Sequence[str]) -> Table:
    rows = _rows(document)
    header = next(rows, [])
    columns = tuple(cell.data.strip() for cell in header)
    start, end = (header[0].start, header[-1].end) if header else (0, 1)
    for name in needed:
        if name not in columns:
            remedy = f"the first line names the columns: {', '.join(needed)} among them"
            raise Malformed("PB440", f"the table has no column '{name}'", start, end, remedy)
    for cell, name in zip(header, columns, strict=True):
        if columns.count(name) > 1:
            raise Malformed("PB440", f"two columns are called '{name}'", cell.start, cell.end)
    found = []
    for cells in rows:
        if len(cells) != len(columns):
            message = f"the row has {len(cells)} cells, and the header {len(columns)}"
            remedy = "a cell may be empty, but not missing; one with a separator in it must be in quotes"
            raise Malformed("PB440", message, cells[0].start, cells[-1].end, remedy)
        found.append(dict(zip(columns, cells, strict=True)))
    return Table(columns, tuple(found), document.place(start, end))


def _rows(document: Document) -> Iterator[list[Node]]:
    text = document.text
    stated = _SEPARATOR.match(text)
    at = stated.end() if stated is not None else 0
    head = text[at:].partition("\n")[0]
    part = stated[1] if stated is not None else "," if "," in head else next((c for c in ";\t" if c in head), ",")
    ends = rf"(?=[{re.escape(part)}\r\n]|\Z)"
    cell = re.compile(rf'"((?:[^"]|"")*)"{ends}|((?:[^"{re.escape(part)}\r\n][^{re.escape(part)}\r\n]*)?){ends}')
    cells: list[Node] = []
    while at < len(text):
        found = cell.match(text, at)
        if found is None:
            remedy = "a cell that begins with a quote ends with one, and a quote within it is written twice"
            end = text.find("\n", at)
            raise Malformed("PB440", "the row cannot be read as CSV", at, len(text) if end < 0 else end, remedy)
        quoted = found[1] is not None
        value = found[1].replace('""', '"') if quoted else found[2]
        cells.append(Node(document, at, max(found.end(), at), value))
        at = found.end()
        if text.startswith(part, at):
            at += 1
            if at < len(text):
                continue
            cells.append(Node(document, at, at, ""))
        at += 2 if text.startswith("\r\n", at) else 1
        if any(each.data.strip() for each in cells):
            yield cells
        cells = []
