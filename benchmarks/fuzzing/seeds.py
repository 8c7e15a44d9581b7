"""Good files, small, that mutations begin with. They are drawn, so every process has the same."""

import io
import json
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

import muquant
from fuzzing.case import Case, made
from fuzzing.seed_models import FORMAT_1, QUICK
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
from muquant_integrations import MuLawModel

CONFIG = TrainingConfig(
    data="digits", model="cnn4-small", epochs=1, batch_size=512, augment="none", device="cpu"
)


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
def arrays() -> Case:
    """Six images with labels, places and the number of classes."""
    draw, stream = np.random.default_rng(0), io.BytesIO()
    images = draw.integers(0, 256, (6, 1, 8, 8), np.uint8)
    np.savez(stream, images=images, labels=np.arange(6) % 3, indices=np.arange(6) + 9, classes=np.array(3))
    return {"images.npz": stream.getvalue()}


@cache
def suites() -> list[Case]:
    """Attacks of one's own, in the two forms of file."""
    attacks: list[dict[str, object]] = [
        {"attack": "apgd-ce", "steps": 5, "restarts": 2},
        {"attack": "square", "after": ["apgd-ce"]},
    ]
    toml = "".join(
        "[[attacks]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in entry.items())
        for entry in attacks
    )
    return [
        {"suite.json": json.dumps({"attacks": attacks}).encode()},
        {"suite.toml": toml.encode()},
    ]


@cache
def pretrained() -> Case:
    """A folder with a configuration, of `own_module`."""
    compressed = muquant.compress(own_module(), muquant.MuLawSpec(**QUICK), rounding="nearest", check=False)
    return made(MuLawModel(compressed, {"model_type": "mlp"}).save_pretrained)


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
