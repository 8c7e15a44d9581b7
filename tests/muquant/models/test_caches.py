"""Caches of transformers, which is not installed here: a class of its name, and what makes it known."""

import sys
from types import ModuleType

import pytest
import torch
from torch.utils import _pytree

from muquant import InputError
from muquant.models.calls import Inputs, output_tensors

NAME = "transformers.integrations.executorch"


def cache_class() -> type:
    """Return a new class that is called as theirs."""

    def start(self: object, keys: torch.Tensor) -> None:
        self.keys = keys  # type: ignore[attr-defined]

    return type("DynamicCache", (), {"__init__": start, "__module__": "transformers.cache_utils"})


def test_a_cache_is_made_known_when_one_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    kind, times = cache_class(), []

    def register() -> None:
        times.append(1)
        if len(times) == 1:
            _pytree.register_pytree_node(
                kind,
                lambda cache: ([cache.keys], None),
                lambda values, _: kind(*values),
                flatten_with_keys_fn=lambda cache: ([(_pytree.MappingKey("keys"), cache.keys)], None),
            )

    theirs = ModuleType(NAME)
    theirs.register_dynamic_cache_export_support = register  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "transformers", ModuleType("transformers"))
    monkeypatch.setitem(sys.modules, "transformers.integrations", ModuleType("transformers.integrations"))
    monkeypatch.setitem(sys.modules, NAME, theirs)
    keys = torch.rand(2, 3)
    inputs = Inputs.of({"past": kind(keys)})
    assert inputs.names == ("past.keys",)
    assert inputs.tensors[0] is keys
    assert isinstance(inputs.call(lambda past: past), kind)
    assert [name for name, _ in output_tensors({"present": kind(keys)})] == ["present.keys"]


def test_a_cache_of_another_version_is_refused_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match=r"found dict of DynamicCache, str; .*register_pytree_node"):
        Inputs.of({"past": cache_class()(torch.rand(2, 3))})
