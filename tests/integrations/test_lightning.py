"""The callback under Lightning's own trainer: prepared, trained, resumed, frozen and written."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import muquant
import muquant_integrations
from muquant.base.errors import InputError
from muquant_onnx import load_session

pytest.importorskip("lightning", reason="needs lightning: make test-integrations")
pytestmark = pytest.mark.slow


@pytest.fixture
def fit(tmp_path: Path, network: nn.Module, images: Tensor) -> Callable[..., Any]:
    """Train the network, and return Lightning's trainer and module."""
    from lightning.pytorch import LightningModule, Trainer

    class Classifier(LightningModule):  # type: ignore[misc]
        def __init__(self, net: nn.Module) -> None:
            super().__init__()
            self.net = net

        def training_step(self, batch: Any, _: int) -> Tensor:
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def validation_step(self, batch: Any, _: int) -> None:
            layers: list[Any] = [self.net.get_submodule(path) for path in ("1", "3")]
            assert all(len(row.unique()) <= 8 for layer in layers for row in layer.weight)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), lr=1e-2)

    data = DataLoader(TensorDataset(images, torch.arange(16) % 4), batch_size=8)

    def run(callback: Any, epochs: int, net: nn.Module = network, resume: Path | None = None) -> Any:
        trainer = Trainer(
            max_epochs=epochs, accelerator="cpu", devices=1, callbacks=[callback], logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            default_root_dir=tmp_path,
        )  # fmt: skip
        module = Classifier(net)
        trainer.fit(module, data, ckpt_path=resume)
        return trainer, module

    return run


def test_a_fit_trains_scale_and_mu_and_ends_in_a_file(
    fit: Callable[..., Any], images: Tensor, tmp_path: Path
) -> None:
    callback = muquant_integrations.MuLawQAT(3, module="net", path=tmp_path / "small.onnx", example=images)
    trainer, module = fit(callback, 3)
    compressed = callback.compressed
    assert compressed is not None
    assert {tensor.spec.bits for tensor in compressed.tensors.values()} == {3}
    trained = {name for name, _ in module.named_parameters() if "parametrizations" in name}
    optimized = {id(value) for group in trainer.optimizers[0].param_groups for value in group["params"]}
    fakes = {name: value for name, value in module.named_parameters() if "log" in name}
    assert fakes
    assert trained
    assert {id(value) for value in fakes.values()} <= optimized
    with torch.no_grad():
        wanted = module.eval().net(images)
    torch.testing.assert_close(compressed.module(images), wanted)  # what was trained is what is frozen
    session = load_session(tmp_path / "small.onnx", policy="float")
    (name,) = (each.name for each in session.get_inputs())
    (found,) = session.run(None, {name: images.numpy()})
    np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-4, atol=1e-5)


def test_a_run_goes_on_from_its_checkpoint(
    fit: Callable[..., Any], network: nn.Module, tmp_path: Path
) -> None:
    fresh, other = copy.deepcopy(network), copy.deepcopy(network)
    whole = muquant_integrations.MuLawQAT(3)
    _, straight = fit(whole, 4, network)
    trainer, _ = fit(muquant_integrations.MuLawQAT(3), 2, fresh)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    resumed = muquant_integrations.MuLawQAT(3, path=tmp_path / "small.mq")
    _, module = fit(resumed, 4, other, tmp_path / "half.ckpt")
    for name, value in straight.state_dict().items():
        assert torch.equal(value, module.state_dict()[name]), name
    assert whole.compressed is not None
    for name, tensor in muquant.load(
        tmp_path / "small.mq", copy.deepcopy(other_plain(module))
    ).tensors.items():
        assert torch.equal(tensor.codes, whole.compressed.tensors[name].codes)


def test_what_is_validated_is_the_network_in_few_bits(
    fit: Callable[..., Any], network: nn.Module, tmp_path: Path
) -> None:
    fresh, other = copy.deepcopy(network), copy.deepcopy(network)
    trainer, module = fit(muquant_integrations.MuLawQAT(3), 1, fresh)
    trainer.save_checkpoint(tmp_path / "trained.ckpt")
    new = type(module)(other)
    trainer.validate(new, trainer.train_dataloader, ckpt_path=tmp_path / "trained.ckpt", verbose=False)
    for name, value in module.state_dict().items():
        assert torch.equal(value, new.state_dict()[name]), name


def other_plain(module: Any) -> nn.Module:
    """A module of the same structure without fake quantization."""
    return muquant.compress(module, check=False).module


def test_formats_and_layers_are_those_of_prepare_qat(fit: Callable[..., Any]) -> None:
    callback = muquant_integrations.MuLawQAT(
        muquant.MuLawSpec(4), module="net", layers="^1$", overrides={"1": 2}
    )
    fit(callback, 1)
    assert callback.compressed is not None
    assert {name: tensor.spec.bits for name, tensor in callback.compressed.tensors.items()} == {"1.weight": 2}


def test_a_prepared_network_is_left_as_it_is(fit: Callable[..., Any], network: nn.Module) -> None:
    muquant.prepare_qat(network, muquant.MuLawSpec(5))
    callback = muquant_integrations.MuLawQAT(3, module="net")
    fit(callback, 1, network)
    assert callback.compressed is not None
    assert {tensor.spec.bits for tensor in callback.compressed.tensors.values()} == {5}


def test_what_cannot_be_done_is_one_line(fit: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no 'model'; its modules are net$"):
        fit(muquant_integrations.MuLawQAT(3, module="model"), 1)
    with pytest.raises(InputError, match=r"cannot tell what .*txt should be"):
        muquant_integrations.MuLawQAT(3, path=tmp_path / "a.txt")
    with pytest.raises(InputError, match="give example="):
        muquant_integrations.MuLawQAT(3, path=tmp_path / "a.onnx")
    with pytest.raises(InputError, match="cannot write"):
        muquant_integrations.MuLawQAT(3, path=tmp_path / "absent/a.mq")
    with pytest.raises(InputError, match="bits is 9"):
        muquant_integrations.MuLawQAT(9)
