"""An attack sees no difference between a PyTorch model and a session that computes the same."""

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import nn

import muquant as mq
from muquant.attacks import FGSM, CallableTarget, HopSkipJump, Square, TorchTarget
from muquant_onnx import export_onnx, load_session

pytestmark = pytest.mark.slow
Served = tuple[ort.InferenceSession, mq.CompressedModel]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    """A linear classifier, in a session and as a module."""
    torch.manual_seed(0)
    layer = nn.Linear(64, 4, bias=False)
    with torch.no_grad():
        layer.weight -= layer.weight.mean(1, keepdim=True)  # else one class is the answer to everything
    compressed = mq.compress(nn.Sequential(nn.Flatten(), layer))
    path = tmp_path_factory.mktemp("attacks") / "a.onnx"
    export_onnx(compressed, path, torch.rand(2, 1, 8, 8), "float")
    return load_session(path), compressed


@pytest.mark.parametrize("attack", [Square(epsilon=0.2, queries=40), HopSkipJump(iterations=1)], ids=repr)
def test_a_query_attack_on_a_session_equals_that_on_the_model(
    attack: Square | HopSkipJump, served: Served
) -> None:
    session, compressed = served
    images = torch.rand(30, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        labels = compressed.module(images).argmax(1)
    name = session.get_inputs()[0].name
    on_session = attack.attack(CallableTarget(lambda x: session.run(None, {name: x})[0]), images, labels)
    on_module = attack.attack(TorchTarget(compressed.module), images, labels)
    assert on_module.success.any()
    np.testing.assert_array_equal(on_session.success, on_module.success)
    np.testing.assert_allclose(on_session.adversarial, on_module.adversarial, atol=1e-3)


def test_a_gradient_attack_refuses_a_session(served: Served) -> None:
    session, _ = served
    name = session.get_inputs()[0].name
    target = CallableTarget(lambda x: session.run(None, {name: x})[0])
    with pytest.raises(mq.InputError, match="FGSM needs gradients"):
        FGSM(epsilon=0.1).attack(target, torch.rand(2, 1, 8, 8), torch.zeros(2, dtype=torch.int64))
