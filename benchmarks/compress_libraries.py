"""The same encoder compressed by several libraries: each peer is a function, and `PEERS` lists them.

All compress the weights of the 37 dense layers, and those alone unless said; embeddings are 1.4 % of all.
"""

import copy
import importlib
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import onnx
import torch
from compress_task import Outcome, Peer, Task, batches, in_onnxruntime, in_torch, linears
from torch import Tensor, nn

import muquant
from muquant.format.packing import pack
from muquant_onnx import export_float, export_onnx

LINEAR = r"^layers\.|^head$"
"""The layers that all peers compress, by name."""
INTX = "torchao.quantization.quantize_.workflows.intx"


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
        replaced, parts = {f"{name}.weight" for name, _ in linears(task.model)}, dict[str, Tensor]()
        with task.meter:
            for name, layer in linears(task.model):
                rows = layer.weight.detach().reshape(-1, spec.steps.group_size or layer.in_features)
                low, high = rows.amin(1, keepdim=True).clamp(max=0), rows.amax(1, keepdim=True).clamp(min=0)
                step = torch.maximum(-low, high) / 3 if symmetric else (high - low) / 7
                zero = torch.full_like(step, 3) if symmetric else (-low / step).round()
                codes = (rows / step + zero).round().clamp(0, 6 if symmetric else 7)
                layer.weight = nn.Parameter(((codes - zero) * step).reshape(layer.weight.shape))
                parts |= {f"{name}.codes": packed(codes), f"{name}.step": step}
                if not symmetric:
                    parts[f"{name}.zero"] = packed(zero)
        state = {name: value for name, value in task.model.state_dict().items() if name not in replaced}
        path = task.folder / "model.pt"
        torch.save(state | parts, path)
        return Outcome(task.model, path, 8 * total_bytes(parts.values()) / task.count)

    return Peer(run, 3, "torch")


def packed(codes: Tensor) -> Tensor:
    """Numbers from 0 to 7 in 3 bits each."""
    return torch.from_numpy(pack(codes.to(torch.uint8).reshape(-1).numpy(), 3))


def total_bytes(parts: Iterable[Tensor]) -> int:
    """The bytes that tensors take."""
    return sum(part.numel() * part.element_size() for part in parts)


def ours(
    rounding: str, granularity: str = "channel", *, layers: str = LINEAR, policy: str = "float", bits: int = 3
) -> Peer:
    """This project; the ONNX file runs under onnxruntime."""

    def run(task: Task) -> Outcome:
        spec = muquant.MuLawSpec(bits, granularity=granularity)
        calibration = None if rounding in ("nearest", "balanced") else task.calibration
        with task.meter:
            compressed = muquant.compress(
                task.model, spec, flat=True, layers=layers, rounding=rounding, calibration=calibration
            )
        path = task.folder / "model.onnx"
        export_onnx(compressed, path, task.calibration[:2], policy)
        tensors = compressed.tensors.values()
        nbytes = sum(tensor.nbytes for tensor in tensors)
        return in_onnxruntime(path, 8 * nbytes / sum(tensor.codes.numel() for tensor in tensors))

    return Peer(run, bits, "muquant", ("muquant_onnx",))


def matmul_nbits(config: str, block: int, bits: int = 4, **options: Any) -> Peer:
    """The quantizer of MatMuls that onnxruntime has, from file to file; GPTQ sees the calibration.

    Its GPTQ (1.32) hands errors on by the half of a triangular factor that is zero, so it rounds plainly.
    """

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
        return in_onnxruntime(path, packed_bits(onnx.load(path), task.count))

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
    return [{"tokens": batch.numpy()} for batch in batches(calibration)]


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


def hqq(group: int, bits: int = 3, axis: int = 1) -> Peer:
    """HQQ, whose steps and zero points are float16; what it decodes is computed with in float32."""

    def run(task: Task) -> Outcome:
        library = importlib.import_module("hqq.core.quantize")
        config = library.BaseQuantizeConfig(nbits=bits, group_size=group, axis=axis)
        decoded, path, parts = copy.deepcopy(task.model), task.folder / "model.pt", list[Tensor]()
        layers, count = dict(linears(task.model)), task.count
        with task.meter:
            compressed = {
                name: library.HQQLinear(layer, config, compute_dtype=torch.float16, device="cpu")
                for name, layer in layers.items()
            }
        for name, layer in linears(decoded):
            layer.weight = nn.Parameter(compressed[name].dequantize().float())
            task.model.set_submodule(name, compressed[name])
            parts += [compressed[name].W_q, compressed[name].meta["scale"], compressed[name].meta["zero"]]
        torch.save(task.model.state_dict(), path)
        return Outcome(decoded, path, 8 * total_bytes(parts) / count)

    return Peer(run, bits, "hqq", ("hqq.core.quantize",))


def quanto(name: str) -> Peer:
    """The optimum-quanto, 4 or 2 bits, groups of 128 as it chooses itself."""

    def run(task: Task) -> Outcome:
        library = importlib.import_module("optimum.quanto")
        count = task.count
        with task.meter:
            library.quantize(task.model, weights=getattr(library, name))
            library.freeze(task.model)
        ends = ("weight._data._data", "weight._scale", "weight._shift")
        parts = [value for key, value in task.model.state_dict().items() if key.endswith(ends)]
        return in_torch(task.model, task.folder / "model.pt", 8 * total_bytes(parts) / count)

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
        count = task.count
        with task.meter:
            library.quantize_(task.model, config)
        steps = sum(layer.weight.scale.numel() for _, layer in linears(task.model))  # type: ignore[attr-defined]
        return in_torch(task.model, task.folder / "model.pt", bits + 32 * steps / count)

    return Peer(run, bits, "torchao", ("torchao.quantization", INTX))


def brevitas(group: int | None, *, gptq: bool) -> Peer:
    """Brevitas, which simulates: symmetric, the step of least squared error; rounded, or by its GPTQ."""
    scaled, grouped = "brevitas.quant.scaled_int", "brevitas_examples.common.generative.quantizers"

    def run(task: Task) -> Outcome:
        layer = importlib.import_module("brevitas.nn").QuantLinear
        how = {"weight_bit_width": 3, "weight_narrow_range": False}
        if group:
            quant = importlib.import_module(grouped).IntWeightSymmetricGroupQuantMSE
            how["weight_group_size"] = group
        else:
            quant = importlib.import_module(scaled).Int8WeightPerChannelFloatMSE
        count = task.count
        steps = sum(one.weight.numel() / (group or one.in_features) for _, one in linears(task.model))
        convert = importlib.import_module("brevitas.graph.quantize").layerwise_quantize
        with task.meter, torch.no_grad():
            model = convert(task.model, {nn.Linear: (layer, how | {"weight_quant": quant})})
            model(task.calibration[:1])  # chooses the steps
            if gptq:
                _brevitas_gptq(model, task.calibration)
        return in_torch(model, task.folder / "model.pt", 3 + 32 * steps / count)

    modules = "brevitas.nn", "brevitas.graph.quantize", "brevitas.graph.gptq", grouped if group else scaled
    return Peer(run, 3, "brevitas", modules)


def _brevitas_gptq(model: nn.Module, calibration: Tensor) -> None:
    mode = importlib.import_module("brevitas.graph.gptq").gptq_mode
    with mode(model, act_order=True, use_quant_activations=False, create_weight_orig=False) as gptq:
        for _ in range(gptq.num_layers):
            for batch in batches(calibration):
                gptq.model(batch)
            gptq.update()


def aimet(group: int | None, *, sequential: bool) -> Peer:
    """AIMET, which simulates: symmetric, ranges by the extremes or by Sequential MSE."""

    def run(task: Task) -> Outcome:
        library = importlib.import_module("aimet_torch")
        quantizer = importlib.import_module("aimet_torch.quantization.affine").QuantizeDequantize
        search = importlib.import_module("aimet_torch.seq_mse").apply_seq_mse
        steps = sum(one.weight.numel() / (group or one.in_features) for _, one in linears(task.model))
        with task.meter, torch.no_grad():
            sim = library.QuantizationSimModel(task.model, task.calibration[:1])
            for _, module in sim.named_qmodules():
                _only_weights(module)
                if isinstance(module, nn.Linear):
                    blocks = module.in_features // (group or module.in_features)
                    module.param_quantizers["weight"] = quantizer(  # type: ignore[operator, index]
                        (module.out_features, blocks), bitwidth=3, symmetric=True, block_size=(1, group or -1)
                    )
            if sequential:
                search(sim, batches(task.calibration))
            else:
                sim.compute_encodings(lambda model: model(task.calibration[:1]))
        return in_torch(sim.model, task.folder / "model.pt", 3 + 32 * steps / task.count)

    return Peer(run, 3, "aimet-torch", ("aimet_torch", "aimet_torch.seq_mse"))


def _only_weights(module: Any) -> None:
    """Take away the quantizers that AIMET puts everywhere."""
    for quantizers in (module.input_quantizers, module.output_quantizers):
        for place in range(len(quantizers)):
            quantizers[place] = None
    for name in module.param_quantizers:
        module.param_quantizers[name] = None


PEERS: dict[str, Peer] = {
    "float": float32(),
    "RTN 3-bit, absmax, channel": plain("channel", symmetric=True),
    "RTN 3-bit, absmax, group 128": plain("group:128", symmetric=True),
    "RTN 3-bit, min-max, channel": plain("channel", symmetric=False),
    "RTN 3-bit, min-max, group 128": plain("group:128", symmetric=False),
    "muquant 3-bit, nearest, channel": ours("nearest"),
    "muquant 3-bit, nearest, group 128": ours("nearest", "group:128"),
    "muquant 3-bit, balanced, channel": ours("balanced"),
    "muquant 3-bit, balanced, group 128": ours("balanced", "group:128"),
    "muquant 3-bit, compensated, channel": ours("compensated"),
    "muquant 3-bit, compensated, group 128": ours("compensated", "group:128"),
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
    "HQQ 3-bit, group 64, axis 0": hqq(64, axis=0),
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
    "Brevitas 3-bit, GPTQ, group 128": brevitas(128, gptq=True),
    "AIMET 3-bit, channel": aimet(None, sequential=False),
    "AIMET 3-bit, Sequential MSE, channel": aimet(None, sequential=True),
    "AIMET 3-bit, Sequential MSE, group 128": aimet(128, sequential=True),
}
"""Name -> the peer."""
