"""The networks of `runtime_peers.py`, with the inputs that they are given."""

import argparse
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from encoder import Encoder, load_corpus, train, windows
from torch import Tensor, nn

from muquant.models import build_model
from muquant.training import load_run

SEED = 0
Samples = Callable[[int, int], Tensor]
"""(count, seed) -> inputs [count, ...]."""


@dataclass(frozen=True, eq=False)
class Network:
    """A network to measure.

    Attributes:
        module: it, in evaluation mode.
        samples: draws its inputs.
        trained: whether its weights are; without training, the quality of outputs says little.
        timed: whether its answers are timed as well, or only what loading it takes.
        compared: inputs on which outputs are compared.
    """

    module: nn.Module
    samples: Samples
    trained: bool = False
    timed: bool = True
    compared: int = 256


def dense(width: int, layers: int, *, timed: bool = True) -> Callable[[argparse.Namespace], Network]:
    """Dense layers of normal weights with ReLU between."""

    def build(options: argparse.Namespace) -> Network:
        size = max(16, int(width * options.scale))
        torch.manual_seed(SEED)
        parts: list[nn.Module] = []
        for _ in range(layers):
            linear = nn.Linear(size, size)
            nn.init.normal_(linear.weight, std=math.sqrt(2 / size))
            parts += [linear, nn.ReLU()]
        return Network(nn.Sequential(*parts[:-1]).eval(), normal(size), timed=timed)

    return build


def normal(size: int) -> Samples:
    """Normal inputs [count, size]."""
    return lambda count, seed: torch.randn(count, size, generator=torch.Generator().manual_seed(seed))


def classifier(name: str, shape: tuple[int, int, int], run: str) -> Callable[[argparse.Namespace], Network]:
    """A model of `muquant.models` on random images; the option `run` may name a folder of trained weights."""

    def build(options: argparse.Namespace) -> Network:
        folder: Path | None = getattr(options, run)
        torch.manual_seed(SEED)
        model = build_model(name, shape, 10) if folder is None else load_run(folder)
        return Network(model.eval(), images(shape), trained=folder is not None)

    return build


def images(shape: tuple[int, int, int]) -> Samples:
    """Random images [count, *shape] in [0, 1]."""
    return lambda count, seed: torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed))


def encoder(options: argparse.Namespace) -> Network:
    """The encoder of `encoder.py` on windows of its test files; trained, where its folder has the weights."""
    corpus = load_corpus()
    trained = (options.folder / f"encoder-{options.steps}.safetensors").exists()
    torch.manual_seed(SEED)
    model = train(corpus, options.folder, options.steps) if trained else Encoder().eval()
    return Network(model, lambda count, seed: windows(corpus.test, count, seed)[0], trained, compared=32)


MLP, LINEAR, CNN4, WRN, ENCODER, LARGE = (
    "MLP, 4 x 2048 x 2048",
    "Linear, 4096 x 4096",
    "cnn4",
    "wrn-16-2",
    "encoder",
    "MLP, 4 x 4096 x 4096",
)
NETWORKS: dict[str, Callable[[argparse.Namespace], Network]] = {
    MLP: dense(2048, 4),
    LINEAR: dense(4096, 1),
    CNN4: classifier("cnn4", (1, 28, 28), "cnn4_run"),
    WRN: classifier("wrn-16-2", (3, 32, 32), "wrn_run"),
    ENCODER: encoder,
    LARGE: dense(4096, 4, timed=False),
}
"""Name -> what builds it from the options."""

tiny = functools.partial(dense(64, 1), argparse.Namespace(scale=1))
"""A network that is opened first, so that fixed costs do not count."""
