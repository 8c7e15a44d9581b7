"""What is padding, by an input's name and content, and that layers are not judged by it."""

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor, nn

import muquant
from muquant.compression.calibration import collect_moments, read_samples
from muquant.compression.calibration.padding import filled_positions
from muquant.compression.layers import quantizable_weights
from muquant.quantization.moments import Moments

LENGTHS = torch.tensor([5, 3, 5, 1, 2, 4, 5, 5])
MASK = (torch.arange(5) < LENGTHS[:, None]).long()
IDS = torch.arange(40).reshape(8, 5)


@settings(deadline=None, max_examples=60)
@given(
    lengths=st.lists(st.integers(0, 6), min_size=1, max_size=5),
    left=st.booleans(),
    dtype=st.sampled_from([torch.int64, torch.float32, torch.bool, torch.int32]),
)
def test_padding_is_where_the_mask_is_zero(lengths: list[int], left: bool, dtype: torch.dtype) -> None:
    kept = torch.arange(6) < torch.tensor(lengths)[:, None]
    kept = kept.flip(1) if left else kept
    ids = torch.zeros(*kept.shape, 3)
    (found,) = filled_positions([("x", ids), ("attention_mask", kept.to(dtype))]) or (kept | True,)
    assert torch.equal(found, kept if not kept.all() else kept | True)
    other = filled_positions([("x", ids), ("src_key_padding_mask", (~kept).to(dtype))])
    assert [each.tolist() for each in other] == ([] if kept.all() else [kept.tolist()])


@pytest.mark.parametrize(
    ("name", "mask"),
    [
        ("global_attention_mask", MASK),
        ("special_tokens_mask", MASK),
        ("attention_mask", MASK * 2),
        ("attention_mask", (MASK.float() - 1) * 1e9),
        ("attention_mask", torch.tensor([[1, 0, 1, 0, 1]] * 8)),
        ("attention_mask", MASK[:, :4]),
        ("attention_mask", torch.ones(8, 5)),
        ("masked", MASK),
    ],
)
def test_other_inputs_say_nothing_of_padding(name: str, mask: Tensor) -> None:
    assert filled_positions([("input_ids", IDS), (name, mask)]) == ()
    assert filled_positions([(name, mask)]) == ()


def test_what_one_of_two_masks_leaves_in_is_no_padding() -> None:
    both = [("ids", IDS), ("attention_mask", MASK), ("decoder_attention_mask", MASK.flip(0))]
    (found,) = filled_positions(both)
    assert torch.equal(found, (MASK | MASK.flip(0)).bool())


class Reader(nn.Module):
    """Layers of [N, T, ...], of one vector for each sample, and one whose time comes first."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(40, 6)
        self.within, self.parts, self.pooled, self.turned = (nn.Linear(n, 6) for n in (6, 3, 6, 6))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        x = self.table(input_ids)
        turned = self.turned(x.transpose(0, 1).contiguous())
        parts = self.parts(x.unflatten(2, (2, 3)))
        return self.within(x)[:, 0] + self.pooled(x[:, 0]) + turned[0] + parts[:, 0, 0]  # type: ignore[no-any-return]


def test_padding_is_no_sample_of_layers_that_have_positions() -> None:
    model = Reader().eval()
    samples = read_samples({"input_ids": IDS, "attention_mask": MASK})
    by_order = read_samples((IDS, MASK))
    for each in (samples, by_order):
        found = {
            weight.name: moments
            for weight, moments in collect_moments(model, quantizable_weights(model), each).items()
            if isinstance(moments, Moments)
        }
        x = model.table(IDS).detach()
        rows = x[MASK.bool()]
        assert found["within.weight"].count == int(MASK.sum())
        torch.testing.assert_close(found["within.weight"].second[0], rows.T @ rows / len(rows))
        assert found["pooled.weight"].count == 8
        assert found["turned.weight"].count == 40  # whose rows are not in the mask's order
        assert found["parts.weight"].count == 80  # nor here


def test_what_padding_holds_changes_no_code() -> None:
    model = Reader().eval()
    other = IDS.where(MASK.bool(), 39 - IDS)
    for each in (model.turned, model.parts):
        nn.init.zeros_(each.weight)
    one, two = (
        muquant.compress(
            model,
            layers="within",
            calibration={"input_ids": ids, "attention_mask": MASK},
            check=False,
            flat=True,
        )
        for ids in (IDS, other)
    )
    torch.testing.assert_close(one.tensors["within.weight"].codes, two.tensors["within.weight"].codes)
