"""`pkg.module:factory`: what it may return, and one line for everything that goes wrong in it."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from muquant import InputError
from muquant_cli.sources import Source, read_source

pytestmark = pytest.mark.slow
CODE = """
import sys
import torch
from torch import nn

CONSTANT = 3
INSTANCE = nn.Linear(3, 2)

class Net(nn.Linear):
    def __init__(self):
        super().__init__(3, 2)

def model(): return nn.Dropout()
def with_tensor(): return nn.Linear(3, 2), torch.ones(4, 3)
def with_tuple(): return nn.Bilinear(3, 2, 1), (torch.ones(1, 3), torch.ones(1, 2))
def with_names(): return nn.Linear(3, 2), {"input": torch.ones(4, 3)}
def needs(width, depth=2): return nn.Linear(width, depth)
def raises(): raise RuntimeError("no such weights\\non this machine")
def exits(): sys.exit("usage: net.py")
def text(): return "model"
def nothing(): pass
def triple(): return nn.Linear(3, 2), torch.ones(4, 3), 1
def bad_example(): return nn.Linear(3, 2), [1, 2]
"""

Read = Callable[[str], Source]


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Read]:
    """Read a factory of the module above, which lies in a package in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    Path("zoo_of_tests").mkdir()
    Path("zoo_of_tests/nets.py").write_text(CODE)
    Path("zoo_of_tests/broken.py").write_text("def model(:\n")
    Path("zoo_of_tests/needy.py").write_text("import a_package_that_nobody_has\n")
    Path("zoo_of_tests/script.py").write_text("raise SystemExit(3)\n")
    yield read_source
    for name in [name for name in sys.modules if name.startswith("zoo_of_tests")]:
        del sys.modules[name]


def test_a_module_alone(read: Read) -> None:
    source = read("zoo_of_tests.nets:model")
    assert (source.kind, source.text) == ("factory", "zoo_of_tests.nets:model")
    assert isinstance(source.module, nn.Dropout)
    assert not source.module.training
    assert source.example is None
    assert source.preprocess is None
    with pytest.raises(InputError, match=r"zoo_of_tests.nets:model gives no example input.*returns"):
        source.require_example()


def test_a_class_is_a_factory_of_its_instances(read: Read) -> None:
    assert type(read("zoo_of_tests.nets:Net").module).__name__ == "Net"


@pytest.mark.parametrize(("name", "kind"), [("tensor", torch.Tensor), ("tuple", tuple), ("names", dict)])
def test_a_module_with_its_example(name: str, kind: type, read: Read) -> None:
    source = read(f"zoo_of_tests.nets:with_{name}")
    assert isinstance(source.require_example(), kind)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("zoo_of_tests.nets:modle", "factory 'modle' is unknown; did you mean model"),
        ("zoo_of_tests.nets:zzzzzz", r"factory 'zzzzzz' is unknown; dir\(zoo_of_tests.nets\) lists them"),
        ("zoo_of_tests.nets:CONSTANT", "expected a function that returns a model, found int"),
        ("zoo_of_tests.nets:INSTANCE", "expected a function that returns a model, found Linear"),
        ("zoo_of_tests.nets:needs", "expected a function without arguments, found .*'width'; define one"),
        ("zoo_of_tests.nets:raises", "raised RuntimeError: no such weights; mend it"),
        ("zoo_of_tests.nets:exits", "raised SystemExit: usage: net.py; mend it"),
        ("zoo_of_tests.nets:text", r"expected a torch.nn.Module, or \(module, example\), found str"),
        ("zoo_of_tests.nets:nothing", "found NoneType; return one of these"),
        ("zoo_of_tests.nets:triple", "found tuple of Linear, Tensor, int"),
        ("zoo_of_tests.nets:bad_example", "tensors by argument name, found list of int"),
        ("zoo_of_tests.broken:model", "cannot import zoo_of_tests.broken: invalid syntax"),
        ("zoo_of_tests.needy:model", "cannot import zoo_of_tests.needy: No module named 'a_package_that"),
        ("zoo_of_tests.script:model", "cannot import zoo_of_tests.script: 3; expected"),
        ("zoo_of_tests.missing:model", "cannot import zoo_of_tests.missing: No module named"),
        (".nets:model", "cannot import .nets"),
    ],
)
def test_what_goes_wrong_is_one_line(text: str, words: str, read: Read) -> None:
    with pytest.raises(InputError, match=words) as caught:
        read(text)
    assert str(caught.value).startswith(text)
    assert "\n" not in str(caught.value)


def test_a_text_of_no_kind_is_refused_with_all_kinds() -> None:
    for text in ("resnet18", "models/net.py:model"):
        with pytest.raises(
            InputError,
            match=r"a run folder, torchvision:NAME, timm:NAME, robustbench:NAME or pkg\.module:factory",
        ):
            read_source(text)
