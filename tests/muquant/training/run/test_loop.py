import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from muquant.base.errors import InputError
from muquant.data import DATASETS, Dataset, DatasetEntry, DatasetRequest, load_dataset
from muquant.models.evaluation import evaluate
from muquant.training import (
    AdversarialOptions,
    Batch,
    BatchLoss,
    OutOfTime,
    QatOptions,
    Standard,
    TrainingConfig,
    TrainingProgress,
    learning_rate,
    load_run,
    train,
)

from ..conftest import TINY, method_of, plug_in

pytestmark = pytest.mark.slow
Tiny = Callable[..., TrainingConfig]


standard = Standard(TINY).loss


def weights(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_a_run_learns_and_leaves_its_files(tiny: Tiny, tmp_path: Path) -> None:
    result = train(tiny(epochs=8), tmp_path / "new" / "run")
    folder = tmp_path / "new" / "run"
    assert result.folder == folder
    assert sorted(path.name for path in folder.iterdir()) == [
        ".lock",
        "checkpoint.safetensors",
        "config.json",
        "metrics.jsonl",
        "model.safetensors",
    ]
    assert result.test_accuracy == 1.0  # brightness alone tells the classes apart
    assert result.test_accuracy == evaluate(result.model, load_dataset("tiny", "test"))
    assert not result.model.training
    assert json.loads((folder / "config.json").read_text())["config"] == tiny(epochs=8).to_dict()
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in records] == list(range(1, 9))
    assert records[-1]["train_loss"] < records[0]["train_loss"]
    assert records[-1]["validation_accuracy"] == result.kept.validation_accuracy
    expected = [learning_rate("one-cycle", 2e-3, step, 48, 0.2) for step in range(5, 48, 6)]
    assert [record["lr"] for record in records] == expected
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        manifest = json.loads(file.metadata()["muquant"])
    assert manifest["test_accuracy"] == result.test_accuracy
    assert manifest["architecture"] == result.model.architecture.to_dict()
    assert manifest["classes"] == ["dark", "grey", "bright"]


def test_the_seed_decides_everything(tiny: Tiny, tmp_path: Path) -> None:
    first, again, other = (
        weights(train(tiny(seed=seed, epochs=1), tmp_path / name).model)
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["fc1.weight"], other["fc1.weight"])


def test_nothing_is_printed_and_the_callers_randomness_is_left_alone(
    tiny: Tiny, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = torch.random.get_rng_state()
    train(tiny(epochs=1), tmp_path)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert capfd.readouterr() == ("", "")


def test_progress_is_reported_after_every_step(tiny: Tiny, tmp_path: Path) -> None:
    seen: list[TrainingProgress] = []
    train(tiny(), tmp_path, on_progress=seen.append)
    assert [p.step for p in seen] == list(range(1, 19))
    assert [p.epoch for p in seen] == [1] * 6 + [2] * 6 + [3] * 6
    assert {(p.steps, p.epochs) for p in seen} == {(18, 3)}
    assert [p.last_epoch is None for p in seen] == [True] * 5 + [False] * 13
    assert all(math.isfinite(p.loss) and p.loss > 0 and p.seconds_left >= 0 for p in seen)
    assert seen[-1].seconds_left == 0


class Recorder:
    """The standard method, which remembers the images it is given."""

    def __init__(self) -> None:
        self.batches: list[Tensor] = []

    def __call__(self, batch: Batch) -> BatchLoss:
        self.batches.append(batch.inputs.clone())
        return standard(batch)


@pytest.mark.parametrize("validation", [0.0, 0.1, 0.5])
def test_an_epoch_takes_every_training_image_once_and_no_held_out_or_test_image(
    validation: float, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder()
    plug_in(monkeypatch, "recorder", method_of(recorder))
    config = tiny(method="recorder", augment="none", validation=validation, epochs=2, batch_size=6)
    result = train(config, tmp_path)
    count = round(60 * (1 - validation))
    images = [image.numpy().tobytes() for batch in recorder.batches for image in batch]
    first, second = images[:count], images[count:]
    assert len(set(first)) == count
    assert set(first) == set(second)
    assert first != second  # in another order
    whole = {image.numpy().tobytes() for image in load_dataset("tiny", "train").inputs()}
    assert set(first) <= whole
    assert (result.kept.validation_accuracy is None) == (validation == 0)


def test_a_batch_larger_than_the_data_is_all_of_it(tiny: Tiny, tmp_path: Path) -> None:
    seen: list[TrainingProgress] = []
    train(tiny(batch_size=1000), tmp_path, on_progress=seen.append)
    assert [p.step for p in seen] == [1, 2, 3]


def test_label_smoothing_raises_the_lowest_loss(tiny: Tiny, tmp_path: Path) -> None:
    plain = train(tiny(epochs=8), tmp_path / "plain").history[-1].train_loss
    smooth = train(tiny(epochs=8, label_smoothing=0.3), tmp_path / "smooth").history[-1].train_loss
    entropy = -(0.8 * math.log(0.8) + 2 * 0.1 * math.log(0.1))  # of the smoothed label: no loss is below it
    assert plain < entropy < smooth


def test_weight_decay_is_for_matrices_alone(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def still(batch: Batch) -> BatchLoss:
        logits = batch.model(batch.inputs)
        return BatchLoss(0.0 * logits.sum(), logits)

    plug_in(monkeypatch, "still", method_of(still))
    base = tiny(method="still", epochs=1, schedule="constant", warmup=0.0, lr=0.1)
    free = weights(train(TrainingConfig(**base.to_dict() | {"weight_decay": 0.0}), tmp_path / "free").model)
    held = weights(train(TrainingConfig(**base.to_dict() | {"weight_decay": 0.5}), tmp_path / "held").model)
    torch.testing.assert_close(held["fc1.weight"], free["fc1.weight"] * (1 - 0.1 * 0.5) ** 6)
    torch.testing.assert_close(held["fc1.bias"], free["fc1.bias"], rtol=0, atol=0)


def test_a_run_is_trained_by_one_process_at_a_time(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny(epochs=1)
    with pytest.raises(OutOfTime):
        train(config, tmp_path, max_seconds=0)
    before = (tmp_path / "checkpoint.safetensors").read_bytes()
    code = (
        "import sys; from pathlib import Path; from muquant.training.run.folder import RunFolder\n"
        "with RunFolder(Path(sys.argv[1])).claim(): print('claimed', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"claimed\n"
        with pytest.raises(InputError, match="another process is training this run"):
            train(config, tmp_path, resume=True)
        assert (tmp_path / "checkpoint.safetensors").read_bytes() == before
        other.kill()  # the system frees what a killed process held
    assert train(config, tmp_path, resume=True).kept_epoch == 1


def test_a_folder_with_a_run_is_not_overwritten(tiny: Tiny, tmp_path: Path) -> None:
    train(tiny(epochs=1), tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()
    with pytest.raises(InputError, match=r"already holds a run .* --resume"):
        train(tiny(epochs=1), tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": "imagenet"}, "data set 'imagenet' is not known"),
        ({"model": "vgg"}, "model 'vgg' is unknown"),
        ({"model": "wrn-11-1"}, "6n"),
        ({"device": "cuda:77"}, "device 'cuda:77'"),
        ({"validation": 0.999}, "held|holding"),
    ],
)
def test_a_run_that_cannot_begin_leaves_nothing(
    changes: dict[str, object], message: str, tiny: Tiny, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        train(tiny(**changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_splits_that_differ_are_refused(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = DATASETS["tiny"].load

    def uneven(request: DatasetRequest) -> Dataset:
        dataset = genuine(request)
        side = 8 if request.split == "train" else 7
        return Dataset("tiny", request.split, dataset.images[..., :side], dataset.labels, dataset.classes)

    monkeypatch.setitem(DATASETS, "tiny", DatasetEntry(uneven))
    with pytest.raises(InputError, match="expected both splits alike"):
        train(tiny(), tmp_path / "run")


@pytest.mark.parametrize("validation", [0.0, 0.1])
def test_a_class_without_images_is_named(
    validation: float, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine = DATASETS["tiny"].load

    def without_grey(request: DatasetRequest) -> Dataset:
        dataset = genuine(request)
        return dataset.subset((dataset.labels != 1).nonzero()[:, 0])

    monkeypatch.setitem(DATASETS, "tiny", DatasetEntry(without_grey))
    with pytest.raises(InputError, match="images of every class to train on, found none of grey; add some"):
        train(tiny(validation=validation), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(
    value: float, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = 0

    def breaking(batch: Batch) -> BatchLoss:
        nonlocal steps
        steps += 1
        outcome = standard(batch)
        return outcome if steps != 9 else BatchLoss(outcome.loss * value, outcome.logits)

    plug_in(monkeypatch, "breaking", method_of(breaking))
    with pytest.raises(InputError, match=rf"at step 9 of 18 \(epoch 2\): diverged, the loss became {value}"):
        train(tiny(method="breaking"), tmp_path / "broken")
    assert not (tmp_path / "broken" / "model.safetensors").exists()
    resumed = train(tiny(method="breaking"), tmp_path / "broken", resume=True)  # it breaks only once
    steps = 100
    unbroken = train(tiny(method="breaking"), tmp_path / "unbroken")
    torch.testing.assert_close(weights(resumed.model), weights(unbroken.model), rtol=0, atol=0)


def test_weights_that_are_not_finite_never_reach_a_checkpoint(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = 0

    def spoiling(batch: Batch) -> BatchLoss:
        nonlocal steps
        steps += 1
        outcome = standard(batch)
        cliff = (0 * outcome.logits.sum()).sqrt()  # 0, and its gradient is not a number
        return outcome if steps != 9 else BatchLoss(outcome.loss + cliff, outcome.logits)

    plug_in(monkeypatch, "spoiling", method_of(spoiling))
    with pytest.raises(InputError, match=r"at step 9 of 18 .* a weight became infinite or NaN"):
        train(tiny(method="spoiling"), tmp_path, checkpoint_seconds=0.0)
    with safe_open(tmp_path / "checkpoint.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["muquant"])["position"]["step"] == 8
        assert all(bool(file.get_tensor(name).isfinite().all()) for name in file.keys())  # noqa: SIM118
    with pytest.raises(InputError, match="not finished"):
        load_run(tmp_path)


def test_a_learning_rate_that_is_too_high_is_reported(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny(optimizer="sgd", lr=900.0, weight_decay=900.0, schedule="constant", warmup=0.0)
    with pytest.raises(InputError, match=r"diverged, .* learning rate 900; start a new run with a lower lr"):
        train(config, tmp_path)


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch.compile looks at that of decoded weights
def test_compiled_steps_are_the_same_steps(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attack = AdversarialOptions(epsilon=0.1, attack_steps=2)
    config = tiny(epochs=1, method="adversarial", adversarial=attack, qat=QatOptions(bits=4))
    plain = train(config, tmp_path / "plain")
    genuine, compiled = torch.compile, []

    def compile_without_compiler(model: torch.nn.Module) -> object:
        compiled.append(model)
        return genuine(model, backend="eager")

    monkeypatch.setattr(torch, "compile", compile_without_compiler)
    fast = train(tiny(**{**vars(config), "compile": True}), tmp_path / "fast")
    assert len(compiled) == 1
    torch.testing.assert_close(weights(fast.model), weights(plain.model), rtol=0, atol=0)

    def fail(graph: object, example: object) -> object:
        raise RuntimeError("no C++ compiler\nin the path")

    monkeypatch.setattr(torch, "compile", lambda model: genuine(model, backend=fail))
    with pytest.raises(
        InputError, match=r"torch\.compile does not work here .* leave --compile out"
    ) as caught:
        train(tiny(compile=True), tmp_path / "broken")
    assert "\n" not in str(caught.value)
