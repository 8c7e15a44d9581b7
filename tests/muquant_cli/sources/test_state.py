"""`--state`: weights out of a safetensors file."""

from pathlib import Path

import pytest
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
        ({"weight": torch.zeros(2, 3)}, "1 tensors are missing and 0 unexpected, first bias is missing"),
        (
            {"weight": torch.zeros(2, 3), "bias": torch.zeros(2), "x": torch.zeros(1)},
            "0 tensors are missing and 1 unexpected, first x is unexpected",
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
    torch.save(nn.Linear(3, 2).state_dict(), tmp_path / "a.pt")
    for data in ((tmp_path / "a.pt").read_bytes(), b"", b"text"):
        (tmp_path / "b.pt").write_bytes(data)
        with pytest.raises(InputError, match=r"expected a whole safetensors file, found .*b.pt.*convert it"):
            load_state(nn.Linear(3, 2), tmp_path / "b.pt")
