"""Parameters of modules of any class that are multiplied are found, with the axes that are summed over."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import muquant as mq
from muquant.base.errors import InputError
from muquant.compression.calibration.uses import find_uses
from muquant.compression.quantizer import NO_HELP
from muquant.format.channels import Channels


class Raw(nn.Module):
    """Does anything with one parameter of its own."""

    def __init__(self, shape: tuple[int, ...], use: Callable[..., Tensor]) -> None:
        super().__init__()
        self.own = nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(0)))
        self.use = use

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.use(self.own, *inputs)


X, IDS = torch.rand(2, 5, 8), torch.arange(6).reshape(2, 3)
CASES: dict[str, tuple[tuple[int, ...], Callable[..., Tensor], Tensor, Channels]] = {
    "matmul": ((8, 4), lambda w, x: x @ w, X, Channels((1,))),
    "transposed": ((4, 8), lambda w, x: x @ w.T, X, Channels((0,))),
    "linear": ((4, 8), lambda w, x: functional.linear(x, w), X, Channels((0,))),
    "on the left": ((4, 5), lambda w, x: w @ x, X, Channels((0,))),
    "a vector": ((4, 8), lambda w, x: w @ x[0, 0], X, Channels((0,))),
    "a slice": ((3, 8, 4), lambda w, x: x @ w[1], X, Channels((0, 2))),
    "a chunk": ((8, 4), lambda w, x: x @ w.chunk(2, 1)[1], X, Channels((1,))),
    "scaled": ((4, 8), lambda w, x: functional.linear(x, w * 0.3), X, Channels((0,))),
    "masked": ((4, 8), lambda w, x: functional.linear(x, w * torch.ones(4, 8)), X, Channels((0,))),
    "experts by einsum": ((3, 8, 4), lambda w, x: torch.einsum("bni,eio->bneo", x, w), X, Channels((0, 2))),
    "outputs first": ((3, 4, 8), lambda w, x: torch.einsum("bni,eoi->beno", x, w), X, Channels((0, 1))),
    "heads summed": (
        (2, 4, 6), lambda w, x: torch.einsum("nhd,hdo->no", x.reshape(10, 2, 4), w), X, Channels((2,))
    ),
    "experts by bmm": ((2, 8, 4), lambda w, x: torch.bmm(x, w), X, Channels((0, 2))),
    "experts by baddbmm": ((2, 8, 4), lambda w, x: torch.baddbmm(torch.ones(1), x, w), X, Channels((0, 2))),
    "gathered experts": (
        (3, 8, 4), lambda w, x: torch.bmm(x, w[torch.tensor([2, 0])]), X, Channels((0, 2))
    ),
    "tensordot": ((5, 8, 4), lambda w, x: torch.tensordot(x, w, 2), X, Channels((2,))),
    "one more axis": ((1, 8, 4), lambda w, x: x @ w, X, Channels((0, 2))),
    "convolution": ((6, 5, 3), lambda w, x: functional.conv1d(x, w), X, Channels((0,))),
    "modulated": (
        (6, 5, 3),
        lambda w, x: functional.conv1d(
            x.reshape(1, 10, 8), (w[None] * x[:, None, :, :1]).reshape(12, 5, 3), groups=2
        ),
        X,
        Channels((0,)),
    ),
    "transposed convolution": (
        (4, 3, 2),
        lambda w, x: functional.conv_transpose1d(x.mT[:, :4], w, groups=2),
        X,
        Channels((1,), 2),
    ),
    "lookup": ((9, 4), lambda w, ids: functional.embedding(ids, w), IDS, Channels((0,))),
    "bag": ((9, 4), lambda w, ids: functional.embedding_bag(ids, w), IDS, Channels((0,))),
    "bilinear": ((3, 8, 8), lambda w, x: functional.bilinear(x, x, w), X, Channels((0,))),
    "tied": ((9, 4), lambda w, ids: functional.embedding(ids, w) @ w.T, IDS, Channels((0,))),
}  # fmt: skip


@pytest.mark.parametrize(("shape", "use", "x", "channels"), CASES.values(), ids=CASES.keys())
def test_what_is_multiplied_is_found(
    shape: tuple[int, ...], use: Callable[..., Tensor], x: Tensor, channels: Channels
) -> None:
    model = Raw(shape, use).eval()
    assert find_uses(model, x) == {"own": channels}
    compressed = mq.compress(model, mq.MuLawSpec(8), observer="absmax", example=x)
    assert compressed.tensors["own"].channels == channels
    wanted = model(x).detach()
    assert (compressed.module(x) - wanted).norm() < 0.02 * wanted.norm()
    assert compressed.left_alone == ()


LEFT: dict[str, tuple[tuple[int, ...], Callable[..., Tensor]]] = {
    "added": ((5, 8), lambda w, x: x + w),
    "a gate": ((1, 8), lambda w, x: x * w),
    "unused": ((5, 8), lambda w, x: x.relu()),
    "a table of biases": ((9, 2), lambda w, x: x + w[torch.arange(5)].sum()),
    "normed first": ((8, 8), lambda w, x: x @ torch.softmax(w, 0)),
}


@pytest.mark.parametrize(("shape", "use"), LEFT.values(), ids=LEFT.keys())
def test_what_is_not_multiplied_is_left(shape: tuple[int, ...], use: Callable[..., Tensor]) -> None:
    model = nn.Sequential(Raw(shape, use), nn.Linear(8, 2, bias=False))
    (left,) = mq.compress(model, example=X).left_alone
    assert (left.name, left.reason) == ("0.own", "no product, convolution or embedding takes it")
    (left,) = mq.compress(model).left_alone
    assert left.reason == "use unknown: give an example or calibration samples, which show it"


def test_data_that_a_known_layer_multiplies_are_no_weight() -> None:
    class Queries(Raw):
        def __init__(self) -> None:
            super().__init__((5, 8), lambda w, x: self.fc(w) + x)
            self.fc = nn.Linear(8, 8)

    assert find_uses(Queries().eval(), X) == {}


def test_samples_are_an_example(tmp_path: Any) -> None:
    model = Raw((8, 8), lambda w, x: x @ w)
    x = torch.randn(32, 8)
    compressed = mq.compress(model, calibration=x)
    assert compressed.report[0].not_calibrated in ("", NO_HELP)  # it was seen
    assert mq.plan_widths(model, max_bytes=60, calibration=x).overrides.keys() == {"=own"}
    compressed.save(tmp_path / "raw.mq")
    loaded = mq.load(tmp_path / "raw.mq", Raw((8, 8), model.use))
    assert torch.equal(loaded.module(x), compressed.module(x))
    assert loaded.left_alone == ()


def test_an_example_that_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match=r"Raw does not run on inputs of shape \[\(3, 3\)\]"):
        mq.compress(Raw((8, 4), lambda w, x: x @ w), example=torch.rand(3, 3))


def test_such_weights_are_trained_and_frozen() -> None:
    model: Any = nn.Sequential(Raw((3, 8, 4), lambda w, x: torch.einsum("bni,eio->bneo", x, w)))
    mq.prepare_qat(model, example=X)
    before = model[0].own.detach().clone()
    assert len(torch.unique(before[0, :, 0])) <= 8
    model(X).square().sum().backward()
    torch.optim.SGD(model.parameters(), 0.1).step()
    assert not torch.equal(model[0].own, before)
    compressed = mq.compress(model)
    assert torch.equal(compressed.module(X), model(X))
    assert mq.left_float(model) == compressed.left_alone == ()
