"""Modules around a module, such as torch.compile's: seen through, and so are the names that they leave."""

import copy
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from muquant.base.errors import InputError

_KINDS = (nn.DataParallel, DistributedDataParallel, AveragedModel)
"""Wrappers that keep the module under the name "module", which any module may use."""

_PLACES = ("_orig_mod", "_checkpoint_wrapped_module", "_original_module")
"""Where other wrappers keep it: torch.compile's, that of activation checkpoints, Lightning Fabric's."""

_PARTS = {*_PLACES, "_fsdp_wrapped_module", "_forward_module", "module"}
"""What wrappers put into names."""


def peeled(module: nn.Module) -> nn.Module:
    """Return the module inside of all wrappers around it: itself where there is none."""
    place = next((each for each in _PLACES if each in module._modules), None)
    if place is None and isinstance(module, _KINDS):
        place = "module"
    return module if place is None else peeled(getattr(module, place))


def plain_modules(model: nn.Module, path: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Yield all modules of `model` but wrappers with the paths that they have without those, in order; a
    module that has several paths with each of them.

    Raises:
        InputError: torch.jit has compiled one, whose layers are no modules any more.
    """
    module = peeled(model)
    if isinstance(module, torch.jit.ScriptModule):
        raise InputError(
            f"{path or 'the model'} is a {module.original_name} that torch.jit compiled; expected what it "
            "was before; give that, or the ONNX file that torch.onnx.export(..., dynamo=False) makes of it"
        )
    yield path, module
    for name, child in module._modules.items():
        if child is not None:
            yield from plain_modules(child, f"{path}.{name}" if path else name)


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the module inside of wrappers, and take those of its parts off, in place.

    Raises:
        InputError: a module of it has not met an input yet, so that its weights have no sizes.
    """
    check_sizes(model)
    module = peeled(model)
    for _, part in list(plain_modules(module)):
        for name, child in part._modules.items():
            if child is not None:
                part._modules[name] = peeled(child)
    return module


def plain_copy(model: nn.Module) -> nn.Module:
    """Return a copy without wrappers: float32, on the CPU, in evaluation mode.

    Raises:
        InputError: as for `unwrapped`.
    """
    check_sizes(model)
    module = peeled(model)
    with torch.inference_mode(False), torch.no_grad():
        return unwrapped(copy.deepcopy(module, _made_by_autograd(module))).cpu().float().eval()


def _made_by_autograd(model: nn.Module) -> dict[int, Any]:
    """Return a memo for `deepcopy`: tensors kept beside the parameters, such as weights that a hook computed,
    which it refuses to copy."""
    memo: dict[int, Any] = {}
    for module in model.modules():
        for value in vars(module).values():
            parts = value.values() if isinstance(value, Mapping) else value
            for part in parts if isinstance(value, Mapping | list | tuple) else (value,):
                if isinstance(part, Tensor) and not part.is_leaf:
                    memo[id(part)] = part.detach().clone()
    return memo


def check_sizes(model: nn.Module) -> None:
    """Refuse a model with lazy modules that have not met an input.

    Raises:
        InputError: it has one.
    """
    for path, module in plain_modules(model):
        if isinstance(module, LazyModuleMixin) and module.has_uninitialized_params():
            what = f"{path} ({type(module).__name__})" if path else type(module).__name__
            raise InputError(
                f"{what} has no weights yet, since their sizes follow from its first input; expected a model "
                "that has run; run it once on an example"
            )


def fit_names(names: Iterable[str], wanted: Collection[str]) -> dict[str, str]:
    """Return what each of the names of a state is called among the names of a module.

    They may differ by what wrappers put into names, on either side, and by a prefix, such as "model." of a
    LightningModule: the one that makes most of them fit. A name that does not fit stays as it is.

    Args:
        names: of the state, different ones.
        wanted: of the module.
    """
    same = {name: name for name in names}
    if same.keys() == set(wanted):
        return same
    given, targets = {_plain(name): name for name in same}, {_plain(name): name for name in wanted}
    if len(given) < len(same) or len(targets) < len(wanted):
        return same
    votes = Counter((path, "") for name in given for path, rest in _cuts(name) if rest in targets)
    votes.update(("", path) for name in targets for path, rest in _cuts(name) if path and rest in given)
    dropped, added = max(votes, key=lambda each: (votes[each], -len("".join(each))), default=("", ""))
    fitted = {
        given[name]: targets.get(added + name.removeprefix(dropped), given[name])
        if name.startswith(dropped)
        else given[name]
        for name in given
    }
    return fitted if len(set(fitted.values())) == len(fitted) else same


def misfit(names: Collection[str], wanted: Collection[str]) -> str:
    """Return how the names of a state, fitted, differ from those of a module, for a message; "" where they do
    not."""
    lacking, others = set(wanted) - set(names), set(names) - set(wanted)
    parts = [f"it lacks {len(lacking)} of {len(wanted)} tensors, first {min(lacking)}"] if lacking else []
    parts += [f"it has {len(others)} that the model has not, first {min(others)}"] if others else []
    return ", and ".join(parts)


def _plain(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _PARTS)


def _cuts(name: str) -> Iterator[tuple[str, str]]:
    """Yield a name as a path with its dot, from none on, and the rest."""
    yield "", name
    for place, character in enumerate(name):
        if character == ".":
            yield name[: place + 1], name[place + 1 :]
