"""The rows of the tables: what is made of each trained network."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

import muquant
from muquant.compression.layers import select_weights
from muquant.data import load_dataset
from muquant.format.law import compand
from muquant.models.fingerprint import fingerprint
from muquant.robustness.subject import Subject
from muquant.training import load_run, read_run
from paper.recipes import Recipe

SAMPLES = 512
"""Training images that calibrate."""


@dataclass(frozen=True)
class Made:
    """Trained networks, and where what is made of them is kept.

    Attributes:
        recipe: by which they were trained.
        folder: with a run folder for each.
    """

    recipe: Recipe
    folder: Path

    def run(self, name: str) -> nn.Module:
        """A trained network, in evaluation mode."""
        return load_run(self.folder / name).eval()

    def digest(self, name: str) -> str | None:
        """Of a trained network; None where it is not there."""
        return fingerprint(self.run(name)) if (self.folder / name / "model.safetensors").exists() else None


Form = Callable[[Made, str], nn.Module | muquant.CompressedModel]
"""(networks, name of the run) -> what is attacked"""


def as_trained(made: Made, run: str) -> nn.Module:
    """In float."""
    return made.run(run)


def source_quantized(made: Made, run: str) -> muquant.CompressedModel:
    """The source's (Q): every layer uniform, per tensor, 7 levels up to the absolute maximum."""
    return muquant.compress(made.run(run), muquant.SOURCE_SPEC, observer="absmax", flat=True)


def mapped(made: Made, run: str) -> nn.Module:
    """The source's +mu: the last layers' weights are replaced by F(W), in float."""
    return map_weights(made.run(run), made.recipe.layers, made.recipe.mu)


def mapped_quantized(made: Made, run: str) -> muquant.CompressedModel:
    """The source's +mu (Q): (Q), and the last layers are mapped before they are rounded."""
    form = replace(muquant.SOURCE_SPEC, mu=made.recipe.mu, domain="mapped")
    overrides = {made.recipe.layers: form}
    return muquant.compress(
        made.run(run), muquant.SOURCE_SPEC, observer="absmax", overrides=overrides, flat=True
    )


def calibrated(made: Made, run: str) -> muquant.CompressedModel:
    """Ours after training: 3 bits in every layer, decoded, chosen on `SAMPLES` training images."""

    def compress(model: nn.Module) -> muquant.CompressedModel:
        config = read_run(made.folder / run).config
        train = load_dataset(config.data, "train")
        drawn = torch.randperm(len(train), generator=torch.Generator().manual_seed(config.seed))[:SAMPLES]
        return muquant.compress(model, muquant.MuLawSpec(bits=3), calibration=train.inputs(drawn), flat=True)

    return _kept(made, run, compress)


def as_trained_at_3_bits(made: Made, run: str) -> muquant.CompressedModel:
    """Ours by training: frozen as quantization-aware training left it."""
    return _kept(made, run, muquant.compress)


def _kept(
    made: Made, run: str, compress: Callable[[nn.Module], muquant.CompressedModel]
) -> muquant.CompressedModel:
    """Compress a trained network, or read what was made of the same weights before."""
    model = made.run(run)
    path = made.folder / f"{run}-3bit-{fingerprint(model)[:12]}.mq"
    if not path.exists():
        compress(model).save(path)
    return muquant.load(path)


def map_weights(model: nn.Module, layers: str, mu: float) -> nn.Module:
    """A copy in which the weights of `layers` are max|W| F(W / max|W|): the mapped domain, not rounded."""
    module = copy.deepcopy(model)
    for weight in select_weights(module, layers):
        value = weight.value.detach()
        largest = value.abs().max()
        weight.replace(largest * compand(value / largest, mu))
    return module.eval()


TRAININGS = {"Orig.": "orig", "Adv.": "adv", "F.L.": "fl"}
"""The source's name -> run."""

_FORMS: tuple[dict[str, Form], ...] = (
    {"": as_trained, " (Q)": source_quantized},
    {"+mu": mapped, "+mu (Q)": mapped_quantized},
)

PUBLISHED_ROWS: dict[str, tuple[str, Form]] = {
    f"{name}{suffix}": (run, form)
    for pair in _FORMS
    for name, run in TRAININGS.items()
    for suffix, form in pair.items()
}
"""The 12 rows of the source, in its order: name -> run and form."""

OUR_ROWS: dict[str, tuple[str, Form]] = {
    "Orig., ours": ("orig", calibrated),
    "Adv., ours": ("adv", calibrated),
    "F.L., ours": ("fl", calibrated),
    "Adv., ours, trained": ("adv-qat", as_trained_at_3_bits),
    "F.L., ours, trained": ("fl-qat", as_trained_at_3_bits),
}
"""Rows that the source could not have, all at 3 bits in every layer."""

ROWS = {**PUBLISHED_ROWS, **OUR_ROWS}


def subject(made: Made, row: str) -> Subject:
    """The network of a row."""
    run, form = ROWS[row]
    network = form(made, run)
    if isinstance(network, nn.Module):
        return Subject(row, network, bits=32.0)
    return Subject(row, network.module, bits=3.0, nbytes=sum(layer.nbytes for layer in network.report))
