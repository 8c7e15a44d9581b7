"""Samples in every form that people have them in: all give what the same samples give in one array."""

from collections import UserDict
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import muquant
from muquant import InputError
from muquant.compression.calibration import Samples, read_samples
from muquant.compression.calibration.taken import in_float32, taken_by
from muquant.compression.options import CompressionOptions
from muquant.models.arguments import Arguments

X = torch.rand(64, 6, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(64) % 4


class Two(nn.Module):
    """Takes two inputs; a third would be an option."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 4)

    def forward(self, x: Tensor, mask: Tensor, scale: Tensor | None = None) -> Tensor:
        found: Tensor = self.layer(x * mask) * (1 if scale is None else scale)
        return found


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(6, 4)


def taken(calibration: Any, model: nn.Module | None = None, most: int = 512) -> Samples:
    return in_float32(taken_by(read_samples(calibration, most), Arguments.of(model or linear())))


def rows(samples: Samples) -> Tensor:
    """All samples of a model with one input."""
    assert all(len(part.tensors) == 1 for part in samples.parts)
    return torch.cat([part.tensors[0] for part in samples.parts])


class Indexed(Dataset[tuple[Tensor, int]]):
    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        return X[place], int(LABELS[place])


class Streamed(IterableDataset[Tensor]):
    def __iter__(self) -> Iterator[Tensor]:
        return iter(X.split(16))  # type: ignore[no-untyped-call]


def reused() -> Iterator[Tensor]:
    """Yields one and the same memory, again and again."""
    memory = torch.empty(8, 6)
    for place in range(0, 64, 8):
        yield memory.copy_(X[place : place + 8])


PARTS: list[Tensor] = list(X.split(16))  # type: ignore[no-untyped-call]
FORMS: dict[str, Callable[[], Any]] = {
    "tensor": lambda: X,
    "array": lambda: X.numpy(),
    "tuple": lambda: (X,),
    "dict": lambda: {"input": X},
    "mapping of arrays": lambda: UserDict({"input": X.numpy()}),
    "with labels": lambda: (X, LABELS),
    "loader": lambda: DataLoader(TensorDataset(X), batch_size=16),
    "loader with labels": lambda: DataLoader(TensorDataset(X, LABELS), batch_size=24),
    "loader of a data set": lambda: DataLoader(Indexed(), batch_size=7),
    "data set": Indexed,
    "stream": Streamed,
    "loader of a stream": lambda: DataLoader(Streamed(), batch_size=None),
    "list of tensors": lambda: list(PARTS),
    "list of arrays": lambda: [part.numpy() for part in PARTS],
    "list of tuples": lambda: [(part,) for part in PARTS],
    "list of dicts": lambda: [{"input": part} for part in PARTS],
    "list of mappings": lambda: [UserDict({"input": part.numpy()}) for part in PARTS],
    "list with labels": lambda: [(part, ["a"] * len(part)) for part in PARTS],
    "inputs and labels": lambda: [({"input": part}, LABELS[: len(part)]) for part in PARTS],
    "nested inputs and labels": lambda: [((part,), LABELS[: len(part)]) for part in PARTS],
    "generator": lambda: (part for part in PARTS),
    "of different sizes": lambda: iter([X[:5], X[5:6], X[6:40], X[40:]]),
    "two batches": lambda: [X[:40], X[40:]],
    "reused memory": reused,
    "double": lambda: X.double().numpy(),
    "with gradients": lambda: X.clone().requires_grad_(),
}


@pytest.mark.parametrize("form", FORMS)
def test_all_forms_are_the_same_samples(form: str) -> None:
    torch.testing.assert_close(rows(taken(FORMS[form]())), X)
    fit, held_out = taken(FORMS[form]()).split()
    assert (fit.count + held_out.count, 0 < held_out.count < fit.count) == (64, True)
    both = torch.cat((rows(fit), rows(held_out)))
    torch.testing.assert_close(both[both[:, 0].argsort()], X[X[:, 0].argsort()])
    compressed = muquant.compress(linear(), calibration=FORMS[form]())
    (report,), answers = compressed.report, compressed.answers
    assert report.output_sqnr is not None
    assert answers is not None
    assert (answers.inputs, answers.count) == ("held-out samples", held_out.count)
    assert answers.sqnr is not None
    assert answers.sqnr > 15


def test_samples_that_are_batched_are_fitted_to_as_they_would_be_in_one_array() -> None:
    """Held out of batches is the second of every four."""
    order = [place for place in range(64) if place // 16 != 1]
    apart = [place for place in range(64) if place // 16 == 1]
    places = iter(order), iter(apart)
    like = torch.stack([X[next(places[each % 4 == 3])] for each in range(64)])
    one = muquant.compress(linear(), calibration=PARTS)
    other = muquant.compress(linear(), calibration=like)
    assert torch.equal(one.tensors["weight"].codes, other.tensors["weight"].codes)
    assert one.report[0].output_sqnr == pytest.approx(other.report[0].output_sqnr)


def test_options_read_a_generator_once() -> None:
    options = CompressionOptions(calibration=(part for part in PARTS))
    again = replace(options, overrides={"": 4})
    assert options.samples is not None
    assert again.samples is not None
    assert [part.count for part in (*options.samples, *again.samples)] == [48, 16, 48, 16]
    plan = muquant.plan_widths(linear(), max_drop=50, calibration=(part for part in PARTS))
    assert plan.drop is not None
    assert plan.drop.answers == 16


def test_so_many_are_read_of_what_is_not_in_memory() -> None:
    def forever() -> Iterator[Tensor]:
        while True:
            yield X[:10]

    assert read_samples(forever()).count == 520
    assert read_samples(forever(), 25).count == 30
    assert read_samples([X] * 20, 25).count == 1280
    few = rows(taken(Indexed(), most=16))
    assert torch.equal(few, X[::4])


def test_batches_of_different_lengths_are_run_as_they_are() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(30, 6), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 4))
    lengths = [3, 9, 4, 7, 5, 8, 6, 2]
    tokens = [torch.randint(30, (4, length)) for length in lengths]
    report = {each.name: each for each in muquant.compress(model, calibration=tokens).report}
    assert report["1.weight"].output_sqnr is not None
    seen: list[tuple[int, ...]] = []
    model.register_forward_pre_hook(lambda _, given: seen.append(tuple(given[0].shape)))
    muquant.plan_widths(model, max_drop=50, calibration=tokens)
    assert {shape[1] for shape in seen} == set(lengths)


def test_inputs_that_are_no_samples() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 4)

        def forward(self, x: Tensor, state: Tensor, rate: Tensor) -> Tensor:
            assert (state.shape[0], state.shape[1], int(rate)) == (2, len(x), 16000)
            found: Tensor = self.layer(torch.cat((x, state[0]), 1))
            return found

    state = torch.rand(2, 64, 2)
    whole = {"x": X, "state": state, "rate": 16000}
    listed = [{"x": X[i : i + 1], "state": state[:, i : i + 1], "rate": np.int64(16000)} for i in range(64)]
    for calibration in (whole, (X, state, torch.tensor(16000)), listed):
        (report,) = muquant.compress(Recurrent(), calibration=calibration).report
        assert report.output_sqnr is not None
    fit, held_out = read_samples(whole).split()
    assert torch.equal(held_out.parts[0].tensors[1], state[:, 3::4])
    assert fit.parts[0].tensors[1].shape == (2, 48, 2)


def test_a_list_is_inputs_in_order_where_a_batch_needs_several() -> None:
    mask = torch.ones(64, 6)
    for calibration in ([X, mask], (X, mask), {"x": X, "mask": mask}):
        (part,) = taken(calibration, Two()).parts
        assert [tensor.shape for tensor in part.tensors] == [(64, 6), (64, 6)]
    assert len(taken([(part, part) for part in PARTS], Two()).parts) == 4


class Optional(nn.Module):
    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return x if mask is None else x + mask


class Variadic(nn.Module):
    def forward(self, *given: Tensor) -> Tensor:
        return given[0]


@pytest.mark.parametrize(
    ("calibration", "model", "message"),
    [
        ([X, X], Optional(), "a list of 2 tensors may be so many batches, or inputs in order; give a dict"),
        ([X, X], Variadic(), "a list of 2 tensors may be so many batches"),
        ([(X, LABELS)] * 4, Optional(), "of which labels may be the last, or mask; give batches as dicts"),
        ([(X, X, LABELS)] * 4, Two(), "a batch has 3 tensors, .* or scale; give batches as dicts"),
        ((X, X[:9]), Two(), "give as many examples in each"),
        ([], linear(), "at least 4 samples, found none"),
        (iter([]), linear(), "at least 4 samples, found none"),
        ([X[:3]], linear(), "at least 4 samples, found 3"),
        (7, linear(), "expected a tensor, .* found int of int"),
        (None, linear(), "found NoneType"),
        (["text"], linear(), "batch 0: .* found str of str"),
        ([X, {"input": X}], linear(), "batch 1: expected inputs in order, as in batch 0, found input; give"),
        ([{"input": [[1, 2]]}], linear(), "batch 0: .* found dict of int, str; convert"),
        (np.array(["a"] * 9), linear(), "found ndarray of ndarray"),
        (X.double() * 1e300, linear(), "input 0: expected numbers that float32 holds, found up to 1e.300"),
    ],
)
def test_what_cannot_be_told_or_used(calibration: Any, model: nn.Module, message: str) -> None:
    with pytest.raises(InputError, match=f"^calibration: .*{message}"):
        taken(calibration, model).split()


def test_an_error_of_the_user_s_code_is_named() -> None:
    def broken() -> Iterator[Tensor]:
        yield X
        raise OSError("disk full")

    with pytest.raises(InputError, match=r"^calibration: batch 1 raised OSError: disk full; mend it"):
        read_samples(broken())


@pytest.mark.parametrize(
    ("spoilt", "place"),
    [
        ({2: [5]}, "batch 2, sample 5; 1 of 16 are so;"),
        ({1: [0, 3], 3: [2]}, "batch 1, sample 0; 2 of 16 are so;"),
    ],
)
def test_a_batch_that_is_not_finite_is_named(spoilt: dict[int, list[int]], place: str) -> None:
    parts = [part.clone() for part in PARTS]
    for batch, samples in spoilt.items():
        parts[batch][samples, 2] = torch.nan
    with pytest.raises(
        InputError, match=f"^calibration: input 0: expected finite numbers, .* in {place} mend"
    ):
        read_samples(parts).split()


def test_a_number_that_is_not_finite_is_named() -> None:
    with pytest.raises(InputError, match=r"input share: .* in 1 of 1 numbers; mend"):
        read_samples({"x": X, "share": float("nan")}).split()


def test_batch_norm_follows_batches_of_one() -> None:
    torch.manual_seed(0)
    model: nn.Sequential = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    single = [X[i : i + 1] for i in range(64)]
    found = muquant.compress(model, calibration=single).batch_norm
    assert found is not None
    lengths = [torch.rand(1, 1 + place, 6) for place in range(16)]
    pooled = nn.Sequential(Mean(), model)
    assert muquant.compress(pooled, calibration=lengths).batch_norm is None  # one value has no variance
    assert all(module.training for module in model)


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_samples_are_read_and_run_without_gradients(context: Callable[[], Any]) -> None:
    with context():
        samples = [part * 1 for part in PARTS]
        (report,) = muquant.compress(linear(), calibration=samples).report
    assert report.output_sqnr is not None
    (report,) = muquant.compress(linear(), calibration=samples).report
    assert report.output_sqnr is not None
