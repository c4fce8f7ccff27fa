"""`pronounce`: what is sent for a word, while captions, reports and expectations keep its spelling."""

from __future__ import annotations

import json

from playbook.language import plan_from_json, plan_to_json

from .commands import Shell

SHOW = """\
version: 1
provider: local
sessions:
  local: {language: en}
  kaltura: {visualConfig: {id: v1}, voiceConfig: {id: v2}}
vars: {code: {type: string, secret: true, default: hush-hush}}
pronounce:
  Kaltura: kal-TOO-ra
  GIF: jif
  kaltura: {GIF: "{{ 'd' ~ 'zhif' }}"}
start: 0s
timeline:
  - say: Kaltura has a GIF, and Kalturas have GIFs.
    id: both
    expect: {heard: "Kaltura has a GIF, and Kalturas have GIFs."}
  - say: {chunks: ["The GIF of ", "Kaltura"]}
  - say: "The code of Kaltura is {{ code }}."
    id: secret
"""


def texts(plan: dict) -> list[str]:
    return ["".join(chunk["text"] for chunk in step["say"]["chunks"]) for step in plan["steps"] if "say" in step]


def test_whole_words_are_replaced_when_the_plan_is_made(shell: Shell):
    """Each provider has the common entries and its own; other words that contain one stay; `plan` shows both spellings."""
    shell.write("show.yaml", SHOW)
    plans = {name: json.loads(shell.call("plan", "show.yaml", "--json", "--provider", name).out) for name in ("local", "kaltura")}
    assert texts(plans["local"])[:2] == ["kal-TOO-ra has a jif, and Kalturas have GIFs.", "The jif of kal-TOO-ra"]
    assert texts(plans["kaltura"])[:2] == ["kal-TOO-ra has a dzhif, and Kalturas have GIFs.", "The dzhif of kal-TOO-ra"]
    assert texts(plans["local"])[2] == "The code of Kaltura is ***.", "a secret is masked, and its line is shown as it is spelled"
    assert plans["local"]["steps"][0]["say"]["chunks"][0]["spelled"] == "Kaltura has a GIF, and Kalturas have GIFs."
    assert plan_to_json(plan_from_json(plans["local"])) == plans["local"]
    sheet = shell.call("plan", "show.yaml").out
    assert "Kaltura has a GIF" in sheet
    assert "spoken: kal-TOO-ra has a jif" in " ".join(sheet.split())
    plain = json.loads(shell.call("plan", shell.write("plain.yaml", SHOW.replace("  GIF: jif\n", "")), "--json").out)
    assert plain["plan_sha256"] != plans["local"]["plan_sha256"]


def test_the_vendor_is_sent_the_pronunciation_and_people_read_the_spelling(shell: Shell):
    """Over real sockets: the request has the one, the log, the captions and the expectation the other; the log replays."""
    shell.write("show.yaml", SHOW)
    done = shell.call(
        "run", "show.yaml", "--provider", "kaltura", "--emulate", "--clock", "virtual", "--out", "run", "--record", "run.tape"
    )
    assert done.code == 0, done.err
    tape = (shell.folder / "run.tape").read_text("utf-8")
    assert "kal-TOO-ra has a dzhif" in tape
    log = (shell.folder / "run" / "run.jsonl").read_text("utf-8")
    assert "Kaltura has a GIF" in log
    assert "kal-TOO-ra" not in log
    captions = (shell.folder / "run" / "captions.vtt").read_text("utf-8")
    assert "Kaltura has a GIF" in captions.replace("\n", " ")
    assert "kal-TOO-ra" not in captions
    assert shell.call("replay", "run").code == 0


def test_the_local_voice_speaks_the_pronunciation(shell: Shell):
    """The same with the voice that is embedded: the line lasts as long as what is spoken, and is captioned as it is spelled."""
    shell.write("show.yaml", SHOW.replace("Kaltura: kal-TOO-ra", "Kaltura: kal TOO ra, as it is spoken by everybody here"))
    shell.write("plain.yaml", SHOW.replace("  Kaltura: kal-TOO-ra\n", ""))
    longer, shorter = (
        json.loads(shell.call("plan", name, "--json").out)["steps"][0]["length"]["ms"] for name in ("show.yaml", "plain.yaml")
    )
    assert longer > shorter + 1_000
    done = shell.call("run", "show.yaml", "--clock", "virtual", "--out", "run")
    assert done.code == 0, done.err
    assert "TOO" not in (shell.folder / "run" / "captions.srt").read_text("utf-8")
    assert shell.call("replay", "run").code == 0
