"""Models that a function of the user's makes. This runs the user's code, which is the point of it."""

import importlib
import inspect
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from muquant.base.errors import InputError, first_line, naming
from muquant.models.calls import Example, Inputs
from muquant_cli.sources.names import unknown
from muquant_cli.sources.source import Source

_PATTERN = re.compile(r"([^/:]+):([^/:]+)")


def is_factory(text: str) -> bool:
    """Whether it is a module and a name in it."""
    return _PATTERN.fullmatch(text) is not None


def call_factory(text: str, returns: str = "a model") -> Any:
    """Import a module, the current folder first on the path as for `python -m`, and return what its function
    returns, which takes no arguments.

    Args:
        text: the module and the function.
        returns: what is expected of it, for messages.

    Raises:
        InputError: the module cannot be imported, has no such function, or that takes arguments or raises.
    """
    module, _, name = text.partition(":")
    factory = _find(_import(module, text), name, text, returns)
    try:
        return factory()
    except (Exception, SystemExit) as error:  # whatever the user's code raises
        raise InputError(
            f"{text} raised {type(error).__name__}: {first_line(error)}; mend it, or name another factory"
        ) from error


def load_factory(text: str, _pretrained: bool) -> Source:
    """Call a function that returns a model, or `(model, example)`, where the example is a tensor, a sequence
    of tensors, or tensors by the names of the model's arguments.

    Raises:
        InputError: as for `call_factory`, or it returns something else.
    """
    made = call_factory(text)
    with naming(text):
        return Source(*_model_and_example(made))


def _import(module: str, text: str) -> Any:
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(module)
    except (Exception, SystemExit) as error:  # whatever the user's code raises
        raise InputError(
            f"{text}: cannot import {module}: {first_line(error)}; expected a module that python finds from "
            f"{folder}"
        ) from error


def _find(module: Any, name: str, text: str, returns: str) -> Callable[[], Any]:
    factory = getattr(module, name, None)
    if factory is None:
        public = [each for each in vars(module) if not each.startswith("_")]
        raise unknown(f"{text}: factory", name, public, f"dir({module.__name__})")
    if not callable(factory) or isinstance(factory, nn.Module):
        raise InputError(
            f"{text}: expected a function that returns {returns}, found {type(factory).__name__}; define one"
        )
    try:
        inspect.signature(factory).bind()
    except TypeError as error:
        raise InputError(
            f"{text}: expected a function without arguments, found {error}; define one that calls it"
        ) from error
    except ValueError:  # some built-in functions have no signature
        pass
    return factory  # type: ignore[no-any-return]


def _model_and_example(made: object) -> tuple[nn.Module, Example | None]:
    if isinstance(made, nn.Module):
        return made, None
    if isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], nn.Module):
        _ = Inputs.of(made[1])  # refuses what is no example
        return made
    found = type(made).__name__
    if isinstance(made, tuple):
        found += f" of {', '.join(type(part).__name__ for part in made)}"
    raise InputError(f"expected a torch.nn.Module, or (module, example), found {found}; return one of these")
