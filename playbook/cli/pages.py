"""One-file HTML pages: two runs one above the other, and the report of a test.

A page needs nothing but itself: no script, no font, no address. Whatever comes from a playbook, a log or a provider is escaped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape

from playbook.cli.compared import off_text, other_playbook, seconds_exact, value_text
from playbook.cli.reports import counts, label, rates
from playbook.errors import printable
from playbook.record.diff import VERDICTS, Change, Comparison, latency, words
from playbook.record.performance import Act, Performance
from playbook.report import clock_time, count
from playbook.suite import Result

MAX_BARS = 2_000
"""More than this on one timeline and no browser likes the page; the table below it has them all."""
MAX_ROWS = 20_000

_STYLE = """
:root { color-scheme: light dark; --ink: #1d232b; --soft: #66707d; --paper: #fff; --line: #d9dee5; --bar: #c7d3e3; --say: #8fb4e8;
  --good: #1a7f4b; --bad: #c0322b; --odd: #a36a00; --gone: #fbd9d6; --come: #d3f0dd; --say-ink: #0d2a50; }
@media (prefers-color-scheme: dark) { :root { --ink: #e3e8ee; --soft: #98a3b0; --paper: #14181d; --line: #323a44; --bar: #3a4656;
  --say: #3b669e; --good: #57c98a; --bad: #ff8178; --odd: #e5b04f; --gone: #5b2522; --come: #1d4a2e; --say-ink: #eaf2fd; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.5rem 4rem; max-width: 78rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; } h2 { font-size: 1.05rem; margin: 2rem 0 .5rem; }
p { margin: .25rem 0; } .soft { color: var(--soft); } code { font: 13px/1.5 ui-monospace, monospace; overflow-wrap: anywhere; }
.verdicts { display: flex; flex-wrap: wrap; gap: .75rem; margin: 1.25rem 0; }
.verdict { border: 1px solid var(--line); border-left: .35rem solid var(--good); border-radius: .35rem; padding: .4rem .9rem; }
.verdict b { display: block; font-size: 1.05rem; } .verdict.bad { border-left-color: var(--bad); }
.verdict.odd { border-left-color: var(--odd); } .verdict.none { border-left-color: var(--line); }
.show { margin: .4rem 0 1rem; } .show h3 { font-size: .9rem; margin: 0 0 .25rem; font-weight: 600; overflow-wrap: anywhere; }
.lane { position: relative; height: 1.9rem; background: linear-gradient(var(--line), var(--line)) 0 100% / 100% 1px no-repeat; }
.lane.thin { height: .7rem; } .bar { position: absolute; top: .15rem; bottom: .15rem; min-width: 2px; border-radius: .2rem;
  background: var(--bar); overflow: hidden;
  white-space: nowrap; font-size: .75rem; line-height: 1.6rem; color: var(--say-ink); }
.bar.say { background: var(--say); } .bar.changed { outline: 2px solid var(--bad); outline-offset: -2px; }
.bar.only { background: repeating-linear-gradient(45deg, var(--bad) 0 3px, var(--say) 3px 8px); }
.bar span { display: block; padding: 0 .3rem; overflow: hidden; text-overflow: ellipsis; }
.axis { position: relative; height: 1.2rem; font-size: .72rem; color: var(--soft); }
.axis span { position: absolute; transform: translateX(-50%); } .axis span:first-child { transform: none; }
.axis span:last-child { transform: translateX(-100%); }
table { border-collapse: collapse; width: 100%; }
th { text-align: left; white-space: nowrap; font-weight: 600; color: var(--soft); font-size: .8rem; }
th, td { padding: .3rem .75rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top; overflow-wrap: anywhere; }
td.id { min-width: 8rem; } td.case { min-width: 15rem; }
td.n { white-space: nowrap; font-variant-numeric: tabular-nums; } del { background: var(--gone); } ins { background: var(--come);
  text-decoration: none; } .good { color: var(--good); } .bad { color: var(--bad); } .odd { color: var(--odd); }
summary { cursor: pointer; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: .4rem 0; font: 13px/1.45 ui-monospace, monospace; }
@media (min-width: 45.01rem) and (max-width: 60rem) { .axis span:nth-child(even) { display: none; } }
@media (max-width: 45rem) { body { padding: 1.25rem 1rem 3rem; } .axis span:not(:nth-child(5n + 1)) { display: none; }
  table, tbody, tr, td { display: block; } tr.head, td:empty { display: none; }
  tr { padding: .4rem 0; border-bottom: 1px solid var(--line); } td { padding: 0; border: 0; }
  td[data-of]::before { content: attr(data-of) ": "; color: var(--soft); font-size: .8rem; }
  td.id, td.case, td[data-of] { display: inline-block; min-width: 0; padding-right: .75rem; } td.n { white-space: normal; } }
"""
"""On a narrow screen a table's rows stand below each other, and each cell says by itself what it is of (`data-of`)."""


def _page(title: str, body: Iterator[str]) -> str:
    head = f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
    policy = "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
    view = '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    return _clean(f"{head}{policy}{view}<style>{_STYLE}</style>\n</head>\n<body>\n" + "\n".join(body) + "\n</body>\n</html>\n")


def _clean(text: str) -> str:
    """Without what cannot stand in a UTF-8 page."""
    return printable(text, "\n\t")


# --- two runs -------------------------------------------------------------------------------------------------------------


def comparison_page(comparison: Comparison, tolerance: str) -> str:
    """Two runs, or two plans, one above the other."""
    return _page(f"{comparison.a.name} and {comparison.b.name}", _compared(comparison, tolerance))


def _compared(comparison: Comparison, tolerance: str) -> Iterator[str]:
    a, b = comparison.a, comparison.b
    yield "<h1>What changed</h1>"
    yield f'<p class="soft">from <code>{escape(a.name)}</code> to <code>{escape(b.name)}</code></p>'
    for side, run in (("first", a), ("second", b)):
        if run.damage is not None:
            yield f'<p class="bad">The {side} is damaged: {escape(run.damage)}</p>'
    if comparison.common == 0:
        yield '<p class="bad">The two have nothing in common.</p>'
    elif other_playbook(comparison):
        yield f'<p class="odd">They are of two playbooks: <code>{escape(a.playbook)}</code> and <code>{escape(b.playbook)}</code>.</p>'
    yield '<div class="verdicts">'
    for verdict in VERDICTS:
        changes = comparison.of(verdict)
        if verdict != "settings" or changes:
            told = count(len(changes), "change") if changes else "same"
            within = f" {'beyond' if changes else 'within'} {escape(tolerance)}" if verdict == "timing" and not a.planned else ""
            yield f'<div class="verdict{" bad" if changes else ""}"><b>{told}</b>{verdict}{within}</div>'
    yield "</div>"
    changed = {
        id(act): any(not change.carried for change in row.changes) for row in comparison.rows for act in (row.a, row.b) if act is not None
    }
    only = {id(act) for row in comparison.rows if row.a is None or row.b is None for act in (row.a, row.b) if act is not None}
    end_ms = max(_end_ms(a), _end_ms(b), 1)
    yield from _show(a, end_ms, changed, only)
    yield from _show(b, end_ms, changed, only)
    yield _axis(end_ms)
    if not a.planned and not b.planned:
        yield "<h2>Whose waiting it was</h2>"
        yield '<table><tr class="head"><th></th><th>our timers, late</th><th>the provider, from command to sound</th></tr>'
        for run in (a, b):
            waits = latency(run)
            yield f"<tr><td><code>{escape(run.name)}</code></td>"
            yield f'<td class="n" data-of="our timers, late">{waits.ours_median} ms, at most {waits.ours_max} ms</td>'
            yield f'<td class="n" data-of="the provider">{waits.provider_median} ms, at most {waits.provider_max} ms</td></tr>'
        yield "</table>"
    if comparison.changes:
        yield "<h2>Changes</h2>"
        yield from changes_table(comparison.changes)


def changes_table(changes: Sequence[Change]) -> Iterator[str]:
    """Changes as an HTML table, as many as a page can bear."""
    yield '<table><tr class="head"><th>step</th><th>what</th><th>before</th><th>after</th><th></th></tr>'
    for change in changes[:MAX_ROWS]:
        step = escape(change.step) or "(the whole)"
        yield f'<tr><td class="id"><code>{step}</code></td><td class="id">{escape(change.what)}</td>{_cells(change)}</tr>'
    yield "</table>"
    if len(changes) > MAX_ROWS:
        yield f'<p class="soft">and {len(changes) - MAX_ROWS} more</p>'


def _cells(change: Change) -> str:
    if change.what == "words" and change.a is not None and change.b is not None:
        tags = {"same": "{}", "gone": "<del>{}</del>", "come": "<ins>{}</ins>"}
        return f'<td colspan="3">{"".join(tags[kind].format(escape(text)) for kind, text in words(str(change.a), str(change.b)))}</td>'
    if change.limit_ms is not None:
        return _both("n", seconds_exact(change.a), seconds_exact(change.b)) + f"<td>{escape(off_text(change))}</td>"
    what = "" if change.is_presence else change.what
    return _both("", value_text(what, change.a), value_text(what, change.b)) + "<td></td>"


def _both(kind: str, a: str, b: str) -> str:
    return "".join(
        f'<td class="{kind}" data-of="{of}">{escape(text)}</td>' if text else "<td></td>" for of, text in (("before", a), ("after", b))
    )


# timelines


def _end_ms(performance: Performance) -> int:
    return max((act.times["start"] + act.times.get("length", 0) for act in performance.acts if "start" in act.times), default=0)


def _show(performance: Performance, end_ms: int, changed: Mapping[int, bool], only: set[int]) -> Iterator[str]:
    drawn = [act for act in performance.acts if "start" in act.times]
    yield f'<div class="show"><h3>{escape(performance.name)}</h3>'
    for thin in (False, True):
        yield f'<div class="lane{" thin" if thin else ""}">'
        for act in drawn[:MAX_BARS]:
            if act.speaks is not thin:
                yield _bar(act, end_ms, changed.get(id(act), False), id(act) in only)
        yield "</div>"
    if len(drawn) > MAX_BARS:
        yield f'<p class="soft">the first {MAX_BARS} of {len(drawn)} steps</p>'
    yield "</div>"


def _bar(act: Act, end_ms: int, changed: bool, only: bool) -> str:
    start, length = act.times["start"], act.times.get("length", 0)
    classes = "bar" + (" say" if act.speaks else "") + (" only" if only else " changed" if changed else "")
    left, width = 100 * max(0, start) / end_ms, 100 * length / end_ms
    tip = f"{act.id}: {clock_time(start)}, {seconds_exact(length)}\n{act.words}"
    text = f"<span>{escape(act.words if act.verb == 'say' else '♪')}</span>" if act.speaks and width > 2 else ""
    return f'<div class="{classes}" style="left:{left:.3f}%;width:{width:.3f}%" title="{escape(tip)}">{text}</div>'


def _axis(end_ms: int) -> str:
    marks = "".join(f'<span style="left:{k * 10}%">{clock_time(end_ms * k // 10)}</span>' for k in range(11))
    return f'<div class="axis">{marks}</div>'


# --- a test -----------------------------------------------------------------------------------------------------------------


def test_page(results: Sequence[Result], *, repeat: int, started_at: str, took_ms: int) -> str:
    """The report of a test."""
    return _page("playbook test", _tested(results, repeat, started_at, took_ms))


_HUES = {"passed": "good", "failed": "bad", "error": "bad", "skipped": "odd", "never ran": "odd"}


def _tested(results: Sequence[Result], repeat: int, started_at: str, took_ms: int) -> Iterator[str]:
    yield "<h1>playbook test</h1>"
    times = f", {repeat} times each" if repeat > 1 else ""
    cases = count(len({result.name for result in results}), "case")
    yield f'<p class="soft">{cases}{times}; {escape(started_at)}; {took_ms / 1000:.1f} s</p>'
    yield '<div class="verdicts">'
    for status, number in counts(results).items():
        if number or status == "passed":
            hue = "none" if not number else {"good": "", "bad": "bad", "odd": "odd"}[_HUES[status]]
            yield f'<div class="verdict {hue}"><b>{number}</b>{status}</div>'
    yield "</div>"
    if repeat > 1:
        yield '<h2>Pass rates</h2><table><tr class="head"><th>case</th><th>passed</th></tr>'
        for name, (passed, ran) in rates(results).items():
            hue = "good" if passed == ran else "bad"
            yield f'<tr><td><code>{escape(name)}</code></td><td class="n {hue}">{passed} of {ran}</td></tr>'
        yield "</table>"
    yield '<h2>Cases</h2><table><tr class="head"><th>case</th><th>status</th><th>baseline</th><th>took</th><th>why</th></tr>'
    for result in sorted(results, key=lambda result: result.status not in ("failed", "error")):
        yield f'<tr><td class="case"><code>{escape(label(result, repeat))}</code></td>'
        yield f'<td class="n {_HUES[result.status]}">{result.status}</td>'
        yield f'<td class="n" data-of="baseline">{result.baseline}</td>' if result.performance else "<td></td>"
        yield f'<td class="n" data-of="took">{result.took_ms / 1000:.2f} s</td><td>{_why(result)}</td></tr>'
    yield "</table>"


def _why(result: Result) -> str:
    if not result.reasons:
        return ""
    first = result.reasons[0].split("\n")[0]
    if len(result.reasons) == 1 and "\n" not in result.reasons[0] and result.status not in ("failed", "error"):
        return escape(first)
    more = f" and {len(result.reasons) - 1} more" if len(result.reasons) > 1 else ""
    timeline = ""
    if result.performance is not None and (end_ms := _end_ms(result.performance)):
        steps = {change.step for change in result.changes if not change.carried}
        changed = {id(act): act.id in steps for act in result.performance.acts}
        timeline = "".join([*_show(result.performance, end_ms, changed, set()), _axis(end_ms)])
    text = escape("\n".join(result.reasons))
    folder = f'<p class="soft"><code>{escape(result.folder)}</code></p>' if result.folder else ""
    return f"<details><summary>{escape(first)}{more}</summary><pre>{text}</pre>{timeline}{folder}</details>"
