"""The verb `voices`: which there are, how they sound, and how to get a natural one."""

from __future__ import annotations

import sys
import wave
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from playbook.cli.options import Command, Parser, err, in_colour, is_live, out, out_json
from playbook.errors import SetupError, UsageError, near_or_all
from playbook.perform.world import World

if TYPE_CHECKING:
    from playbook.speech.engines import Engine
    from playbook.speech.kokoro import Release
    from playbook.speech.voice import Voice

SAMPLE = "Good morning. This is how I sound."


def add_voices(parser: Parser) -> None:
    parser.add_argument("action", nargs="?", choices=("list", "play", "install"), default="list", help="what to do (list)")
    parser.add_argument("name", metavar="VOICE", nargs="?", help="list, install: an engine; play: a voice, such as kokoro/af_heart")
    parser.add_argument("text", metavar="TEXT", nargs="?", help="play: what it says")
    parser.add_argument("--to", metavar="FILE", type=Path, help="play: write it as WAV instead")
    parser.add_argument("--language", metavar="CODE", help="play: in this language")
    parser.add_argument("--source", metavar="URL", help="install: another address that has the same files (a mirror)")
    parser.add_argument("--json", action="store_true", help="the list as JSON")


def voices(args: Namespace) -> int:
    voice = World.of(args.env).local.voice
    if args.action != "play" and args.text:
        raise UsageError(f"`voices {args.action}` takes no text")
    try:
        return {"list": _list, "play": _play, "install": _install}[args.action](args, voice)
    finally:
        voice.close()


def _list(args: Namespace, voice: Voice) -> int:
    from playbook.speech import engines

    chosen = [_engine(args.name, voice)] if args.name else [_engine(name, voice) for name in engines.names()]
    found = [_facts(engine) for engine in chosen]
    if args.json:
        out_json(found)
        return 0
    from playbook.report import table

    rows = [[each["engine"], str(len(each["speakers"])), each["marks"], each["licence"], each["missing"] or "installed"] for each in found]
    out(table(["engine", "speakers", "words", "licence", ""], rows, colour=in_colour(sys.stdout, args.env)))
    for each in found:
        if args.name and each["speakers"]:
            out("")
            for speaker in each["speakers"]:
                out(f"  {args.name}/{speaker['name']}  {', '.join(speaker['languages'])}")
        if each["remedy"]:
            out(f"{each['engine']}: {each['remedy']}")
    return 0


def _facts(engine: Engine) -> dict[str, Any]:
    lack = engine.lacks()
    speakers = [] if lack else engine.speakers()
    return {
        "engine": engine.name,
        "licence": engine.licence,
        "deterministic": engine.deterministic,
        "marks": engine.marks,
        "missing": lack and lack[0],
        "remedy": lack and lack[1],
        "speakers": [{"name": speaker.name, "languages": list(speaker.languages)} for speaker in speakers],
    }


def _engine(name: str, voice: Voice) -> Engine:
    from playbook.speech import engines

    found = voice.engine(name)
    if found is None:
        raise UsageError(f"there is no voice engine '{name}'", remedy=near_or_all(name, engines.names()))
    return found


def _play(args: Namespace, voice: Voice) -> int:
    from playbook.speech.voice import Settings

    speech = voice.speak(args.text or SAMPLE, Settings(voice=args.name, language=args.language))
    if args.to is not None:
        try:
            with wave.open(str(args.to), "wb") as file:
                file.setnchannels(1)
                file.setsampwidth(2)
                file.setframerate(speech.rate)
                file.writeframes(speech.sound.pcm)
        except OSError as error:
            raise SetupError(f"{args.to} cannot be written: {error.strerror}") from error
        out(f"{args.to}: {speech.duration_ms / 1000:.1f} s")
        return 0
    from playbook.clock import block
    from playbook.speech.loudspeaker import Loudspeaker
    from playbook.speech.show import Placement

    with Loudspeaker() as loudspeaker:
        loudspeaker.begin(Placement(0, lambda: speech.sound, 0, None))
        block(speech.duration_ms)
    return 0


def _install(args: Namespace, voice: Voice) -> int:
    from playbook.speech.kokoro import Kokoro
    from playbook.transports.download import fetch

    engine = _engine(args.name or "kokoro", voice)
    if not isinstance(engine, Kokoro):
        lack = engine.lacks()
        raise UsageError(f"the voice '{engine.name}' has nothing to fetch", remedy=lack[1] if lack else "it is installed")
    release: Release = engine.release
    total = sum(file.size for file in release.files)
    err(f"{engine.name}: {total / 1e6:.0f} MB under {release.licence}, into {engine.folder}")
    live = is_live(sys.stderr, args.env)
    for file in release.files:

        def progress(count: int, name: str = file.name, size: int = file.size) -> None:
            if live:
                done = 40 * count // size
                sys.stderr.write(f"\r{name} [{'#' * done}{'.' * (40 - done)}] {count / 1e6:.0f} of {size / 1e6:.0f} MB")
                sys.stderr.flush()

        if engine.has(file):
            err(f"{file.name} is there")
            continue
        address = args.source or release.address
        fetch(f"{address.rstrip('/')}/{file.name}", engine.folder / file.name, file.size, file.sha256, progress)
        if live:
            sys.stderr.write("\n")
        err(f"{file.name}: its digest is right")
    lack = engine.lacks()
    out(f"{engine.name} is installed" if lack is None else f"{engine.name} is not ready: {lack[0]}; {lack[1]}")
    return 0


COMMANDS = {"voices": Command(add_voices, voices)}
