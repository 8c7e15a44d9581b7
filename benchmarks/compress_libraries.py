"""The same encoder compressed by several libraries: each peer is a function, and `PEERS` lists them.

All compress the weights of the 37 dense layers, and those alone unless said; embeddings are 1.4 % of all.
"""

import copy
import importlib
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from encoder import Encoder
from meter import Meter
from torch import Tensor, nn

import muquant
from muquant.packing import pack
from muquant_onnx import export_float, export_onnx, load_session

LINEAR = r"^layers\.|^head$"
"""The layers that all peers compress, by name."""
INTX = "torchao.quantization.quantize_.workflows.intx"
BATCH = 32
"""Calibration windows at a time, where a library takes batches."""

Logits = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Outcome:
    """A compressed encoder.

    Attributes:
        logits: int64 [n, length] -> float32 [n, length, 256].
        path: its file.
        bits: that a weight takes, with its share of steps and zero points. Codes count as the library packs
            them; where it keeps them in wider numbers, or only simulates them, at their own width.
    """

    logits: Logits
    path: Path
    bits: float


@dataclass(frozen=True)
class Task:
    """What a peer gets. It compresses inside `meter`; what comes before and after is not measured."""

    model: Encoder
    calibration: Tensor
    folder: Path
    meter: Meter


@dataclass(frozen=True)
class Peer:
    """A way to compress.

    Attributes:
        run: does it.
        width: bits of a code.
        package: distribution that does it.
        modules: imported before the clock starts.
    """

    run: Callable[[Task], Outcome]
    width: int
    package: str
    modules: tuple[str, ...] = ()


def linears(model: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    """Yield the dense layers and their names."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            yield name, module


def weights(model: nn.Module) -> int:
    """The number of weights of dense layers."""
    return sum(layer.weight.numel() for _, layer in linears(model))


def in_torch(model: nn.Module, path: Path, bits: float) -> Outcome:
    """A module that computes with what it decodes; its file is its state, as `torch.save` writes it."""
    torch.save(model.state_dict(), path)
    return Outcome(model, path, bits)


def in_onnxruntime(path: Path, bits: float) -> Outcome:
    """A file as onnxruntime runs it."""
    session = load_session(path, threads=torch.get_num_threads())
    name = session.get_inputs()[0].name

    def logits(tokens: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {name: tokens.numpy()})[0])

    return Outcome(logits, path, bits)


def float32() -> Peer:
    """The encoder as it is."""

    def run(task: Task) -> Outcome:
        with task.meter:
            pass
        return in_torch(task.model, task.folder / "model.pt", 32)

    return Peer(run, 32, "torch")


def plain(granularity: str, *, symmetric: bool) -> Peer:
    """Plain rounding to 3 uniform bits: to -3..3 by the largest magnitude, or 0..7 between the extremes."""
    spec = muquant.MuLawSpec(granularity=granularity)  # says which weights share a step, no more

    def run(task: Task) -> Outcome:
        model, parts, nbytes = task.model, {}, 0.0
        with task.meter:
            for name, layer in linears(model):
                rows = layer.weight.detach().reshape(-1, spec.steps.group_size or layer.in_features)
                low, high = rows.amin(1, keepdim=True), rows.amax(1, keepdim=True)
                zero = torch.zeros_like(low)
                if symmetric:
                    step = torch.maximum(-low, high) / 3
                    codes = (rows / step).round().clamp(-3, 3)
                else:
                    step = (high.clamp(min=0) - low.clamp(max=0)) / 7
                    zero = (-low.clamp(max=0) / step).round()
                    codes = (rows / step + zero).round().clamp(0, 7)
                layer.weight = nn.Parameter(((codes - zero) * step).reshape(layer.weight.shape))
                packed = pack((codes + 3 * symmetric).to(torch.uint8).reshape(-1).numpy(), 3)
                parts |= {f"{name}.codes": torch.from_numpy(packed), f"{name}.step": step}
                nbytes += packed.nbytes + 4 * step.numel() + (0 if symmetric else 3 / 8 * zero.numel())
                if not symmetric:
                    parts[f"{name}.zero"] = torch.from_numpy(
                        pack(zero.to(torch.uint8).reshape(-1).numpy(), 3)
                    )
        replaced = {f"{name}.weight" for name, _ in linears(model)}
        state = {name: value for name, value in model.state_dict().items() if name not in replaced}
        path = task.folder / "model.pt"
        torch.save(state | parts, path)
        return Outcome(model, path, 8 * nbytes / weights(model))

    return Peer(run, 3, "torch")


def ours(
    rounding: str, granularity: str = "channel", *, layers: str = LINEAR, policy: str = "float", bits: int = 3
) -> Peer:
    """This project; the ONNX file runs under onnxruntime."""

    def run(task: Task) -> Outcome:
        spec = muquant.MuLawSpec(bits, granularity=granularity)
        calibration = None if rounding == "nearest" else task.calibration
        with task.meter:
            compressed = muquant.compress(
                task.model, spec, layers=layers, rounding=rounding, calibration=calibration
            )
        path = task.folder / "model.onnx"
        export_onnx(compressed, path, task.calibration[:2], policy)
        tensors = compressed.tensors.values()
        nbytes = sum(tensor.nbytes for tensor in tensors)
        return in_onnxruntime(path, 8 * nbytes / sum(tensor.codes.numel() for tensor in tensors))

    return Peer(run, bits, "muquant", ("muquant_onnx",))


def matmul_nbits(config: str, block: int, bits: int = 4, **options: Any) -> Peer:
    """The quantizer of MatMuls that onnxruntime has, from file to file; GPTQ sees the calibration."""

    def run(task: Task) -> Outcome:
        library = importlib.import_module("onnxruntime.quantization.matmul_nbits_quantizer")
        chosen = dict(options)
        if config in ("HQQ", "Default"):
            chosen |= {"block_size": block, "bits": bits}
        if config == "GPTQ":
            chosen |= {"calibration_data_reader": reader(task.calibration)}
        source, path = float_file(task), task.folder / "model.onnx"
        with task.meter:
            how = getattr(library, f"{config}WeightOnlyQuantConfig")(**chosen)
            quantizer = library.MatMulNBitsQuantizer(os.fspath(source), block_size=block, algo_config=how)
            quantizer.process()
            quantizer.model.save_model_to_file(os.fspath(path))
        return in_onnxruntime(path, packed_bits(onnx.load(path), weights(task.model)))

    return Peer(run, bits, "onnxruntime", ("onnxruntime.quantization.matmul_nbits_quantizer",))


def gptq_3bit(group: int) -> Peer:
    """The GPTQ inside onnxruntime at 3 bits, which its operator cannot run: it stores what they decode to."""

    def run(task: Task) -> Outcome:
        library = importlib.import_module("onnxruntime.quantization.neural_compressor")
        source, path = float_file(task), task.folder / "model.onnx"
        loader = [(batch, None) for batch in feeds(task.calibration)]
        with task.meter:
            model = library.gptq_quantize(
                onnx.load(source), loader, num_bits=3, group_size=group, n_samples=-1, blocksize=128
            )
            model.save_model_to_file(os.fspath(path))
        return in_onnxruntime(path, 3 + (32 + 3) / group)

    return Peer(run, 3, "onnxruntime", ("onnxruntime.quantization.neural_compressor",))


def float_file(task: Task) -> Path:
    """The encoder as an ONNX file."""
    path = task.folder / "float.onnx"
    export_float(task.model, path, task.calibration[:2])
    return path


def feeds(calibration: Tensor) -> list[dict[str, Any]]:
    """The calibration in batches, for onnxruntime."""
    return [{"tokens": batch.numpy()} for batch in calibration.split(BATCH)]


def reader(calibration: Tensor) -> Any:
    """The calibration as onnxruntime reads it."""
    base = importlib.import_module("onnxruntime.quantization.calibrate").CalibrationDataReader
    left = feeds(calibration)
    return type("Reader", (base,), {"get_next": lambda _: left.pop(0) if left else None})()


def packed_bits(model: onnx.ModelProto, count: int) -> float:
    """Bits for each of `count` weights in the MatMulNBits of a file, all of which must be there."""
    sizes = {tensor.name: len(tensor.raw_data) for tensor in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type == "MatMulNBits"]
    found = sum(
        math.prod(attribute.i for attribute in node.attribute if attribute.name in ("K", "N"))
        for node in nodes
    )
    assert found == count, f"{found} of {count} weights are compressed"
    return 8 * sum(sizes[name] for node in nodes for name in node.input[1:] if name) / count


def hqq(group: int, bits: int = 3) -> Peer:
    """HQQ, whose steps and zero points are float16; what it decodes is computed with in float32."""

    def run(task: Task) -> Outcome:
        library = importlib.import_module("hqq.core.quantize")
        config = library.BaseQuantizeConfig(nbits=bits, group_size=group)
        decoded, path, nbytes = copy.deepcopy(task.model), task.folder / "model.pt", 0
        layers = dict(linears(task.model))
        with task.meter:
            for name, layer in layers.items():
                packed = library.HQQLinear(layer, config, compute_dtype=torch.float16, device="cpu")
                task.model.set_submodule(name, packed)
        torch.save(task.model.state_dict(), path)
        for name, layer in linears(decoded):
            packed = task.model.get_submodule(name)
            parts = packed.W_q, packed.meta["scale"], packed.meta["zero"]
            nbytes += sum(part.numel() * part.element_size() for part in parts)
            layer.weight = nn.Parameter(packed.dequantize().float())
        return Outcome(decoded, path, 8 * nbytes / weights(decoded))

    return Peer(run, bits, "hqq", ("hqq.core.quantize",))


def quanto(name: str) -> Peer:
    """The optimum-quanto, 4 or 2 bits, groups of 128 as it chooses itself."""

    def run(task: Task) -> Outcome:
        library = importlib.import_module("optimum.quanto")
        with task.meter:
            library.quantize(task.model, weights=getattr(library, name))
            library.freeze(task.model)
        state = task.model.state_dict()
        ends = ("weight._data._data", "weight._scale", "weight._shift")
        nbytes = sum(
            value.numel() * value.element_size() for key, value in state.items() if key.endswith(ends)
        )
        return in_torch(task.model, task.folder / "model.pt", 8 * nbytes / weights(task.model))

    return Peer(run, int(name[-1]), "optimum-quanto", ("optimum.quanto",))


def torchao(bits: int, group: int | None, algorithm: str = "AFFINE") -> Peer:
    """The torchao's integers of any width, kept in int8; symmetric, so that zero points take no room."""

    def run(task: Task) -> Outcome:
        library = importlib.import_module("torchao.quantization")
        algorithms = importlib.import_module(
            f"{INTX}.intx_choose_qparams_algorithm"
        ).IntxChooseQParamsAlgorithm
        config = library.IntxWeightOnlyConfig(
            weight_dtype=getattr(torch, f"int{bits}"),
            granularity=library.PerGroup(group) if group else library.PerAxis(0),
            intx_choose_qparams_algorithm=algorithms[algorithm],
        )
        count = weights(task.model)
        with task.meter:
            library.quantize_(task.model, config)
        steps = sum(layer.weight.scale.numel() for _, layer in linears(task.model))  # type: ignore[operator]
        return in_torch(task.model, task.folder / "model.pt", bits + 32 * steps / count)

    return Peer(run, bits, "torchao", ("torchao.quantization", INTX))


def brevitas(group: int | None, *, gptq: bool) -> Peer:
    """Brevitas, which simulates: symmetric, the step of least squared error; rounded, or by its GPTQ."""

    def run(task: Task) -> Outcome:
        quant = importlib.import_module("brevitas.quant.scaled_int").Int8WeightPerChannelFloatMSE
        layer = importlib.import_module("brevitas.nn").QuantLinear
        how = {"weight_quant": quant, "weight_bit_width": 3, "return_quant_tensor": False}
        if group:
            how |= {"weight_scaling_per_output_type": "group", "weight_group_size": group}
        count = weights(task.model)
        steps = sum(one.weight.numel() / (group or one.in_features) for _, one in linears(task.model))
        convert = importlib.import_module("brevitas.graph.quantize").layerwise_quantize
        with task.meter, torch.no_grad():
            model = convert(task.model, {nn.Linear: (layer, how)})
            model(task.calibration[:1])  # chooses the steps
            if gptq:
                _brevitas_gptq(model, task.calibration)
        return in_torch(model, task.folder / "model.pt", 3 + 32 * steps / count)

    return Peer(run, 3, "brevitas", ("brevitas.nn", "brevitas.graph.quantize", "brevitas.graph.gptq"))


def _brevitas_gptq(model: nn.Module, calibration: Tensor) -> None:
    mode = importlib.import_module("brevitas.graph.gptq").gptq_mode
    with mode(model, act_order=True, use_quant_activations=False, create_weight_orig=False) as gptq:
        for _ in range(gptq.num_layers):
            for batch in calibration.split(BATCH):
                gptq.model(batch)
            gptq.update()


def aimet(*, sequential: bool) -> Peer:
    """AIMET, which simulates: symmetric, a range for each channel by its extremes or by Sequential MSE."""

    def run(task: Task) -> Outcome:
        library = importlib.import_module("aimet_torch")
        quantizer = importlib.import_module("aimet_torch.quantization.affine").QuantizeDequantize
        search = importlib.import_module("aimet_torch.seq_mse").apply_seq_mse
        with task.meter, torch.no_grad():
            sim = library.QuantizationSimModel(task.model, task.calibration[:1])
            for _, module in sim.named_qmodules():
                for place in (module.input_quantizers, module.output_quantizers):
                    for index in range(len(place)):
                        place[index] = None
                for name in module.param_quantizers:
                    module.param_quantizers[name] = None
                if isinstance(module, nn.Linear):
                    shape = (module.out_features, 1)
                    module.param_quantizers["weight"] = quantizer(shape, bitwidth=3, symmetric=True)
            if sequential:
                search(sim, list(task.calibration.split(BATCH)))
            else:
                sim.compute_encodings(lambda model: model(task.calibration[:1]))
        channels = sum(layer.out_features for _, layer in linears(task.model))
        return in_torch(sim.model, task.folder / "model.pt", 3 + 32 * channels / weights(task.model))

    return Peer(run, 3, "aimet-torch", ("aimet_torch", "aimet_torch.seq_mse"))


PEERS: dict[str, Peer] = {
    "float": float32(),
    "RTN 3-bit, absmax, channel": plain("channel", symmetric=True),
    "RTN 3-bit, absmax, group 128": plain("group:128", symmetric=True),
    "RTN 3-bit, min-max, channel": plain("channel", symmetric=False),
    "RTN 3-bit, min-max, group 128": plain("group:128", symmetric=False),
    "muquant 3-bit, nearest, channel": ours("nearest"),
    "muquant 3-bit, nearest, group 128": ours("nearest", "group:128"),
    "muquant 3-bit, compensated, channel": ours("compensated"),
    "muquant 3-bit, reconstructed, channel": ours("reconstructed"),
    "muquant 3-bit, reconstructed, group 128": ours("reconstructed", "group:128"),
    "muquant 3-bit, reconstructed, group 128, int8 kernel": ours("reconstructed", "group:128", policy="int8"),
    "muquant 3-bit, reconstructed, channel, int8 kernel": ours("reconstructed", policy="int8"),
    "muquant 3-bit, reconstructed, group 128, embeddings too": ours(
        "reconstructed", "group:128", layers="all"
    ),
    "onnxruntime RTN 4-bit, block 32": matmul_nbits("Default", 32),
    "onnxruntime RTN 4-bit, block 128": matmul_nbits("Default", 128),
    "onnxruntime HQQ 4-bit, block 32": matmul_nbits("HQQ", 32),
    "onnxruntime HQQ 4-bit, block 128": matmul_nbits("HQQ", 128),
    "onnxruntime k-quant 4-bit, block 32": matmul_nbits("KQuant", 32),
    "onnxruntime GPTQ 4-bit, block 32": matmul_nbits("GPTQ", 32),
    "onnxruntime GPTQ 3-bit, group 128": gptq_3bit(128),
    "onnxruntime RTN 2-bit, block 32": matmul_nbits("Default", 32, bits=2),
    "HQQ 3-bit, group 64": hqq(64),
    "HQQ 3-bit, group 128": hqq(128),
    "HQQ 4-bit, group 64": hqq(64, 4),
    "quanto 4-bit, group 128": quanto("qint4"),
    "quanto 2-bit, group 128": quanto("qint2"),
    "torchao 3-bit, channel": torchao(3, None),
    "torchao 3-bit, group 128": torchao(3, 128),
    "torchao 3-bit, HQQ, group 128": torchao(3, 128, "HQQ_SCALE_ONLY"),
    "torchao 4-bit, group 32": torchao(4, 32),
    "torchao 2-bit, group 32": torchao(2, 32),
    "Brevitas 3-bit, MSE, channel": brevitas(None, gptq=False),
    "Brevitas 3-bit, GPTQ, channel": brevitas(None, gptq=True),
    "AIMET 3-bit, channel": aimet(sequential=False),
    "AIMET 3-bit, Sequential MSE, channel": aimet(sequential=True),
}
"""Name -> the peer."""
