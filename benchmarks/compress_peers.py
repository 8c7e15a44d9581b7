"""What a transformer encoder loses at 3 bits, beside other libraries at 3 and 4.

    pip install --no-deps torchao==0.18.0 optimum-quanto==0.2.7 ninja brevitas==0.13.4 dependencies==2.0.1
    DISABLE_CUDA=1 pip install --no-deps --no-build-isolation hqq==0.2.8.post1 termcolor unfoldNd
    pip install aimet-torch==2.42.0
    python benchmarks/compress_peers.py [--steps 1600] [--limit 2000] [--only NAME ...]

The encoder of `encoder.py` (trained where the folder has none), the same layers, the same 512 calibration
windows of the training files and the same windows of the test files for all; one thread, each peer in a
process of its own. Logits are compared on the masked bytes. Accuracy and loss tell how a peer answers the
task, and differ between peers by little more than their own errors; its divergence from the float encoder
(Kullback-Leibler, in nats) tells how far it is from what it should be, and by that peers are judged. An
interrupted run goes on; a peer that is not installed or fails is listed with the reason. Writes
`results/compress_peers.json`; the exit status is 1 where a target is missed.
"""

import argparse
import hashlib
import importlib
import logging
import math
import os
import subprocess
import sys
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from compress_libraries import PEERS
from compress_task import Logits, Task
from encoder import FOLDER, SEED, Corpus, load_corpus, train, windows
from meter import Meter
from provenance import write_results
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from muquant.base.files import write_json
from muquant.base.reading import read_json

CALIBRATION_SEED = 10**9
"""No step of the training has it."""
OURS, FLOAT, STRETCH = (
    "muquant 3-bit, reconstructed, group 128",
    "float",
    "onnxruntime RTN 4-bit, block 32",
)
MOST_BITS, GAP = 3.3, 0.7
"""Targets: bits of a weight, and the share of what plain 3-bit rounding loses that is won back."""


def main() -> int:
    """Measure what is not there yet, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, default=FOLDER, help="of the encoder and of finished peers")
    parser.add_argument("--steps", type=int, default=1600, help="of the encoder's training")
    parser.add_argument("--limit", type=int, default=2000, help="test windows")
    parser.add_argument("--calibration", type=int, default=512, help="calibration windows")
    parser.add_argument("--only", nargs="+", choices=list(PEERS), default=list(PEERS), metavar="NAME")
    parser.add_argument("--one", choices=list(PEERS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    corpus = load_corpus()
    train(corpus, options.folder, options.steps)
    finished = finished_folder(options, corpus)
    if options.one:
        write_json(finished / f"{options.one}.json", measure(options.one, options, corpus, finished))
        return 0
    for name in dict.fromkeys([FLOAT, *options.only]):
        if "failed" in recorded(name, finished):
            print(f"{name} ...", file=sys.stderr, flush=True)
            write_json(finished / f"{name}.json", in_a_process(name, finished))
    results = {name: recorded(name, finished) for name in PEERS if (finished / f"{name}.json").exists()}
    done = {name: row for name, row in results.items() if "failed" not in row}
    targets = check(done)
    closed = {name: gap_closed(row, done, "divergence") for name, row in done.items()}
    show(results, closed, targets)
    document = {
        "count": options.limit,
        "calibration": options.calibration,
        "steps": options.steps,
        "corpus": corpus.digest,
        "results": results,
        "gap_closed": closed,
        **{
            f"{figure}_gap_closed": {name: gap_closed(row, done, figure) for name, row in done.items()}
            for figure in ("loss", "accuracy")
        },
        "targets": targets,
    }
    print(f"wrote {write_results('compress_peers', SEED, document)}")
    return int(not all(target["met"] for target in targets.values() if target["required"]))


def finished_folder(options: argparse.Namespace, corpus: Corpus) -> Path:
    """The folder of what was measured with these weights and windows."""
    weights = (options.folder / f"encoder-{options.steps}.safetensors").read_bytes()
    key = f"{corpus.digest} {options.limit} {options.calibration} divergence".encode()
    folder: Path = options.folder / f"peers-{hashlib.sha256(weights + key).hexdigest()[:12]}"
    folder.mkdir(exist_ok=True)
    return folder


def recorded(name: str, finished: Path) -> dict[str, Any]:
    """What was measured of a peer, or why nothing was."""
    path = finished / f"{name}.json"
    found: dict[str, Any] = read_json(path) if path.exists() else {"failed": "not run"}
    return found


def in_a_process(name: str, finished: Path) -> dict[str, Any]:
    """Measure a peer in a process of its own; the last line of what it says is why it failed."""
    command = [sys.executable, "-W", "ignore", *sys.argv, "--one", name]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode == 0:
        return recorded(name, finished)
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    print(done.stderr[-2000:], file=sys.stderr)
    return {"failed": lines[-1][:300] if lines else f"status {done.returncode}"}


def measure(name: str, options: argparse.Namespace, corpus: Corpus, finished: Path) -> dict[str, Any]:
    """Compress by the peer `name`, and compare what comes out with float."""
    peer = PEERS[name]
    logging.disable(logging.INFO)
    warnings.simplefilter("ignore")  # what the libraries' own code raises is not ours to mend
    for module in peer.modules:
        importlib.import_module(module)
    calibration, _ = windows(corpus.train, options.calibration, CALIBRATION_SEED)
    tokens, wanted = windows(corpus.test, options.limit, SEED)
    torch.manual_seed(SEED)
    with tempfile.TemporaryDirectory() as folder:
        model = train(corpus, options.folder, options.steps)
        task = Task(model, calibration, Path(folder), Meter())
        outcome = peer.run(task)
        found = masked_logits(outcome.logits, tokens, wanted)
        nbytes = outcome.path.stat().st_size
    save_file({"logits": found}, finished / f"{name}.safetensors")
    reference = load_file(finished / "float.safetensors")["logits"]
    answers = wanted[wanted >= 0]
    noise = float((found - reference).double().square().sum())
    return {
        "width": peer.width,
        "package": peer.package,
        "version": version(peer.package),
        "loss": float(functional.cross_entropy(found.double(), answers)),
        "accuracy": float((found.argmax(1) == answers).double().mean()),
        "divergence": divergence(found, reference),
        "same_answer": float((found.argmax(1) == reference.argmax(1)).double().mean()),
        "logit_sqnr": 10 * math.log10(float(reference.double().square().sum()) / noise) if noise else None,
        "bits_per_weight": outcome.bits,
        "nbytes": nbytes,
        "seconds": task.meter.seconds,
        "peak_bytes": task.meter.peak_bytes,
        "masked": len(answers),
    }


@torch.no_grad()
def masked_logits(logits: Logits, tokens: Tensor, wanted: Tensor) -> Tensor:
    """Logits of the masked bytes, float32 [masked, 256]."""
    return torch.cat(
        [
            logits(tokens[rows])[wanted[rows] >= 0].float()
            for rows in torch.split(torch.arange(len(tokens)), 64)
        ]
    )


def divergence(found: Tensor, reference: Tensor) -> float:
    """The mean Kullback-Leibler divergence of answers from the reference's, in nats."""
    ours, wanted = (functional.log_softmax(logits.double(), 1) for logits in (found, reference))
    return float(functional.kl_div(ours, wanted, log_target=True, reduction="batchmean"))


def gap_closed(row: dict[str, Any], done: dict[str, dict[str, Any]], figure: str) -> dict[str, float]:
    """The share of what each plain rounding loses, by a figure of the rows, that a peer has won back."""
    best = done[FLOAT][figure]
    plain = {name: other[figure] for name, other in done.items() if name.startswith("RTN 3-bit")}
    return {name: (row[figure] - low) / (best - low) for name, low in plain.items() if best != low}


def check(done: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Each target that can be judged: what was wanted, what was found."""
    if OURS not in done:
        return {}
    own = done[OURS]
    own_divergence, bits = own["divergence"], own["bits_per_weight"]
    targets = {"bits per weight, at most": target(bits, MOST_BITS, bits <= MOST_BITS)}
    others = {
        name: row["divergence"]
        for name, row in done.items()
        if row["width"] == 3 and row["package"] != "muquant"
    }
    if others:
        best = min(others, key=lambda name: others[name])
        ahead = own_divergence < others[best]
        targets[f"divergence, ahead of {best}"] = target(own_divergence, others[best], ahead)
    closed = gap_closed(own, done, "divergence")
    if closed:
        least = min(closed, key=lambda name: closed[name])
        targets[f"gap closed, from {least}"] = target(closed[least], GAP, closed[least] >= GAP)
    if STRETCH in done:
        wanted = done[STRETCH]["divergence"]
        level = own_divergence <= wanted
        name = f"stretch: divergence, level with {STRETCH}"
        targets[name] = target(own_divergence, wanted, level, required=False)
    return targets


def target(found: float, wanted: float, met: bool, *, required: bool = True) -> dict[str, Any]:
    """A target as JSON values."""
    return {"found": found, "wanted": wanted, "met": met, "required": required}


def show(
    results: dict[str, dict[str, Any]],
    closed: dict[str, dict[str, float]],
    targets: dict[str, dict[str, Any]],
) -> None:
    """Print a table, the gap that is closed from the best of plain roundings in it, and the targets."""
    table = Table(
        "peer", "divergence", "loss", "accuracy", "gap closed", "SQNR, dB", "bits", "MB", "seconds", "peak MB"
    )
    for name, row in results.items():
        if "failed" in row:
            table.add_row(name, row["failed"])
            continue
        sqnr = "" if row["logit_sqnr"] is None else f"{row['logit_sqnr']:.1f}"
        gap = f"{min(closed[name].values()):.0%}" if closed[name] else ""
        bits, size = f"{row['bits_per_weight']:.2f}", f"{row['nbytes'] / 1e6:.2f}"
        cost = f"{row['seconds']:.1f}", f"{row['peak_bytes'] / 1e6:.0f}"
        table.add_row(
            name,
            f"{row['divergence']:.4f}",
            f"{row['loss']:.4f}",
            f"{row['accuracy']:.2%}",
            gap,
            sqnr,
            bits,
            size,
            *cost,
        )
    Console(width=130).print(table)
    for name, row in targets.items():
        print(f"{name}: {row['found']:.4f}, wanted {row['wanted']:.4f}{'' if row['met'] else '  MISSED'}")


if __name__ == "__main__":
    sys.exit(main())
