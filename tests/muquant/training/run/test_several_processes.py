"""Several processes: the same run as one, by torchrun on the CPU."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from muquant.base.processes import Processes
from muquant.base.tensor_files import read_tensors
from muquant.training import QatOptions, TrainingConfig, load_run, read_run, train
from muquant.training.feedback import FeedbackConfig
from muquant.training.run.folder import MODEL_SCHEMA

pytestmark = pytest.mark.slow
PLAIN = TrainingConfig(data="digits", model="cnn4-small", epochs=2, batch_size=64, lr=1e-3, device="cpu")

TWO_PROCESSES = """
import json, sys
import lightning_fabric, sklearn.datasets, torch
import muquant.training, muquant.training.feedback
from muquant_cli import main
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

torch.set_num_threads(1)

common = ["--data", "digits", "--model", "cnn4-small", "--epochs", "2", "--lr", "1e-3", "--device", "cpu"]

def train(out, *options):
    print(flush=True)
    try:
        command = ["train", *common, *options, "--json", "--out", sys.argv[1] + "/" + out]
        main(command, standalone_mode=False)
    except SystemExit as end:
        print(json.dumps({"status": end.code}), flush=True)

robust = ["--method", "adversarial", "--epsilon", "0.1", "--attack", "atta", "--qat", "--keep", "best"]
FEEDBACK = ["--feedback-rounds", "2", "--feedback-start", "0", "--feedback-directions", "20"]
FEEDBACK += ["--feedback-nearest", "5", "--feedback-low-samples", "10", "--feedback-medium-samples", "5"]
FEEDBACK += ["--feedback-high-samples", "2", "--feedback-robustness-samples", "5"]

def work():
    train("plain", "--batch-size", "64")
    train("whole", "--batch-size", "64", *robust)
    train("broken", "--batch-size", "64", *robust, "--max-seconds", "0")
    train("broken", "--batch-size", "64", *robust, "--resume")
    start = ["--init", sys.argv[1] + "/plain"]
    train("feedback", "--batch-size", "64", "--method", "feedback", *FEEDBACK, *start)
    train("bad", "--batch-size", "33")

# as torchrun does it, but for two cold starts
config = LaunchConfig(1, 1, 2, rdzv_backend="c10d", rdzv_endpoint="localhost:0", start_method="fork")
elastic_launch(config, work)()
"""


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> "tuple[Path, list[Any], str]":
    """The folder of six runs in two processes, the documents that they printed on stdout, and stderr."""
    folder = tmp_path_factory.mktemp("processes")
    command = [sys.executable, "-c", TWO_PROCESSES, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder, [json.loads(line) for line in done.stdout.splitlines() if line], done.stderr


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(read_tensors(folder / "model.safetensors", MODEL_SCHEMA).tensors)


def test_two_processes_end_where_one_ends(two_processes: Any, tmp_path: Path) -> None:
    folder, documents, _ = two_processes
    one = train(PLAIN, tmp_path)
    for first, second in zip(one.history, documents[0]["history"], strict=True):
        assert first.train_loss == pytest.approx(second["train_loss"], rel=1e-3)
        assert first.train_accuracy == pytest.approx(second["train_accuracy"], abs=0.01)
    assert one.history[0].train_loss > one.history[1].train_loss
    torch.testing.assert_close(weights(tmp_path), weights(folder / "plain"), rtol=1e-3, atol=1e-3)
    assert documents[0]["test_accuracy"] == pytest.approx(one.test_accuracy, abs=0.01)


def test_two_processes_stop_and_go_on_bit_for_bit(two_processes: Any) -> None:
    folder, documents, _ = two_processes
    assert [document.get("finished") for document in documents[1:4]] == [True, False, True]
    torch.testing.assert_close(weights(folder / "broken"), weights(folder / "whole"), rtol=0, atol=0)
    assert read_run(folder / "broken").kept_epoch == read_run(folder / "whole").kept_epoch
    load_run(folder / "broken")


def test_two_processes_train_on_the_same_examples(two_processes: Any, tmp_path: Path) -> None:
    folder, documents, _ = two_processes
    options = FeedbackConfig(
        rounds=2,
        start=0.0,
        directions=20,
        nearest=5,
        low_samples=10,
        medium_samples=5,
        high_samples=2,
        robustness_samples=5,
    )
    one = train(replace(PLAIN, method="feedback", feedback=options), tmp_path, init=folder / "plain")
    ours, theirs = (
        [json.loads(line) for line in (path / "feedback" / "rounds.jsonl").read_text().splitlines()]
        for path in (tmp_path, folder / "feedback")
    )
    assert [line["round"] for line in theirs] == [1, 2, None]
    assert theirs[0]["examples"] > 50
    for name in ("class_margins", "levels", "examples"):
        assert theirs[0][name] == ours[0][name]  # of the same first weights
    for first, second in zip(one.history, documents[4]["history"], strict=True):
        assert first.train_loss == pytest.approx(second["train_loss"], rel=2e-3)
    torch.testing.assert_close(weights(tmp_path), weights(folder / "feedback"), rtol=5e-3, atol=5e-3)


def test_the_first_process_speaks_for_both(two_processes: Any) -> None:
    folder, documents, stderr = two_processes
    assert documents[5:] == [{"status": 2}] * 2
    message = "a batch of 33 images for 2 processes; give a --batch-size that is a multiple of 2"
    assert stderr.count(message) == 1
    assert not (folder / "bad").exists()


def test_statistics_and_gradients_are_averaged(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What differs between processes is handed to `average`: nothing else may, or they would drift apart."""
    from muquant.data import load_dataset
    from muquant.models import build_model
    from muquant.training.run.step import Stepper

    class Spy(Processes):
        def average(self, tensors: Any) -> None:
            handed.extend(tensors)

    handed: list[torch.Tensor] = []
    model = build_model("wrn-10-1", (1, 8, 8), 3)
    stepper = Stepper(
        model, tiny(model="wrn-10-1", qat=QatOptions()), load_dataset("tiny", "train"), Spy("cpu")
    )
    stepper.run(0)
    places = {tensor.data_ptr() for tensor in handed}
    assert all(p.grad.data_ptr() in places for p in model.parameters() if p.grad is not None)
    running = [value for name, value in model.named_buffers() if "running" in name]
    assert running
    assert all(value.data_ptr() in places for value in running)
