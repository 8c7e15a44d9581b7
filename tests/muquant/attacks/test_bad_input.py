from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from muquant.attacks import (
    APGDT,
    BIM,
    DDN,
    FABT,
    FGSM,
    MIM,
    PGD,
    CallableTarget,
    CarliniWagner,
    HopSkipJump,
    Norm,
    NormalNoise,
    RandomSearch,
    Square,
    TorchTarget,
    Transfer,
    parse_epsilon,
)
from muquant.base.errors import InputError

Data = tuple[Tensor, Tensor]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FGSM(epsilon=-0.1), r"epsilon: expected a number >= 0 such as 0.3 or .8/255., found -0.1"),
        (lambda: FGSM(epsilon=1.01), "epsilon: expected at most 1, the range of the inputs, found 1.01"),
        (lambda: FGSM(epsilon="300/255"), "epsilon: expected at most 1"),
        (lambda: FGSM(epsilon="8/0"), "epsilon: expected a number"),
        (lambda: FGSM(epsilon="eight"), "epsilon: expected a number"),
        (lambda: FGSM(epsilon=float("nan")), "epsilon: expected a number"),
        (lambda: DDN(epsilon=float("inf")), "epsilon: expected a number"),
        (
            lambda: FGSM(epsilon=0.1, norm=cast("Norm", "l3")),
            "norm 'l3' is unknown; expected one of linf, l2, l1",
        ),
        (lambda: BIM(epsilon=0.1, loss="mse"), "loss 'mse' is unknown; expected one of ce, margin, dlr"),
        (lambda: BIM(epsilon=0.1, steps=0), "BIM.steps: expected at least 1, found 0"),
        (lambda: PGD(epsilon=0.1, restarts=0), "PGD.restarts: expected at least 1, found 0"),
        (lambda: MIM(epsilon=0.1, decay=-1), "MIM.decay: expected at least 0, found -1"),
        (lambda: Square(epsilon=0.1, queries=0), "Square.queries: expected at least 1, found 0"),
        (lambda: CarliniWagner(lr=float("nan")), "CarliniWagner.lr: expected at least 1e-12, found nan"),
        (
            lambda: HopSkipJump(norm="l1"),
            "HopSkipJump.norm: expected l2 or linf, found l1; Square knows l1",
        ),
        (lambda: HopSkipJump(iterations=0), "HopSkipJump.iterations: expected at least 1"),
        (lambda: RandomSearch(epsilon=0.1, samples=0), "RandomSearch.samples: expected at least 1"),
        (lambda: APGDT(epsilon=0.1, targets=0), "APGDT.targets: expected at least 1"),
        (lambda: FABT(epsilon=0.1, overshoot=0.9), "FABT.overshoot: expected at least 1, found 0.9"),
        (lambda: Square(epsilon=0.1, horizon=0), "Square.horizon: expected at least 1, found 0"),
        (lambda: NormalNoise(sigma=-1), "NormalNoise.sigma: expected at least 0"),
        (
            lambda: Transfer(surrogate=CallableTarget(lambda array: array), method=BIM(epsilon=0.1)),
            "the surrogate has no gradients; give a PyTorch model",
        ),
    ],
)
def test_parameter_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_epsilon_of_text() -> None:
    assert parse_epsilon("8/255") == 8 / 255
    assert parse_epsilon("0.031") == parse_epsilon(0.031) == 0.031


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x + 1, y), r"inputs: expected values in \[0, 1\], found 1.2"),
        (lambda x, y: (x - 0.3, y), r"inputs: expected values in \[0, 1\], found -0.0"),
        (lambda x, y: (x * torch.nan, y), r"inputs: expected values in \[0, 1\], found nan"),
        (
            lambda x, y: (x[:0], y[:0]),
            r"inputs: expected \[N, \.\.\.\] with at least one image, found \[0, 1",
        ),
        (lambda x, y: (x, y - 1), "labels: expected class numbers from 0, found -1"),
        (lambda x, y: (x, y + 1), "labels: expected 0 to 3, the model's classes, found 4"),
        (lambda x, y: (x, y[:-1]), r"labels: expected int64 \[60\], found int64 \[59\]"),
        (lambda x, y: (x, y.float()), r"labels: expected int64 \[60\], found float32 \[60\]"),
        (lambda x, y: (x, y[:, None]), r"labels: expected int64 \[60\], found int64 \[60, 1\]"),
        (
            lambda x, y: (x, np.array(["a"] * 60)),
            "labels: expected a tensor or an array of numbers, found nd",
        ),
        (lambda x, y: (x, None), "labels: expected a tensor or an array of numbers, found NoneType"),
        (lambda x, y: ([[1, 2], [3]], y), "inputs: expected a tensor or an array of numbers, found list"),
        (lambda x, y: (torch.tensor(1.0), y), r"inputs: expected \[N, \.\.\.\] .* found \[\]"),
        (lambda x, y: ((255 * x).byte(), y), r"found \d+ to \d+, outside in 60 of 60 .*bounds=\(0, 255\)"),
        (lambda x, y: (torch.cat([x[:59], x[:1] - 1]), y), "outside in 1 of 60 images"),
        (lambda x, y: (x[..., :7], y), r"does not take images of shape \[1, 8, 7\]: mat1 and mat2"),
    ],
)
def test_data_is_refused(
    change: Callable[[Tensor, Tensor], Data], message: str, net: nn.Module, data: Data
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        FGSM(epsilon=0.1).attack(TorchTarget(net), *change(*data))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            lambda x: torch.zeros(len(x)).long(),
            r"expected logits \[60, classes\] with 2 or more classes, found \[60\]",
        ),
        (lambda x: torch.zeros(len(x), 1), "labels: expected 0 to 1, the model's classes, found 3"),
        (lambda x: torch.zeros(()), r"found \[\]; attack a classifier"),
        (lambda x: {}, "the model's output: .*found dict without a tensor"),
        (lambda x: {"logits": "many"}, "the function's output: .*found str"),
        (lambda x: None, "the function's output: expected logits .*found NoneType"),
        (lambda x: x.reshape(7, -1), r"does not take images of shape \[1, 8, 8\]: cannot reshape"),
        (lambda x: torch.zeros(len(x), 4, 2), r"found \[60, 4, 2\]"),
        (lambda x: torch.zeros(1, 4), r"found \[1, 4\]"),
        (
            lambda x: torch.full((len(x), 4), torch.nan),
            "expected finite logits, found NaN or infinity for 60 of 60",
        ),
    ],
)
def test_model_is_refused(function: Callable[..., Tensor], message: str, data: Data) -> None:
    with pytest.raises(InputError, match=message):
        Square(epsilon=0.1).attack(CallableTarget(function), *data)


class Rounded(torch.autograd.Function):
    """An operation without a backward pass."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        return values.round()


class Failing(torch.autograd.Function):
    """An operation whose backward pass fails."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        return values * 2

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        raise ValueError("no way\nback")


class Misshapen(torch.autograd.Function):
    """An operation whose gradient has another shape than its input."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        return values * 2

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        return gradients[0][:, :1]


def without_grad(net: nn.Module, inputs: Tensor) -> Tensor:
    with torch.no_grad():
        output: Tensor = net(inputs)
    return output


def in_place(net: nn.Module, inputs: Tensor) -> Tensor:
    half = net(inputs).sigmoid()
    output: Tensor = half * half
    half.mul_(2)
    return output


def by_inference(net: nn.Module, inputs: Tensor) -> Tensor:
    with torch.inference_mode():
        output: Tensor = net(inputs)
    return output


@pytest.mark.parametrize(
    ("forward", "reason"),
    [
        (lambda net, x: net(x.detach()).detach(), "it does not depend on that by differentiable operations"),
        (lambda net, x: net(x.detach()), "it does not depend on that by differentiable operations"),
        (
            lambda net, x: net((x * 255).long() / 255),
            "it does not depend on that by differentiable operations",
        ),
        (without_grad, "it does not depend on that by differentiable operations"),
        (by_inference, "it does not depend on that by differentiable operations"),
        (
            lambda net, x: net(torch.from_numpy(x.numpy())),
            r"Can.t call numpy\(\) on Tensor that requires grad",
        ),
        (lambda net, x: Rounded.apply(net(x)), "You must implement either the backward or vjp method"),
        (lambda net, x: Failing.apply(net(x)), "no way; mend the model"),
        (lambda net, x: Misshapen.apply(net(x)), "returned an invalid gradient"),
        (
            lambda net, x: (
                net(x).sigmoid().mul_(2).exp_().mul_(net(x).exp_()).log_().relu_().mul_(0) + net(x)
            ),
            "",
        ),
    ],
    ids=[
        "cut",
        "parameters",
        "integers",
        "no grad",
        "inference",
        "numpy",
        "no way",
        "fails",
        "shape",
        "in place",
    ],
)
@pytest.mark.parametrize(
    "attack",
    [
        PGD(epsilon=0.1, steps=1),
        APGDT(epsilon=0.1, steps=1),
        FABT(epsilon=0.1, steps=1),
        DDN(steps=1),
        CarliniWagner(steps=1, searches=1),
    ],
    ids=lambda attack: type(attack).__name__,
)
def test_a_model_without_gradients_is_refused(
    attack: Any, forward: Callable[..., Tensor], reason: str, net: nn.Module, data: Data
) -> None:
    class Other(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, inputs: Tensor) -> Tensor:
            return forward(self.net, inputs)

    with pytest.raises(
        InputError, match=f"the model's output has no gradient by its input: .*{reason}"
    ) as caught:
        attack.attack(TorchTarget(Other()), *data)
    assert "\n" not in str(caught.value)
    assert bool(Square(epsilon=0.1, queries=2).attack(TorchTarget(Other()), *data).attacked.any())


def test_a_surrogate_of_other_data_is_refused(net: nn.Module, data: Data) -> None:
    for surrogate, words in (
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), "has 2 classes, and labels go up to 3"),
        (
            nn.Sequential(nn.Flatten(), nn.Linear(49, 4)),
            r": the model does not take images of shape \[1, 8, 8\]",
        ),
    ):
        attack = Transfer(surrogate=TorchTarget(surrogate), method=BIM(epsilon=0.1))
        with pytest.raises(InputError, match=f"Transfer: the surrogate{words}" if words[0] == ":" else words):
            attack.attack(TorchTarget(net), *data)


def test_l2_radius_beyond_the_cube_is_refused(net: nn.Module, data: Data) -> None:
    with pytest.raises(
        InputError, match=r"expected at most 8, the L2 diameter of inputs of 64 values, found 8.1"
    ):
        DDN(epsilon=8.1).attack(TorchTarget(net), *data)
    with pytest.raises(InputError, match="batch_size: expected at least 1, found 0"):
        DDN().attack(TorchTarget(net), *data, batch_size=0)
