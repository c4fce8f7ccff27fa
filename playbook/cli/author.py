"""The verbs of an author: `new`, `plan`, `schema`, `providers`. Nothing here opens a session."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from playbook.cli.inputs import add_inputs, load
from playbook.cli.options import Command, Parser, err, in_colour, out, out_json, width
from playbook.errors import AuthorError, SetupError, UsageError, near_or_all, reason_of
from playbook.folders import file_name
from playbook.formats.schema import load_schema, resolve, schema_path
from playbook.perform.world import World
from playbook.providers import registry

if TYPE_CHECKING:
    from playbook.providers.base import Provider


# --- new ------------------------------------------------------------------------------------------------------------------

_STARTER = """\
# yaml-language-server: $schema={schema}
#
# A playbook says what a talking avatar says, and when.
#
{usage}
#
version: 1
name: {name}
description: Welcomes a visitor.
provider: {provider}
{session}
# Values from outside: --var visitor=Ada, PLAYBOOK_VAR_visitor=Ada, or --vars FILE.
vars:
  visitor: {{type: string, default: friend, description: how to address the visitor}}

limits: {{max_duration: 5m}}
{start}
timeline:
  # A line. The show moves on when it has been heard to its end.
  - say: Welcome, {{{{ visitor }}}}.
    id: hello

  - wait: 800ms
{interruption}
  - say: That is all.
  - end:
"""
_LANGUAGE = """\
# session: {language: en}  # text is read as English, unless this names another language: de, fr, es, ...
"""
_START = """
# The timeline begins when you press Enter (or the trigger `go` comes), so that somebody is there to watch.
start: go
"""
_INTERRUPTION = """
  # This one is cut: the show moves on two seconds after its speech began.
  - say: This sentence is a long one, and nobody will ever hear how it was meant to end.
    until: 2s
  - interrupt:
"""


def add_new(parser: Parser) -> None:
    parser.add_argument("file", metavar="FILE", type=Path, help="where to write it; must not exist yet")
    parser.add_argument("--provider", metavar="NAME", default="local", help="the provider that it is for (local)")
    parser.add_argument("--from", dest="source", metavar="FILE", type=Path, help="begin with these lines: a text, or a table (.csv)")
    parser.add_argument("--kiosk", action="store_true", help="write a kiosk file, and a playbook for it beside it")


def new(args: Namespace) -> int:
    path: Path = args.file
    if args.kiosk:
        return _new_kiosk(path)
    world = World()
    provider = _provider(world, args.provider)
    remote = provider.capabilities({}).remote
    session = _session_example(world.session_schema(args.provider) or {}, needed=remote)
    word = shlex.quote(str(path))
    emulated = registry.has_emulator(provider)
    text = _STARTER.format(
        schema=_relative(schema_path("playbook.schema.json"), path.parent),
        usage=_usage(word, emulated),
        name=json.dumps(path.name.split(".")[0], ensure_ascii=False),
        provider=provider.name,
        session=_as_yaml(session) if remote else _LANGUAGE,
        start=_START if remote else "",
        interruption=_INTERRUPTION if provider.capabilities(session).interrupt != "none" else "",
    )
    if args.source is not None:
        from playbook.cli.lines import timeline_of

        text = text.partition("timeline:\n")[0] + "timeline:\n" + timeline_of(args.source)
    _write_new(path, text)
    what = "rehearse" if emulated else "perform" if remote else "hear"
    out(f"wrote {path}; {what} it with `playbook run {word}{' --emulate' if emulated else ''}`")
    return 0


def _write_new(path: Path, text: str) -> None:
    try:
        with open(path, "x", encoding="utf-8", errors="replace") as file:  # its own name stands in it, which may be any bytes
            file.write(text)
    except FileExistsError as error:
        raise UsageError(f"{path} exists already", remedy="name a new file") from error
    except FileNotFoundError as error:
        raise UsageError(f"there is no folder {path.parent}") from error
    except OSError as error:
        raise SetupError(f"{path} cannot be written: {reason_of(error)}") from error


def _new_kiosk(path: Path) -> int:
    from playbook.kiosk.starter import KIOSK, PLAYBOOK

    playbook = path.with_name(f"{path.name.split('.')[0]}-welcome.yaml")
    word = shlex.quote(str(path))
    text = KIOSK.format(
        schema=_relative(schema_path("kiosk.schema.json"), path.parent),
        file=word,
        name=file_name(path.name.split(".")[0]) or "kiosk",
        zone="Europe/Berlin",
        playbook=json.dumps(playbook.name, ensure_ascii=False),
    )
    if playbook.exists():
        raise UsageError(f"{playbook} exists already", remedy="name the kiosk otherwise")
    _write_new(path, text)
    _write_new(playbook, PLAYBOOK.format(schema=_relative(schema_path("playbook.schema.json"), path.parent)))
    out(f"wrote {path} and {playbook}; run it with `playbook kiosk {word}`")
    return 0


def _usage(file: str, emulated: bool) -> str:
    """What can be done with the starter, as a comment in it."""
    lines = [
        (f"playbook check {file}", "everything that is wrong with it, and where"),
        (f"playbook plan {file}", "when each line will be heard"),
        (f"playbook run {file}", "perform it"),
    ]
    if emulated:
        lines.append((f"playbook run {file} --emulate", "rehearse it, without key, network and costs"))
    widest = max(len(command) for command, _ in lines)
    return "\n".join(f"#   {command:<{widest}}   {what}" for command, what in lines)


def _relative(schema: Path, folder: Path) -> str:
    """The schema as an editor finds it from the file: beside it in one project, or where it is installed."""
    project = Path.cwd()
    inside = schema.is_relative_to(project) and folder.resolve().is_relative_to(project)
    return Path(os.path.relpath(schema, folder.resolve())).as_posix() if inside else schema.as_uri()


def _session_example(schema: Mapping[str, Any], *, needed: bool) -> dict[str, Any]:
    """Session settings to begin with: the schema's own example."""
    example = dict(next(iter(schema.get("examples", ())), {})) if needed else {}
    return {name: _placeholder(name, value) for name, value in example.items()}


def _placeholder(name: str, value: Any, within: str = "") -> Any:
    """A setting's example, in which nothing that must be the user's own looks as if it were."""
    if isinstance(value, Mapping):
        return {key: _placeholder(key, each, name.removesuffix("Config")) for key, each in value.items()}
    if isinstance(value, str) and (whose := re.fullmatch(r"(?:(.*?)_?)?[iI]d", name)):
        return f"YOUR-{(whose[1] or within).upper()}-ID"
    return value


def _as_yaml(session: Mapping[str, Any]) -> str:
    if not session:
        return ""
    import yaml

    settings: str = yaml.safe_dump({"session": session}, sort_keys=False, allow_unicode=True)
    return settings.replace("session:\n", "session: # YOUR-… are ids of your own, from your account there; the emulator takes any\n", 1)


# --- plan -----------------------------------------------------------------------------------------------------------------


def add_plan(parser: Parser) -> None:
    parser.add_argument("file", metavar="FILE", type=Path, help="a playbook")
    add_inputs(parser)
    parser.add_argument("--strict", action="store_true", help="warnings are errors")
    parser.add_argument("--json", action="store_true", help="the plan itself, with its plan_sha256")


def plan(args: Namespace) -> int:
    compiled = load(args, args.file, World.of(args.env))
    if args.strict and compiled.warnings:
        raise AuthorError(compiled.warnings)
    if args.json:
        from playbook.language import plan_to_json

        out_json(plan_to_json(compiled))
        return 0
    from playbook.report import cue_sheet

    out(cue_sheet(compiled, width=width(), colour=in_colour(sys.stdout, args.env)))
    return 0


# --- schema ---------------------------------------------------------------------------------------------------------------


def add_schema(parser: Parser) -> None:
    what = "playbook (the default, with every provider's settings), language (without), another format's, or a provider's settings alone"
    parser.add_argument("name", metavar="NAME", nargs="?", default="playbook", help=what)
    parser.add_argument("--path", action="store_true", help="where the schema lies instead of what is in it")


def schema(args: Namespace) -> int:
    world = World()
    if args.name == "playbook" and not args.path:
        return _everything(world)
    known = {path.name.removesuffix(".schema.json"): path for path in sorted(schema_path("").glob("*.schema.json"))}
    path = known.get(args.name)
    if path is None and (provider := world.provider(args.name)) is not None:
        path = schema_path("providers") / provider.schema  # a plug-in's is an absolute path
    if path is None:
        names = [*known, *world.providers()]
        raise UsageError(f"there is no schema '{args.name}'", remedy=near_or_all(args.name, names))
    if args.path:
        out(str(path))
    else:
        out_json(json.loads(path.read_text("utf-8")), indent=2)
    return 0


def _everything(world: World) -> int:
    """The language with the settings of all providers that are installed: what lies on the disk knows only ours."""
    from playbook.language.editor_schema import editor_schema

    settings: dict[str, Mapping[str, Any]] = {}
    code = 0
    for name in world.providers():
        try:
            settings[name] = world.session_schema(name) or {}
        except SetupError as error:  # a plug-in that does not load hides no other provider
            err(f"error: {error.message}")
            code = SetupError.exit_code
    out_json(editor_schema(load_schema("language.schema.json"), settings), indent=2)
    return code


# --- providers ------------------------------------------------------------------------------------------------------------


def add_providers(parser: Parser) -> None:
    parser.add_argument("name", metavar="NAME", nargs="?", help="tell everything of one provider, its session settings too")
    parser.add_argument("--json", action="store_true", help="the same as JSON")


def providers(args: Namespace) -> int:
    from dataclasses import asdict

    world = World()
    names = [args.name] if args.name else list(world.providers())
    found: list[Provider] = []
    for name in names:
        try:
            found.append(_provider(world, name))
        except SetupError as error:  # a plug-in that does not load hides no other provider
            if args.name:
                raise
            err(f"error: {error.message}")
    code = 0 if len(found) == len(names) else SetupError.exit_code
    if args.json:
        data = [
            {
                "name": provider.name,
                "capabilities": asdict(provider.capabilities({})),
                "credentials": [{"variables": list(each), "present": _present(each, args)} for each in registry.credentials(provider)],
                "schema": str(schema_path("providers") / provider.schema),
            }
            for provider in found
        ]
        out_json(data)
        return code
    colour = in_colour(sys.stdout, args.env)
    if args.name:
        out(_one_provider(found[0], args, colour))
        return 0
    from playbook.report import capability_rows, table

    headers = ["provider", *(what for what, _ in capability_rows(found[0].capabilities({}))), "credentials"]
    columns = [
        [provider.name, *(value.partition(":")[0] for _, value in capability_rows(provider.capabilities({}))), _ready(provider, args)]
        for provider in found
    ]
    # Four or five providers with nine facts each read better turned by a right angle.
    rows = list(zip(headers[1:], *(column[1:] for column in columns), strict=True))
    titles, wide = ["", *(column[0] for column in columns)], width()
    text = table(titles, rows, colour=colour)
    if wide is not None and max(map(len, table(titles, rows).split("\n"))) > wide:
        text = "\n\n".join(
            table([column[0], ""], zip(headers[1:], column[1:], strict=True), width=wide, colour=colour) for column in columns
        )
    out(text)
    return code


def _one_provider(provider: Provider, args: Namespace, colour: bool) -> str:
    from playbook.report import BOLD, capability_rows, paint, table

    title = paint(provider.name, BOLD, colour=colour)
    lines = [title, "", table(["what it can do", ""], capability_rows(provider.capabilities({})), colour=colour), ""]
    ways = registry.credentials(provider)
    if ways:
        rows = [("present" if _present(each, args) else "missing", " and ".join(each)) for each in ways]
        lines += [table(["credentials", "" if len(rows) == 1 else "one of these"], rows, width=width(), colour=colour), ""]
    else:
        lines += ["it needs no credentials", ""]
    schema = load_schema(str(Path("providers") / provider.schema))
    rows = list(_settings(schema, schema))
    title = "session settings (* required)" if any(name.endswith(" *") for name, _ in rows) else "session settings"
    lines.append(table([title, ""], rows, width=width(), colour=colour))
    return "\n".join(lines)


def _settings(
    facts: Mapping[str, Any], schema: Mapping[str, Any], above: str = "", seen: tuple[Any, ...] = ()
) -> Iterator[tuple[str, str]]:
    """Each setting, and those within it: its name; what it takes, its default, what it is about."""
    told: set[str] = set()
    for part in _parts(facts, schema):
        for key, given in part.get("properties", {}).items():
            referred = resolve(given, schema)
            if key in told or "const" in given or not isinstance(referred, Mapping) or referred in seen:
                continue
            told.add(key)
            setting = {**referred, **given}
            takes = setting.get("title", setting.get("type", ""))
            if "enum" in setting:
                takes = ", ".join(json.dumps(value).strip('"') for value in setting["enum"])
            default = f"; default {json.dumps(setting['default'], ensure_ascii=False)}" if "default" in setting else ""
            about = f"{takes}{default}. {setting.get('description', '')}" if takes else setting.get("description", "")
            yield above + key + (" *" if key in facts.get("required", ()) else ""), about  # not what one of several kinds requires
            yield from _settings(referred, schema, f"{above}{key}.", (*seen, referred))


def _parts(facts: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A definition, and those that it is made of or chooses from."""
    yield facts
    for also in (*facts.get("allOf", ()), *facts.get("anyOf", ()), *facts.get("oneOf", ())):
        for each in (also, also.get("then", {})):
            if isinstance(found := resolve(each, schema), Mapping) and found:
                yield from _parts(found, schema)


def _provider(world: World, name: str) -> Provider:
    found = world.provider(name)
    if found is None:
        names = world.providers()
        raise UsageError(f"there is no provider '{name}'", remedy=near_or_all(name, names))
    return found


def _present(variables: Sequence[str], args: Namespace) -> bool:
    return all(args.env.get(variable) for variable in variables)


def _ready(provider: Provider, args: Namespace) -> str:
    ways = registry.credentials(provider)
    if not ways:
        return "none needed"
    return "present" if any(_present(each, args) for each in ways) else "missing"


COMMANDS = {
    "new": Command(add_new, new),
    "plan": Command(add_plan, plan),
    "schema": Command(add_schema, schema),
    "providers": Command(add_providers, providers),
}
