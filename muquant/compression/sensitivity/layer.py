"""Norms of a weight's error in its layer: how much the layer can make of it."""

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from muquant.compression.layers import Owner
from muquant.compression.sensitivity.calls import run_layers
from muquant.compression.sensitivity.convolution import convolution_norms
from muquant.compression.sensitivity.norms import Norms, matrix_norms
from muquant.format.rows import to_matrix
from muquant.models import Architecture
from muquant.models.calls import Example

Shape = tuple[int, ...]


def layer_norms(
    owners: Sequence[Owner], value: Tensor, shapes: Mapping[nn.Module, Collection[Shape]]
) -> tuple[Norms, Norms | None]:
    """Return the norms of `value` as a matrix [channels, inputs], and as the weight of its layer.

    A layer is a linear map once its bias is left out. For linear layers and the projections of attention both
    are the same. An embedding takes one-hot vectors: it is the transposed matrix. A convolution depends on
    the size of its input, see `convolution_norms`; where that is not known the second result is None. Its
    matrix of kernels says less: where one window lies inside the input ||.||_2 of the layer is no smaller,
    and it may be larger by the root of the number of windows that share an element (3 for 3x3).

    Args:
        owners: the layers with the weight; of several, and of several sizes of input, the largest norms.
        value: in the shape of the weight, its error for example.
        shapes: convolution -> shapes of its inputs, as `input_shapes` finds them.
    """
    matrix = matrix_norms(to_matrix(value, owners[0].channels))
    found: list[Norms] = []
    for owner in owners:
        if isinstance(owner.module, _ConvNd):
            known = shapes.get(owner.module)
            if not known:
                return matrix, None
            found += [convolution_norms(owner.module, value, shape) for shape in known]
        else:
            found.append(matrix.transposed() if isinstance(owner.module, nn.Embedding) else matrix)
    return matrix, Norms(*(max(getattr(norms, p) for norms in found) for p in ("one", "two", "inf")))


def input_shapes(model: nn.Module, example: Example | None = None) -> dict[nn.Module, set[Shape]]:
    """Return the shapes of the inputs, without the batch, that each convolution of `model` is called with.

    Args:
        model: in evaluation mode; it is run once, if it has a convolution.
        example: its input, or inputs; models of `muquant.models` know theirs. Nothing is known without.

    Raises:
        InputError: the model does not run on the example.
    """
    layers = {name: module for name, module in model.named_modules() if isinstance(module, _ConvNd)}
    shapes: dict[nn.Module, set[Shape]] = {}
    architecture = getattr(model, "architecture", None)
    if example is None and isinstance(architecture, Architecture):
        example = torch.zeros(1, *architecture.input_shape)
    if example is None or not layers:
        return shapes

    def note(name: str, x: Tensor, _: Tensor) -> None:
        module = layers[name]
        shapes.setdefault(module, set()).add(tuple(x.shape[-1 - len(module.kernel_size) :]))

    run_layers(model, example, layers, note)
    return shapes
