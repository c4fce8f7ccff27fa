"""Which cases there are: playbooks, the rows of a CSV file, and what each is called. Performs nothing."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playbook.errors import UsageError, reason_of
from playbook.folders import file_name
from playbook.formats.findings import Findings
from playbook.formats.source import need_file, parse, read_file

ID = "id"
"""The column that names the rows. A playbook that declares a variable of this name gets it, any other does not."""


@dataclass(frozen=True, slots=True)
class Case:
    """A playbook, perhaps with a row of the file `data`.

    `row` counts from 1, as the data rows do; `id` is the row's own name, `line` where it begins.
    """

    file: Path
    row: int = 0
    values: Mapping[str, str] = field(default_factory=dict)
    id: str = ""
    data: Path | None = None
    line: int = 0

    @property
    def name(self) -> str:
        """What it is called in reports."""
        return f"{self.file}[{self.id or self.row}]" if self.row else str(self.file)

    @property
    def tape(self) -> Path:
        """Where its cassette lies: `intro.tape` beside `intro.yaml`; of the row `ada`, `intro.ada.tape`."""
        stem = self.file.name.removesuffix(".yaml").removesuffix(".yml")
        return self.file.with_name(f"{stem}.{file_name(self.id)}.tape" if self.row else f"{stem}.tape")


@dataclass(frozen=True, slots=True)
class Task:
    """One performance to come."""

    case: Case
    repetition: int
    folder: Path


def rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """The rows of a CSV file with a header, each with its line; columns are parted by commas, or by what the header has instead.

    Raises `UsageError` that names the line.
    """
    line = 1
    try:
        with need_file(path).open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            stated = re.fullmatch(r"sep=(.)\r?\n", first)  # Excel's first line
            if stated is None:
                file.seek(0)
            above = 0 if stated is None else 1
            part = stated[1] if stated else "," if "," in first else next((char for char in ";\t" if char in first), ",")
            reader = csv.reader(file, strict=True, delimiter=part)
            header = [name.strip() for name in next(reader, [])]
            if not any(header):
                raise UsageError(f"{path} has no header", remedy="the first line names the variables")
            for number, name in enumerate(header, 1):
                if not name:
                    raise UsageError(f"{path}:1: column {number} has no name")
                if header.count(name) > 1:
                    raise UsageError(f"{path}:1: two columns are called '{name}'")
            found, lines = list[tuple[int, dict[str, str]]](), dict[str, int]()
            line = reader.line_num + 1 + above
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    if len(cells) != len(header):
                        few = len(cells) < len(header)
                        remedy = "a cell may be empty, but not missing" if few else f"a value with {part!r} in it must be in quotes"
                        raise UsageError(f"{path}:{line}: {_number(cells, 'cell')}, but {_number(header, 'column')}", remedy=remedy)
                    row = dict(zip(header, cells, strict=True))
                    _check_id(row, lines, path, line)
                    found.append((line, row))
                line = reader.line_num + 1 + above
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} cannot be read as CSV: it is not UTF-8", remedy="save it as CSV in UTF-8") from error
    except csv.Error as error:
        remedy = "a value that begins with a quote ends with one, and a quote within it is written twice"
        raise UsageError(f"{path}:{line}: the row cannot be read as CSV: {error}", remedy=remedy) from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read as CSV: {reason_of(error)}") from error
    if not found:
        raise UsageError(f"{path} has no rows below its header")
    return found


def _number(things: Sequence[str], what: str) -> str:
    return f"{len(things)} {what}{'' if len(things) == 1 else 's'}"


def _check_id(row: Mapping[str, str], lines: dict[str, int], path: Path, line: int) -> None:
    """A row's name is there, and its own."""
    if ID not in row:
        return
    if not row[ID].strip():
        raise UsageError(f"{path}:{line}: the row has no {ID}", remedy=f"a column '{ID}' names every row, or there is none")
    if row[ID] in lines:
        raise UsageError(f"{path}:{line}: the row in line {lines[row[ID]]} has the {ID} '{row[ID]}' too", remedy=f"'{ID}' names one row")
    lines[row[ID]] = line


def cases(files: Sequence[Path], data: Path | None = None) -> list[Case]:
    """Every file, or every file with every row of the data. Raises `UsageError` for data that cannot be used."""
    if data is None:
        return [Case(file) for file in files]
    found = rows(data)
    for file in files:
        if ID in found[0][1] and ID in secrets_of(file):
            raise UsageError(f"the column '{ID}' of {data} names the rows in reports, and in {file} it is a secret")
    plain = [(row.get(ID, ""), {name: value for name, value in row.items() if name != ID}, line) for line, row in found]
    return [Case(file, n, values, id, data, line) for file in files for n, (id, values, line) in enumerate(plain, 1)]


def check_tapes(chosen: Sequence[Case]) -> None:
    """Every case has a cassette of its own. Raises `UsageError`."""
    known: dict[Path, Case] = {}
    for case in chosen:
        if case.row and not file_name(case.id):
            raise UsageError(
                f"the cassette of {case.name} has no name", remedy=f"rows are known by a column '{ID}', which their cassettes bear"
            )
        if (other := known.setdefault(case.tape, case)) is not case:
            raise UsageError(f"{other.name} and {case.name} have one cassette, {case.tape}", remedy="rename one of them")


def variables(file: Path) -> Mapping[str, Any]:
    """The variables that a playbook declares, as they are written; whether that is right is the language's to say."""
    try:
        root = parse(read_file(file), file, str(file), Findings())
    except OSError:
        return {}
    data: Any = None if root is None else root.data
    found = data.get("vars") if isinstance(data, dict) else None
    return found if isinstance(found, dict) else {}


def secrets_of(file: Path) -> frozenset[str]:
    """The names of a playbook's secret variables."""
    return frozenset(name for name, facts in variables(file).items() if isinstance(facts, dict) and facts.get("secret") is True)


def tasks(chosen: Sequence[Case], repeat: int, folder: Path) -> list[Task]:
    """The repetitions, interleaved: what is slow or broken for a minute hits all cases alike, and not one case every time."""
    plain = [file_name(case.name) for case in chosen]
    unique = [name if plain.count(name) == 1 else f"{name}-{index}" for index, name in enumerate(plain, 1)]
    return [
        Task(case, repetition, folder / (name if repeat == 1 else f"{name}.{repetition}"))
        for repetition in range(1, repeat + 1)
        for case, name in zip(chosen, unique, strict=True)
    ]
