"""The loudspeaker, with a device that asks for samples when the test says so."""

from __future__ import annotations

import itertools
import sys
import threading

import numpy as np
import pytest

from playbook.errors import SetupError
from playbook.speech.audio import Sound, to_samples
from playbook.speech.loudspeaker import FADE_MS, LATE_MS, Loudspeaker
from playbook.speech.show import RATE, ShowRecorder

SECOND = RATE


def constant(level: int, ms: int = 1000) -> Sound:
    return Sound(np.full(to_samples(ms, RATE), level, "<i2").tobytes(), RATE)


class Device:
    """Opens at once; `pull` is what it would play next. It reads no sound before that is there."""

    def __init__(self) -> None:
        self.now_ms, self.calls = 0, []
        self.speaker = Loudspeaker(self.open, lambda: self.now_ms)
        self.show = ShowRecorder([self.speaker])

    def open(self, fill):
        self.fill = fill
        return self

    def pull(self, ms: int) -> np.ndarray:
        """The next `ms`, once every sound that was begun has been read."""
        for _ in range(10_000_000):
            if not self.speaker.waiting:
                break
            self.fill(0)
        samples = self.fill(to_samples(ms, RATE))
        self.now_ms += ms
        return samples

    def start(self):
        self.calls.append("start")

    def stop(self):
        self.calls.append("stop")

    def close(self):
        self.calls.append("close")


@pytest.fixture
def device():
    device = Device()
    with device.speaker:
        yield device
        device.fill(10 * SECOND)  # whatever a test left
    assert device.calls == ["start", "stop", "close"]


def test_what_is_placed_sounds_and_what_sounds_together_is_mixed(device):
    """Silence, one sound, two at once, and never more than a sample can hold."""
    assert not device.pull(100).any()
    device.show.place(0, lambda: constant(20_000, 300))
    assert set(device.pull(100)) == {20_000}
    device.show.place(0, lambda: constant(20_000, 300))
    assert set(device.pull(100)) == {32_767}
    assert set(device.pull(100)) == {32_767}
    assert set(device.pull(100)) == {20_000}
    assert not device.pull(100).any()


def test_a_piece_whose_end_moves_goes_on_without_a_seam(device):
    """A line in chunks is one sound that lasts longer when more of it comes."""
    placement = device.show.place(0, lambda: constant(1000), 200, 500)
    assert set(device.pull(200)) == {1000}
    placement.to_ms = 800
    assert set(device.pull(400)) == {1000}
    assert not device.pull(200).any()


def test_a_cut_is_soft_and_certain(device):
    """An interrupt leaves a few falling milliseconds, then silence, also for a sound that had not been read yet."""
    device.show.place(0, lambda: constant(8000))
    assert set(device.pull(100)) == {8000}
    device.show.cut(100)
    rest = device.pull(100)
    fade = to_samples(FADE_MS, RATE)
    assert rest[0] == 8000
    assert all(a >= b for a, b in itertools.pairwise(rest))
    assert not rest[fade:].any()
    device.show.place(0, lambda: constant(8000))
    device.show.cut(200)
    assert not device.pull(100)[fade:].any()


def test_a_device_that_stalled_leaves_out_what_it_missed(device):
    """Two lines that were said one after the other are never heard at once."""
    device.show.place(0, lambda: constant(1000))
    device.pull(20)
    device.now_ms += 900
    device.show.place(0, lambda: constant(2000))
    assert list(np.unique(device.pull(80))) == [3000]  # the last of the first, within what a device may lag
    assert set(device.pull(500)) == {2000}
    device.now_ms += LATE_MS + 400
    assert not device.pull(100).any()


@pytest.mark.parametrize("error", [OSError("gone"), ValueError("no sound"), SetupError("changed")])
def test_a_sound_that_cannot_be_read_is_silence(device, error):
    """The run meets the same file and says what is wrong; the loudspeaker plays on."""

    def broken() -> Sound:
        raise error

    device.show.place(0, broken)
    assert not device.pull(100).any()
    device.show.place(0, lambda: constant(1000))
    assert set(device.pull(100)) == {1000}


def test_the_end_waits_for_what_is_still_to_be_heard():
    """The last word of a show is played before the device is closed."""
    device, heard = Device(), []
    with device.speaker:
        device.show.place(0, lambda: constant(1000, 400))

        def play() -> None:
            while device.calls == ["start"]:
                heard.append(device.fill(to_samples(100, RATE) if not device.speaker.waiting else 0))

        playing = threading.Thread(target=play)
        playing.start()
    playing.join()
    assert np.count_nonzero(np.concatenate(heard)) == to_samples(400, RATE)
    assert device.calls == ["start", "stop", "close"]


@pytest.mark.parametrize(("found", "told"), [(None, "extra `play`"), (OSError("PortAudio library not found"), "library PortAudio")])
def test_a_machine_that_cannot_play_says_so(monkeypatch, found, told):
    """Without the extra, or without the system's library, nothing has begun when it is said."""
    import builtins

    real = builtins.__import__

    def imports(name, *args, **kwargs):
        if name == "sounddevice" and found is not None:
            raise found
        return real(name, *args, **kwargs)

    if found is None:
        monkeypatch.setitem(sys.modules, "sounddevice", None)
    monkeypatch.setattr(builtins, "__import__", imports)
    with pytest.raises(SetupError, match=told), Loudspeaker():
        pass


def test_what_play_is_not_for(shell):
    """`--play` is for the real clock and for the voice that is ours."""
    shell.write("hello.yaml")
    assert shell.call("run", "hello.yaml", "--play", "--clock", "virtual").code == 2
    shell.write("cloud.yaml", "version: 1\nprovider: avaturn\nsession: {avatar_id: a}\ntimeline: [wait: 0]\n")
    done = shell.call("run", "cloud.yaml", "--play", "--emulate")
    assert (done.code, "avaturn speaks for itself" in done.err) == (2, True), done.err
