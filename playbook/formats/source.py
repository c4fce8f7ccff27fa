"""Bytes to data that knows where it stands.

YAML 1.2 core, nothing but plain data: PyYAML's C parser gives events, and this file makes `Node`s of them. What could hurt (size, depth,
aliases, tags, merge keys, a second document, duplicate keys) is refused here, with a place.
Rules: nothing is constructed but `str`, `int`, `float`, `bool`, `None`, `list` and `dict`; a scalar is resolved by the 1.2 core schema, so
`on` is text, `012` is twelve and `1:30` is text.
"""

from __future__ import annotations

import codecs
import errno
import json
import math
import os
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playbook.errors import Place, reason_of
from playbook.formats.findings import Findings
from playbook.formats.malformed import MAX_DEPTH, TEMPLATE_QUOTES, TOO_DEEP, Malformed, malformed

MAX_BYTES = 16 * 1024 * 1024
MAX_NODES = 1_000_000
"""How many values a file may hold: each takes 3 µs and 250 bytes, and a hundred thousand steps have fewer."""
MAX_ALIASED = 100_000
"""How many nodes aliases may stand for, all together."""

_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_WORDS: dict[str, object] = {"": None, "~": None, "null": None, "Null": None, "NULL": None} | {
    word: value for value in (True, False) for word in (str(value).lower(), str(value), str(value).upper())
}
_SURROGATES = re.compile(r"(?<!\\)((?:\\\\)*)(\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})")
_NUMERIC = frozenset("0123456789+-.")
_CLOSED = frozenset(".!?:;…)]}\"'”’»")
"""What text ends with that is complete."""
_CLOSE_COMMENT = re.compile(r"[ \t]+(#[^\s#][^\r\n]*)")
"""A comment that begins as nobody begins one, `Fan #1`."""
_LOOSE_COMMENT = re.compile(r" (#[ \t]+(?:[0-9][^\r\n]*|[^\r\n]*[.!?][ \t]*(?=[\r\n]|\Z)))")
"""One that reads as if it were said: `Take lift # 3 to the roof`."""
_CORE_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "seq", "map")}
_MAX_INT = 2**63


@dataclass(frozen=True, slots=True)
class Document:
    """One file as it was read. `file` is its name for people, `path` where it is, `text` what is in it."""

    file: str
    path: Path
    text: str
    _line_starts: list[int] = field(default_factory=list, repr=False)

    def place(self, start: int, end: int | None = None) -> Place:
        """The place of `text[start:end]`, cut at the end of its line."""
        if not self._line_starts:
            self._line_starts.extend([0, *(match.end() for match in re.finditer(r"\r\n|\r|\n", self.text))])
        start = min(start, len(self.text))
        line = bisect_right(self._line_starts, start)
        first, last = self._bounds(line)
        written = start + 1 if end is None else min(end, last)
        return Place(self.file, line, start - first + 1, max(1, written - start))

    def places(self, start: int, end: int) -> Iterator[Place]:
        """The same, line by line."""
        for match in re.finditer(r"[^\r\n]+", self.text[start:end]):
            yield self.place(start + match.start(), start + match.end())

    def line(self, number: int) -> str:
        """The text of a line, by its number from 1, without its end."""
        first, last = self._bounds(number)
        return self.text[first:last]

    def _bounds(self, number: int) -> tuple[int, int]:
        """Where a line begins and ends, without its end of line."""
        first = self._line_starts[number - 1]
        last = self._line_starts[number] if number < len(self._line_starts) else len(self.text)
        while last > first and self.text[last - 1] in "\r\n":
            last -= 1
        return first, last


def absolute(path: Path) -> Path:
    """Where a path leads, without following links."""
    return Path(os.path.abspath(path))


def beside(file: str, relative: str) -> str:
    """The name of a file for people: as seen from where `file` is named from."""
    return os.path.normpath(os.path.join(os.path.dirname(file), relative))


_NO_KEYS: dict[str, tuple[int, int]] = {}


class Node:
    """A piece of data and where it was written. A plain class with slots: a long playbook has a hundred thousand of them.

    `data` is the plain value, with its children's. `children` are their nodes, by key or by number; None for a scalar. `keys` are the
    spans of a mapping's keys. `templated` says whether there is a template anywhere in it.
    """

    __slots__ = ("children", "data", "document", "end", "keys", "start", "templated")

    def __init__(self, document: Document, start: int, end: int, data: Any) -> None:
        self.document = document
        self.start = start
        self.end = end
        self.data = data
        self.children: dict[str, Node] | list[Node] | None = None
        self.keys: dict[str, tuple[int, int]] = _NO_KEYS
        self.templated = False

    def get(self, key: str) -> Node | None:
        """The value under a key of a mapping."""
        return self.children.get(key) if isinstance(self.children, dict) else None

    def items(self) -> Iterator[tuple[str, Node]]:
        """Keys and values of a mapping; nothing for anything else."""
        return iter(self.children.items() if isinstance(self.children, dict) else ())

    def entries(self) -> list[Node]:
        """The entries of a list; nothing for anything else."""
        return self.children if isinstance(self.children, list) else []

    def at(self, path: Iterable[str | int]) -> Node:
        """The node at a path, or the last one on the way there."""
        node = self
        for key in path:
            children = node.children
            if isinstance(children, dict) and isinstance(key, str):
                below = children.get(key)
            else:
                below = children[key] if isinstance(children, list) and isinstance(key, int) and key < len(children) else None
            if below is None:
                break
            node = below
        return node

    @property
    def place(self) -> Place:
        return self.document.place(self.start, self.end)

    def key_place(self, key: str) -> Place:
        """The place of a key, or of the mapping when it has no such key."""
        return self.document.place(*self.keys[key]) if key in self.keys else self.place

    @property
    def raw(self) -> str:
        """The text as written, quotes and all."""
        return self.document.text[self.start : self.end]


def looks_templated(text: str) -> bool:
    """Whether Jinja would see more than text in it."""
    return "{{" in text or "{%" in text or "{#" in text


def cutting_comment(node: Node) -> Place | None:
    """The comment behind plain text that was probably meant as a part of it: YAML makes "Fan" of `Fan #1` and says nothing."""
    text = node.document.text
    if text[node.start] in "'\"|>" or text[node.end - 1] in "'\"":
        return None
    comment = _CLOSE_COMMENT.match(text, node.end)
    if comment is None and text[node.end - 1] not in _CLOSED:
        comment = _LOOSE_COMMENT.match(text, node.end)
    return None if comment is None else node.document.place(*comment.span(1))


@dataclass(slots=True)
class Reader:
    """Reads files, each once; what is wrong with them goes to `findings`. A file that another one names may be anything: unless it has a
    timeline, no line of it is shown."""

    findings: Findings
    root: Path | None = None
    """What a file names (`at`) must be in this folder."""
    _read: dict[Path, Node | None] = field(default_factory=dict)

    def read(self, path: Path, file: str, *, missing: str = "PB101", at: Place | None = None, via: tuple[Place, ...] = ()) -> Node | None:
        """The root of a file, or None when it cannot be had. `at` is who asked for it, `missing` the code if it is not there.

        Only what a person names (then there is no `at`) may be a pipe: `--vars <(…)`. One that a playbook names might never be written to.
        """
        known = absolute(path)
        if known not in self._read:
            try:
                if at is not None and known.exists() and not known.is_dir() and not known.is_file():
                    self.findings.add(
                        missing,
                        f"cannot read {file}: it is no file",
                        at,
                        "name a file, not a pipe or a device",
                        via=via,
                    )
                    return None
                if at is not None and is_outside(known, self.root):
                    self.findings.add(missing, f"cannot read {file}: it is outside of {self.root}", at, OUTSIDE, via=via)
                    return None
                raw = _bytes(known)
                if at is not None and not _TIMELINE.search(raw):
                    self.findings.withhold(file)
            except (OSError, ValueError) as error:
                self.findings.add(missing, f"cannot read {file}: {unreadable(error)}", at, "is the path right?" if at else "", via=via)
                return None
            self._read[known] = parse(raw, known, file, self.findings, via=(*via, at) if at else via)
        return self._read[known]

    def give(self, path: Path, file: str, raw: bytes) -> None:
        """Let these bytes stand for a file."""
        known = absolute(path)
        self._read[known] = parse(raw, known, file, self.findings)


def _bytes(path: Path) -> bytes:
    """The file's bytes, never more than one over the bound."""
    with path.open("rb") as stream:
        return stream.read(MAX_BYTES + 1)


OUTSIDE = "give --root DIR to allow the files of another folder"
_TIMELINE = re.compile(rb"(?:^|[\s\"'{,])timeline[\"']?[ \t]*:", re.MULTILINE)


def is_outside(path: Path, root: Path | None) -> bool:
    """Whether a path leads out of the folder, also by links."""
    try:
        return root is not None and not path.resolve().is_relative_to(root.resolve())
    except RuntimeError:  # a link to itself
        return True


def need_file(path: Path) -> Path:
    """The path, which leads to a file if it is there: a device may never end, and a pipe never begin. Raises `OSError`."""
    if path.exists() and not path.is_dir() and not path.is_file():
        raise OSError(errno.EINVAL, "it is a pipe or a device, not a file")
    return path


def read_file(path: Path, most: int = MAX_BYTES) -> bytes:
    """The bytes of a file that is expected at this place. Raises `OSError` for one that is none, or has more than `most`."""
    with need_file(path).open("rb") as stream:
        raw = stream.read(most + 1)
    if len(raw) > most:
        raise OSError(errno.EFBIG, f"it is larger than {most // 2**20} MiB")
    return raw


def unreadable(error: OSError | ValueError) -> str:
    """Why a file cannot be opened, in words. A name with a NUL in it is a `ValueError`."""
    return reason_of(error) if isinstance(error, OSError) else "no file can have this name"


def parse(raw: bytes, path: Path, file: str, findings: Findings, *, via: tuple[Place, ...] = ()) -> Node | None:
    """The root node of a YAML (or JSON) text, or None with the reason among the findings."""
    document = Document(file, path, "")
    try:
        if len(raw) > MAX_BYTES:
            raise Malformed(
                "PB104",
                f"the file is larger than {MAX_BYTES // 2**20} MiB",
                remedy="split it into parts and include them",
            )
        text = decode(raw)
        if path.suffix == ".json":  # JSON writes some characters as two escapes, which YAML does not know
            text = _SURROGATES.sub(lambda match: match[1] + json.loads(f'"{match[2]}"'), text)
        document = Document(file, path, text)
        findings.documents[file] = document
        return _Builder(document, findings, via).root()
    except Malformed as bad:
        start = 0 if bad.start is None else bad.start
        if start and not document.text:  # what could not be decoded has lines all the same
            document = Document(file, path, raw.decode("utf-8-sig", "replace"))
        findings.add(bad.code, bad.message, document.place(start, bad.end), bad.remedy, via=via)
        return None


def decode(raw: bytes) -> str:
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise Malformed("PB103", "the file is UTF-16, not UTF-8", remedy="save it as UTF-8")
    raw = raw.removeprefix(codecs.BOM_UTF8)
    if b"\0" in raw:
        raise Malformed("PB103", f"the file is not text: byte {raw.index(0) + 1} is NUL")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        start = len(raw[: error.start].decode())
        message = f"the file is not UTF-8 text: byte {error.start + 1} fits nowhere"
        raise Malformed("PB103", message, start, remedy="save it as UTF-8") from error
    if not text.strip():
        raise Malformed("PB102", "the file is empty", remedy="`playbook new FILE` writes a starter")
    return text


class _Builder:
    """Events to nodes, without recursion: depth is a number here and can be bounded."""

    def __init__(self, document: Document, findings: Findings, via: tuple[Place, ...]) -> None:
        from yaml._yaml import CParser

        self._document = document
        self._findings = findings
        self._via = via
        self._parser = CParser(document.text)
        self._anchors: dict[str, tuple[Node, int]] = {}  # the node, and how many nodes there are in it
        self._open: dict[str, Node] = {}
        self._aliased = 0
        self._count = 0
        self._last: Any = None  # the event of the last scalar

    def root(self) -> Node:
        from yaml import YAMLError

        try:
            return self._build()
        except YAMLError as error:
            raise malformed(error, self._document.text, self._last) from error

    def _build(self) -> Node:
        from yaml import events

        stack: list[tuple[Node, str | None, int]] = []  # open collections: node, anchor, count at their start
        key: list[tuple[str | None, int, int] | None] = []  # for an open mapping, the key that waits for its value
        root: Node | None = None
        while True:
            event: Any = self._parser.get_event()
            kind = type(event)
            if self._count - self._aliased > MAX_NODES:
                remedy = "split it into parts and include them"
                raise self._at(event, "PB104", f"the file holds more than {MAX_NODES:,} values", remedy)
            if kind is events.ScalarEvent:
                node = self._scalar(event)
            elif kind is events.MappingStartEvent or kind is events.SequenceStartEvent:
                self._check_tag(event)
                if len(stack) >= MAX_DEPTH:
                    raise self._at(event, "PB109", TOO_DEEP)
                if key and key[-1] is None and isinstance(stack[-1][0].data, dict):
                    start = event.start_mark.index
                    if self._document.text[start - 1 : start + 1] == "{{":
                        raise Malformed("PB113", "an expression must stand in quotes", start - 1, start + 1, TEMPLATE_QUOTES)
                    raise self._at(event, "PB113", "a key must be text, not a collection")
                node = Node(
                    self._document,
                    event.start_mark.index,
                    event.end_mark.index,
                    {} if kind is events.MappingStartEvent else [],
                )
                if kind is events.MappingStartEvent:
                    node.children, node.keys = {}, {}
                else:
                    node.children = []
                self._count += 1
                if event.anchor is not None:
                    self._open[event.anchor] = node
                stack.append((node, event.anchor, self._count))
                key.append(None)
                continue
            elif kind is events.MappingEndEvent or kind is events.SequenceEndEvent:
                node, anchor, counted = stack.pop()
                key.pop()
                node.end = event.end_mark.index if event.end_mark.index > event.start_mark.index else _last_end(node)
                if anchor is not None:
                    self._open.pop(anchor, None)
                    self._anchors[anchor] = (node, self._count - counted + 1)
            elif kind is events.AliasEvent:
                node = self._alias(event)
            elif kind is events.DocumentStartEvent:
                if root is not None:
                    raise self._at(event, "PB111", "a second document: a file holds one", "put it in a file of its own")
                continue
            elif kind is events.StreamEndEvent:
                if root is None:
                    raise Malformed("PB102", "the file is empty", remedy="`playbook new FILE` writes a starter")
                return root
            else:
                continue
            if not stack:
                root = node
                continue
            parent = stack[-1][0]
            if isinstance(parent.children, list):
                parent.children.append(node)
                parent.data.append(node.data)
            elif (waiting := key[-1]) is None:
                key[-1] = self._key(event, node)
                continue
            elif isinstance(parent.children, dict):
                name, start, end = waiting
                key[-1] = None
                if name is None:  # no key that there may be, which was said; its value goes with it
                    continue
                if name in parent.keys:
                    self._duplicate(name, parent, start, end)
                else:
                    parent.keys[name] = (start, end)
                    parent.children[name] = node
                    parent.data[name] = node.data
            parent.templated |= node.templated

    def _scalar(self, event: Any) -> Node:
        self._last = event
        start, end = event.start_mark.index, event.end_mark.index
        tag = event.tag
        if tag is not None and tag != "!":
            # An exclamation without quotes, `!Hola`, is a tag and nothing else: it was said, and is not empty as well.
            value = self._tagged(event, tag.rpartition(":")[2]) if self._check_tag(event) else event.value or tag
        elif event.implicit[0] and tag is None:
            value = self._resolve(event)
        else:
            value = event.value
        node = Node(self._document, start, end, value)
        if type(value) is str and "{" in value:
            node.templated = looks_templated(value)
        self._count += 1
        if event.anchor is not None:
            self._anchors[event.anchor] = (node, 1)
        return node

    def _resolve(self, event: Any) -> object:
        """A plain scalar by the 1.2 core schema."""
        text: str = event.value
        if text in _WORDS:
            return _WORDS[text]
        if text[0] not in _NUMERIC:
            return text
        if _INT.fullmatch(text):
            number = int(text, 0) if text[:2] in ("0x", "0o") else int(text) if len(text) < 32 else _MAX_INT
            return number if abs(number) < _MAX_INT else self._number(event)
        if _FLOAT.fullmatch(text):
            value = float(text) if text[-1] not in "fFnN" else math.inf
            return value if math.isfinite(value) else self._number(event)
        return text

    def _tagged(self, event: Any, name: str) -> object:
        if name == "str":
            return event.value
        value = self._resolve(event)
        if {"int": int, "float": float, "bool": bool, "null": type(None)}.get(name) is not type(value):
            self._note(event, "PB112", f"{event.value!r} is no {name}")
        return value

    def _number(self, event: Any) -> int:
        """What stands for a number that cannot be: one that fits almost everywhere, so that nothing more is said of it."""
        self._note(event, "PB114", f"the number {event.value[:40]} is infinite or too large", "if it is text, put it in quotes")
        return 1

    def _check_tag(self, event: Any) -> bool:
        if event.tag is None or event.tag == "!" or event.tag in _CORE_TAGS:
            return True
        self._note(
            event,
            "PB112",
            f"the tag {event.tag[:60]!r} is refused: a playbook is plain data",
            "remove the tag; text that begins with ! must be in quotes",
        )
        return False

    def _key(self, event: Any, node: Node) -> tuple[str | None, int, int]:
        name = node.data
        if node.children is not None:
            raise self._at(event, "PB113", "a key must be text, not a collection")
        if not isinstance(name, str):
            self._note(event, "PB113", f"a key must be text, not {_kind(name)}", "put it in quotes")
            return None, node.start, node.end
        if name == "<<" and getattr(event, "implicit", (False,))[0]:
            raise self._at(event, "PB110", "merge keys (<<) are refused", "write the keys out, or use include")
        if node.templated:
            place = self._document.place(node.start, node.end)
            self._findings.add("PB304", "a template in a key", place, "templates stand in values only", via=self._via)
        return name, node.start, node.end

    def _duplicate(self, name: str, parent: Node, start: int, end: int) -> None:
        first = self._document.place(*parent.keys[name]).line
        place = self._document.place(start, end)
        self._findings.add("PB107", f"the key {name!r} is written twice", place, f"it is already on line {first}", via=self._via)

    def _alias(self, event: Any) -> Node:
        if event.anchor in self._open:
            raise self._at(event, "PB108", f"the alias *{event.anchor} contains itself")
        if event.anchor not in self._anchors:
            remedy = "" if self._anchors else "text that begins with * must be in quotes"
            raise self._at(event, "PB108", f"the alias *{event.anchor} has no anchor before it", remedy)
        node, count = self._anchors[event.anchor]
        self._aliased += count
        self._count += count
        if self._aliased > MAX_ALIASED:
            raise self._at(event, "PB108", f"the aliases stand for more than {MAX_ALIASED:,} values")
        return node

    def _note(self, event: Any, code: str, message: str, remedy: str = "") -> None:
        """A mistake that does not keep the rest from being read."""
        place = self._document.place(event.start_mark.index, event.end_mark.index)
        self._findings.add(code, message, place, remedy, via=self._via)

    def _at(self, event: Any, code: str, message: str, remedy: str = "") -> Malformed:
        """A mistake after which reading cannot go on."""
        start = event.start_mark.index
        return Malformed(code, message, start, max(event.end_mark.index, start + 1), remedy)


def _last_end(node: Node) -> int:
    """Where a block collection really ends: libyaml says only where the next thing begins."""
    children = node.children
    last = (children[-1] if isinstance(children, list) else children[next(reversed(children))]) if children else None
    return max(last.end, node.start + 1) if last is not None and last.document is node.document else node.end


def _kind(value: object) -> str:
    return "nothing" if value is None else f"the {'truth value' if isinstance(value, bool) else 'number'} {value}"
