"""How many bits the weights of LSTM, GRU and RNN need, whose errors are fed back at every step.

Two tasks: the next byte of Python sources (test files are files of their own), and the sum of two of 60
numbers that a second input marks, which takes memory over all steps. The recurrent weights are compressed to
2 to 8 bits, all others to 8, and the other way round, at `compress_onnx`'s defaults, without samples. So are
those of Silero VAD, on speech, where the packages of zoo.py are installed.

    python benchmarks/recurrent.py [--steps 900] [--packages FOLDER]
"""

import argparse
import os
import sysconfig
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from packaged import tasks
from packaged.networks import NETWORKS
from packaged.packages import VARIABLE
from packaged.tasks import Answer
from provenance import write_results
from torch import Tensor, nn
from torch.nn import functional

import muquant as mq
from muquant_onnx import compress_onnx

SEED, LENGTH, NUMBERS, TESTS = 0, 64, 60, 256
WIDTHS = [(2, 8), (3, 8), (4, 8), (5, 8), (6, 8), (8, 8), (8, 3), (3, 3)]
"""Bits of recurrent weights, and of all others."""
Array = NDArray[Any]
Batch = Callable[[int], tuple[Tensor, Tensor]]


class Network(nn.Module):
    """A layer of `kind` between an embedding of bytes, where there are some, and a dense layer."""

    def __init__(self, kind: str, tokens: int, hidden: int, outputs: int) -> None:
        super().__init__()
        inputs = 48 if tokens else 2
        self.embedding = nn.Embedding(tokens, inputs) if tokens else nn.Identity()
        self.recurrent = getattr(nn, kind)(inputs, hidden, batch_first=True)
        self.dense, self.last = nn.Linear(hidden, outputs), not tokens

    def forward(self, x: Tensor) -> Tensor:
        """Return logits for every byte, or one number for a sequence."""
        h = self.recurrent(self.embedding(x))[0]
        return self.dense(h[:, -1] if self.last else h)  # type: ignore[no-any-return]


def sources() -> tuple[Tensor, Tensor]:
    """Bytes of the standard library's modules, every tenth file for tests."""
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    parts = [
        [path.read_bytes() for i, path in enumerate(files) if (i % 10 == 9) == test] for test in (False, True)
    ]
    train, test = (torch.frombuffer(bytearray(b"".join(part)), dtype=torch.uint8) for part in parts)
    return train.long(), test.long()


def texts(content: Tensor) -> Batch:
    """Windows of a text, and the byte behind each byte."""

    def batch(count: int) -> tuple[Tensor, Tensor]:
        starts = torch.randint(0, len(content) - LENGTH - 1, (count, 1))
        window = content[starts + torch.arange(LENGTH + 1)]
        return window[:, :-1], window[:, 1:]

    return batch


def sums(count: int) -> tuple[Tensor, Tensor]:
    """Numbers and two marks, and the sum of the marked ones."""
    x, rows = torch.zeros(count, NUMBERS, 2), torch.arange(count)
    x[..., 0] = torch.rand(count, NUMBERS)
    x[rows, torch.randint(0, NUMBERS // 2, (count,)), 1] = 1
    x[rows, torch.randint(NUMBERS // 2, NUMBERS, (count,)), 1] = 1
    return x, (x[..., 0] * x[..., 1]).sum(1, keepdim=True)


def loss_of(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy of bytes, in nat, or the mean square error of sums."""
    if targets.is_floating_point():
        return (outputs - targets).square().mean()
    return functional.cross_entropy(outputs.flatten(0, 1), targets.flatten())


def trained(network: Network, batch: Batch, steps: int) -> Network:
    """Train by Adam, the rate falling to nothing."""
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, steps)
    for _ in range(steps):
        x, y = batch(32)
        optimizer.zero_grad()
        loss_of(network(x), y).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return network.eval()


def run(path: Path, x: Tensor) -> Array:
    """The outputs of a file under onnxruntime as it comes."""
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    outputs: Array = session.run(None, {"x": x.numpy()})[0]
    return outputs


def measured(outputs: Array, exact: Array, targets: Tensor) -> dict[str, float]:
    """Loss, SQNR in dB, and the share of bytes that are right."""
    noise = float(np.square(outputs - exact).sum())
    row = {"loss": float(loss_of(torch.from_numpy(outputs), targets))}
    if noise:
        row["sqnr"] = 10 * float(np.log10(np.square(exact).sum() / noise))
    if not targets.is_floating_point():
        row["accuracy"] = float((outputs.argmax(-1) == targets.numpy()).mean())
    return row


def measure(network: Network, x: Tensor, y: Tensor) -> list[dict[str, float]]:
    """One row for the float network, and one for each of `WIDTHS`."""
    with tempfile.TemporaryDirectory() as folder:
        source, small = Path(folder, "float.onnx"), Path(folder, "small.onnx")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(network, (x,), str(source), input_names=["x"], opset_version=17, dynamo=False)
        exact = run(source, x)
        rows = [measured(exact, exact, y)]
        for recurrent, others in WIDTHS:
            report = compress_onnx(
                source,
                small,
                mq.MuLawSpec(bits=others),
                flat=True,
                overrides={"LSTM|GRU|RNN": recurrent},
            )
            row = measured(run(small, x), exact, y)
            rows.append({"recurrent_bits": recurrent, "other_bits": others, "bytes": report.nbytes, **row})
    return rows


def speech() -> list[dict[str, float]]:
    """The same of Silero VAD: SQNR, and the share of frames in which it hears speech and the float one does
    too, or neither."""
    network, rows = NETWORKS["silero-vad-16k-op15"], []
    rng = np.random.default_rng(SEED)
    inputs = [network.inputs(rng) for _ in range(network.count)]

    def answers(path: Path) -> list[Answer]:
        session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return [network.answer(session, feed) for feed in inputs]

    with tempfile.TemporaryDirectory() as folder:
        assert callable(network.source)
        source, small = network.source(Path(folder)), Path(folder, "small.onnx")
        exact = answers(source)
        for recurrent, others in WIDTHS:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                report = compress_onnx(
                    source, small, mq.MuLawSpec(bits=others), overrides={"rnn": recurrent}, flat=True
                )
            found = answers(small)
            row = {"sqnr": tasks.sqnr(exact, found)["output"] or np.inf, **network.task(exact, found)}
            rows.append({"recurrent_bits": recurrent, "other_bits": others, "bytes": report.nbytes, **row})
    return rows


def main() -> None:
    """Train, measure and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--packages", type=Path, help="folder that zoo.py has installed packages into")
    options = parser.parse_args()
    steps = options.steps
    torch.set_num_threads(1)
    train, test = sources()
    document: dict[str, Any] = {"steps": steps, "tests": TESTS}
    if options.packages:
        os.environ[VARIABLE] = str(options.packages)
        document["speech, silero-vad"] = speech()
        for row in document["speech, silero-vad"]:
            print("speech", "silero-vad", {key: round(value, 5) for key, value in row.items()}, flush=True)
    for task, kinds, tokens, hidden, outputs, batch, held_out in (
        ("bytes", ("LSTM", "GRU", "RNN"), 256, 160, 256, texts(train), texts(test)),
        ("sums", ("LSTM", "GRU"), 0, 64, 1, sums, sums),
    ):
        for kind in kinds:
            torch.manual_seed(SEED)
            network = trained(Network(kind, tokens, hidden, outputs), batch, steps * (1 if tokens else 3))
            document[f"{task}, {kind}"] = measure(network, *held_out(TESTS))
            for row in document[f"{task}, {kind}"]:
                print(task, kind, {key: round(value, 5) for key, value in row.items()}, flush=True)
    write_results("recurrent", SEED, document)


if __name__ == "__main__":
    main()
