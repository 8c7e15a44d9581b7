"""Quantization-aware training: when it begins, what it costs, what it leaves, and where it may begin from."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import muquant
from muquant import MuLawFakeQuantize, prepare_qat
from muquant.base.errors import InputError
from muquant.data import load_dataset
from muquant.models import build_model
from muquant.models.evaluation import logits
from muquant.training import (
    AdversarialOptions,
    Batch,
    QatOptions,
    TrainingConfig,
    TrainingProgress,
    load_run,
    read_run,
    train,
)
from muquant.training.methods.adversarial import Adversarial
from muquant.training.run.quantized import (
    decoded_once,
    expansion,
    penalty,
    prepare,
    quantized_weights,
    relative_error,
)
from muquant.training.run.step import Stepper

pytestmark = pytest.mark.slow
Tiny = Callable[..., TrainingConfig]
ATTACK = AdversarialOptions(epsilon=0.1, attack_steps=3, epsilon_warmup=0.0)


def fakes(model: nn.Module) -> list[MuLawFakeQuantize]:
    return [module for module in model.modules() if isinstance(module, MuLawFakeQuantize)]


@pytest.mark.parametrize("method", ["standard", "adversarial"])
@pytest.mark.parametrize("model", ["cnn4-small", "wrn-10-1"])
def test_compress_freezes_exactly_what_was_trained(
    method: str, model: str, tiny: Tiny, tmp_path: Path
) -> None:
    options = QatOptions(overrides=(("conv1", 5),))
    attack = ATTACK if method == "adversarial" else None
    trained = train(tiny(method=method, adversarial=attack, model=model, qat=options), tmp_path).model
    loaded = load_run(tmp_path)
    frozen = muquant.compress(loaded).module
    images = load_dataset("tiny", "test")
    expected = logits(trained, images)
    assert torch.equal(logits(loaded, images), expected)
    assert torch.equal(logits(frozen, images), expected)
    bits = {weight.original.shape: weight.fake.spec.bits for weight in quantized_weights(loaded)}
    assert set(bits.values()) == {3, 5}
    for weight in quantized_weights(loaded):
        for channel in weight.decoded.flatten(1):
            assert len(channel.unique()) <= 2**weight.fake.spec.bits


def test_scale_and_mu_are_learned_at_their_own_rate(tiny: Tiny, tmp_path: Path) -> None:
    start = train(tiny(epochs=1), tmp_path / "float")
    found = {}
    for rate in (0.0, 1.0):
        config = tiny(epochs=1, qat=QatOptions(rate=rate))
        model = train(config, tmp_path / str(rate), init=tmp_path / "float").model
        found[rate] = [(fake.scale.detach(), float(fake.mu.detach())) for fake in fakes(model)]
    searched = [(fake.scale.detach(), float(fake.mu.detach())) for fake in fakes(prepare_qat(start.model))]
    for (scale, mu), (still, same), (moved, other) in zip(searched, found[0.0], found[1.0], strict=True):
        assert torch.equal(scale, still)
        assert mu == same
        assert not torch.equal(scale, moved)
        assert mu != other


def test_quantization_begins_at_its_step_with_the_weights_of_then(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    observed: list[tuple[Tensor, Tensor]] = []
    observe = MuLawFakeQuantize.observe

    def spy(fake: MuLawFakeQuantize, weight: Tensor) -> None:
        observe(fake, weight)
        observed.append((weight.detach().clone(), fake.scale.detach().clone()))

    monkeypatch.setattr(MuLawFakeQuantize, "observe", spy)
    states: list[list[bool]] = []
    stepper: list[Stepper] = []
    run = Stepper.run

    def watch(self: Stepper, step: int) -> object:
        stepper[:] = [self]
        outcome = run(self, step)
        states.append([bool(fake.fake_quant_enabled[0]) for fake in fakes(self.model)])
        return outcome

    monkeypatch.setattr(Stepper, "run", watch)
    train(tiny(qat=QatOptions(start=0.4)), tmp_path)
    assert states == [[False] * 4] * 7 + [[True] * 4] * 11  # 0.4 of 18 steps
    first, again = observed[:4], observed[4:]
    assert len(again) == 4
    for (before, scale), (after, other) in zip(first, again, strict=True):
        assert not torch.equal(before, after)
        assert not torch.equal(scale, other)


def test_the_float_part_of_a_run_is_a_float_run(tiny: Tiny, tmp_path: Path) -> None:
    seen: dict[str, list[float]] = {"float": [], "qat": []}
    for name, options in (("float", None), ("qat", QatOptions(start=0.4))):
        train(tiny(qat=options), tmp_path / name, on_progress=lambda p, name=name: seen[name].append(p.loss))  # type: ignore[misc]
    assert seen["float"][:6] == seen["qat"][:6]
    assert seen["float"][8] != seen["qat"][8]


def test_best_is_taken_from_quantized_epochs_alone(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny(epochs=4, keep="best", qat=QatOptions(start=0.6))  # the third epoch begins in float
    result = train(config, tmp_path)
    assert result.kept_epoch >= 3
    assert all(fake.fake_quant_enabled[0] for fake in fakes(result.model))


@pytest.mark.parametrize("trades", [0.0, 1.0])
def test_a_batch_decodes_each_weight_once_and_has_the_same_gradients(
    trades: float, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(method="adversarial", adversarial=replace(ATTACK, trades=trades))
    counted = 0
    forward = MuLawFakeQuantize.forward

    def count(fake: MuLawFakeQuantize, weight: Tensor) -> Tensor:
        nonlocal counted
        counted += 1
        return forward(fake, weight)

    monkeypatch.setattr(MuLawFakeQuantize, "forward", count)
    dataset = load_dataset("tiny", "train")
    gradients = []
    for once in (True, False):
        torch.manual_seed(0)
        model = prepare(build_model("cnn4-small", (1, 8, 8), 3), QatOptions())
        counted = 0
        batch = Batch(
            model, dataset.inputs(), dataset.labels, dataset.labels, 0.5, torch.Generator().manual_seed(0)
        )
        if once:
            with decoded_once(model):
                loss = Adversarial(config).loss(batch).loss
            assert counted == 4
        else:
            loss = Adversarial(config).loss(batch).loss
            assert counted > 12
        loss.backward()  # type: ignore[no-untyped-call]
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    assert all(gradient is not None for gradient in gradients[0].values())
    torch.testing.assert_close(gradients[0], gradients[1])


def test_penalties_are_their_formulas() -> None:
    model = prepare_qat(nn.Sequential(nn.Linear(5, 3), nn.Conv2d(2, 7, 3)))
    expected_expansion, expected_error = 0.0, 0.0
    for weight in quantized_weights(model):
        decoded = weight.decoded.detach().flatten(1).double().numpy()
        original = weight.original.detach().flatten(1).double().numpy()
        singular = np.linalg.svd(decoded, compute_uv=False)
        expected_expansion += float(((singular**2 - 1) ** 2).sum())
        expected_error += float(((original - decoded) ** 2).sum() / (original**2).sum())
    found = penalty(model, QatOptions(lipschitz=2.0))
    assert found.item() == pytest.approx(2 * expected_expansion, rel=1e-5)
    assert penalty(model, QatOptions(error=3.0)).item() == pytest.approx(3 * expected_error, rel=1e-5)
    assert penalty(model, QatOptions()).item() == 0


def test_penalties_draw_weights_where_they_should(tiny: Tiny, tmp_path: Path) -> None:
    train(tiny(epochs=2), tmp_path / "float")
    models = {
        name: train(tiny(qat=options), tmp_path / name, init=tmp_path / "float").model
        for name, options in (
            ("none", QatOptions()),
            ("lipschitz", QatOptions(lipschitz=0.1)),
            ("error", QatOptions(error=10.0)),
        )
    }
    with torch.no_grad():
        amplification = {
            name: sum(float(expansion(w.decoded.flatten(1))) for w in quantized_weights(model))
            for name, model in models.items()
        }
        error = {
            name: sum(float(relative_error(w.original, w.decoded)) for w in quantized_weights(model))
            for name, model in models.items()
        }
    assert amplification["lipschitz"] < 0.9 * amplification["none"]
    assert error["error"] < 0.9 * error["none"]


def test_a_run_begins_with_the_weights_of_another(tiny: Tiny, tmp_path: Path) -> None:
    source = train(tiny(epochs=2), tmp_path / "source")
    weights: list[Tensor] = []
    original = Stepper.run

    def spy(self: Stepper, step: int) -> object:
        if not step:
            weights.append(self.model.get_parameter("fc1.weight").detach().clone())
        return original(self, step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stepper, "run", spy)
        train(tiny(epochs=1), tmp_path / "next", init=tmp_path / "source")
    assert torch.equal(weights[0], source.model.get_parameter("fc1.weight"))
    digest = read_run(tmp_path / "next").init
    assert digest is not None
    assert len(digest) == 64
    assert read_run(tmp_path / "source").init is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model": "wrn-10-1"},
            r"--init .*source: expected .* name is wrn-10-1, found cnn4",
        ),
        ({"seed": 5}, "expected the seed 0 of that run, found 5"),
        ({"validation": 0.2}, r"expected the validation 0\.1 of that run, found 0\.2"),
    ],
)
def test_a_source_that_does_not_fit_is_refused(
    changes: dict[str, object], message: str, tiny: Tiny, tmp_path: Path
) -> None:
    train(tiny(epochs=1), tmp_path / "source")
    with pytest.raises(InputError, match=message):
        train(tiny(**changes), tmp_path / "next", init=tmp_path / "source")
    assert not (tmp_path / "next").exists()


def test_a_quantization_aware_source_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    train(tiny(epochs=1, qat=QatOptions()), tmp_path / "source")
    with pytest.raises(InputError, match="expected a run in float"):
        train(tiny(), tmp_path / "next", init=tmp_path / "source")


def test_a_resumed_run_need_not_name_its_source_again_but_may_not_change_it(
    tiny: Tiny, tmp_path: Path
) -> None:
    class Stop(Exception):  # noqa: N818
        pass

    def stop(progress: TrainingProgress) -> None:
        if progress.step == 8:
            raise Stop

    for name in ("one", "other"):
        train(tiny(epochs=1 if name == "one" else 2), tmp_path / name)
    whole = train(tiny(), tmp_path / "whole", init=tmp_path / "one")
    with pytest.raises(Stop):
        train(tiny(), tmp_path / "run", init=tmp_path / "one", on_progress=stop)
    with pytest.raises(InputError, match=r"init of the run in .* changed"):
        train(tiny(), tmp_path / "run", init=tmp_path / "other", resume=True)
    resumed = train(tiny(), tmp_path / "run", resume=True)
    torch.testing.assert_close(resumed.model.state_dict(), whole.model.state_dict(), rtol=0, atol=0)
    (tmp_path / "run" / "model.safetensors").unlink()
    (tmp_path / "run" / "checkpoint.safetensors").unlink()
    with pytest.raises(InputError, match="has not come to its first checkpoint"):
        train(tiny(), tmp_path / "run", resume=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bits": 1}, "bits is 1"),
        ({"bits": 3.0}, "bits: expected int"),
        ({"mu": -1.0}, "mu is -1"),
        ({"granularity": "row"}, "granularity 'row'"),
        ({"levels": "none"}, "levels is 'none'"),
        ({"start": 1.0}, "start: expected at least 0 and below 1"),
        ({"rate": -1.0}, "rate: expected at least 0"),
        ({"lipschitz": -1.0}, "lipschitz: expected at least 0"),
        ({"error": True}, "error: expected float"),
    ],
)
def test_a_bad_option_is_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        QatOptions(**changes)  # type: ignore[arg-type]


def test_layers_that_are_not_there_leave_nothing(tiny: Tiny, tmp_path: Path) -> None:
    for options in (QatOptions(layers="fc9"), QatOptions(overrides=(("fc9", 4),))):
        with pytest.raises(InputError, match=r"fc9.* matches no layer"):
            train(tiny(qat=options), tmp_path / "run")
        assert not (tmp_path / "run").exists()
