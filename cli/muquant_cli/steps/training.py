"""Training with a bar."""

from pathlib import Path
from typing import Any

from torch import nn

from muquant import training
from muquant.base.devices import computes_bf16, find_device
from muquant.compression.left import left_float
from muquant.training import EpochMetrics, TrainingConfig, TrainingProgress
from muquant_cli.output import Output


def run_training(
    output: Output, config: TrainingConfig, out: Path, **options: Any
) -> training.TrainingResult:
    """Train with a progress bar, and say how it went."""
    if config.precision == "bf16" and not computes_bf16(find_device(config.device)):
        output.say(
            "This processor has no instructions for bf16: a step may take over ten times as long as with "
            "--precision float32."
        )
    with output.progress(f"Training {config.model} on {config.data}") as update:
        place: tuple[int, int | None] = (0, None)

        def show(progress: TrainingProgress) -> None:
            nonlocal place
            note = (
                f"epoch {progress.epoch}/{progress.epochs}  loss {progress.loss:.3f}  rate {progress.lr:.1e}"
            )
            if progress.last_epoch is not None:
                note += _held_out(progress.last_epoch)
            place = progress.step, progress.steps
            update(*place, note)

        result = training.train(
            config, out, on_progress=show, on_note=lambda note: update(*place, note), **options
        )
    output.say(
        f"Trained {config.model} on {config.data}: {result.test_accuracy:.2%} on the test set; "
        f"epoch {result.kept_epoch} kept in {out}{_held_out(result.kept)}"
    )
    if config.qat is not None:
        _say_left_float(output, result.model)
    return result


def _say_left_float(output: Output, model: nn.Module) -> None:
    """Say how much of a prepared model stays float, plainly where that is most of it."""
    kept, total = (sum(each.nbytes for each in left) for left in (left_float(model), left_float(model, ())))
    output.say(f"{kept:,} of {total:,} bytes of weights stay float")
    if 2 * kept > total:
        output.say(f"Less than half was trained for few bits: {total - kept:,} of {total:,} bytes")


def _held_out(record: EpochMetrics) -> str:
    """What was measured on held-out images, for people."""
    values = {"validation": record.validation_accuracy, "robust": record.robust_accuracy}
    return "".join(f"  {name} {value:.2%}" for name, value in values.items() if value is not None)
