import pytest
import torch

from muquant.base.errors import InputError
from muquant.models import Architecture, build, build_model

SHAPES = [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 7, 5)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", ["cnn4", "cnn4-small", "cnn4-strided", "wrn-10-1", "wrn-16-2"])
def test_a_model_maps_images_to_logits(name: str, shape: tuple[int, int, int]) -> None:
    model = build_model(name, shape, 7)
    assert model(torch.rand(2, *shape)).shape == (2, 7)
    assert model.architecture == Architecture(name, shape, 7, (0.0,) * shape[0], (1.0,) * shape[0])
    twin = build(model.architecture)
    twin.load_state_dict(model.state_dict())
    x = torch.rand(2, *shape)
    torch.testing.assert_close(twin.eval()(x), model.eval()(x), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["cnn4-small", "wrn-10-1"])
def test_the_model_normalises_its_inputs(name: str) -> None:
    mean, std = (0.2, 0.4, 0.6), (0.5, 0.25, 2.0)
    torch.manual_seed(0)
    plain = build_model(name, (3, 8, 8), 4).eval()
    normalising = build_model(name, (3, 8, 8), 4, mean, std).eval()
    weights = {k: v for k, v in plain.state_dict().items() if not k.startswith("normalize.")}
    normalising.load_state_dict(weights, strict=False)
    x = torch.rand(2, 3, 8, 8)
    by_hand = torch.stack([(x[:, c] - mean[c]) / std[c] for c in range(3)], 1)
    torch.testing.assert_close(normalising(x), plain(by_hand))
    with pytest.raises(AssertionError):
        torch.testing.assert_close(normalising(x), plain(x))


@pytest.mark.parametrize("name", ["cnn4-small", "wrn-10-1"])
def test_a_model_is_traced_for_any_batch_size(name: str) -> None:
    model = build_model(name, (3, 8, 8), 5).eval()
    batch = torch.export.Dim("batch")
    program = torch.export.export(model, (torch.rand(2, 3, 8, 8),), dynamic_shapes=({0: batch},))
    x = torch.rand(11, 3, 8, 8)
    torch.testing.assert_close(program.module()(x), model(x))


def test_a_huge_model_is_refused_before_it_is_allocated() -> None:
    with pytest.raises(InputError, match="found 4294997386"):  # 17 GB of weights
        build(Architecture("cnn4", (1, 1024, 1024), 10, (0.3,), (0.4,)))


@pytest.mark.parametrize("name", ["resnet", "cnn4 ", "wrn-28-10x", "wrn--28-10", "wrn-9999999-1", ""])
def test_an_unknown_name_lists_the_known_ones(name: str) -> None:
    with pytest.raises(InputError, match="cnn4, cnn4-small, cnn4-strided, wrn-D-K"):
        build_model(name, (1, 8, 8), 10)
