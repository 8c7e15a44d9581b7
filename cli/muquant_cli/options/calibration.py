"""`--calibration`: a few samples of what a model will be given."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor, nn

from muquant.base.arrays import read_arrays
from muquant.base.errors import InputError, first_line, naming
from muquant.compression.calibration import Samples, read_samples
from muquant.compression.options import CompressionOptions
from muquant.data import DATASETS, load_dataset
from muquant.models.calls import Example, Inputs
from muquant.quantization.resume import FinishedWeights
from muquant_cli.output import Output

ARRAYS = (".npy", ".npz")


def calibration_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that name samples."""
    for option in reversed(
        (
            click.option(
                "--calibration",
                metavar="DATA|FILE|FOLDER|FACTORY",
                help="Samples to choose codes by: training images of a data set, an array [N, ...] in a .npy "
                "file, arrays by input name in a .npz file, a folder of such files, each a batch, or "
                "pkg.module:function, which is run and returns batches, such as a DataLoader.",
            ),
            click.option(
                "--samples",
                type=click.IntRange(min=4),
                default=512,
                help="How many to use: of a data set or file evenly over the whole, of batches the first.",
            ),
            click.option(
                "--synthetic/--no-synthetic",
                default=True,
                help="Without samples, let inputs that are made up stand for them.",
            ),
            click.option(
                "--corrections/--no-corrections",
                default=True,
                help="With samples, let biases and BatchNorm statistics make up for errors where that helps.",
            ),
            click.option(
                "--resume", is_flag=True, help="Take the weights that an interrupted command had finished."
            ),
        )
    ):
        function = option(function)
    return function


def warn_without_samples(output: Output, options: CompressionOptions) -> None:
    """Say what it costs where there are no samples."""
    if options.calibration is None:
        output.say(
            "Without samples codes are chosen by the weights alone. That costs accuracy, the more the fewer "
            "bits: a few hundred inputs, without labels, win most of it back; see --calibration."
        )


@contextmanager
def finished_weights(output: Output, out: Path, resume: bool) -> Iterator[FinishedWeights]:
    """Yield where weights are kept once they are done, beside `out`; it is gone when all of them are.

    Args:
        output: says how to go on after an error or an interruption.
        out: the file that is to be written.
        resume: whether those of an earlier command may be taken.
    """
    finished = FinishedWeights(out.with_name(f"{out.name}.partial"))
    if not resume:
        finished.clear()
    try:
        yield finished
    except BaseException:
        if finished.count:
            output.remark(
                f"{finished.count} finished weights are kept in {finished.folder}; --resume takes them"
            )
        raise
    finished.clear()


def read_calibration(
    name: str, count: int, root: Path | None = None, preprocess: nn.Module | None = None
) -> Samples:
    """Return at most `count` samples, evenly over what there is; of a folder the first batches with so many.

    Args:
        name: of a data set, whose training images are taken, of a file of arrays, or of a folder of such
            files, each a batch, in the order of their names.
        count: samples, 1 or more.
        root: folder of the data sets.
        preprocess: images [N, C, H, W] in [0, 1] -> what the model takes; arrays are taken as they are.

    Raises:
        InputError: the data set or the file cannot be used.
    """
    if Path(name).suffix in ARRAYS:
        arrays = _read_arrays(Path(name))
        with naming(name):
            inputs = Inputs.of(arrays)
            return read_samples(inputs.take(_evenly(inputs.count, count)))
    if Path(name).is_dir() and name not in DATASETS:
        files = sorted(path for path in Path(name).iterdir() if path.suffix in ARRAYS)
        if not files:
            raise InputError(f"{name} has no {' or '.join(ARRAYS)} file; write one for each batch")
        return read_samples(map(_read_arrays, files), count)
    data = load_dataset(name, "train", root=root)
    images = data.inputs(_evenly(len(data), count))
    return read_samples(images if preprocess is None else preprocess(images))


def _evenly(there: int, wanted: int) -> Tensor:
    count = min(there, wanted)
    return torch.arange(count) * there // count


def _read_arrays(path: Path) -> Example:
    try:
        tensors = {name: torch.from_numpy(array) for name, array in read_arrays(path).items()}
    except (ValueError, TypeError, RuntimeError) as error:  # types and numbers of axes that torch has not
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path} holds no arrays of numbers ({first_line(error)}); write it with numpy.save or savez"
        ) from error
    if not tensors:
        raise InputError(f"{path} holds no arrays; write it with numpy.savez, an array for each input")
    return tensors.get("", tensors)
