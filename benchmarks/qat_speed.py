"""What quantization-aware training costs: whole training steps with and without it.

Steps of the training loop on random images, by processor time of one thread, as medians over interleaved
rounds: in float, with muquant's fake quantization (scale and mu learned), with torch.ao's FakeQuantize at the
same layers (per channel, nothing learned), and adversarial steps in float and with muquant's. Exits with 1
where a ratio is above its target.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from provenance import write_results
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.ao.quantization import FakeQuantize
from torch.ao.quantization.observer import PerChannelMinMaxObserver
from torch.nn.utils import parametrize

from muquant.compression.layers import quantizable_weights
from muquant.data import Dataset
from muquant.models import Classifier, build_model
from muquant.training import AdversarialOptions, QatOptions, TrainingConfig
from muquant.training.run.step import Stepper

SEED = 0
ATTACK = AdversarialOptions(epsilon=0.1, attack_steps=5, epsilon_warmup=0.0)
MODELS = {"cnn4": ((1, 28, 28), 128), "wrn-16-2": ((3, 32, 32), 64)}
"""Model -> the shape of its images, and images in a step."""

CASES = {"cnn4": ("cnn4", "float32"), "wrn-16-2": ("wrn-16-2", "float32"), "cnn4 bf16": ("cnn4", "bf16")}
"""Name -> model and precision."""

RATIOS = {
    "muquant / float": ("muquant", "float"),
    "torch.ao / float": ("torch.ao", "float"),
    "muquant / torch.ao": ("muquant", "torch.ao"),
    "adversarial: muquant / float": ("adversarial muquant", "adversarial float"),
}

TARGETS = {
    "cnn4": {"muquant / float": 1.5, "muquant / torch.ao": 1.4, "adversarial: muquant / float": 1.1},
    "wrn-16-2": {"muquant / float": 1.25, "muquant / torch.ao": 1.4, "adversarial: muquant / float": 1.1},
}
"""Case -> the most that a ratio may be. In bf16 the layers take less time, and decoding, which stays in
float32, as much: its ratios are higher, and measured without a target."""


def prepare_torch_ao(model: nn.Module) -> None:
    """Put torch.ao's fake quantization, 8 levels for each channel, on every weight."""
    for weight in quantizable_weights(model):
        fake = FakeQuantize(  # type: ignore[no-untyped-call]
            observer=PerChannelMinMaxObserver,
            quant_min=-4,
            quant_max=3,
            dtype=torch.qint8,
            qscheme=torch.per_channel_symmetric,
        )
        fake(weight.value.detach())
        fake.disable_observer()
        parametrize.register_parametrization(weight.module, weight.attribute, fake)


def steppers(name: str, precision: str) -> dict[str, Stepper]:
    """One of each kind, from the same weights, on the same images."""
    shape, batch_size = MODELS[name]
    images = torch.randint(256, (4 * batch_size, *shape), generator=torch.Generator().manual_seed(SEED))
    labels = torch.arange(len(images)) % 10
    dataset = Dataset("random", "train", images.byte(), labels, tuple("0123456789"))
    plain = TrainingConfig(
        model=name,
        epochs=10_000,
        batch_size=batch_size,
        lr=1e-4,
        augment="none",
        device="cpu",
        precision=precision,
    )
    attack = {"method": "adversarial", "adversarial": ATTACK}
    configs: dict[str, dict[str, Any]] = {
        "float": {},
        "muquant": {"qat": QatOptions()},
        "torch.ao": {},
        "adversarial float": attack,
        "adversarial muquant": attack | {"qat": QatOptions()},
    }
    result = {}
    for kind, changes in configs.items():
        torch.manual_seed(SEED)
        model: Classifier = build_model(name, shape, 10, dataset.mean, dataset.std)
        model.to(memory_format=torch.channels_last)
        if kind == "torch.ao":
            prepare_torch_ao(model)
        result[kind] = Stepper(model, replace(plain, **changes), dataset)
    return result


def processor_seconds(run: Callable[[int], object], step: int) -> float:
    """Processor time of one step."""
    start = time.process_time()
    run(step)
    return time.process_time() - start


def measure(case: str, rounds: int) -> dict[str, Any]:
    """Median seconds of each kind of step, the ratios, and which of them miss their target."""
    name, precision = CASES[case]
    kinds = steppers(name, precision)
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    for step in range(rounds + 2):
        for kind, stepper in kinds.items():
            times[kind].append(processor_seconds(stepper.run, step))
    medians = {kind: statistics.median(values[2:]) for kind, values in times.items()}  # two to warm up
    ratios = {text: round(medians[one] / medians[other], 3) for text, (one, other) in RATIOS.items()}
    targets = TARGETS.get(case, {})
    return {
        "batch_size": MODELS[name][1],
        "rounds": rounds,
        "milliseconds": {kind: round(1e3 * value, 2) for kind, value in medians.items()},
        "ratios": ratios,
        "targets": targets,
        "missed": [text for text, most in targets.items() if ratios[text] > most],
    }


def shown(figures: dict[str, Any], text: str) -> str:
    """A ratio beside its target: "1.21 <= 1.5", or "1.62 > 1.5" where it is missed."""
    ratio, most = figures["ratios"][text], figures["targets"].get(text)
    if most is None:
        return f"{ratio:.3f}"
    return f"{ratio:.3f} {'>' if text in figures['missed'] else '<='} {most}"


def main() -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--cases", nargs="*", choices=CASES, default=list(CASES))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    document = {case: measure(case, arguments.rounds) for case in arguments.cases}
    table = Table("", *document)
    for text in RATIOS:
        table.add_row(text, *(shown(figures, text) for figures in document.values()))
    console = Console()
    console.print(table)
    write_results("qat_speed", SEED, {"attack_steps": ATTACK.attack_steps, "cases": document})
    missed = [f"{case}, {text}" for case, figures in document.items() for text in figures["missed"]]
    console.print("missed: " + "; ".join(missed) if missed else "all targets met")
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
