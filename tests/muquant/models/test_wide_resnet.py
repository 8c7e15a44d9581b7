import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from muquant.base.errors import InputError
from muquant.models import build_model
from muquant.models.wide_resnet import Block


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("wrn-40-1", 0.6e6),
        ("wrn-40-2", 2.2e6),
        ("wrn-16-4", 2.75e6),
        ("wrn-28-10", 36.5e6),
        ("wrn-22-8", 17.2e6),
    ],
)
def test_wide_resnets_have_the_published_sizes(name: str, published: float) -> None:
    with torch.device("meta"):  # the paper's tables give two or three digits
        model = build_model(name, (3, 32, 32), 10)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == pytest.approx(published, rel=0.07 if published < 1e6 else 0.02)


def test_a_wide_resnet_has_the_depth_of_its_name() -> None:
    model = build_model("wrn-16-2", (3, 32, 32), 10)
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    shortcuts = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1)]
    assert len(convolutions) == 1 + 6 * 2
    assert len(shortcuts) == 3  # the paper counts these and the last layer: 13 + 3 = 16


@pytest.mark.parametrize(("channels", "stride"), [(4, 1), (8, 1), (8, 2)])
def test_a_block_is_the_papers(channels: int, stride: int) -> None:
    torch.manual_seed(0)
    block = Block(4, channels, stride).eval()
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                assert tensor is not None
                nn.init.uniform_(tensor, 0.5, 1.5)
    w: dict[str, Tensor] = block.state_dict()

    def activate(x: Tensor, bn: str) -> Tensor:
        names = (f"{bn}.{key}" for key in ("running_mean", "running_var", "weight", "bias"))
        mean, var, scale, shift = (w[name][:, None, None] for name in names)
        normalised = (x - mean) / (var + 1e-5).sqrt()
        return (normalised * scale + shift).clamp(min=0)

    x = torch.randn(2, 4, 6, 6)
    o = activate(x, "bn1")  # "pre-activation": where the width changes, the shortcut branches off behind it
    shortcut = x if channels == 4 else functional.conv2d(o, w["shortcut.weight"], stride=stride)
    o = functional.conv2d(o, w["conv1.weight"], stride=stride, padding=1)
    o = functional.conv2d(activate(o, "bn2"), w["conv2.weight"], padding=1)
    torch.testing.assert_close(block(x), o + shortcut)


@pytest.mark.parametrize("name", ["wrn-32-10", "wrn-4-1", "wrn-0-1", "wrn-1006-1"])
def test_a_wrong_depth_states_the_rule(name: str) -> None:
    with pytest.raises(InputError, match=r"6n \+ 4"):
        build_model(name, (3, 32, 32), 10)


@pytest.mark.parametrize("name", ["wrn-28-0", "wrn-28-65"])
def test_a_wrong_width_states_the_range(name: str) -> None:
    with pytest.raises(InputError, match=r"1\.\.64"):
        build_model(name, (3, 32, 32), 10)
