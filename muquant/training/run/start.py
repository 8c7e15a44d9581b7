"""What weights a run starts from, if not from random ones: those of a finished run."""

import hashlib
import os

from muquant.base.errors import InputError
from muquant.base.reading import read_bytes
from muquant.models import Classifier
from muquant.training.options.config import TrainingConfig
from muquant.training.run.folder import RunFolder, load_run, read_run


def start_from(
    folder: str | os.PathLike[str], model: Classifier, config: TrainingConfig, data: object
) -> str:
    """Copy the weights of a finished run, normalisation included, into a model of the same architecture.

    Args:
        folder: the run folder.
        model: is overwritten.
        config: of the run that begins.
        data: the digests of its data. Where the source has the same ones, it must have held out the same
            images, or this run would be validated on images that its weights were trained on.

    Returns:
        SHA-256 of the source's model file.

    Raises:
        InputError: there is no such run, it has another architecture or was quantization-aware, or it held
            out other images.
    """
    source = read_run(folder)
    theirs, ours = source.architecture, model.architecture
    for what in ("name", "input_shape", "classes"):
        if getattr(theirs, what) != getattr(ours, what):
            raise InputError(
                f"--init {folder}: expected a run of a model whose {what.replace('_', ' ')} is "
                f"{getattr(ours, what)}, found {getattr(theirs, what)}; name another run"
            )
    if source.config.qat is not None:
        raise InputError(
            f"--init {folder}: expected a run in float, found quantization-aware training; name another"
        )
    for what in ("seed", "validation"):
        before, now = getattr(source.config, what), getattr(config, what)
        if source.data == data and before != now:
            raise InputError(
                f"--init {folder}: expected the {what} {before} of that run, found {now}, which holds out "
                f"images that the weights have seen; give it the same"
            )
    model.load_state_dict(load_run(folder).state_dict())
    return hashlib.sha256(read_bytes(RunFolder.of(folder).model)).hexdigest()
