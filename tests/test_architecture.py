"""The order of the rooms: each room imports only rooms above it, and the pure rooms know no world."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "playbook"

ROOMS = (
    ("errors",),
    ("model",),
    ("events",),
    ("ports",),
    ("formats",),
    ("language",),
    ("engine",),
    ("record",),
    ("clock",),
    ("folders",),
    ("speech",),
    ("transports",),
    ("journal",),
    ("emulators",),
    ("providers",),
    ("sessions",),
    ("perform",),
    ("testing",),
    ("api", "suite"),
    ("report",),
    ("controls",),
    ("stage",),
    ("kiosk",),
    ("cli", "pytest_plugin"),
    ("__main__",),
)
LEVEL = {room: level for level, rooms in enumerate(ROOMS) for room in rooms}
WORLDLY = {"asyncio", "threading", "socket", "time", "random", "httpx", "subprocess", "os", "datetime", "secrets", "uuid", "signal"}
ALLOWED = {  # what a pure room may take from a worldly module, and why
    ("record/runlog.py", "os"): "fsync and fstat of the log that it is given",
    ("formats/source.py", "os"): "the arithmetic of paths",
}


def modules():
    return sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@functools.cache
def imports(path: Path) -> tuple[str, ...]:
    """Every imported module, also inside functions; those for type checkers only are left out."""
    tree = ast.parse(path.read_text("utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found: list[str] = []
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            found += (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            module = node.module or ""
            found += (f"{module}.{alias.name}" for alias in node.names) if module == "playbook" else (module,)
    return tuple(found)


def test_every_file_has_a_room():
    """A new file at the top of the package needs a place in the order."""
    assert {room(path) for path in modules()} - {"__init__"} == set(LEVEL)


def test_rooms_import_only_upwards():
    """`errors <- model <- language <- engine <- … <- cli`."""
    wrong = []
    for path in modules():
        if room(path) == "__init__":
            continue
        for name in imports(path):
            parts = name.split(".")
            if parts[0] == "playbook" and len(parts) > 1 and parts[1] in LEVEL:
                there, here = LEVEL[parts[1]], LEVEL[room(path)]
                if there > here or (there == here and parts[1] != room(path)):
                    wrong.append(f"{path.relative_to(PACKAGE)} imports {name}")
    assert not wrong


def test_pure_rooms_know_no_world():
    """Formats, language, engine and record know no clock, network, randomness or environment."""
    wrong = []
    for path in modules():
        if room(path) in ("errors", "model", "events", "formats", "language", "engine", "record"):
            relative = path.relative_to(PACKAGE).as_posix()
            worldly = (name for name in imports(path) if name.split(".")[0] in WORLDLY)
            wrong += [f"{relative} imports {name}" for name in worldly if (relative, name) not in ALLOWED]
    assert not wrong


def test_one_seam_to_the_outside():
    """Only `transports/http.py` knows httpx, only `transports/` the Daily SDK, only `clock.py` asks what time it is."""
    for path in modules():
        names = {name.split(".")[0] for name in imports(path)}
        relative = path.relative_to(PACKAGE).as_posix()
        assert "httpx" not in names or relative == "transports/http.py", relative
        assert "daily" not in names or relative.startswith("transports/"), relative
        assert "time" not in names or relative in (
            "clock.py",
            "transports/daily_child.py",
            "speech/espeak_child.py",
            "speech/kokoro_child.py",
        ), relative
