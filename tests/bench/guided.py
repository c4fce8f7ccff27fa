"""Coverage-guided fuzzing: `python -m tests.bench trial-guided [SECONDS]`, so many for each reader."""

from __future__ import annotations

from tests.bench import Say, bench
from tests.trials.guided import INSTALL, available, guided


@bench("trial-guided", "garbage that learns which way leads further in, for every reader; a number says how many seconds for each")
def try_guided(say: Say, seconds: int = 60) -> None:
    from tests.trials.targets import TARGETS

    if not available():
        say(f"readers that were not tried, because atheris is not here ({INSTALL})", len(TARGETS), "", target=0)
        return
    for name in TARGETS:
        tried = guided(name, seconds)
        print(f"  {name}: {tried.edges} branches, {tried.corpus} inputs that each took another way, {tried.peak_mb} MB at most")
        say(f"{name}: inputs", tried.inputs, "")
