"""The queue in front of a microphone: every sample once, in order, counted."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from playbook.transports.microphone import Mark, Microphone

HZ = 1000  # one sample a millisecond: 20 bytes a frame


def sound(ms: int, value: int = 1) -> bytes:
    return bytes([value, 0]) * ms


def test_silence_is_sent_when_nothing_is_queued() -> None:
    """The track never has a hole."""
    microphone = Microphone(HZ)
    assert not microphone.busy
    frame = microphone.next_frame()
    assert (frame.pcm, frame.marks, frame.taken) == (bytes(20), (), 0)


def test_clips_follow_each_other_within_a_frame() -> None:
    """No gap between two queued clips, and both marks say where in the frame it happened."""
    microphone = Microphone(HZ)
    microphone.add("a", sound(4, 1), final=True)
    microphone.add("b", sound(10, 2), final=True)
    frame = microphone.next_frame()
    assert frame.pcm == sound(4, 1) + sound(6, 2)
    assert frame.marks == (Mark("started", "a", 0), Mark("ended", "a", 4, 4), Mark("started", "b", 4))
    last = microphone.next_frame()
    assert last.pcm == sound(4, 2) + bytes(12)
    assert last.marks == (Mark("ended", "b", 4, 10),)
    assert not microphone.busy


def test_a_clip_that_fills_its_frame_ends_with_it() -> None:
    """The end is not put off to the next frame."""
    microphone = Microphone(HZ)
    microphone.add("a", sound(10), final=True)
    assert microphone.next_frame().marks == (Mark("started", "a", 0), Mark("ended", "a", 10, 10))


def test_a_clip_waits_for_its_next_piece() -> None:
    """A line that streams too slowly is heard with a pause, is not ended by it, and what is queued behind it waits."""
    microphone = Microphone(HZ)
    microphone.add("a", sound(5), final=False)
    microphone.add("b", sound(5, 2), final=True)
    assert microphone.next_frame().pcm == sound(5) + bytes(10)
    assert not microphone.busy
    microphone.add("a", b"", final=True)
    assert microphone.next_frame().marks == (Mark("ended", "a", 0, 5), Mark("started", "b", 0), Mark("ended", "b", 5, 5))


def test_a_cut_ends_every_clip_with_what_was_played() -> None:
    """The clip under way by what was handed out of it, those behind it with nothing; then silence."""
    microphone = Microphone(HZ)
    microphone.add("a", sound(100), final=True)
    microphone.add("b", sound(100), final=True)
    for _ in range(3):
        microphone.next_frame()
    microphone.cut()
    assert microphone.busy
    frame = microphone.next_frame()
    assert frame.pcm == bytes(20)
    assert frame.marks == (Mark("ended", "a", 0, 30, interrupted=True), Mark("ended", "b", 0, 0, interrupted=True))
    assert not microphone.busy


@given(st.lists(st.tuples(st.lists(st.integers(0, 35), max_size=4), st.booleans()), max_size=6), st.integers(0, 12))
def test_nothing_is_lost_doubled_or_reordered(clips: list[tuple[list[int], bool]], cut_after: int) -> None:
    """Whatever is queued and whenever it is cut: each clip that was queued ends exactly once, after it started, and the played
    lengths are the bytes that came out."""
    microphone = Microphone(HZ)
    queued: list[str] = []
    for number, (pieces, _) in enumerate(clips):
        for index, ms in enumerate(pieces):
            microphone.add(f"c{number}", sound(ms, number + 1), final=index == len(pieces) - 1)
            queued.append(f"c{number}")
    frames = [microphone.next_frame() for _ in range(cut_after)]
    microphone.cut()
    frames.append(microphone.next_frame())
    marks = [mark for frame in frames for mark in frame.marks]
    ended = [mark.clip for mark in marks if mark.on == "ended"]
    assert ended == list(dict.fromkeys(queued))
    assert all(len(frame.pcm) == 20 for frame in frames)
    out = b"".join(frame.pcm for frame in frames)
    for number, _ in enumerate(clips):
        played = sum(mark.played_ms for mark in marks if mark.on == "ended" and mark.clip == f"c{number}")
        assert out.count(bytes([number + 1])) == played
    assert sum(frame.taken for frame in frames) == 2 * sum(mark.played_ms for mark in marks)
    assert all(a <= b for a, b in pairwise(byte for byte in out if byte))
