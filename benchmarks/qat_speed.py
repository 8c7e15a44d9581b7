"""What quantization-aware training costs: whole training steps with and without it.

Steps of the training loop on random images, by processor time of one thread, as medians over interleaved
rounds: in float, with muquant's fake quantization (scale and mu learned), with torch.ao's FakeQuantize at the
same layers (per channel, nothing learned), and adversarial steps in float and with muquant's.
"""

import argparse
import statistics
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

from muquant.data import Dataset
from muquant.layers import quantizable_weights
from muquant.models import Classifier, build_model
from muquant.training import AdversarialOptions, QatOptions, TrainingConfig
from muquant.training.step import Stepper

SEED = 0
ATTACK = AdversarialOptions(epsilon=0.1, attack_steps=5, epsilon_warmup=0.0)
MODELS = {"cnn4": ((1, 28, 28), 128), "wrn-16-2": ((3, 32, 32), 64)}
"""Model -> the shape of its images, and images in a step."""

RATIOS = {
    "muquant / float": ("muquant", "float"),
    "torch.ao / float": ("torch.ao", "float"),
    "muquant / torch.ao": ("muquant", "torch.ao"),
    "adversarial: muquant / float": ("adversarial muquant", "adversarial float"),
}


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


def steppers(name: str) -> dict[str, Stepper]:
    """One of each kind, from the same weights, on the same images."""
    shape, batch_size = MODELS[name]
    images = torch.randint(256, (4 * batch_size, *shape), generator=torch.Generator().manual_seed(SEED))
    labels = torch.arange(len(images)) % 10
    dataset = Dataset("random", "train", images.byte(), labels, tuple("0123456789"))
    plain = TrainingConfig(
        model=name, epochs=10_000, batch_size=batch_size, lr=1e-4, augment="none", device="cpu"
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


def measure(name: str, rounds: int) -> dict[str, Any]:
    """Median seconds of each kind of step, and the ratios."""
    kinds = steppers(name)
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    for step in range(rounds + 2):
        for kind, stepper in kinds.items():
            times[kind].append(processor_seconds(stepper.run, step))
    medians = {kind: statistics.median(values[2:]) for kind, values in times.items()}  # two to warm up
    ratios = {text: round(medians[one] / medians[other], 3) for text, (one, other) in RATIOS.items()}
    return {
        "batch_size": MODELS[name][1],
        "rounds": rounds,
        "milliseconds": {kind: round(1e3 * value, 2) for kind, value in medians.items()},
        "ratios": ratios,
    }


def main() -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--models", nargs="*", choices=MODELS, default=list(MODELS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    document = {name: measure(name, arguments.rounds) for name in arguments.models}
    table = Table("", *document)
    for text in RATIOS:
        table.add_row(text, *(f"{figures['ratios'][text]:.2f}" for figures in document.values()))
    Console().print(table)
    write_results("qat_speed", SEED, {"attack_steps": ATTACK.attack_steps, "models": document})


if __name__ == "__main__":
    main()
