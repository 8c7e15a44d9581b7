"""What `muquant bench` leaves of an entry, and what an image costs it."""

import csv
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from provenance import commit
from torch import Tensor
from torchrun import ONE_THREAD, torchrun

import muquant
from muquant.base.files import temporary_folder
from muquant.base.provenance import provenance
from muquant.data import load_dataset
from muquant.models.calls import evaluation_mode
from muquant.models.evaluation import evaluate
from muquant.robustness.suites import STANDARD_VERSION
from muquant.training import load_run
from muquant_onnx import export_float, export_onnx
from robust.entry import Entry

SUITE, COUNT = "autoattack", 1000
ROUNDS = 50
"""Images that are timed, one at a time."""

_KEPT = (
    *("clean", "clean_interval", "aa_standard", "aa_standard_interval", "worst_case", "worst_case_interval"),
    *("certified", "certified_interval", "bits", "nbytes", "verdict"),
)
"""What is kept of a model's report."""


def command(entry: Entry, model: Path | str, count: int, suite: str, out: Path | str) -> list[str]:
    """The words, after `muquant`, of the command that attacks an entry."""
    threat = ("--norm", entry.norm, "--epsilon", repr(entry.epsilon))
    certify = ("--certify", "crown-ibp") if entry.norm == "linf" else ()
    sample = ("--data", entry.data, "--limit", str(count), "--suite", suite)
    return ["bench", f"{entry.name}={model}", *sample, *threat, *certify, "--examples", "--out", str(out)]


def attack(entry: Entry, model: Path, count: int, suite: str, folder: Path) -> dict[str, Any]:
    """Attack an entry in PyTorch and as a deployed file, in as many processes as there are cores.

    Args:
        entry: whose network is attacked.
        model: a .mq file or a run folder.
        count: test images, drawn with seed 0.
        suite: of `muquant bench`.
        folder: where finished attacks are kept; the next call goes on there.

    Returns:
        runtime -> figures, beside what they were measured with. `images` are the places in the split of those
        that were attacked, `fell` of those that were seen wrongly or fell to AutoAttack's standard version;
        `split` is how many test images there are, and which share of all of them PyTorch sees rightly.

    Raises:
        InputError: the model is not the one of the entry.
    """
    entry.check(model)
    words = command(entry, model, count, suite, folder)
    subprocess.run([*torchrun(), "-m", "muquant_cli", *words], env=os.environ | ONE_THREAD, check=True)
    report = json.loads((folder / "report.json").read_text())
    with (folder / "images.csv").open(newline="") as file:
        images = list(csv.DictReader(file))
    figures: dict[str, Any] = {}
    for found in report["models"]:
        mine = [image for image in images if image["runtime"] == found["runtime"]]
        figures[found["runtime"]] = {
            **{key: found[key] for key in _KEPT},
            "attacks": {name: one["accuracy"] for name, one in found["attacks"].items()},
            "flags": {flag["check"]: flag["explanation"] for flag in found["flags"]},
            "fell": [int(image["index"]) for image in mine if _fell(image)],
        }
    module, deploy = _open(model)
    test = load_dataset(entry.data, "test")
    for runtime, milliseconds in time_of_an_image(module, deploy, test.inputs(slice(1))).items():
        figures[runtime]["milliseconds"] = milliseconds
    again = command(entry, entry.file.name if entry.file.exists() else model.name, count, suite, "report")
    return {
        **provenance(("muquant", *again)),
        "commit": commit(),
        "suite": suite,
        "count": report["data"]["count"],
        "sample": report["data"]["digest"],
        "images": sorted({int(image["index"]) for image in images}),
        "split": {"count": len(test), "clean": evaluate(module, test)},
        "seed": report["seed"],
        "runtimes": figures,
    }


def attack_and_write(entry: Entry, model: Path, count: int, suite: str, reports: Path) -> None:
    """Attack an entry, write what is left, and say where; it has a folder in `reports`."""
    found = attack(entry, model, count, suite, reports / entry.name)
    print(f"wrote {replace(entry, figures=found).write()}", flush=True)


def attack_new(made: Iterable[tuple[Entry, Path]], count: int, suite: str, reports: Path) -> None:
    """Attack entries that were not attacked yet, and write what is left; each has a folder in `reports`."""
    for entry, path in made:
        if Entry.read(entry.name).figures is None:
            attack_and_write(entry, path, count, suite, reports)


def _fell(image: dict[str, str]) -> bool:
    fooled_by = set(image["fooled by"].split())
    return image["seen"] != image["label"] or bool(fooled_by & set(STANDARD_VERSION))


def _open(model: Path) -> tuple[torch.nn.Module, Callable[[Path, Tensor], object]]:
    """The network of a .mq file or a run folder, and what deploys it: (path of the file, images)."""
    if model.is_dir():
        module = load_run(model)
        return module, partial(export_float, module)
    compressed = muquant.load(model)
    return compressed.module, partial(export_onnx, compressed)


def time_of_an_image(
    module: torch.nn.Module, deploy: Callable[[Path, Tensor], object], image: Tensor
) -> dict[str, float]:
    """Milliseconds that one image takes on one thread, the median of `ROUNDS`, in each runtime."""
    with temporary_folder() as folder:
        path = folder / "model.onnx"
        deploy(path, image)
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        feed = {session.get_inputs()[0].name: image.numpy().astype(np.float32)}
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with torch.inference_mode(), evaluation_mode(module):
                return {
                    "torch": _median(lambda: module(image)),
                    "onnx": _median(lambda: session.run(None, feed)),
                }
        finally:
            torch.set_num_threads(threads)


def _median(answer: Callable[[], object]) -> float:
    seconds = []
    for _ in range(ROUNDS + 5):
        began = time.perf_counter()
        answer()
        seconds.append(time.perf_counter() - began)
    return 1000 * median(seconds[5:])
