"""What could be had beside a float32 scale for each channel, at 3 bits: steps in 8 bits and groups, free
levels, inputs that are scaled, equalized or rotated, and a few weights kept apart.

Layers of networks that other people trained are rounded alone, to the nearest levels and with compensation
on 64 samples, and judged by the error of their output on those held out. What changes inputs is taken for
free, as if each layer could be folded into what is in front of it: more than can be had. `whole` compresses
networks with `compress_onnx`, and `language` rounds the linear layers of SmolLM2 and reads text. Parts of
this commit are not measured again.

    python benchmarks/beyond_scales.py [PART ...]    # layers, whole, language; ten minutes of one core
"""

import argparse
import math
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from figures import beyond_scales
from packaged.language import llama, windows
from packaged.networks import NETWORKS, SMOLLM2
from packaged.packages import FOLDER, VARIABLE, install, packaged
from provenance import RESULTS, commit, write_results
from torch import Tensor
from torch.nn.functional import cross_entropy

import muquant as mq
from muquant import AnswersWarning
from muquant.base.reading import read_json
from muquant.compression.answers.distortion import distortion
from muquant.compression.options import CompressionOptions
from muquant.format.channels import ROWS, Channels
from muquant.format.law import grid_levels
from muquant.format.rows import from_matrix, spread, to_matrix
from muquant.quantization.moments import InputMoments
from muquant.quantization.quantize import quantize
from muquant_onnx import compress_onnx, load_session
from muquant_onnx.from_onnx.calibrate import graph_samples
from muquant_onnx.from_onnx.feeds import graph_arguments
from muquant_onnx.from_onnx.find import find_weights
from muquant_onnx.from_onnx.floats import read_float
from muquant_onnx.from_onnx.opset import raised
from muquant_onnx.from_onnx.read import read_graph

SEED, SAMPLES, TESTS, BITS = 0, 64, 64, 3
LAYERS = {"rapidocr-classification": 1, "rapidocr-recognition": 3, "nudenet": 3}
"""Network -> every how manieth of its layers is taken."""
FLOAT = mq.MuLawSpec(BITS, step_bits=32)
POWERS = (1.0, 1.15, 1.3, 1.45, 1.6, 1.8, 2.0, 2.3, 2.7)


@dataclass(frozen=True, eq=False)
class Layer:
    """A layer.

    Attributes:
        rows: its weight, [blocks, rows, inputs].
        channels: of the weight.
        shape: of the weight.
        known: moments of its inputs.
        sampled: whether codes make use of them.
    """

    rows: Tensor
    channels: Channels
    shape: tuple[int, ...]
    known: InputMoments
    sampled: bool

    def lost(self, values: Tensor) -> float:
        """The error of the output with other rows, over the output, on held-out samples."""
        second, error = self.known.held_out.second, self.rows - values
        powers = [float(((each @ second) * each).double().sum()) for each in (error, self.rows)]
        return powers[0] / max(powers[1], 1e-30)

    def blocked(self, weight: Tensor) -> Tensor:
        """A weight as rows."""
        return self.known.fit.blocks(to_matrix(weight, self.channels))


Rounded = tuple[Tensor, float]
"""Rows in few bits, and the bits that they take."""


def rounded(
    layer: Layer, spec: mq.MuLawSpec, rows: Tensor | None = None, turn: Tensor | None = None
) -> Rounded:
    """Round to the levels that a spec chooses; with `rows` those instead, whose inputs a matrix turns."""
    rows = layer.rows if rows is None else rows
    tensor = near(layer, spec, rows)
    step = layer.blocked(spread(tensor.step, spec, layer.shape, layer.channels).expand(layer.shape))
    return coded(layer, rows, step, grid_levels(tensor.spec).float(), turn), 8.0 * tensor.nbytes


def near(layer: Layer, spec: mq.MuLawSpec, rows: Tensor) -> mq.QuantizedTensor:
    """What the weights alone choose."""
    weight = from_matrix(rows.reshape(-1, rows.shape[2]), layer.shape, layer.channels)
    return quantize(weight.contiguous(), spec, layer.channels, "search", "nearest").tensor


def coded(layer: Layer, rows: Tensor, step: Tensor, levels: Tensor, turn: Tensor | None = None) -> Tensor:
    """Give rows their levels, [levels] times `step`: the nearest, or one column after the other, each making
    up for the errors of those before it."""
    between = (levels[1:] + levels[:-1]) / 2
    safe = step.clamp(min=1e-30)
    if not layer.sampled:
        return levels[torch.bucketize((rows / safe).contiguous(), between)] * step
    second = layer.known.fit.shrunk
    if turn is not None:
        second = turn.mT @ second @ turn
    order = second.diagonal(dim1=1, dim2=2).sum(0).argsort()  # the most powerful last, as the factor has it
    upper = torch.linalg.cholesky(second[:, order][:, :, order]).flip(1, 2)
    upper = upper / upper.diagonal(dim1=1, dim2=2)[:, None]
    order = order.flip(0)
    target, own = rows[:, :, order], safe[:, :, order]
    errors, found = torch.zeros_like(target), torch.empty_like(target)
    for j in range(target.shape[2]):
        moved = target[:, :, j] + (errors[:, :, :j] @ upper[:, :j, j, None]).squeeze(2)
        found[:, :, j] = levels[torch.bucketize(moved / own[:, :, j], between)] * own[:, :, j]
        errors[:, :, j] = target[:, :, j] - found[:, :, j]
    return found[:, :, order.argsort()] * (step > 0)


def free_levels(layer: Layer) -> Rounded:
    """Eight levels on the grid for each weight, by k-means; scales and levels in turn."""
    tensor = near(layer, FLOAT, layer.rows)
    levels, rows = grid_levels(tensor.spec).double(), layer.rows.double()
    step = layer.blocked(spread(tensor.step, FLOAT, layer.shape, layer.channels).expand(layer.shape))
    step = step[:, :, :1].double()
    for _ in range(15):
        codes = torch.bucketize(rows / step.clamp(min=1e-30), (levels[1:] + levels[:-1]) / 2)
        sums = [
            torch.zeros(8, dtype=torch.float64).index_add_(0, codes.reshape(-1), each.reshape(-1))
            for each in (rows * step, step.square().expand_as(rows))
        ]
        levels = torch.where(sums[1] > 0, sums[0] / sums[1].clamp(min=1e-300), levels).sort().values
        values = levels[codes]
        step = (rows * values).sum(2, keepdim=True) / values.square().sum(2, keepdim=True).clamp(min=1e-300)
    largest = levels.abs().max() / 127
    whole, step = (levels / largest).round().float(), (step * largest).clamp(min=0).float()
    return coded(layer, layer.rows, step.expand_as(rows), whole), 8.0 * tensor.nbytes + 64


def free_power(layer: Layer) -> Rounded:
    """Levels sgn(y) |y|^p, p the best of a few for the weights."""
    y = torch.tensor(FLOAT.positions, dtype=torch.float64)
    top = layer.rows.abs().amax(2, keepdim=True)
    choices = []
    for power in POWERS:
        levels = (127 * y.sign() * y.abs() ** power).round().float()
        for share in torch.linspace(0.3, 1.1, 17):
            step = (share * top / 127).clamp(min=1e-30)
            lost = levels[torch.bucketize(layer.rows / step, (levels[1:] + levels[:-1]) / 2)] * step
            choices.append((power, levels, step, (lost - layer.rows).square().sum(2)))
    best = min(POWERS, key=lambda p: float(_least(choices, p)[0].sum()))
    _, places = _least(choices, best)
    own = [each for each in choices if each[0] == best]
    step = torch.stack([each[2][..., 0] for each in own]).gather(0, places[None])[0][..., None]
    return coded(layer, layer.rows, step.expand_as(layer.rows), own[0][1]), 8.0 * near(
        layer, FLOAT, layer.rows
    ).nbytes + 64


def _least(choices: list[tuple[float, Tensor, Tensor, Tensor]], power: float) -> tuple[Tensor, Tensor]:
    """The least errors of rows with a power, and the places of their scales."""
    found = torch.stack([lost for own, _, _, lost in choices if own == power]).min(0)
    return found.values, found.indices


def scaled(layer: Layer, scales: Tensor) -> Rounded:
    """Weights times scales of their inputs [blocks, 1, inputs], by which inputs are divided."""
    scales = scales / scales.log().mean(2, keepdim=True).exp()
    values, bits = rounded(layer, FLOAT, layer.rows * scales, torch.diag_embed(1 / scales[:, 0]))
    return values / scales, bits


def by_activations(layer: Layer) -> Rounded:
    """Lin et al., "AWQ", MLSys 2024: scales are powers of how strong inputs are."""
    strength = layer.known.fit.second.diagonal(dim1=1, dim2=2)[:, None].sqrt()
    return scaled(layer, strength.maximum(0.01 * strength.mean(2, keepdim=True)) ** 0.25)


def equalized(layer: Layer) -> Rounded:
    """Nagel et al., "Data-Free Quantization", ICCV 2019, from this layer's side: all inputs' weights equally
    strong, by half of the way in logarithms."""
    return scaled(layer, layer.rows.norm(dim=1, keepdim=True).clamp(min=1e-6) ** -0.5)


def rotated(layer: Layer) -> Rounded:
    """Inputs turned by a random rotation, as in "QuIP" and "QuaRot"."""
    inputs = layer.rows.shape[2]
    random = torch.randn(inputs, inputs, generator=torch.Generator().manual_seed(SEED), dtype=torch.float64)
    turn = torch.linalg.qr(random)[0].float()
    values, bits = rounded(layer, FLOAT, layer.rows @ turn, turn)
    return values @ turn.mT, bits


def apart(layer: Layer, share: float = 0.005) -> Rounded:
    """The most important weights kept as float16 with their places, 32 bits each."""
    rows, importance = layer.rows, layer.rows.abs()
    if layer.sampled:
        importance = importance * layer.known.fit.second.diagonal(dim1=1, dim2=2)[:, None].sqrt()
    count = max(1, int(share * rows.numel()))
    kept = importance >= importance.reshape(-1).topk(count).values[-1]
    tensor = near(layer, FLOAT, torch.where(kept, 0.0, rows))
    step = layer.blocked(spread(tensor.step, FLOAT, layer.shape, layer.channels).expand(layer.shape))
    levels = grid_levels(tensor.spec).float()
    first = levels[torch.bucketize(rows / step.clamp(min=1e-30), (levels[1:] + levels[:-1]) / 2)] * step
    added = torch.where(kept, rows - first, 0.0).half().float()
    return coded(layer, rows - added, step, levels) + added, 8.0 * tensor.nbytes + 32 * int(kept.sum())


def steps(bits: int, granularity: str) -> Callable[[Layer], Rounded]:
    """Steps of so many bits, float32 or 8."""
    return partial(rounded, spec=mq.MuLawSpec(BITS, granularity=granularity, step_bits=bits))  # type: ignore[arg-type]


WAYS: dict[str, Callable[[Layer], Rounded]] = {
    "float32 steps, channel": steps(32, "channel"),
    "8-bit steps, channel": steps(8, "channel"),
    "float32 steps, groups of 32": steps(32, "group:32"),
    "8-bit steps, groups of 128": steps(8, "group:128"),
    "8-bit steps, groups of 64": steps(8, "group:64"),
    "8-bit steps, groups of 32": steps(8, "group:32"),
    "eight free levels": free_levels,
    "levels by a free power": free_power,
    "inputs scaled by activations (AWQ)": by_activations,
    "inputs equalized (CLE)": equalized,
    "inputs rotated": rotated,
    "0.5 % of the weights apart": apart,
}
"""The first is what the others are compared with."""


def layers() -> dict[str, Any]:
    """Bits a weight, and what each way gains in dB at the same bits, mean over layers by their sizes."""
    return {name: one_network(name, every) for name, every in LAYERS.items()}


def one_network(name: str, every: int) -> dict[str, dict[str, float]]:
    """The same of one network."""
    ways: dict[str, Callable[[Layer], Rounded]] = {
        **WAYS,
        "4 bits": partial(rounded, spec=mq.MuLawSpec(4, step_bits=32)),
    }
    found: dict[str, dict[str, list[float]]] = {way: {"alone": [], "sampled": [], "bits": []} for way in ways}
    sizes = []
    for values, channels, known in network_layers(name, every):
        sizes.append(values.numel())
        rows = known.fit.blocks(to_matrix(values, channels))
        for kind, sampled in (("alone", False), ("sampled", True)):
            layer = Layer(rows, channels, tuple(values.shape), known, sampled)
            for way, make in ways.items():
                result, bits = make(layer)
                found[way][kind].append(-10 * math.log10(max(layer.lost(result), 1e-12)))
                if not sampled:
                    found[way]["bits"].append(bits / values.numel())
    share = np.array(sizes) / sum(sizes)
    first, wider = found[next(iter(WAYS))], found["4 bits"]
    table = {}
    for way in WAYS:
        own = found[way]
        extra = np.array(own["bits"]) - np.array(first["bits"])
        table[way] = {"bits": float(share @ np.array(own["bits"]))}
        for kind in ("alone", "sampled"):
            a_bit = np.maximum(np.array(wider[kind]) - np.array(first[kind]), 3)
            table[way][kind] = float(share @ (np.array(own[kind]) - np.array(first[kind]) - extra * a_bit))
        print(name, way, table[way], file=sys.stderr, flush=True)
    return table


def network_layers(name: str, every: int) -> Iterator[tuple[Tensor, Channels, InputMoments]]:
    """Weights of a network, and what is known of their inputs."""
    source = network_file(name)
    with raised(source) as file:
        model = read_graph(file.path).model
        options = CompressionOptions(calibration=drawn(name, 2, SAMPLES)).taken_by(
            graph_arguments(model.graph)
        )
        weights = [each for each in find_weights(model)[0] if not each.recurrent][::every]
        for weight, known, _ in graph_samples(file.path, weights, options.samples):
            if known is not None:
                yield read_float(weight.tensor), weight.channels, known


@cache
def network_file(name: str) -> Path:
    """The ONNX file of a network."""
    source = NETWORKS[name].source
    assert callable(source)
    return source(Path(tempfile.gettempdir()))


def drawn(name: str, kind: int, count: int) -> list[dict[str, Any]]:
    """Inputs of a network; tests are of kind 1, samples of kind 2."""
    return [NETWORKS[name].inputs(np.random.default_rng([SEED, kind, place])) for place in range(count)]


SPECS = {
    "float32 steps, channel": mq.MuLawSpec(BITS, step_bits=32),
    "8-bit steps, channel": mq.MuLawSpec(BITS),
    "8-bit steps, groups of 64": mq.MuLawSpec(BITS, granularity="group:64"),
    "8-bit steps, groups of 32": mq.MuLawSpec(BITS, granularity="group:32"),
}


def whole() -> dict[str, Any]:
    """Networks compressed with 64 samples, 3 bits for all: stored bits, distortion, task of the answers."""
    return {name: {way: compressed(name, spec) for way, spec in SPECS.items()} for name in LAYERS}


def compressed(name: str, spec: mq.MuLawSpec) -> dict[str, Any]:
    """One network in one form."""
    network, source = NETWORKS[name], network_file(name)
    tests = drawn(name, 1, TESTS)
    exact = [network.answer(load_session(source, threads=1), feed) for feed in tests]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "small.onnx")
        report = compress_onnx(
            source, path, spec, flat=True, calibration=drawn(name, 2, SAMPLES), check=False, policy="float"
        )
        session, nbytes = load_session(path, threads=1), path.stat().st_size
        answers = [network.answer(session, feed) for feed in tests]
    lost = [
        distortion(key, torch.from_numpy(one[key]), torch.from_numpy(other[key])) or 0.0
        for one, other in zip(exact, answers, strict=True)
        for key in one
    ]
    row = {
        "bits": report.average_bits.stored,
        "nbytes": nbytes,
        "decibels": -10 * math.log10(float(np.mean(lost))),
        "task": network.task(exact, answers),
    }
    print(name, spec, row, file=sys.stderr, flush=True)
    return row


@torch.no_grad()
def language() -> dict[str, Any]:
    """SmolLM2's linear layers at their nearest levels: stored bits of theirs, and perplexity.

    Rotated: what is between blocks is turned by one rotation, which weights take up, with the scales of norms
    (Ashkboos et al., "QuaRot", NeurIPS 2024).
    """
    path = packaged(SMOLLM2)
    network = llama(path)
    draws = (np.random.default_rng([SEED, 1, place]) for place in range(8))
    batch = torch.cat([torch.from_numpy(windows(rng, path, 128)) for rng in draws])
    linear = {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, torch.nn.Linear) and name != "lm_head"
    }
    floats = {name: module.weight.clone() for name, module in linear.items()}
    numbers = sum(weight.numel() for weight in floats.values())
    width = floats["model.layers.0.self_attn.q_proj"].shape[1]
    random = torch.randn(width, width, generator=torch.Generator().manual_seed(SEED), dtype=torch.float64)
    turn = torch.linalg.qr(random)[0].float()

    def perplexity() -> float:
        logits = network(input_ids=batch).logits[:, :-1]
        return float(cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten()).exp())

    def scales(name: str) -> Tensor | None:
        """Of the norm in front of a layer; None where there is none."""
        block, _, kind = name.rpartition(".")
        norm = {"q_proj": "input_layernorm", "gate_proj": "post_attention_layernorm"}
        norm |= {"k_proj": norm["q_proj"], "v_proj": norm["q_proj"], "up_proj": norm["gate_proj"]}
        return (
            network.get_parameter(f"{block.rpartition('.')[0]}.{norm[kind]}.weight") if kind in norm else None
        )

    rows = {"float": {"bits": 32.0, "perplexity": perplexity()}}
    for way, (spec, turned) in LANGUAGE.items():
        stored = 0
        for name, module in linear.items():
            before = scales(name)
            into: Tensor | None = None if before is None else before[:, None] * turn
            weight = floats[name]
            if turned:
                weight = turn.T @ weight if into is None else weight @ into
            tensor = quantize(weight.contiguous(), spec, ROWS, "search", "nearest").tensor
            stored, weight = stored + tensor.nbytes, tensor.dequantize()
            if turned:
                weight = turn @ weight if into is None or before is None else weight @ turn.T / before
            module.weight.copy_(weight)
        rows[way] = {"bits": 8 * stored / numbers, "perplexity": perplexity()}
        print(way, rows[way], file=sys.stderr, flush=True)
    return rows


LANGUAGE = {
    **{way: (spec, False) for way, spec in SPECS.items()},
    "float32 steps, groups of 32": (mq.MuLawSpec(BITS, granularity="group:32", step_bits=32), False),
    "8-bit steps, channel, rotated": (mq.MuLawSpec(BITS), True),
    "8-bit steps, groups of 32, rotated": (mq.MuLawSpec(BITS, granularity="group:32"), True),
}
"""Way -> format, and whether what is between blocks is turned."""


PARTS: dict[str, Callable[[], dict[str, Any]]] = {"layers": layers, "whole": whole, "language": language}


def main() -> None:
    """Measure what is not there yet, write, and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=list(PARTS), metavar="PART")
    parser.add_argument("--packages", type=Path, default=Path(os.environ.get(VARIABLE, FOLDER)))
    options = parser.parse_args()
    os.environ[VARIABLE] = str(options.packages)
    install()
    warnings.simplefilter("ignore", AnswersWarning)
    kept = RESULTS / "beyond_scales.json"
    parts: dict[str, Any] = read_json(kept)["parts"] if kept.exists() else {}
    for part in options.parts:
        if part in parts and parts[part]["commit"] == commit():
            continue
        parts[part] = {"commit": commit(), "results": PARTS[part]()}
        write_results("beyond_scales", SEED, {"samples": SAMPLES, "tests": TESTS, "parts": parts})
    print(beyond_scales({"parts": parts}))


if __name__ == "__main__":
    main()
