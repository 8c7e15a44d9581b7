"""A session as a function of images, whatever batch and type of floats its file has."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from muquant.base.errors import InputError

_FLOATS = {"tensor(float16)": np.float16, "tensor(float)": np.float32, "tensor(double)": np.float64}


def logits_of(session: ort.InferenceSession) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """A session of one input as a function: images float32 [N, ...] -> its logits, float32 [N, classes].

    They are the output that is called "logits", or else the first of floating point. Images are cast to the
    type of the input. Where the file has a batch of its own, they go in such batches, the last one filled up.

    Raises:
        InputError: there is another number of inputs, or the input or all outputs are no floats; the function
            raises it where the output of a batch of the file's own is not that many rows.
    """
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1:
        raise InputError(f"expected a model of one input, found {len(inputs)}; give an image classifier")
    name, kind, shape = inputs[0].name, inputs[0].type, inputs[0].shape
    floating = [each for each in outputs if each.type in _FLOATS]
    if kind not in _FLOATS or not floating:
        found = (
            f"input {name} of {kind}" if kind not in _FLOATS else f"{outputs[0].name} of {outputs[0].type}"
        )
        raise InputError(
            f"expected a model from images to logits, in floats of 16, 32 or 64 bits, found {found}; "
            "give such a classifier"
        )
    named = (each.name for each in floating if each.name.rpartition(".")[2] == "logits")
    output = next(named, floating[0].name)
    fixed = shape[0] if shape and isinstance(shape[0], int) and shape[0] > 0 else None

    def run(images: NDArray[Any]) -> NDArray[np.float32]:
        logits: NDArray[Any] = session.run([output], {name: images.astype(_FLOATS[kind], copy=False)})[0]
        return logits.astype(np.float32, copy=False)

    def in_batches(images: NDArray[np.float32]) -> NDArray[np.float32]:
        assert fixed is not None
        filled = np.concatenate([images, np.repeat(images[-1:], -len(images) % fixed, axis=0)])
        parts = [run(filled[start : start + fixed]) for start in range(0, len(filled), fixed)]
        if parts[0].ndim == 0 or len(parts[0]) != fixed:
            raise InputError(
                f"output {output}: expected {fixed} rows for {fixed} images, found shape "
                f"{list(parts[0].shape)}; give an image classifier"
            )
        return np.concatenate(parts)[: len(images)]

    return run if fixed is None else in_batches
