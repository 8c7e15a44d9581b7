"""`rounding="tuned"`: what is trained is what the model then computes with, and what files hold."""

from pathlib import Path

import pytest
import torch
from torch import nn

import muquant
from muquant import InputError, MuLawSpec
from muquant.quantization.resume import FinishedWeights


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32), nn.LayerNorm(32), nn.Linear(32, 6)
    ).eval()


def samples(seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(96, 8, generator=generator) @ torch.randn(8, 16, generator=generator)


def test_the_model_is_nearer_and_is_what_its_file_holds(tmp_path: Path) -> None:
    model, x = network(), samples()
    seen: list[tuple[str, int, int]] = []
    rounded, tuned = (
        muquant.compress(
            model,
            MuLawSpec(2),
            flat=True,
            calibration=x,
            rounding=rounding,
            on_layer=lambda *each: seen.append(each),
        )
        for rounding in ("reconstructed", "tuned")
    )
    assert rounded.tuning is None
    assert tuned.tuning is not None
    assert tuned.tuning.after < tuned.tuning.before
    assert tuned.answers is not None
    assert rounded.answers is not None
    assert (tuned.answers.sqnr or 0) > (rounded.answers.sqnr or 0)
    assert [layer.rounding for layer in tuned.report] == ["tuned"] * 3
    assert seen[-1] == ("tuning", tuned.tuning.steps, 300)
    for name, tensor in tuned.tensors.items():
        assert torch.equal(tuned.module.get_parameter(name), tensor.dequantize())
    assert not torch.equal(tuned.module.get_parameter("0.bias"), rounded.module.get_parameter("0.bias"))
    tuned.save(tmp_path / "model.mq")
    again = muquant.load(tmp_path / "model.mq", network())
    assert torch.equal(again.module(x), tuned.module(x))


def test_without_corrections_biases_and_norms_stay() -> None:
    model = network()
    tuned = muquant.compress(
        model,
        MuLawSpec(2),
        calibration=samples(),
        rounding="tuned",
        corrections=False,
        max_seconds=2,
        check=False,
    )
    for name, value in model.named_parameters():
        if name not in tuned.tensors:
            assert torch.equal(tuned.module.get_parameter(name), value)


def test_a_training_is_resumed_from_the_folder_of_finished_weights(tmp_path: Path) -> None:
    class StopError(Exception):
        pass

    finished = FinishedWeights(tmp_path)

    def stop(name: str, place: int, _count: int) -> None:
        if (name, place) == ("tuning", 40):
            raise StopError

    given = {"calibration": samples(), "rounding": "tuned", "check": False, "flat": True}
    whole = muquant.compress(network(), MuLawSpec(2), **given)  # type: ignore[arg-type]
    with pytest.raises(StopError):
        muquant.compress(network(), MuLawSpec(2), finished=finished, on_layer=stop, **given)  # type: ignore[arg-type]
    assert finished.count == 3
    assert len(list(tmp_path.iterdir())) == 4
    seen: list[int] = []
    resumed = muquant.compress(
        network(),
        MuLawSpec(2),
        finished=finished,
        on_layer=lambda name, place, _: seen.append(place) if name == "tuning" else None,
        **given,  # type: ignore[arg-type]
    )
    assert seen[0] == 26
    for name, tensor in whole.tensors.items():
        assert torch.equal(resumed.tensors[name].codes, tensor.codes)
    finished.clear()
    assert not tmp_path.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rounding": "tuned"}, 'rounding "tuned" trains on samples; give a calibration'),
        (
            {"rounding": "tuned", "calibration": samples(), "spec": MuLawSpec(mu=255, domain="mapped")},
            "mapped",
        ),
        ({"max_seconds": 5.0, "calibration": samples()}, "max_seconds is 5 and rounding not given"),
        ({"max_seconds": 0.0, "rounding": "tuned", "calibration": samples()}, "expected a number above 0"),
        ({"rounding": "tunned"}, "tuned"),
    ],
)
def test_what_does_not_go_together(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        muquant.compress(network(), **options)  # type: ignore[arg-type]
