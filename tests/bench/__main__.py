"""`python -m tests.bench`: all figures. `python -m tests.bench NAME…`: those whose name begins so. `--list`: what there is.

A number among the names is for the benchmarks that take one.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import platform
import sys

from tests.bench import BENCHES, __path__, speaker


def main(names: list[str]) -> int:
    for module in pkgutil.iter_modules(__path__):
        if module.name != "__main__":
            importlib.import_module(f"tests.bench.{module.name}")
    if names == ["--list"]:
        for name, (about, _) in sorted(BENCHES.items()):
            print(f"{name:<24}{about}")
        return 0
    numbers = [int(name) for name in names if name.isdigit()]
    names = [name for name in names if not name.isdigit()]
    chosen = [name for name in sorted(BENCHES) if not names or name.startswith(tuple(names))]
    if not chosen:
        print(f"no such benchmark; there are {', '.join(sorted(BENCHES)) or 'none'}", file=sys.stderr)
        return 5
    print(f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores")
    missed: list[str] = []
    for name in chosen:
        about, measure = BENCHES[name]
        print(f"{name}: {about}", flush=True)
        measure(speaker(missed), *numbers)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
