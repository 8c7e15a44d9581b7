"""What is proven stands beside what was attacked, and never above it."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from muquant.base.errors import InputError
from muquant.data import Dataset
from muquant.robustness import BenchmarkSetup, Subject, benchmark as run, settings_for
from muquant.robustness.images import ImageResults
from muquant.robustness.rendering.markdown import to_markdown

Setups = Callable[..., BenchmarkSetup]


@pytest.fixture
def quarter_net() -> nn.Module:
    """Sees which quarter is the brightest on average: what it withstands is known."""
    linear = nn.Linear(4, 4)
    linear.weight.data, linear.bias.data = torch.eye(4) * 10, torch.zeros(4)
    return nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), linear, nn.ReLU()).eval()


def test_certified_is_what_is_known(
    quarter_net: nn.Module, quarters: Dataset, setup: Setups, tmp_path: Path
) -> None:
    epsilon = 0.12
    means = nn.functional.avg_pool2d(quarters.inputs(), 4).flatten(1)
    others = means.scatter(1, quarters.labels[:, None], -1).amax(1)
    expected = means.gather(1, quarters.labels[:, None])[:, 0] - others > 2 * epsilon
    settings = replace(settings_for("digits", epsilon), l2_bound=0.6)

    def logits(images: Any) -> Any:
        with torch.no_grad():
            return quarter_net(torch.from_numpy(images)).numpy()

    subject = Subject("net", quarter_net, logits, file="abc")
    asked = setup(settings=settings, certify="crown-ibp", folder=tmp_path)
    report, _ = run([subject], quarters, asked)
    torch_report, onnx_report = report.models
    assert 0 < int(expected.sum()) < len(expected)
    assert torch_report.certified == pytest.approx(float(expected.double().mean()), abs=2 / 230)
    assert torch_report.worst_case is not None
    assert torch_report.certified is not None
    assert torch_report.certified <= torch_report.worst_case
    assert onnx_report.certified is None
    page = to_markdown(report)
    assert "| certified |" in page
    assert f"{torch_report.certified:.1%}" in page


@pytest.mark.parametrize("missing", [0, 1])
def test_a_proof_of_all_that_is_left_outweighs_what_checks_find(
    missing: int, quarter_net: nn.Module, quarters: Dataset, setup: Setups, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Steep(nn.Module):
        """Logits so large that the cross-entropy has no gradients."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 1e4 * quarter_net(x)  # type: ignore[no-any-return]

    def logits(images: Any) -> Any:
        with torch.no_grad():
            return Steep()(torch.from_numpy(images)).numpy()

    settings = replace(settings_for("digits", 0.12), l2_bound=0.6)
    subject = Subject("net", Steep().eval(), logits, file="abc")
    found: list[ImageResults] = []
    checked, _ = run([subject], quarters, setup(settings=settings), on_images=found.append)
    assert [model.verdict for model in checked.models] == ["not established"] * 2
    left = torch.from_numpy(found[0].withstands)
    assert int(left.sum()) > 10
    left[left.nonzero()[:missing, 0]] = False
    module = sys.modules["muquant.robustness.benchmark"]
    monkeypatch.setattr(module, "check_certifiable", lambda *_: None)
    monkeypatch.setattr(module, "certified", lambda *_: left)
    report, _ = run([subject], quarters, setup(settings=settings, certify="ibp"))
    expected = "not established" if missing else "established"
    assert [model.verdict for model in report.models] == [expected] * 2
    assert ("proven of every image that is left" in to_markdown(report)) == (not missing)


def test_a_proof_that_an_attack_refutes_is_no_figure(
    quarter_net: nn.Module, quarters: Dataset, setup: Setups, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = sys.modules["muquant.robustness.benchmark"]
    monkeypatch.setattr(module, "certified", lambda *_: torch.ones(230, dtype=torch.bool))
    settings = replace(settings_for("digits", 0.4), l2_bound=0.6)
    with pytest.raises(InputError, match=r"net: image .* is certified, and fooled all the same"):
        run([Subject("net", quarter_net)], quarters, setup(settings=settings, certify="ibp"))


def test_what_cannot_be_certified_is_refused_before_it_is_attacked(
    net: nn.Module, quarter_net: nn.Module, quarters: Dataset, setup: Setups
) -> None:
    heard: list[Any] = []
    with pytest.raises(InputError, match="net: the network uses softplus"):
        run([Subject("net", net)], quarters, setup(certify="ibp"), on_progress=heard.append)
    settings = settings_for("digits", 0.5, "l2")
    with pytest.raises(InputError, match="Linf balls, found the norm l2"):
        run([Subject("net", quarter_net)], quarters, setup(settings=settings, certify="ibp"))
    assert not heard
