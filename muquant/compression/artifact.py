"""A compressed model, in memory and on disk: one safetensors file, its manifest in the metadata."""

import os
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from types import NoneType
from typing import Any

import torch
from torch import Tensor, nn

from muquant.base.errors import InputError, naming
from muquant.base.tensor_files import TensorFile, read_tensors, write_tensors
from muquant.base.values import field_values
from muquant.compression.answers.report import AnswersCheck
from muquant.compression.auto import Choice
from muquant.compression.batch_norm import Reestimation
from muquant.compression.computed import unwrap
from muquant.compression.layers import Uses, quantizable_weights, replace_weight, weight_owners
from muquant.compression.left import LeftFloat, left_float
from muquant.compression.sensitivity import Norms
from muquant.compression.tuning.report import TuningReport
from muquant.compression.weight_bytes import AverageBits, WeightBytes
from muquant.format.stored import parts_of, read_weight, weight_entry, weight_tensors
from muquant.format.tensor import QuantizedTensor
from muquant.models import Architecture, build
from muquant.models.wrappers import fit_names, misfit, unwrapped
from muquant.quantization.outcome import WeightSummary

SCHEMA = "muquant.compressed/1"


@dataclass(frozen=True, kw_only=True)
class LayerReport(WeightSummary):
    """What compression did to one weight of a module.

    Attributes:
        matrix_norms: ||dW||_p of the error as a matrix [channels, inputs].
        operator_norms: ||dW||_p of the error in its layer, a linear map; None for a convolution whose input's
            size was not known.
        float_nbytes: bytes of the float32 weight.
    """

    matrix_norms: Norms
    operator_norms: Norms | None
    float_nbytes: int

    @property
    def delta_norms(self) -> Norms:
        """||dW||_p of the layer where it is known, else of the matrix.

        For p = 2 the paper's Lipschitz constant of the quantization error: above 1 the layer may amplify it.
        """
        return self.operator_norms or self.matrix_norms


@dataclass(frozen=True, eq=False)
class CompressedModel:
    """A model some of whose weights are in few bits.

    Attributes:
        module: runs in PyTorch, in evaluation mode; its compressed weights are the decoded ones, bit for bit.
        tensors: weight name -> quantized weight; a shared weight is there once.
        aliases: other names of shared weights -> the name in `tensors`.
        report: one entry for each of `tensors`.
        choices: with layers="auto", what was tried for each weight; not kept in a file.
        batch_norm: what became of BatchNorm statistics, where there are any and samples; not kept in a file.
        tuning: how the training of the whole went, with rounding="tuned"; not kept in a file.
        source: the text that names the model, such as "torchvision:resnet18", where it is known.
            It is kept for models that are not of `muquant.models`, and never run.
        left_alone: what of the module stays float, and why, the most bytes first. Not kept in a file: `load`
            finds it anew, but no longer knows why weights that could be in few bits are not.
        answers: how alike it answers to the float model; None where that was not asked, and not kept in a
            file.
    """

    module: nn.Module
    tensors: Mapping[str, QuantizedTensor]
    aliases: Mapping[str, str] = field(default_factory=dict)
    report: tuple[LayerReport, ...] = ()
    choices: tuple[Choice, ...] = ()
    batch_norm: Reestimation | None = None
    tuning: TuningReport | None = None
    source: str | None = None
    left_alone: tuple[LeftFloat, ...] = ()
    answers: AnswersCheck | None = None

    @property
    def average_bits(self) -> AverageBits:
        """Bits that a compressed weight has on average."""
        return AverageBits.of(self.report)

    @property
    def weight_bytes(self) -> WeightBytes:
        """Bytes of all weights before and after, and of those that stay float; all as float32."""
        packed = ((layer.float_nbytes, layer.nbytes) for layer in self.report)
        return WeightBytes.of(packed, (each.nbytes for each in self.left_alone))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file, whole or not at all; `muquant.load` reads it.

        Tensors in the file: `codes.NAME` (packed bytes) and `step.NAME` for each compressed weight,
        `state.NAME` for everything else in the module's state; what several names share is there once.
        """
        decoded = {*self.tensors, *self.aliases}
        tensors: dict[str, Tensor] = {}
        aliases = dict(self.aliases)
        seen: dict[Tensor, str] = {}
        for name, value in self.module.state_dict(keep_vars=True).items():
            if name in decoded:
                continue
            first = seen.setdefault(value, name)
            if first == name:
                tensors[f"state.{name}"] = value.detach().clone()
            else:
                aliases[name] = first
        weights = {}
        for name, quantized in self.tensors.items():
            tensors.update(weight_tensors(name, quantized))
            weights[name] = weight_entry(quantized)
        architecture = getattr(self.module, "architecture", None)
        ours = architecture if isinstance(architecture, Architecture) else None
        manifest = {
            "weights": weights,
            "aliases": aliases,
            "architecture": None if ours is None else ours.to_dict(),
            "report": [_report_entry(layer) for layer in self.report],
            **({"source": self.source} if ours is None and self.source is not None else {}),
        }
        write_tensors(path, SCHEMA, tensors, manifest)


@dataclass(frozen=True, eq=False)
class Artifact:
    """What an artifact holds, before there is a module to put it in.

    Attributes:
        tensors: weight name -> quantized weight.
        state: everything else in the module's state.
        aliases: other names of shared tensors -> their name in `tensors` or `state`.
        architecture: of the module, where it is one of ours.
        report: what compression did to each weight.
        source: the text that names the module, where it is not one of ours and that is known.
    """

    tensors: Mapping[str, QuantizedTensor]
    state: Mapping[str, Tensor]
    aliases: Mapping[str, str]
    architecture: Architecture | None
    report: tuple[LayerReport, ...]
    source: str | None

    def named_as(self, module: nn.Module) -> "Artifact":
        """Return the same with the names of `module`, where these differ by what wrappers put into names."""
        own = [*self.tensors, *self.state, *self.aliases]
        called = fit_names(own, module.state_dict().keys())
        return replace(
            self,
            tensors={called[name]: value for name, value in self.tensors.items()},
            state={called[name]: value for name, value in self.state.items()},
            aliases={called[alias]: called[name] for alias, name in self.aliases.items()},
            report=tuple(replace(each, name=called.get(each.name, each.name)) for each in self.report),
        )


def read_artifact(path: str | os.PathLike[str]) -> Artifact:
    """Read an artifact without building its module.

    Raises:
        InputError: the file is missing, truncated, altered or foreign.
    """
    file = read_tensors(path, SCHEMA)
    with naming(str(path)):
        try:
            return _parse(file)
        except InputError:
            raise
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
            # the checksum holds, so a foreign writer made it
            raise InputError(
                f"the manifest is malformed ({error!r:.200}); write the file with muquant"
            ) from error


def load(path: str | os.PathLike[str], module: nn.Module | None = None) -> CompressedModel:
    """Read an artifact; its weights are those that were saved, bit for bit.

    Args:
        path: of the file.
        module: takes the weights, in place; needed only where the architecture is not one of ours. Weights
            that its parametrizations or hooks compute become plain ones. Wrappers around it or its parts,
            such as torch.compile's, are taken off, and names that differ by those or by a prefix are seen
            through.

    Raises:
        InputError: the file cannot be used, or `module` is needed, does not fit or has not met an input yet.
    """
    artifact = read_artifact(path)
    if module is None:
        if artifact.architecture is None:
            raise InputError(
                f"{path} holds weights of a model that is not one of ours; pass it: load(path, module=...)"
            )
        # the shapes are compared before memory is taken for them
        with naming(str(path)), torch.device("meta"):
            shapes = build(artifact.architecture)
        _fit(artifact.named_as(shapes), shapes, path)
        module = build(artifact.architecture)
    with naming(str(path)):
        module = unwrapped(module)
        unwrap(module)
    artifact = artifact.named_as(module)
    names, state = _fit(artifact, module, path)
    uses = _uses(artifact, names)
    owners = {owner.name: owner for owner in weight_owners(module, uses)}
    module.float().load_state_dict(state, strict=False)
    for name, quantized in artifact.tensors.items():
        replace_weight([owners[each] for each in names[name]], quantized.dequantize())
    shared = {alias: name for alias, name in artifact.aliases.items() if name in names}
    compressed = [
        weight
        for weight in quantizable_weights(module, uses)
        if not {weight.name, *weight.aliases}.isdisjoint(artifact.tensors)
    ]
    return CompressedModel(
        module.eval(),
        artifact.tensors,
        shared,
        artifact.report,
        source=artifact.source,
        left_alone=left_float(module, compressed, "float32 in the file"),
    )


def _uses(artifact: Artifact, names: Mapping[str, Collection[str]]) -> Uses:
    """Return all names of each compressed weight with its channels."""
    return {each: artifact.tensors[name].channels for name, own in names.items() for each in own}


def _fit(
    artifact: Artifact, module: nn.Module, path: str | os.PathLike[str]
) -> tuple[dict[str, list[str]], dict[str, Tensor]]:
    """Return the names of each compressed weight, and the rest of the state by name; they fit `module`."""
    names = {name: [name] for name in artifact.tensors}
    for alias, name in artifact.aliases.items():
        if name in names:
            names[name].append(alias)
    state = dict(artifact.state)
    state.update({alias: state[name] for alias, name in artifact.aliases.items() if name in state})
    owners = {owner.name for owner in weight_owners(module, _uses(artifact, names))}
    found = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    stored = {name: tuple(value.shape) for name, value in state.items()}
    stored.update({each: artifact.tensors[name].shape for name in names for each in names[name]})
    if words := misfit(stored.keys(), found.keys()):
        raise InputError(
            f"{path} does not fit {type(module).__name__}: {words}; pass the model that was compressed"
        )
    if found != stored or not owners >= {each for name in names for each in names[name]}:
        first = sorted({name for name, _ in set(found.items()) ^ set(stored.items())} or {"a weight"})[0]
        raise InputError(
            f"{path} does not fit {type(module).__name__}: {first} has shape {stored.get(first, 'none')} in "
            f"the file and {found.get(first, 'none')} in the model; pass the model that was compressed"
        )
    return names, state


def _parse(file: TensorFile) -> Artifact:
    manifest = file.manifest
    tensors = {name: read_weight(name, file.tensors, entry) for name, entry in manifest["weights"].items()}
    state = {key[6:]: value for key, value in file.tensors.items() if key.startswith("state.")}
    named = {part for name in tensors for part in parts_of(name, file.tensors)}
    if len(file.tensors) != len(named) + len(state):
        raise InputError("it holds tensors that its manifest does not name; take an unchanged copy")
    aliases = dict(manifest["aliases"])
    if not set(aliases.values()) <= {*tensors, *state} or not aliases.keys().isdisjoint({*tensors, *state}):
        raise InputError("an alias names no tensor of the file, or hides one; take an unchanged copy")
    architecture = manifest["architecture"]
    report = tuple(_layer_report(entry) for entry in manifest["report"])
    return Artifact(
        tensors,
        state,
        aliases,
        None if architecture is None else Architecture.from_dict(architecture),
        report,
        _source(manifest.get("source")),
    )


_LONGEST_SOURCE = 1000


def _source(value: object) -> str | None:
    if value is None or (isinstance(value, str) and value.isprintable() and len(value) <= _LONGEST_SOURCE):
        return value
    raise InputError(f"source is {value!r:.60}; expected a line of text; take a file that muquant wrote")


_ADDED = ("not_calibrated", "note")
"""Texts of a report that 0.2.0 does not know."""
_REPORT_TYPES: dict[str, tuple[type, ...]] = {
    "name": (str,),
    "shape": (tuple,),
    "domain": (str,),
    "sqnr": (int, float, NoneType),
    "rounding": (str,),
    **dict.fromkeys(_ADDED, (str,)),
    "nearest_output_sqnr": (int, float, NoneType),
    "output_sqnr": (int, float, NoneType),
    "bias_corrected": (bool,),
    "mu": (int, float),
    "matrix_norms": (Norms,),
    "operator_norms": (Norms, NoneType),
}


def _report_entry(layer: LayerReport) -> dict[str, Any]:
    """Return a report as JSON values, without what 0.2.0 does not know where it says nothing."""
    entry = asdict(layer)
    return {key: value for key, value in entry.items() if value or key not in _ADDED}


def _layer_report(document: object) -> LayerReport:
    if isinstance(document, Mapping):
        document = {**dict.fromkeys(_ADDED, ""), **document}
    values = field_values(LayerReport, document, "layer report")
    for name in ("matrix_norms", "operator_norms"):
        values[name] = _norms(values[name])
    for name, value in values.items():
        if not isinstance(value, _REPORT_TYPES.get(name, (int,))):
            raise InputError(f"layer report: {name} is {value!r:.60}; take a file that muquant wrote")
    return LayerReport(**values)


def _norms(document: object) -> Norms | None:
    if document is None:
        return None
    values = field_values(Norms, document, "norms")
    if not all(isinstance(value, int | float) for value in values.values()):
        raise InputError(f"norms are {values!r:.60}; take a file that muquant wrote")
    return Norms(**values)
