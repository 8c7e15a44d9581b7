"""Feedback learning as a method: when rounds are made, on which model, and what stays of them."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from muquant.base.errors import InputError
from muquant.base.files import write_bytes
from muquant.base.processes import Processes
from muquant.base.tensor_files import read_tensors
from muquant.data import DATASETS, Dataset, DatasetEntry, DatasetRequest, load_dataset
from muquant.models import build_model
from muquant.training import QatOptions, TrainingConfig, TrainingProgress, load_run, train
from muquant.training.feedback import FeedbackConfig, FeedbackRound, generate, journal, measure_class_margins
from muquant.training.feedback.journal import Journal
from muquant.training.methods import feedback as method_module
from muquant.training.run.data import load_run_data
from muquant.training.run.folder import MODEL_SCHEMA
from muquant.training.run.state import CHECKPOINT_SCHEMA
from muquant.training.run.step import Stepper

Tiny = Callable[..., TrainingConfig]

OPTIONS = FeedbackConfig(
    rounds=2,
    start=0.25,
    high_samples=1,
    medium_samples=2,
    low_samples=3,
    directions=6,
    nearest=2,
    cap=8.0,
    bisections=8,
    robustness_samples=2,
)


@pytest.fixture
def config(tiny: Tiny) -> TrainingConfig:
    """Four epochs of six steps; the rounds come before the second and the third epoch."""
    return tiny(method="feedback", feedback=OPTIONS, epochs=4)


@pytest.fixture(autouse=True)
def quick_pictures(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Pictures as text, which says what would be drawn: drawing takes longer than the runs do."""
    if "pictures" in request.node.name:
        return

    def examples(made: FeedbackRound, dataset: Dataset, path: Path) -> None:
        write_bytes(path, made.images.numpy().tobytes())

    def class_margins(margins: dict[str, Tensor], classes: object, cap: float, path: Path) -> None:
        write_bytes(path, repr(({name: tensor.tolist() for name, tensor in margins.items()}, cap)).encode())

    monkeypatch.setattr(journal, "plot_examples", examples)
    monkeypatch.setattr(journal, "plot_class_margins", class_margins)


class Stop(Exception):  # noqa: N818  # not an error
    """Raised in the middle of a run."""


def checkpoint(folder: Path) -> dict[str, Tensor]:
    return dict(read_tensors(folder / "checkpoint.safetensors", CHECKPOINT_SCHEMA).tensors)


def log(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "feedback" / "rounds.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def stopped_after(config: TrainingConfig, folder: Path, step: int) -> None:
    def stop(progress: TrainingProgress) -> None:
        if progress.step == step:
            raise Stop

    with pytest.raises(Stop):
        train(config, folder, on_progress=stop)


def test_rounds_are_made_on_the_model_as_it_is_and_added_to_those_before(
    config: TrainingConfig, tiny: Tiny, tmp_path: Path
) -> None:
    train(config, tmp_path / "run")
    stopped_after(tiny(epochs=4), tmp_path / "standard", 7)  # the same steps up to the first round
    model = build_model("cnn4-small", (1, 8, 8), 3)
    weights = checkpoint(tmp_path / "standard")
    model.load_state_dict({name: weights[f"model.{name}"] for name in model.state_dict()})
    part = load_run_data(config).train
    expected = generate(model.to(memory_format=torch.channels_last), part, OPTIONS, 0, 1)

    tensors, records = checkpoint(tmp_path / "run"), log(tmp_path / "run")
    assert [(record["round"], record["epoch"]) for record in records] == [(1, 1), (2, 2), (None, 4)]
    first, second = (record["examples"] for record in records[:2])
    assert first == len(expected) > 5
    assert second > 5
    assert tensors["examples.images"].shape == (first + second, 1, 8, 8)
    assert torch.equal(tensors["examples.images"][:first], expected.images)
    assert torch.equal(tensors["examples.labels"][:first], expected.labels)
    assert records[0]["levels"] == list(expected.levels)
    assert records[0]["class_margins"] == [
        None if value == torch.inf else value for value in expected.class_margins.tolist()
    ]
    assert records[0]["forwards"] == expected.forwards


def test_the_end_is_measured_on_the_weights_that_are_kept(config: TrainingConfig, tmp_path: Path) -> None:
    model = train(config, tmp_path).model.to(memory_format=torch.channels_last)
    margins = measure_class_margins(model, load_run_data(config).train, OPTIONS, 0, 3)
    assert log(tmp_path)[-1] == {
        "round": None,
        "epoch": 4,
        "class_margins": [None if value == torch.inf else value for value in margins.tolist()],
        "levels": [],
        "examples": 0,
        "forwards": None,
    }


@pytest.mark.slow
def test_the_folder_holds_a_log_and_pictures(config: TrainingConfig, tmp_path: Path) -> None:
    train(config, tmp_path)
    files = sorted(path.name for path in (tmp_path / "feedback").iterdir())
    assert files == ["class-margins.png", "round-1.png", "round-2.png", "rounds.jsonl"]
    assert all(
        (tmp_path / "feedback" / name).read_bytes().startswith(b"\x89PNG") for name in files if "png" in name
    )


def test_a_run_can_begin_with_a_round_on_finished_weights(
    config: TrainingConfig, tiny: Tiny, tmp_path: Path
) -> None:
    source = train(tiny(), tmp_path / "source").model.to(memory_format=torch.channels_last)
    early = replace(OPTIONS, start=0.0)
    train(replace(config, feedback=early), tmp_path / "run", init=tmp_path / "source")
    expected = measure_class_margins(source, load_run_data(config).train, early, 0, 1)
    records = log(tmp_path / "run")
    assert [record["epoch"] for record in records] == [0, 2, 4]
    assert records[0]["class_margins"] == [None if v == torch.inf else v for v in expected.tolist()]


def test_quantized_weights_are_decoded_once_for_a_round(
    config: TrainingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def look(model: nn.Module, *arguments: Any, **options: Any) -> Any:
        layer = model.get_submodule("fc1")
        assert layer.weight is layer.weight
        seen.append(max(len(row.unique()) for row in layer.weight))  # type: ignore[union-attr]
        return generate(model, *arguments, **options)

    monkeypatch.setattr(method_module, "generate", look)
    options = {"feedback": replace(OPTIONS, start=0.0), "epochs": 2}
    train(replace(config, qat=QatOptions(), **options), tmp_path / "quantized")  # type: ignore[arg-type]
    assert seen == [8, 8]  # levels, already before the first step


def stop_in_round(number: int) -> Callable[[str], None]:
    def on_note(note: str) -> None:
        if note.startswith(f"round {number} of 2"):
            raise Stop

    return on_note


def stop_in_the_end(note: str) -> None:
    if note.startswith("margins"):
        raise Stop


def stop_at(step: int) -> Callable[[TrainingProgress], None]:
    def on_progress(progress: TrainingProgress) -> None:
        if progress.step == step:
            raise Stop

    return on_progress


def after_files(number: int) -> Callable[[pytest.MonkeyPatch], None]:
    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        add = Journal.add_round

        def stop(self: Journal, made: FeedbackRound, *rest: Any) -> None:
            add(self, made, *rest)
            if made.number == number:
                raise Stop

        monkeypatch.setattr(Journal, "add_round", stop)

    return patch


def after_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    add = Journal.add_end

    def stop(self: Journal, *arguments: Any) -> None:
        add(self, *arguments)
        raise Stop

    monkeypatch.setattr(Journal, "add_end", stop)


PHASES: dict[str, dict[str, Any]] = {
    "before the first round": {"on_progress": stop_at(3)},
    "in a search": {"on_note": stop_in_round(2)},
    "after the files of a round": {"patch": after_files(2)},
    "in the first step after a round": {"on_progress": stop_at(13)},
    "between rounds": {"on_progress": stop_at(12)},
    "after the last step": {"on_progress": stop_at(24)},
    "in the last search": {"on_note": stop_in_the_end},
    "after the last files": {"patch": after_the_end},
}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("unbroken")


@pytest.mark.slow
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("checkpoint_seconds", [0.0, 1e9], ids=["every-step", "every-epoch"])
def test_a_run_stopped_in_any_phase_ends_like_an_unbroken_one(
    phase: str, checkpoint_seconds: float, config: TrainingConfig, unbroken: Path, tmp_path: Path
) -> None:
    train(config, unbroken, resume=True)  # once for all phases
    options = dict(PHASES[phase])
    with pytest.MonkeyPatch.context() as patched:
        options.pop("patch", lambda _: None)(patched)
        with pytest.raises(Stop):
            train(config, tmp_path, checkpoint_seconds=checkpoint_seconds, **options)
    assert not (tmp_path / "model.safetensors").exists()
    train(config, tmp_path, resume=True)
    found, expected = (
        read_tensors(folder / "model.safetensors", MODEL_SCHEMA).tensors for folder in (tmp_path, unbroken)
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert torch.equal(checkpoint(tmp_path)["examples.images"], checkpoint(unbroken)["examples.images"])
    assert log(tmp_path) == log(unbroken)
    pictures = sorted((unbroken / "feedback").glob("*.png"))
    assert len(pictures) == len(list((tmp_path / "feedback").glob("*.png"))) == 3
    for picture in pictures:
        assert (tmp_path / "feedback" / picture.name).read_bytes() == picture.read_bytes()


def test_the_search_is_reported(config: TrainingConfig, tmp_path: Path) -> None:
    notes: list[str] = []
    train(config, tmp_path, on_note=notes.append)
    heads = [note.partition(":")[0] for note in notes]
    assert list(dict.fromkeys(heads)) == ["round 1 of 2", "round 2 of 2", "margins of the classes"]


class Second(Processes):
    """The second of several processes; the first one shares an image with it."""

    rank = 1

    def share(self, value: Any) -> Any:
        part = load_dataset("tiny", "train")
        return part.subset(torch.arange(1))


def test_the_first_process_alone_makes_rounds(config: TrainingConfig, tmp_path: Path) -> None:
    model = build_model("cnn4-small", (1, 8, 8), 3)
    stepper = Stepper(model, config, load_run_data(config).train, Second("cpu"))
    stepper.begin_epoch(1, tmp_path, print)
    stepper.finish(tmp_path, print)
    assert stepper.data.added is not None
    assert len(stepper.data.added) == 1
    assert list(tmp_path.iterdir()) == []


def test_labels_that_never_change_add_nothing(config: TrainingConfig, tmp_path: Path) -> None:
    near = replace(OPTIONS, cap=0.001, bisections=1, start=0.5)
    result = train(replace(config, feedback=near), tmp_path)
    assert [record["examples"] for record in log(tmp_path)] == [0, 0, 0]
    assert log(tmp_path)[0]["class_margins"] == [None] * 3
    assert "examples.images" not in checkpoint(tmp_path)
    assert not (tmp_path / "feedback" / "round-1.png").exists()
    assert (tmp_path / "feedback" / "class-margins.png").exists()
    standard = train(replace(config, method="standard", feedback=None), tmp_path / "standard")
    torch.testing.assert_close(result.model.state_dict(), standard.model.state_dict(), rtol=0, atol=0)


def test_only_epochs_after_the_last_round_can_be_the_best(
    config: TrainingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    falling = iter((0.9, 0.8, 0.5, 0.4))
    monkeypatch.setattr("muquant.training.run.session.evaluate", lambda *_: next(falling))
    assert train(replace(config, keep="best"), tmp_path).kept_epoch == 3
    load_run(tmp_path)


def test_a_class_without_images_is_refused_and_nothing_is_left(
    config: TrainingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine = DATASETS["tiny"].load

    def without(request: DatasetRequest) -> Dataset:
        dataset = genuine(request)
        return dataset.subset((dataset.labels != 1).nonzero()[:, 0])

    monkeypatch.setitem(DATASETS, "tiny", DatasetEntry(without))
    with pytest.raises(InputError, match="expected images of every class to train on, found none of grey"):
        train(config, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
