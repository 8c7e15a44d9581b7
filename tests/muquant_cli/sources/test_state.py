"""`--state`: weights out of a safetensors file."""

import copy
from pathlib import Path

import pytest
import safetensors.torch
import torch
from safetensors.torch import save_file, save_model
from torch import nn

from muquant import InputError
from muquant_cli.sources.state import load_state

pytestmark = pytest.mark.slow


class Tied(nn.Module):
    """Two layers of one weight, which safetensors keeps once."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)
        self.b.weight = self.a.weight


def test_a_state_comes_in_bit_for_bit_whatever_its_type(tmp_path: Path) -> None:
    saved, module = Tied(), Tied()
    save_model(saved, str(tmp_path / "a.safetensors"))
    load_state(module, tmp_path / "a.safetensors")
    torch.testing.assert_close(module.state_dict(), saved.state_dict(), rtol=0, atol=0)
    assert module.a.weight is module.b.weight
    half = {name: value.half() for name, value in nn.Linear(3, 2).state_dict().items()}
    save_file(half, tmp_path / "half.safetensors")
    layer = nn.Linear(3, 2)
    load_state(layer, tmp_path / "half.safetensors")
    torch.testing.assert_close(layer.weight.data, half["weight"].float(), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"weight": torch.zeros(2, 3)}, "it lacks 1 of 2 tensors, first bias; name the state of this model"),
        (
            {"weight": torch.zeros(2, 3), "bias": torch.zeros(2), "x": torch.zeros(1)},
            "it has 1 that the model has not, first x; name",
        ),
        ({"weight": torch.zeros(2, 4), "bias": torch.zeros(2)}, "size mismatch for weight"),
    ],
    ids=["missing", "unexpected", "shape"],
)
def test_a_state_of_another_model_is_refused(
    state: dict[str, torch.Tensor], words: str, tmp_path: Path
) -> None:
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match=f"a.safetensors does not fit Linear: .*{words}") as caught:
        load_state(nn.Linear(3, 2), tmp_path / "a.safetensors")
    assert "\n" not in str(caught.value)


def test_what_is_no_safetensors_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*none.safetensors"):
        load_state(nn.Linear(3, 2), tmp_path / "none.safetensors")
    with pytest.raises(InputError, match="--state"):
        load_state(nn.Linear(3, 2), tmp_path)
    for data in (b"", b"text"):
        (tmp_path / "b.pt").write_bytes(data)
        with pytest.raises(InputError, match=r"expected a whole safetensors file, found .*b.pt.*convert it"):
            load_state(nn.Linear(3, 2), tmp_path / "b.pt")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_is_not_opened_and_the_advice_converts_it(
    zipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    saved, module = Tied(), Tied()
    checkpoint = {"state_dict": saved.state_dict(), "epoch": 3}  # as Lightning writes it
    torch.save(checkpoint, "a.ckpt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match=r"found a.ckpt, a pickle, which is never opened") as caught:
        load_state(module, "a.ckpt")
    advice = str(caught.value).partition("convert it once: ")[2]
    exec(advice, {"torch": torch, "safetensors": safetensors})  # noqa: S102  # it is for people to run
    load_state(module, "state.safetensors")
    torch.testing.assert_close(module.state_dict(), saved.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "net.encoder."])
def test_names_of_wrappers_are_seen_through(prefix: str, tmp_path: Path) -> None:
    saved = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    state = saved.state_dict()
    save_file({prefix + name: value for name, value in state.items()}, tmp_path / "a.safetensors")
    for module in (nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)), nn.DataParallel(copy.deepcopy(saved))):
        load_state(module, tmp_path / "a.safetensors")
        for value, expected in zip(module.state_dict().values(), state.values(), strict=True):
            assert torch.equal(value, expected)
    save_file(state, tmp_path / "plain.safetensors")
    load_state(nn.Sequential(nn.Sequential(copy.deepcopy(saved))), tmp_path / "plain.safetensors")


def test_both_names_of_one_tensor_have_to_agree(tmp_path: Path) -> None:
    state = {name: value.clone() for name, value in Tied().state_dict().items()}
    save_file(state, tmp_path / "a.safetensors")
    load_state(Tied(), tmp_path / "a.safetensors")
    save_file(state | {"b.weight": torch.zeros(3, 3)}, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match=r"a.weight and b.weight are one tensor .* differ in the file"):
        load_state(Tied(), tmp_path / "a.safetensors")
