"""Good files, small, that mutations begin with. They are drawn, so every process has the same."""

import io
import json
from collections.abc import Callable
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from torch import nn

import muquant
from fuzzing.case import Case, read_case
from muquant.attacks import PGD, TorchTarget
from muquant.base.processes import Processes
from muquant.format.channels import Channels
from muquant.models import build_model
from muquant.quantization.outcome import Outcome
from muquant.quantization.quantize import quantize
from muquant.quantization.resume import FinishedWeights
from muquant.robustness.runner import Runner, Sample
from muquant.robustness.store import Store
from muquant.training import TrainingConfig, train
from muquant.training.feedback.journal import Record
from muquant_onnx import compress_onnx, load_session, plan_onnx

FORMAT_1 = Path(__file__).parents[2] / "tests" / "data" / "format_1"
QUICK: dict[str, Any] = {"mu": 50.0}
"""Of specs: what is not searched takes no time."""
WRITTEN: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "float": ({"bits": 3}, {"policy": "float"}),
    "int8": ({"bits": 5, "granularity": "tensor"}, {"policy": "int8"}),
    "int4": ({"bits": 3, "grid": "int4", "granularity": "group:16"}, {"policy": "int4"}),
    "tread": ({"bits": 4, "grid": "int4", "levels": "mid-tread"}, {"policy": "int4", "functions": True}),
    "kernels": ({"bits": 3}, {"target": "onnxruntime-kernels"}),
    "web": ({"bits": 8}, {"target": "web"}),
}
"""Files of ours: name -> fields of the spec, options of `compress_onnx`."""
CONFIG = TrainingConfig(
    data="digits", model="cnn4-small", epochs=1, batch_size=512, augment="none", device="cpu"
)


def made(make: Callable[[Path], object]) -> Case:
    """Return the files that a function leaves in a folder."""
    with TemporaryDirectory() as folder:
        make(Path(folder))
        return read_case(Path(folder))


@cache
def graph() -> bytes:
    """A float model of others: an embedding, dense layers and a convolution, 1,316 weights."""
    draw = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array((0.1 * draw.standard_normal(shape)).astype(np.float32), name)

    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("MatMul", ["rows", "dense"], ["product"], name="dense"),
        helper.make_node("Add", ["product", "bias"], ["sum"]),
        helper.make_node("Relu", ["sum"], ["hidden"]),
        helper.make_node("Gemm", ["hidden", "last", "last.bias"], ["y"], transB=1, name="last"),
        helper.make_node("Reshape", ["hidden", "sizes"], ["picture"]),
        helper.make_node("Conv", ["picture", "kernel"], ["z"], kernel_shape=[3, 3], name="kernel"),
    ]
    tensors = [
        *(weight("table", 16, 16), weight("dense", 16, 32), weight("bias", 32)),
        *(weight("last", 8, 32), weight("last.bias", 8), weight("kernel", 4, 1, 3, 3)),
        numpy_helper.from_array(np.array([-1, 1, 4, 8]), "sizes"),
    ]
    inputs = [helper.make_tensor_value_info("ids", TensorProto.INT64, ["N"])]
    outputs = [
        helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 8]),
        helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 4, 2, 6]),
    ]
    body = helper.make_graph(nodes, "graph", inputs, outputs, tensors)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def outside(content: bytes) -> Case:
    """The same model with its tensors in a file beside it."""

    def save(folder: Path) -> None:
        proto = onnx.load_model_from_string(content)
        onnx.save(
            proto, folder / "model.onnx", save_as_external_data=True, location="model.data", size_threshold=0
        )

    return made(save)


@cache
def graphs() -> list[Case]:
    """Models of others, whole and with external data."""
    data = {"model.data": bytes(4096)}  # what a tensor may be made to refer to
    return [{"model.onnx": graph(), **data}, outside(graph())]


@cache
def written() -> list[Case]:
    """What we make of `graph` in all forms."""

    def compress(fields: dict[str, Any], options: dict[str, Any]) -> Case:
        def write(folder: Path) -> None:
            path = folder / "model.onnx"
            (folder / "source").write_bytes(graph())
            spec = muquant.MuLawSpec(**QUICK, **fields)
            compress_onnx(folder / "source", path, spec, rounding="nearest", check=False, **options)
            (folder / "source").unlink()

        return made(write)

    return [compress(*how) for how in WRITTEN.values()]


@cache
def served() -> list[Case]:
    """Those, files of format 1, and one with external data; beside them a file that others may refer to."""
    earlier = [{"model.onnx": (FORMAT_1 / f"{name}.onnx").read_bytes()} for name in ("model", "graph")]
    data = {"model.data": bytes(4096)}
    return [*({**case, **data} for case in (*written(), *earlier)), outside(written()[0]["model.onnx"])]


@cache
def artifacts() -> list[Case]:
    """Artifacts: of a network of ours, of a module with a shared weight, of format 1."""
    torch.manual_seed(0)
    spec = muquant.MuLawSpec(**QUICK)
    ours = build_model("cnn4-small", (1, 4, 4), 3, [0.5], [0.5])
    models = [
        muquant.compress(model, spec, rounding="nearest", check=False) for model in (ours, own_module())
    ]
    earlier = {"model.mq": (FORMAT_1 / "model.mq").read_bytes()}
    return [*(made(partial(_save, model)) for model in models), earlier]


def _save(compressed: muquant.CompressedModel, folder: Path) -> None:
    compressed.save(folder / "model.mq")


def own_module() -> nn.Module:
    """A module that is not one of `muquant.models`, two of whose layers share a weight."""
    torch.manual_seed(1)
    module = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 8), nn.Linear(8, 4))
    module[2].weight = module[0].weight
    return module.eval()


@cache
def run() -> Case:
    """The folder of a finished run."""

    def begin(folder: Path) -> None:
        train(CONFIG, folder)
        (folder / ".lock").unlink(missing_ok=True)

    return made(begin)


def unfinished_run() -> Case:
    """The same before its model was written."""
    return {name: content for name, content in run().items() if name != "model.safetensors"}


@cache
def rounds() -> Case:
    """The log of feedback learning."""
    records = [Record(1, 1, (0.5, None), ("weak", "strong"), 4, 1.5, 20), Record(None, 2, (0.25, 1.0))]
    return {"rounds.jsonl": "".join(json.dumps(asdict(each)) + "\n" for each in records).encode()}


@cache
def plan() -> Case:
    """A plan beside the model that it is for."""

    def make(folder: Path) -> None:
        (folder / "model.onnx").write_bytes(graph())
        plan_onnx(folder / "model.onnx", max_bytes=800).save(folder / "plan.json")

    return made(make)


@cache
def samples() -> list[Case]:
    """Calibration data: an array, an archive, a folder of both."""
    array, archive = io.BytesIO(), io.BytesIO()
    ids = np.arange(16) % 8
    np.save(array, ids)
    np.savez(archive, ids=ids, mask=np.ones((16, 2), np.float32))
    files = {"x.npy": array.getvalue(), "x.npz": archive.getvalue()}
    return [
        *({name: content} for name, content in files.items()),
        {f"batches/{n}": c for n, c in files.items()},
    ]


@cache
def idx_files() -> Case:
    """MNIST, of eight images."""
    draw = np.random.default_rng(0)
    case: Case = {}
    for split in ("train", "t10k"):
        images = draw.integers(0, 256, (8, 28, 28), np.uint8)
        sizes = b"".join(size.to_bytes(4, "big") for size in images.shape)
        place = f"MNIST/raw/{split}"
        case[f"{place}-images-idx3-ubyte"] = b"\0\0\x08\x03" + sizes + images.tobytes()
        case[f"{place}-labels-idx1-ubyte"] = b"\0\0\x08\x01" + sizes[:4] + bytes(range(8))
    return case


@cache
def image_folder() -> Case:
    """Images of two classes."""
    draw = np.random.default_rng(0)
    case: Case = {}
    for kind, name in (("PNG", "0.png"), ("BMP", "1.bmp"), ("PPM", "2.ppm"), ("TIFF", "3.tif")):
        for place in ("train/a", "train/b", "test/a"):
            stream = io.BytesIO()
            Image.fromarray(draw.integers(0, 256, (8, 8, 3), np.uint8)).save(stream, kind)
            case[f"{place}/{name}"] = stream.getvalue()
    return case


@cache
def cifar_files() -> Case:
    """Files by the names of CIFAR-10's; never the published ones, so that all of them are refused."""
    names = ("data_batch_1", "test_batch", "batches.meta")
    return {f"cifar-10-batches-py/{name}": b"\x80\x02}." for name in names}


@cache
def state() -> Case:
    """Weights of `own_module` in a plain safetensors file."""
    from safetensors.torch import save

    tensors = {name: value.contiguous().clone() for name, value in own_module().state_dict().items()}
    return {"state.safetensors": save(tensors)}


def attacked(store: Path | None) -> Runner:
    """A runner on a tiny network, with 16 images."""
    torch.manual_seed(0)
    images = torch.rand(16, 1, 4, 4)
    module = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()
    with torch.no_grad():
        labels = module(images).argmax(1)
    sample, target = Sample(images, labels, 3), TorchTarget(module)
    return Runner("tiny", target, "0" * 64, sample, 0, Store(store), Processes(), lambda *done: None)


def attack() -> PGD:
    """The attack whose result is kept."""
    return PGD(epsilon=0.1, steps=3)


@cache
def kept_attack() -> Case:
    """The folder of a benchmark's finished attacks."""
    return made(lambda folder: attacked(folder / "attacks").run("pgd", attack()))


def quantized(folder: Path) -> Outcome:
    """A weight [4, 8] in few bits: what an interrupted command has kept in a folder, or made anew."""
    draw = torch.Generator().manual_seed(0)
    weight, spec = torch.randn(4, 8, generator=draw), muquant.MuLawSpec(**QUICK)
    kept = FinishedWeights(folder)
    return quantize(weight, spec, Channels((0,)), "absmax", "nearest", finished=kept)


@cache
def finished() -> Case:
    """A weight that an interrupted command had finished."""
    return made(quantized)


@cache
def cached() -> Case:
    """A compressed file and a cache with its optimised model."""
    case = {"model.onnx": written()[0]["model.onnx"]}

    def fill(folder: Path) -> None:
        (folder / "model.onnx").write_bytes(case["model.onnx"])
        load_session(folder / "model.onnx", "accuracy-1", policy="float", cache=folder / "cache", threads=1)

    return made(fill)
