"""The same network as ONNX files of several kinds, and the ways in which they are served: `VARIANTS`."""

import importlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from runtime_models import Network
from torch import Tensor

import muquant
from muquant.compression.artifact import CompressedModel
from muquant_onnx import export_float, export_onnx

CALIBRATION, CALIBRATION_SEED, BATCH = 64, 10**9, 16
"""Inputs that static quantization sees, and how many at a time."""


@dataclass(frozen=True, eq=False)
class Task:
    """A network, and the folder of its files."""

    network: Network
    folder: Path

    @cached_property
    def example(self) -> Tensor:
        """Inputs to trace it with."""
        return self.network.samples(2, CALIBRATION_SEED)

    @cached_property
    def compressed(self) -> CompressedModel:
        """Ours, weights alone: all layers at 3 bits, a step for each channel."""
        return muquant.compress(self.network.module, flat=True)

    @property
    def weights(self) -> int:
        """The number of weights that ours compresses, by which all files are divided."""
        return sum(tensor.codes.numel() for tensor in self.compressed.tensors.values())

    def path(self, file: str) -> Path:
        """Where a file of `FILES` lies."""
        return self.folder / f"{file}.onnx"


def float32(task: Task, path: Path) -> None:
    """The network as it is."""
    export_float(task.network.module, path, task.example)


def ours(policy: str, target: str = "onnxruntime") -> Callable[[Task, Path], None]:
    """Codes of 3 bits, levels on the 8-bit grid."""

    def make(task: Task, path: Path) -> None:
        export_onnx(task.compressed, path, task.example, policy, target=target)

    return make


def ours_int4(target: str = "onnxruntime") -> Callable[[Task, Path], None]:
    """Codes of 3 bits, levels on the 4-bit grid."""

    def make(task: Task, path: Path) -> None:
        compressed = muquant.compress(task.network.module, muquant.MuLawSpec(grid="int4"), flat=True)
        export_onnx(compressed, path, task.example, target=target)

    return make


def matmul_nbits(bits: int, block: int) -> Callable[[Task, Path], None]:
    """The quantizer of MatMuls that onnxruntime has, plain rounding, with the kernels that round activations.

    Small blocks of weights that share a step are more exact, large ones faster; 128 is its default. It leaves
    Gemm alone, as which dense layers are exported: it gets a file that has MatMul and Add for them.
    """

    def make(task: Task, path: Path) -> None:
        library = importlib.import_module("onnxruntime.quantization.matmul_nbits_quantizer")
        how = library.DefaultWeightOnlyQuantConfig(block_size=block, bits=bits, accuracy_level=4)
        model = without_gemm(onnx.load(task.path("float")))
        quantizer = library.MatMulNBitsQuantizer(model, algo_config=how)
        quantizer.process()
        quantizer.model.save_model_to_file(os.fspath(path))

    return make


def without_gemm(model: onnx.ModelProto) -> onnx.ModelProto:
    """Each `Gemm` of a dense layer as `MatMul`, its weight transposed, and `Add`; in place."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = []
    for node in model.graph.node:
        if node.op_type != "Gemm":
            nodes.append(node)
            continue
        assert {one.name: helper.get_attribute_value(one) for one in node.attribute}.get("transB") == 1
        inputs, weight, bias = node.input
        turned = numpy_helper.to_array(weights[weight]).T.copy()
        model.graph.initializer.remove(weights.pop(weight))
        model.graph.initializer.append(numpy_helper.from_array(turned, weight))
        product = f"{node.output[0]}_product"
        nodes.append(helper.make_node("MatMul", [inputs, weight], [product], f"{node.name}_MatMul"))
        nodes.append(helper.make_node("Add", [product, bias], node.output, f"{node.name}_Add"))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def static_int8(task: Task, path: Path) -> None:
    """Static quantization of weights, per channel, and activations, as onnxruntime's manual has it."""
    library = importlib.import_module("onnxruntime.quantization")
    shapes = importlib.import_module("onnxruntime.quantization.shape_inference")
    prepared = path.with_suffix(".prepared")
    shapes.quant_pre_process(task.path("float"), prepared)
    library.quantize_static(prepared, path, reader(task), per_channel=True)
    prepared.unlink()


def reader(task: Task) -> Any:
    """Inputs as onnxruntime's calibration reads them."""
    base = importlib.import_module("onnxruntime.quantization.calibrate").CalibrationDataReader
    name = onnx.load(task.path("float"), load_external_data=False).graph.input[0].name
    inputs = task.network.samples(CALIBRATION, CALIBRATION_SEED).numpy()
    left = [{name: batch} for batch in np.split(inputs, CALIBRATION // BATCH)]
    return type("Reader", (base,), {"get_next": lambda _: left.pop(0) if left else None})()


FILES: dict[str, Callable[[Task, Path], None]] = {
    "float": float32,
    "muquant": ours("auto"),
    "muquant-int8": ours("int8"),
    "muquant-float": ours("float"),
    "muquant-int4-grid": ours_int4(),
    "muquant-int8-kernels": ours("int8", "onnxruntime-kernels"),
    "muquant-int4-kernels": ours_int4("onnxruntime-kernels"),
    "nbits-4-32": matmul_nbits(4, 32),
    "nbits-4-128": matmul_nbits(4, 128),
    "nbits-8-128": matmul_nbits(8, 128),
    "static-int8": static_int8,
}
"""Name -> what writes it; the first one is there when the others are written."""


@dataclass(frozen=True)
class Variant:
    """A file, and a way to serve it.

    Attributes:
        file: of `FILES`.
        policy: of `load_session`; None where onnxruntime alone loads the file.
        cached: whether the optimised model was kept before.
    """

    file: str
    policy: str | None = None
    cached: bool = False


FLOAT, DECODED, INT8, CACHED, INT4, PACKED, AUTO, NBITS4, NBITS4_LARGE, NBITS8, STATIC = (
    "float file",
    "muquant float",
    "muquant int8",
    "muquant int8, cached",
    "muquant int4",
    "muquant packed",
    "muquant auto",
    "MatMulNBits 4-bit, block 32",
    "MatMulNBits 4-bit, block 128",
    "MatMulNBits 8-bit, block 128",
    "static int8 QDQ",
)
PLAIN_INT8, PLAIN_INT4, PLAIN_FLOAT, PLAIN_AUTO = (
    f"muquant {policy}, onnxruntime alone" for policy in ("int8", "int4", "float", "auto")
)
KERNELS_INT8, KERNELS_INT4 = (f"muquant {policy}, kernels in the file" for policy in ("int8", "int4"))
VARIANTS: dict[str, Variant] = {
    FLOAT: Variant("float"),
    PLAIN_AUTO: Variant("muquant"),
    PLAIN_INT8: Variant("muquant-int8"),
    PLAIN_INT4: Variant("muquant-int4-grid"),
    PLAIN_FLOAT: Variant("muquant-float"),
    KERNELS_INT8: Variant("muquant-int8-kernels"),
    KERNELS_INT4: Variant("muquant-int4-kernels"),
    DECODED: Variant("muquant", "float"),
    INT8: Variant("muquant", "int8"),
    CACHED: Variant("muquant", "int8", cached=True),
    INT4: Variant("muquant-int4-grid", "int4"),
    PACKED: Variant("muquant", "packed"),
    AUTO: Variant("muquant", "auto"),
    NBITS4: Variant("nbits-4-32"),
    NBITS4_LARGE: Variant("nbits-4-128"),
    NBITS8: Variant("nbits-8-128"),
    STATIC: Variant("static-int8"),
}
"""Name -> the variant; `FLOAT` is what the others are compared with."""


def write_files(task: Task, names: Iterable[str] = FILES) -> dict[str, str]:
    """Write files; of those that cannot be written, return why."""
    failed = {}
    task.folder.mkdir()
    for name in names:
        try:
            FILES[name](task, task.path(name))
        except Exception as error:  # a library's failure is a result
            failed[name] = f"{type(error).__name__}: {error}".splitlines()[0][:300]
    return failed
