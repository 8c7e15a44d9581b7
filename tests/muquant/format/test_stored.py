import pytest
import torch

from muquant import InputError, MuLawSpec, QuantizedTensor
from muquant.format.stored import read_weight, weight_entry, weight_tensors

LARGEST = torch.finfo(torch.float32).max


@pytest.mark.parametrize("levels", ["mid-rise", "mid-tread"])
@pytest.mark.parametrize("share", [0.99, 1.01])
def test_steps_that_make_weights_infinite_are_refused(levels: str, share: float) -> None:
    spec = MuLawSpec(3, 5.0, levels=levels)  # type: ignore[arg-type]
    step = torch.full((2, 1), share * LARGEST / 127)  # 127 is the largest integer of the int8 grid
    codes = torch.arange(6, dtype=torch.uint8).reshape(2, 3)
    quantized = QuantizedTensor(spec, codes, step)
    tensors, entry = weight_tensors("w", quantized), weight_entry(quantized)
    if share < 1:
        assert torch.isfinite(read_weight("w", tensors, entry).dequantize()).all()
    else:
        with pytest.raises(InputError, match=r"w has a step of 2.71e.36, with which weights are infinite"):
            read_weight("w", tensors, entry)
