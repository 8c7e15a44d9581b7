"""`robustbench:NAME`, with a small list in the place of RobustBench's, and what is said where it is not."""

import os
import sys
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from muquant import InputError
from muquant_cli.sources import read_source


class Zoo(Enum):
    CIFAR = "cifar10"
    IMAGENET = "imagenet"


class Threat(Enum):
    LINF = "Linf"
    L2 = "L2"


class Net(nn.Module):
    """A classifier that normalises images itself, as those of RobustBench do."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.register_buffer("mu", torch.full((1, 3, 1, 1), 0.5))
        self.mu: Tensor
        self.conv, self.bn = nn.Conv2d(3, width, 3), nn.BatchNorm2d(width)
        self.fc = nn.Linear(width, 10)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.bn(self.conv(images - self.mu)).relu().mean((2, 3)))
        return logits


def offline() -> nn.Module:
    raise OSError("no route to host")


@pytest.fixture(autouse=True)
def zoo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """RobustBench's list, as its module has it; and a folder without checkpoints."""
    models: Any = ModuleType("robustbench.model_zoo.models")
    known = {"gdrive_id": "x"}
    models.model_dicts = {
        Zoo.CIFAR: {
            Threat.LINF: {
                "Ours2026": {**known, "model": Net},
                "Wide2026": {**known, "model": lambda: Net(8)},
                "Deck2026": {"gdrive_id": ["x", "y"], "model": Net},
                "Lost2026": {**known, "model": offline},
                "Standard": {**known, "model": Net},
            },
            Threat.L2: {"Standard": {**known, "model": Net}},
        },
        Zoo.IMAGENET: {Threat.LINF: {"Standard_R50": {**known, "model": Net}}},
    }
    for name in ("robustbench", "robustbench.model_zoo"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, models.__name__, models)
    monkeypatch.chdir(tmp_path)


def save(path: str, state: object) -> Path:
    made = Path(path)
    made.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, made)
    return made


def trained() -> Net:
    module = Net().eval()
    with torch.no_grad():
        module.bn.load_state_dict({**module.bn.state_dict(), "running_mean": torch.rand(4)})
        module.mu.fill_(0.25)
    return module


@pytest.mark.parametrize("prefix", ["", "module.", "module.model."])
@pytest.mark.parametrize("place", [(), ("state_dict",), ("last",), ("last", "state_dict")])
def test_weights_are_those_of_the_checkpoint(prefix: str, place: tuple[str, ...]) -> None:
    module, images = trained(), torch.rand(2, 3, 32, 32)
    state: Any = {prefix + name: value for name, value in module.state_dict().items()}
    for key in reversed(place):
        state = {"epoch": 7, "best": None, key: state}
    path = save("models/cifar10/Linf/Ours2026.pt", state)
    for text in ("Ours2026", "cifar10/Linf/Ours2026", str(path), str(path.absolute())):
        source = read_source(f"robustbench:{text}")
        assert source.kind == "robustbench"
        assert not source.module.training
        torch.testing.assert_close(source.module(images), module(images), rtol=0, atol=0)
        assert source.preprocess is not None
        assert torch.equal(source.preprocess(images), images), "the model normalises by itself"
        example: Any = source.require_example()
        assert tuple(example.shape) == (1, 3, 32, 32)


def test_constants_may_be_missing_and_nothing_else() -> None:
    state = trained().state_dict()
    del state["mu"]
    save("models/cifar10/Linf/Ours2026.pt", state)
    assert float(read_source("robustbench:Ours2026").module.state_dict()["mu"].mean()) == 0.5
    del state["bn.running_mean"]
    save("models/cifar10/Linf/Ours2026.pt", state)
    with pytest.raises(
        InputError, match=r"does not fit Net: it lacks 1 of 10 tensors, first bn.running_mean"
    ):
        read_source("robustbench:Ours2026")


def test_without_weights_it_is_as_it_is_built() -> None:
    one, other = (read_source("robustbench:Ours2026", state="none").module for _ in range(2))
    torch.testing.assert_close(one.state_dict(), other.state_dict(), rtol=0, atol=0)


def test_a_checkpoint_that_is_there_settles_which_model_is_meant() -> None:
    with pytest.raises(
        InputError, match="'Standard' is cifar10/Linf/Standard, cifar10/L2/Standard; name one"
    ):
        read_source("robustbench:Standard")
    save("models/cifar10/L2/Standard.pt", trained().state_dict())
    assert read_source("robustbench:Standard").text == "robustbench:Standard"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Ours2026", r"cannot read models/cifar10/Linf/Ours2026.pt: .* nothing is downloaded"),
        ("nowhere/Ours2026.pt", "cannot read nowhere/Ours2026.pt"),
        ("Ours2025", r"robustbench model 'Ours2025' is unknown; did you mean Ours2026"),
        (
            "cifar10/L2/Ours2026",
            "robustbench model 'cifar10/L2/Ours2026' is unknown; did you mean cifar10/Linf/Our",
        ),
        ("", "robustbench model '' is unknown"),
        ("Deck2026", "makes cifar10/Linf/Deck2026 of several files"),
        ("Standard_R50", "name it by timm:NAME or torchvision:NAME"),
        ("Lost2026", "could not make cifar10/Linf/Lost2026: no route to host"),
    ],
)
def test_what_cannot_be_had_is_one_line(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_source(f"robustbench:{text}")
    assert "\n" not in str(caught.value)


class Hostile:
    """What a pickle can do where it is opened."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("opened",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"state_dict": Hostile()},
            r"expected weights alone, .* found what torch.load\(weights_only=True\) ref",
        ),
        (nn.Linear(2, 2), "expected weights alone"),
        (b"hello", "expected weights alone"),
        ([1, 2], "expected a state dict, names with tensors, found list with no names"),
        ({"epoch": 1, "ema": 2}, "found dict with epoch, ema"),
        ({}, "expected a state dict"),
        (Net(8).state_dict(), "Ours2026.pt does not fit Net: size mismatch for"),
        (
            {"layer1.a": torch.zeros(1), "layer1.b": torch.zeros(1)},
            "it lacks 9 of 10 tensors, first bn.bias, and it has 2 that the model has not, first layer1.a",
        ),
    ],
    ids=["code", "module", "text", "list", "numbers", "nothing", "wider", "other"],
)
def test_a_checkpoint_of_another_kind_or_architecture_is_refused(content: Any, message: str) -> None:
    if isinstance(content, bytes):
        Path("Ours2026.pt").write_bytes(content)
    else:
        save("Ours2026.pt", content)
    with pytest.raises(InputError, match=message) as caught:
        read_source("robustbench:Ours2026.pt")
    assert "\n" not in str(caught.value)
    assert not Path("opened").exists()


def test_without_robustbench_the_line_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "robustbench"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path_importer_cache", {})
    monkeypatch.setattr(sys, "meta_path", [Without(), *sys.meta_path])
    with pytest.raises(
        InputError, match=r"needs the package robustbench .*pip install 'muquant\[robustbench\]'"
    ):
        read_source("robustbench:Ours2026")


class Without:
    """Finds no robustbench, whether it is installed or not."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] == "robustbench":
            raise ModuleNotFoundError("No module named 'robustbench'")


def test_the_package_is_read_without_its_init(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "robustbench"]:
        monkeypatch.delitem(sys.modules, name)
    package = tmp_path / "site" / "robustbench"
    (package / "model_zoo").mkdir(parents=True)
    (package / "__init__.py").write_text("import a_package_that_pip_does_not_install_with_it")
    (package / "model_zoo" / "__init__.py").write_text("from .models import model_dicts")
    (package / "model_zoo" / "models.py").write_text(
        "from enum import Enum\nfrom torch import nn\n"
        "D, T = Enum('D', {'c': 'cifar10'}), Enum('T', {'l': 'Linf'})\n"
        "model_dicts = {D.c: {T.l: {'A': {'gdrive_id': 'x', 'model': lambda: nn.Linear(2, 2)}}}}\n"
    )
    monkeypatch.syspath_prepend(package.parent)
    assert isinstance(read_source("robustbench:A", state="none").module, nn.Linear)
    assert "robustbench" not in sys.modules, "whoever imports it gets all of it"
    for name in [name for name in sys.modules if name.partition(".")[0] == "robustbench"]:
        monkeypatch.delitem(sys.modules, name)
