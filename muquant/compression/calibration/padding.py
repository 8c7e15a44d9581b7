"""Positions that only fill samples up to one length, which are no samples of what a layer sees."""

from collections.abc import Iterable

import torch
from torch import Tensor

OTHER_MASKS = ("global", "special")
"""How masks that say something else of positions begin."""


def filled_positions(inputs: Iterable[tuple[str, Tensor]]) -> tuple[Tensor, ...]:
    """Return for each shape [N, T] of masks which positions are no padding, bool; none where there is none.

    A mask is an input called `mask` or `..._mask`, [N, T] of zeros and ones, where another input is
    [N, T, ...] as well, that leaves in one run of each row: the ones, or the zeros of a `..._padding_mask`,
    as PyTorch has them. Of several of one shape, what one of them leaves in is no padding.

    Args:
        inputs: of one batch, with their names.
    """
    named = list(inputs)
    found: dict[tuple[int, ...], Tensor] = {}
    for name, tensor in named:
        if tensor.dim() != 2 or not tensor.numel() or not _says_so(name):
            continue
        beside = [each for other, each in named if other != name and not _says_so(other)]
        if not any(each.shape[:2] == tensor.shape for each in beside):
            continue
        kept = tensor != 0
        if not torch.equal(kept.to(tensor.dtype), tensor):
            continue
        kept = ~kept if name.endswith("padding_mask") else kept
        begins = torch.nn.functional.pad(kept, (1, 0))[:, :-1].logical_not() & kept
        if int(begins.sum(1).max()) > 1:
            continue
        shape = tuple(tensor.shape)
        found[shape] = found[shape] | kept if shape in found else kept
    return tuple(kept for kept in found.values() if not kept.all())


def without_padding(x: Tensor, filled: Iterable[Tensor]) -> Tensor:
    """Return x [N, T, ...] as [n, ...] without positions of padding, and a matrix [N * T, inputs] that is a
    view of such alike; another as it is.

    Args:
        x: what a layer sees.
        filled: see `filled_positions`.
    """
    for kept in filled:
        if x.dim() > 2 and x.shape[:2] == kept.shape:
            return x[kept]
        if x.dim() == 2 and _is_flat(x, kept):
            return x[kept.flatten()]
    return x


def _says_so(name: str) -> bool:
    last = name.rpartition(".")[2].lower()
    return (last == "mask" or last.endswith("_mask")) and not last.startswith(OTHER_MASKS)


def _is_flat(x: Tensor, kept: Tensor) -> bool:
    """Whether the rows of a matrix are the positions in their order: of a view, what it is one of tells."""
    whole = x._base
    return (
        whole is not None
        and whole.shape == (*kept.shape, x.shape[1])
        and len(x) == kept.numel()
        and whole.is_contiguous()
        and x.is_contiguous()
        and x.data_ptr() == whole.data_ptr()
    )
