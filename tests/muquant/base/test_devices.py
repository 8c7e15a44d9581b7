"""What is known of devices."""

import pytest
import torch

from muquant.base.devices import computes_bf16


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx2": True, "avx512_bf16": False, "amx_bf16": False}, False),
        ({"avx2": True, "avx512_bf16": True, "amx_bf16": False}, True),
        ({"bf16": True, "sve_bf16": False}, True),
        ({"cpu_name": "one that says nothing"}, True),
    ],
)
def test_a_processor_computes_bf16_where_it_has_an_instruction(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, object], expected: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert computes_bf16(torch.device("cpu")) is expected


def test_where_torch_cannot_tell_it_is_taken_for_granted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert computes_bf16(torch.device("cpu"))
