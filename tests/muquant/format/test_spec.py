import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from muquant import SOURCE_SPEC, InputError, MuLawSpec
from muquant.format.channels import ROWS
from muquant.format.law import grid_levels
from muquant.format.spec import Granularity
from muquant.quantization.rounding import nearest


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("mu", ["auto", 0, 0.5, 65536.0])
def test_values_in_range_are_taken(bits: int, mu: Any) -> None:
    spec = MuLawSpec(bits=bits, mu=mu)
    assert (spec.bits, spec.mu) == (bits, mu)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("bits", value) for value in (1, 9, 0, -3, 3.0, "3", True, None)],
        *[("mu", value) for value in (-1e-9, 1e-301, 65536.1, float("nan"), float("inf"))],
        *[("mu", value) for value in ("255", "Auto", None, True)],
        *[("domain", value) for value in ("Decoded", "", None, ["decoded"])],
        *[("levels", value) for value in ("midrise", 8, None)],
        *[("grid", value) for value in ("float", "int32", 127)],
        *[("step_bits", value) for value in (16, 0, 8.0, "8", None)],
        *[
            ("granularity", value)
            for value in ("group", "group:", "group:0", "group:-1", "group:1.5", "group: 4", "channel:2")
        ],
        *[
            ("granularity", value)
            for value in ("Tensor", "", f"group:{2**31}", "group:" + "9" * 99, 64, None)
        ],
    ],
    ids=lambda value: f"{value!r:.20}",
)
def test_values_out_of_range_are_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(InputError, match=field) as caught:
        MuLawSpec(**{field: value})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("levels", ["mid-rise", "mid-tread"])
@pytest.mark.parametrize("bits", range(2, 9))
def test_the_int4_grid_holds_at_most_four_bits(bits: int, levels: Any) -> None:
    narrow = MuLawSpec(2, 1.0, levels=levels, grid="int4")
    wider = narrow.with_bits(bits)
    if bits <= 4:
        assert wider == MuLawSpec(bits, 1.0, levels=levels, grid="int4")
        return
    message = f'grid is "int4" and bits is {bits}; expected at most 4 bits'
    with pytest.raises(InputError, match=message) as caught:
        MuLawSpec(bits, 1.0, levels=levels, grid="int4")
    assert "\n" not in str(caught.value)
    assert wider == MuLawSpec(bits, 1.0, levels=levels)


@pytest.mark.parametrize("bits", [1, 9, 3.0, "3"])
def test_another_width_is_checked(bits: Any) -> None:
    for grid in ("int4", "int8"):
        with pytest.raises(InputError, match="bits is"):
            MuLawSpec(grid=grid).with_bits(bits)


def test_the_mapped_domain_needs_a_number_for_mu() -> None:
    with pytest.raises(InputError, match="mapped"):
        MuLawSpec(domain="mapped")
    assert MuLawSpec(domain="mapped", mu=255).expansion_mu == 0.0


def test_a_mu_left_open_cannot_make_levels() -> None:
    with pytest.raises(InputError, match="observer"):
        grid_levels(MuLawSpec())


@pytest.mark.parametrize(
    "spec",
    [
        MuLawSpec(),
        SOURCE_SPEC,
        MuLawSpec(5, 0.1 + 0.2, "mapped", "group:7", "mid-tread", "int16"),
        MuLawSpec(grid="int4"),
    ],
    ids=str,
)
def test_a_spec_survives_json(spec: MuLawSpec) -> None:
    assert MuLawSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_steps_of_files_of_old_are_float32() -> None:
    document = MuLawSpec().to_dict()
    del document["step_bits"]
    assert MuLawSpec.from_dict(document) == MuLawSpec(step_bits=32)


@pytest.mark.parametrize("change", [{"extra": 1}, {"bits": None}], ids=str)
def test_a_document_with_other_fields_is_refused(change: dict[str, Any]) -> None:
    document = MuLawSpec().to_dict()
    if "bits" in change:
        del document["bits"]
    else:
        document.update(change)
    with pytest.raises(InputError, match="fields"):
        MuLawSpec.from_dict(document)


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("tensor", (1, 1)),
        ("channel", (5, 1)),
        ("group:1", (5, 12)),
        ("group:5", (5, 3)),
        ("group:6", (5, 2)),
        ("group:12", (5, 1)),
        ("group:1000", (5, 1)),
    ],
)
def test_the_shape_of_the_steps(text: str, shape: tuple[int, int]) -> None:
    assert Granularity.parse(text).step_shape(5, 12) == shape


@pytest.mark.parametrize("bits", range(2, 9))
def test_how_many_levels_there_are(bits: int) -> None:
    rise, tread = (MuLawSpec(bits, mu=0.0, levels=levels) for levels in ("mid-rise", "mid-tread"))
    assert (rise.codes, rise.positive_steps) == (2**bits, 2**bits - 1)
    assert (tread.codes, tread.positive_steps) == (2**bits - 1, 2 ** (bits - 1) - 1)
    assert len(set(grid_levels(rise).tolist())) == 2**bits  # "auto" takes a grid fine enough for each of them
    assert len(set(grid_levels(tread).tolist())) == 2**bits - 1
    assert rise.grid_name == rise.level_grid.storage == ("int8" if bits <= 6 else "int16")


@pytest.mark.parametrize("levels", ["mid-rise", "mid-tread"])
@pytest.mark.parametrize(
    ("bits", "grid"),
    [(bits, grid) for grid in ("auto", "int4") for bits in range(2, 9 if grid == "auto" else 5)],
)
def test_uniform_levels_are_equally_spaced(bits: int, grid: Any, levels: Any) -> None:
    spec = MuLawSpec(bits, mu=0.0, levels=levels, grid=grid)
    gaps = np.diff(grid_levels(spec)[: spec.codes].numpy().astype(int))
    assert gaps.min() == gaps.max() > 0


def test_the_quantizer_of_the_source_is_42_i_in_units_of_scale_over_126() -> None:
    assert grid_levels(SOURCE_SPEC).tolist() == [-126, -84, -42, 0, 42, 84, 126, 0]
    weight = torch.tensor([[-0.9, -0.29, -0.14, 0.0, 0.16, 0.5, 0.74]])
    quantized = nearest(weight, torch.tensor([[0.9]]), SOURCE_SPEC, ROWS)
    step = np.float32(np.float64(np.float32(0.9)) / 126)
    assert quantized.step.item() == step
    expected = np.array([-126, -42, 0, 0, 42, 84, 84], np.float32) * step
    np.testing.assert_array_equal(quantized.dequantize().numpy()[0], expected)


def test_four_bits_are_a_change_of_one_field() -> None:
    spec = replace(MuLawSpec(mu=2.0), bits=4)
    weight = torch.linspace(-1, 1, 33).reshape(3, 11)
    quantized = nearest(weight, torch.ones(3, 1), spec, ROWS)
    assert quantized.codes.max() == 15
    assert quantized.packed().size == 5 * 4  # 33 codes are five runs of 8, four bytes each
    largest_gap = np.diff(grid_levels(spec).numpy()).max() / 127
    assert (quantized.dequantize() - weight).abs().max() <= largest_gap / 2 + 1e-6
