"""Images that a method adds between epochs: what is drawn, and that a resumed run has the same ones."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from muquant.data import Dataset, load_dataset
from muquant.training import RunView, Standard, TrainingConfig, TrainingProgress, train
from muquant.training.run.training_set import TrainingSet

from ..conftest import plug_in

pytestmark = pytest.mark.slow
Tiny = Callable[..., TrainingConfig]


def made_of(dataset: Dataset, count: int, brightness: int) -> Dataset:
    """So many images of one brightness, all of the first class."""
    images = torch.full((count, *dataset.input_shape), brightness, dtype=torch.uint8)
    return Dataset(dataset.name, "train", images, torch.zeros(count, dtype=torch.int64), dataset.classes)


def epoch_of(data: TrainingSet, epoch: int) -> tuple[list[bytes], list[int]]:
    images, labels = [], []
    for step in range(epoch * data.steps_per_epoch, (epoch + 1) * data.steps_per_epoch):
        inputs, classes = data.batch(step)
        images += [image.numpy().tobytes() for image in inputs]
        labels += classes.tolist()
    return images, labels


def test_an_epoch_draws_from_both_parts_without_replacement_and_stays_as_long() -> None:
    part = load_dataset("tiny", "train")
    data = TrainingSet(part, 8, seed=0)
    images, labels = epoch_of(data, 0)
    assert len(images) == len(set(images)) == 56
    own = {
        image.numpy().tobytes(): int(label) for image, label in zip(part.inputs(), part.labels, strict=True)
    }
    assert [own[image] for image in images] == labels
    data.added = made_of(part, 60, 7)
    mixed, labels = epoch_of(data, 0)
    added = (torch.full(part.input_shape, 7.0) / 255).numpy().tobytes()
    assert len(mixed) == 56
    assert 15 < mixed.count(added) < 41  # half of what there is
    assert len(set(mixed)) == 57 - mixed.count(added)
    assert all(
        label == (0 if image == added else own[image]) for image, label in zip(mixed, labels, strict=True)
    )
    assert epoch_of(data, 1) != (mixed, labels)


class Growing(Standard):
    """Adds one more image before each epoch, as bright as the model's first weight says."""

    def examples(self, run: RunView) -> Dataset | None:
        assert (0 if run.added is None else len(run.added)) == run.epoch
        brightness = int(1000 * abs(float(next(run.model.parameters()).flatten()[0]))) % 256
        grown = made_of(run.dataset, run.epoch + 1, brightness)
        if run.added is not None:
            images = torch.cat((run.added.images, grown.images[:1]))
            grown = Dataset("tiny", "train", images, grown.labels, run.dataset.classes)
        return grown


@pytest.mark.parametrize("checkpoint_seconds", [0.0, 1e9])
def test_a_resumed_run_has_the_same_images(
    checkpoint_seconds: float, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stop(Exception):  # noqa: N818
        pass

    plug_in(monkeypatch, "growing", Growing)
    unbroken = train(tiny(method="growing"), tmp_path / "unbroken")
    for step in (2, 6, 7, 12, 16):  # within an epoch, and at its end

        def stop(progress: TrainingProgress, step: int = step) -> None:
            if progress.step == step:
                raise Stop

        with pytest.raises(Stop):
            train(
                tiny(method="growing"),
                tmp_path / "broken",
                resume=True,
                on_progress=stop,
                checkpoint_seconds=checkpoint_seconds,
            )
    resumed = train(tiny(method="growing"), tmp_path / "broken", resume=True)
    torch.testing.assert_close(resumed.model.state_dict(), unbroken.model.state_dict(), rtol=0, atol=0)
    standard = train(tiny(), tmp_path / "standard")
    assert not torch.equal(
        standard.model.get_parameter("fc1.weight"), unbroken.model.get_parameter("fc1.weight")
    )
