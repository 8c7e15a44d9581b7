import pytest
import torch
from torch import Tensor, nn

from muquant.data import Dataset
from muquant.models import build_model
from muquant.models.evaluation import evaluate, logits


@pytest.fixture
def dataset() -> Dataset:
    """20 images of 8x8 pixels in three classes, told apart by brightness."""
    labels = torch.arange(20) % 3
    noise = torch.randint(80, (20, 1, 8, 8), generator=torch.Generator().manual_seed(20))
    images = (labels[:, None, None, None] * 85 + noise).to(torch.uint8)
    return Dataset("tiny", "test", images, labels, ("dark", "grey", "bright"))


class Brightness(nn.Module):
    """Classifies an image by its mean: right on the tiny data where the step between classes is 1/3."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(dim=(1, 2, 3))[:, None]
        return -(mean - torch.tensor([0.15, 0.49, 0.82])).abs()


def test_accuracy_counts_right_answers(dataset: Dataset) -> None:
    assert evaluate(Brightness(), dataset) == 1.0
    wrong = dataset.labels.clone()
    wrong[:5] = (wrong[:5] + 1) % 3
    spoiled = type(dataset)(dataset.name, dataset.split, dataset.images, wrong, dataset.classes)
    assert evaluate(Brightness(), spoiled) == 15 / 20


@pytest.mark.parametrize("batch_size", [1, 7, 20, 500])
def test_logits_do_not_depend_on_the_batches_and_the_mode_comes_back(
    batch_size: int, dataset: Dataset
) -> None:
    torch.manual_seed(0)
    model = build_model("wrn-10-1", (1, 8, 8), 3)
    model.get_submodule("group1").eval()
    modes = [module.training for module in model.modules()]
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    result = logits(model, dataset, batch_size=batch_size)
    assert [module.training for module in model.modules()] == modes
    assert not result.requires_grad
    torch.testing.assert_close(dict(model.named_buffers()), buffers, rtol=0, atol=0)
    with torch.no_grad():
        torch.testing.assert_close(result, model.eval()(dataset.inputs()))
