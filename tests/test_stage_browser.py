"""The stage's pages in a real browser: what an audience sees and hears, and what an operator does."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .logs import checked
from .stages import CHROMIUM, SHOW, Stage, staging, until

pytestmark = pytest.mark.browser

AUTOPLAY = "--autoplay-policy=no-user-gesture-required"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """The browser, with sound that needs no click."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", AUTOPLAY])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def lobby(tmp_path_factory: pytest.TempPathFactory, speech_cache: Path) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("stage")
    (folder / "lobby.yaml").write_text(SHOW, "utf-8")
    with staging(folder / "lobby.yaml", "--out", str(folder / "shows"), cache=speech_cache) as stage:
        yield stage


@pytest.fixture
def stage(lobby: Stage) -> Iterator[Stage]:
    yield lobby
    if lobby.state()["phase"] != "idle":
        lobby.signal("end")
        lobby.until_phase("idle")


@contextlib.contextmanager
def page(browser: Any, address: str, **context: Any) -> Iterator[Any]:
    """A page in a browser of its own; what goes wrong in it fails the test."""
    wrong: list[str] = []
    made = browser.new_context(**context)
    opened = made.new_page()
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("console", lambda told: wrong.append(told.text) if "Content Security Policy" in told.text else None)
    opened.goto(address)
    try:
        yield opened
    finally:
        made.close()
    assert wrong == []


WATCH = """() => {
  const seen = globalThis.seen = [];
  const look = () => {
    const heard = stage.sound.position();
    seen.push({at: heard && heard.at, shape: document.querySelector(".face").dataset.shape ?? "rest", level: stage.sound.level(),
      mouth: stage.face.mouth.down, caption: document.querySelector("#captions.shown")?.textContent ?? ""});
    requestAnimationFrame(look);
  };
  look();
}"""


def watch(audience: Any) -> None:
    """Note at every frame what is heard, what the mouth does, and what the captions say."""
    audience.evaluate(WATCH)


def joined(stage: Stage) -> None:
    until(lambda: [viewer["state"] for viewer in stage.state()["viewers"]] == ["joined"], "the page has joined")


# --- the audience -----------------------------------------------------------------------------------------------------------


def test_lips_move_while_a_line_is_heard_and_rest_between_lines(stage: Stage, chromium: Any):
    """The page plays the line; while it is heard the mouth takes several shapes, between two lines it rests; captions are as said."""
    with page(chromium, stage.audience) as audience:
        joined(stage)
        watch(audience)
        stage.signal("go")
        until(lambda: stage.step("long")["speaking"], "the second line is heard")
        seen = audience.evaluate("seen")
    spoken = [each for each in seen if each["at"] is not None and each["caption"].startswith("Welcome")]
    between = [each for each in seen[seen.index(spoken[-1]) :] if each["at"] is None]
    assert len({each["shape"] for each in spoken}) >= 2
    assert max(each["mouth"] for each in spoken) > 10
    assert max(each["level"] for each in spoken) > 0.05, "it is heard"
    assert {each["shape"] for each in between[1:]} == {"rest"}
    assert between[-1]["mouth"] < 4
    assert "Welcome to the lobby, dear friend." in {each["caption"] for each in seen}


def test_a_reload_in_the_middle_of_a_line_goes_on_where_it_is(stage: Stage, chromium: Any):
    """After a reload the same line is heard from where it is by now, with its caption."""
    with page(chromium, stage.audience) as audience:
        joined(stage)
        stage.signal("go")
        until(lambda: stage.step("long")["speaking"], "the long line is heard")
        before = until(lambda: audience.evaluate("stage.sound.position()?.at"), "it is heard in the page")
        audience.reload()
        after = until(lambda: audience.evaluate("globalThis.stage?.sound.position()?.at"), "it is heard again")
        assert after > before
        assert audience.locator("#captions").text_content().startswith("This is a rather long")


def test_panic_in_the_middle_of_a_word_is_silence_at_once(stage: Stage, chromium: Any):
    """Escape on the operator's page: within 300 ms nothing is heard on the audience's."""
    with page(chromium, stage.audience) as audience, page(chromium, stage.operator) as operator:
        joined(stage)
        stage.signal("go")
        until(lambda: stage.step("long")["speaking"], "the long line is heard")
        until(lambda: audience.evaluate("stage.sound.level()") > 0.02, "there is sound")
        audience.evaluate(
            """() => { globalThis.loud = []; const look = () => { if (stage.sound.level() > 0.003) loud.push(Date.now());
            requestAnimationFrame(look); }; look(); }"""
        )
        pressed = operator.evaluate(
            "() => { document.dispatchEvent(new KeyboardEvent('keydown', {key: 'Escape', cancelable: true})); return Date.now(); }"
        )
        until(lambda: audience.evaluate("Date.now()") > pressed + 1000, "a second has passed")
        assert max(audience.evaluate("loud"), default=0) - pressed < 300
        assert not audience.locator("#captions.shown").count()


def test_the_server_is_killed_and_started_again(tmp_path: Path, speech_cache: Path, chromium: Any):
    """Both pages say that the stage is not there, come back by themselves, and the next show is heard."""
    file = tmp_path / "lobby.yaml"
    file.write_text(SHOW, "utf-8")
    with staging(file, cache=speech_cache) as first:
        port = first.base.rpartition(":")[2]
        opened = contextlib.ExitStack()
        audience = opened.enter_context(page(chromium, first.audience))
        operator = opened.enter_context(page(chromium, first.operator))
        joined(first)
        first.process.kill()
        first.process.wait()
    with opened:
        audience.wait_for_selector("#notice:has-text('not there')")
        operator.wait_for_selector("body.lost")
        with staging(file, "--port", port, cache=speech_cache) as second:
            joined(second)
            operator.wait_for_selector("body:not(.lost)")
            assert audience.locator("#notice").is_hidden()
            second.signal("go")
            until(lambda: audience.evaluate("stage.sound.level()") > 0.02, "it is heard")


def test_a_blocked_autoplay_is_told_to_the_operator_and_ends_with_a_click(stage: Stage, chromium: Any):
    """Without a gesture the page shows its button and counts as blocked; after the click it has joined, and begins the show if it was
    opened for that."""
    strict = chromium.browser_type.launch(
        executable_path=CHROMIUM, args=["--no-sandbox", "--autoplay-policy=document-user-activation-required"]
    )
    with page(strict, stage.audience + "?begin") as audience:
        until(lambda: [viewer["state"] for viewer in stage.state()["viewers"]] == ["blocked"], "it is blocked")
        assert audience.locator("#start").is_visible()
        assert stage.state()["phase"] == "idle"
        audience.click("#start")
        joined(stage)
        until(lambda: audience.evaluate("stage.sound.level()") > 0.02, "the show is heard")
        assert audience.locator("#veil").is_hidden()
    strict.close()


def test_a_hostile_text_stays_text(tmp_path: Path, speech_cache: Path, chromium: Any):
    """Markup in a line is shown as it was written, by captions and cue sheet, and runs nothing."""
    file = tmp_path / "evil.yaml"
    evil = "<img src=x onerror=alert(1)><b>bold</b> says hello to everybody."
    file.write_text(SHOW.replace("Welcome to the lobby, dear friend.", f"'{evil}'"), "utf-8")
    with staging(file, cache=speech_cache) as stage, page(chromium, stage.audience) as audience, page(chromium, stage.operator) as operator:
        joined(stage)
        stage.signal("go")
        audience.wait_for_selector("#captions.shown")
        assert audience.locator("#captions").text_content() == evil
        assert operator.locator("#cues li").first.text_content().count("<b>bold</b>") == 1
        assert audience.locator("#captions img, #captions b").count() == operator.locator("main img, #cues b").count() == 0


def test_captions_go_by_the_address(stage: Stage, chromium: Any):
    """`captions=off` hides them, for eyes but not for a screen reader; `size` and colours come from the address, and a colour that is none
    is left out."""
    with page(chromium, stage.audience + "?captions=off&skin=rgb(1,2,3)&hair=url(x)") as audience:
        joined(stage)
        stage.signal("go")
        until(lambda: audience.locator("#spoken").text_content(), "a screen reader is told")
        assert audience.evaluate("document.querySelector('#captions').getBoundingClientRect().width") <= 1
        assert audience.evaluate("document.documentElement.style.getPropertyValue('--skin')") == "rgb(1,2,3)"
        assert audience.evaluate("document.documentElement.style.getPropertyValue('--hair')") == ""


# --- the operator -----------------------------------------------------------------------------------------------------------


def test_go_pressed_ten_times_in_a_second_is_one_go(stage: Stage, chromium: Any):
    """The space bar bounces: one performance begins, and the trigger that it waits for later is not given."""
    with page(chromium, stage.operator) as operator:
        operator.wait_for_selector("#cues li")
        operator.evaluate(
            """async () => { for (let i = 0; i < 10; i++) {
            document.dispatchEvent(new KeyboardEvent('keydown', {key: ' ', cancelable: true}));
            await new Promise((done) => setTimeout(done, 100)); } }"""
        )
        until(lambda: stage.state()["awaits"] == "next", "the show waits for its trigger")
        operator.keyboard.press("Space")
        until(lambda: stage.state()["step"] in ("bye", None), "go gave the trigger that was waited for")
        stage.until_phase("idle")
    log = checked(Path(stage.state()["result"]["folder"]))
    assert [line["trigger"] for line in log if line.get("event") == "trigger"] == ["next"]


def test_two_operators_see_the_same(stage: Stage, chromium: Any):
    """What one presses, the other sees: the live line, and after the end the result."""
    with page(chromium, stage.operator) as one, page(chromium, stage.operator) as two:
        two.wait_for_selector("#cues li")
        one.wait_for_selector("#cues li")
        one.click("#go")
        two.wait_for_selector("#cues .running .tag:has-text('speaking')")
        assert two.locator("#now-text").text_content() == "Welcome to the lobby, dear friend."
        two.click("#end")
        assert stage.state()["phase"] == "running", "one click ends nothing"
        two.click("#end")
        one.wait_for_selector("#result:has-text('stopped')")


def test_the_keyboard_alone_runs_the_show(stage: Stage, chromium: Any):
    """Tab, arrows and keys: space goes wherever the focus is, and does not press the button that has it."""
    with page(chromium, stage.operator) as operator:
        operator.wait_for_selector("#cues li")
        operator.focus("#cues li:first-child button")
        operator.keyboard.press("ArrowDown")
        assert operator.evaluate("document.activeElement.textContent").find("wait 700ms") >= 0
        operator.focus("#skip")
        operator.keyboard.press("Space")
        until(lambda: stage.state()["phase"] == "running", "space is go")
        assert operator.locator("#toast").text_content() == "", "and skip was not pressed"


def test_a_phone_has_everything_within_reach(stage: Stage, chromium: Any):
    """At 390 by 844 nothing is wider than the screen, and each control is at least 44 by 44."""
    with page(chromium, stage.operator, viewport={"width": 390, "height": 844}, has_touch=True) as operator:
        operator.wait_for_selector("#cues li")
        assert operator.evaluate("document.documentElement.scrollWidth") <= 390
        boxes = [operator.locator(f"#{id}").bounding_box() for id in ("go", "hold", "skip", "end", "panic")]
        assert all(box["width"] >= 44 and box["height"] >= 44 and box["y"] + box["height"] <= 844 for box in boxes)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(stage: Stage, chromium: Any, scheme: str):
    """axe-core, on both pages, while a line is heard."""
    from axe_playwright_python.sync_playwright import Axe

    with (
        page(chromium, stage.audience, color_scheme=scheme) as audience,
        page(chromium, stage.operator, color_scheme=scheme) as operator,
    ):
        joined(stage)
        stage.signal("go")
        until(lambda: stage.step("long")["speaking"], "the long line is heard")
        for opened in (audience, operator):
            until(lambda: opened.evaluate("!document.getAnimations().some((each) => each.playState === 'running')"), "it is drawn")  # noqa: B023
            found = Axe().run(opened)
            assert found.violations_count == 0, found.generate_report()


def test_the_pages_are_small_and_ask_nobody_else(stage: Stage, chromium: Any):
    """Everything that both pages load is below 150 KB together, and comes from the stage."""
    asked: list[str] = []
    sizes: dict[str, int] = {}
    made = chromium.new_context()
    opened = made.new_page()
    opened.on("request", lambda request: asked.append(request.url))
    opened.on("response", lambda answer: sizes.update({answer.url: len(answer.body())}) if answer.status == 200 else None)
    for address in (stage.audience, stage.operator):
        opened.goto(address, wait_until="networkidle")
    made.close()
    assert {url for url in asked if not url.startswith((stage.base, "data:"))} == set()
    assert sum(sizes.values()) < 150_000


# --- evidence, and other people's faces ---------------------------------------------------------------------------------------


def test_mouth_shapes_are_those_of_what_is_heard(stage: Stage, chromium: Any):
    """Whenever the face is drawn, its shape is one that the line has within 80 ms of what is heard at that moment."""
    with page(chromium, stage.audience) as audience:
        joined(stage)
        audience.evaluate(
            """() => { globalThis.off = []; const draw = stage.face.shape.bind(stage.face);
            stage.face.shape = (name) => {
            draw(name); const heard = stage.sound.position(); if (!heard) return;
            const shapes = heard.line.shapes, until = (i) => shapes[i + 1]?.[0] ?? Infinity;
            off.push(shapes.some(([at, shape], i) => shape === name && at <= heard.at + 80 && until(i) > heard.at - 80)); }; }"""
        )
        stage.signal("go")
        until(lambda: stage.step("hello")["state"] == "done", "the line is over")
        seen = audience.evaluate("off")
    assert len(seen) > 5
    assert seen.count(False) <= 1, "the frame in which a line begins may still show what was before it"


def test_a_voice_that_is_exact_is_not_doubted(stage: Stage, chromium: Any):
    """Whoever watches our own face is in the log; the page's ear, which cannot part two lines without a gap, is no source, and nothing is a
    conflict."""
    with page(chromium, stage.audience):
        joined(stage)
        stage.signal("go")
        until(lambda: stage.step("wait-2")["state"] == "done", "the pause is over")
        stage.signal("end")
        stage.until_phase("idle")
    log = checked(Path(stage.state()["result"]["folder"]))
    assert any(line.get("event") == "viewer_joined" for line in log)
    assert not any(line.get("note") == "conflict" or line.get("event") in ("sound", "source_joined") for line in log)


def test_a_start_that_waits_for_a_viewer_begins_when_somebody_watches(tmp_path: Path, speech_cache: Path, chromium: Any):
    """`start: viewer`: after go the session waits until a page has joined."""
    file = tmp_path / "lobby.yaml"
    file.write_text(SHOW.replace("timeline:", "start: viewer\ntimeline:"), "utf-8")
    with staging(file, cache=speech_cache) as stage:
        stage.signal("go")
        stage.until_phase("waiting")
        with page(chromium, stage.audience):
            stage.until_phase("running")


KALTURA = """\
version: 1
name: tour
provider: kaltura
start: go
session: {visualConfig: {id: visual-1}, voiceConfig: {id: voice-1}}
timeline:
  - say: Welcome to the tour, which begins in this hall.
    id: hello
  - wait: {event: next}
  - end:
"""


def test_kalturas_stream_is_seen_and_heard_and_its_lines_are_heard(tmp_path: Path, speech_cache: Path, chromium: Any):
    """Against the emulator, by real WebRTC: a picture, sound, and a line that closes as `heard` by the page. A page that is loaded anew in
    the same session sees it again, because the place of the only viewer was given back."""
    file = tmp_path / "tour.yaml"
    file.write_text(KALTURA, "utf-8")
    with staging(file, "--emulate", cache=speech_cache) as stage, page(chromium, stage.audience) as audience:
        until(lambda: stage.state()["viewers"], "the page is there")
        stage.signal("go")
        until(lambda: audience.evaluate("stage.renderer?.video?.videoWidth"), "there is a picture", 30_000)
        until(lambda: audience.evaluate("stage.sound.level()") > 0.01, "there is sound", 30_000)
        until(lambda: stage.state()["awaits"] == "next", "the line is over", 30_000)
        audience.reload()
        until(lambda: audience.evaluate("globalThis.stage?.renderer?.video?.videoWidth"), "there is a picture again", 30_000)
        stage.signal("next")
        stage.until_phase("idle")
        log = checked(Path(stage.state()["result"]["folder"]))
    end = next(line for line in log if line.get("event") == "speech_ended" and line.get("task") == "hello")
    assert (end["evidence"], end["source"]) == ("heard", "page")
    edges = [line for line in log if line.get("event") in ("sound", "silence")]
    assert edges
    assert all(line["source"] == "page" and line["within_ms"] >= 5 for line in edges)


def test_an_emulated_room_is_shown_by_our_face(tmp_path: Path, speech_cache: Path, chromium: Any):
    """Tavus's emulator has a room without sound: the page says so, and our face and the captions show what is said."""
    file = tmp_path / "room.yaml"
    file.write_text(
        KALTURA.partition("provider:")[0] + "provider: tavus\nsession: {pal_id: p123}\ntimeline:\n  - say: Welcome to all of you.\n",
        "utf-8",
    )
    with staging(file, "--emulate", cache=speech_cache) as stage, page(chromium, stage.audience) as audience:
        until(lambda: stage.state()["viewers"], "the page is there")
        assert audience.locator("#card").text_content() == "tour", "between shows nobody's face is shown"
        stage.signal("go")
        audience.wait_for_selector("#captions.shown")
        shapes = {audience.evaluate("document.querySelector('.face').dataset.shape") for _ in range(30)}
        assert len(shapes) > 1
        assert "emulated" in audience.locator("#notice").text_content()


def test_a_room_whose_library_does_not_load_is_shown_in_a_frame(tmp_path: Path, speech_cache: Path, chromium: Any):
    """Without Daily's library the page shows the room's own page and says why; of a private room our face and captions, because a token is
    no part of an address."""
    file = tmp_path / "room.yaml"
    file.write_text("version: 1\nprovider: tavus\nstart: go\nsession: {pal_id: p123}\ntimeline:\n  - say: Hello to you.\n", "utf-8")
    render = """async (token) => { const { DailyRenderer } = await import("/static/daily.js"); const told = [];
        const { sound, link, face, captions } = stage, viewer = { kind: "daily", room_url: "https://rooms.daily.co/one", token };
        const renderer = new DailyRenderer({ stage: document.getElementById("stage"), sound, link, face, captions, viewer,
            notice: (text) => told.push(text), report() {} });
        await renderer.open(); return { told: told.pop(), frame: renderer.inner?.src ?? null }; }"""
    with staging(file, cache=speech_cache) as stage, page(chromium, stage.audience) as audience:
        until(lambda: stage.state()["viewers"], "the page is there")
        audience.route("https://**", lambda route: route.abort())
        shown, private = audience.evaluate(render, None), audience.evaluate(render, "secret")
    assert (shown["frame"], private["frame"]) == ("https://rooms.daily.co/one", None)
    assert "room's own page" in shown["told"]
    assert "private" in private["told"]


def test_daily_alone_widens_the_content_policy(tmp_path: Path, speech_cache: Path):
    """A stage for Tavus lets the page load Daily's library and rooms; an emulated one, as every other, does not."""
    file = tmp_path / "room.yaml"
    file.write_text("version: 1\nprovider: tavus\nstart: go\nsession: {pal_id: p123}\ntimeline:\n  - say: Hello to you.\n", "utf-8")
    for more, wide in (((), True), (("--emulate",), False)):
        with staging(file, *more, cache=speech_cache) as stage:
            policy = stage.request("/")[2]["content-security-policy"]
            assert ("daily.co" in policy) is wide
            assert "unsafe" not in policy
