"""Inputs by name and results with fields: what text encoders take and return."""

from collections import namedtuple
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import muquant as mq
from muquant.models.calls import output_tensors
from muquant_onnx import decode_file, export_onnx, load_session, verify

pytestmark = pytest.mark.slow
Pair = namedtuple("Pair", ("x", "y"))


@dataclass
class Encoded:
    """A result that torch does not know; a field that is None, one with parts, one named like an input."""

    logits: Tensor
    hidden: tuple[Tensor, Tensor]
    mask: Tensor
    loss: Tensor | None = None


class Encoder(nn.Module):
    """Takes ids and a mask by name; an optional argument stands between them, and one it never looks at."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix = nn.Embedding(40, 16), nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.head = nn.Linear(16, 4)

    def forward(
        self,
        ids: Tensor,
        kinds: Tensor | None = None,
        mask: Tensor | None = None,
        other: Tensor | None = None,
    ) -> Encoded:
        assert mask is not None
        embedded = self.embed(ids)
        mixed = self.mix(embedded, src_key_padding_mask=mask == 0)
        weights = mask.unsqueeze(-1).to(mixed.dtype)
        return Encoded(self.head((mixed * weights).sum(1) / weights.sum(1)), (embedded, mixed), mask)


def example(count: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(count)
    lengths = torch.randint(1, 7, (count, 1), generator=generator)
    return {  # not in the order of the arguments
        "other": torch.zeros(count, 3),
        "mask": (torch.arange(7) < lengths).long(),
        "ids": torch.randint(0, 40, (count, 7), generator=generator),
    }


@pytest.fixture(scope="module")
def compressed() -> mq.CompressedModel:
    torch.manual_seed(0)
    return mq.compress(Encoder())


@pytest.fixture(scope="module")
def file(compressed: mq.CompressedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("named") / "encoder.onnx"
    export_onnx(compressed, path, example(1), "int8")
    return path


def test_names_and_a_dynamic_batch(compressed: mq.CompressedModel, file: Path) -> None:
    session = load_session(file, "accuracy-1")
    assert {entry.name for entry in session.get_inputs()} == {"other", "mask", "ids"}
    names = [entry.name for entry in session.get_outputs()]
    assert names == ["logits", "hidden.0", "hidden.1", "mask_2"]  # an input is called mask
    for count in (1, 2, 5):
        given = example(count)
        found = dict(zip(names, session.run(None, {k: v.numpy() for k, v in given.items()}), strict=True))
        with torch.inference_mode():
            wanted = compressed.module(**given)
        np.testing.assert_allclose(found["logits"], wanted.logits.numpy(), atol=1e-5)
        np.testing.assert_allclose(found["hidden.0"], wanted.hidden[0].numpy(), atol=0)
        np.testing.assert_allclose(found["hidden.1"], wanted.hidden[1].numpy(), atol=1e-5)
        np.testing.assert_array_equal(found["mask_2"], given["mask"].numpy())


def test_the_embedding_of_the_file_is_a_row_of_its_weight(file: Path) -> None:
    """By hand: what the file says of its weight, looked up by numpy."""
    given = {name: value.numpy() for name, value in example(3).items()}
    (embedded,) = load_session(file, "unoptimized").run(["hidden.0"], given)
    np.testing.assert_array_equal(embedded, decode_file(file)["embed.weight"][given["ids"]])


@pytest.mark.usefixtures("quick")
def test_verify_takes_inputs_by_name(compressed: mq.CompressedModel, file: Path) -> None:
    report = verify(compressed, file, example(20), batch_size=8)
    assert report.passed
    assert report.count == 20
    assert all(check.agreement == 1 for check in report.runtimes if check.setting != "default")
    with pytest.raises(mq.InputError, match=r"takes the inputs .*, found \['mask', 'ids'\]; give those"):
        verify(compressed, file, {k: v for k, v in example(4).items() if k != "other"})
    with torch.no_grad():
        other = mq.compress(Encoder())  # other weights: what is by name must not pass by chance
    assert not verify(other, file, example(4)).passed


class Sequence(nn.Module):
    """Returns a mapping of hidden states, no logits; one of its names is that of a value in the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(32, 32)

    def forward(self, x: Tensor) -> dict[str, Any]:
        hidden = self.fc(x)
        return {"fc.bias": hidden, "nested": {"linear": hidden.tanh(), "count": 3}, "x": x}


@pytest.mark.usefixtures("quick")
def test_states_are_judged_by_their_difference(tmp_path: Path) -> None:
    torch.manual_seed(0)
    compressed, x = mq.compress(Sequence()), torch.randn(9, 5, 32)
    export_onnx(compressed, tmp_path / "a.onnx", {"x": x[:2]}, "int8")
    session = load_session(tmp_path / "a.onnx")
    assert [entry.name for entry in session.get_outputs()] == ["fc.bias", "nested.linear", "x_2"]
    report = verify(compressed, tmp_path / "a.onnx", {"x": x})
    assert report.passed
    assert {check.agreement for check in report.runtimes} == {None}
    assert 1e-5 < report.runtimes[0].difference < 0.05  # the 8-bit kernel's
    with torch.no_grad():
        compressed.module.get_parameter("fc.bias").add_(1.0)
    assert not any(check.passed for check in verify(compressed, tmp_path / "a.onnx", {"x": x}).runtimes)


class FixedBatch(nn.Module):
    """Takes a single example and no two."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.fc(x.reshape(8))
        return output


def test_a_batch_that_must_be_one_stays_one(tmp_path: Path) -> None:
    torch.manual_seed(0)
    compressed, x = mq.compress(FixedBatch()), torch.randn(1, 8)
    export_onnx(compressed, tmp_path / "a.onnx", x)
    session = load_session(tmp_path / "a.onnx")
    (entry,) = session.get_inputs()
    assert entry.shape == [1, 8]
    (found,) = session.run(None, {entry.name: x.numpy()})
    np.testing.assert_allclose(found, compressed.module(x).detach().numpy(), atol=1e-6)


class NoTensor(nn.Module):
    """Returns nothing of use."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> dict[str, int]:
        return {"count": x.shape[1]}


def test_what_cannot_be_an_output_or_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(mq.InputError, match="NoTensor returns no tensor"):
        export_onnx(mq.compress(NoTensor()), tmp_path / "a.onnx", torch.zeros(2, 8))
    model = mq.compress(nn.Linear(8, 4))
    with pytest.raises(mq.InputError, match=r"could not export .*Linear for inputs of shape {x: \(2, 8\)}"):
        export_onnx(model, tmp_path / "a.onnx", {"x": torch.zeros(2, 8)})
    with pytest.raises(mq.InputError, match="example inputs: expected a tensor"):
        export_onnx(model, tmp_path / "a.onnx", [torch.zeros(2, 8), "3"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("output", "names"),
    [
        (torch.zeros(1), [""]),
        ((torch.zeros(1), {"a": torch.zeros(1)}), ["", ""]),
        ({"a": torch.zeros(1), "b": [None, torch.zeros(1)]}, ["a", "b.1"]),
        (Pair(torch.zeros(1), Pair(torch.zeros(1), 3)), ["x", "y.x"]),
        (Encoded(torch.zeros(1), (torch.zeros(1), torch.zeros(1)), torch.zeros(1)), None),
        (None, []),
        (3, []),
    ],
    ids=["tensor", "tuple", "mapping", "named-tuple", "dataclass", "none", "number"],
)
def test_names_of_results(output: object, names: list[str] | None) -> None:
    expected = ["logits", "hidden.0", "hidden.1", "mask"] if names is None else names
    assert [name for name, _ in output_tensors(output)] == expected


@pytest.mark.usefixtures("quick")
def test_a_transformer_of_another_library(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is optional")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=60, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128
    )
    compressed, path = mq.compress(transformers.BertModel(config)), tmp_path / "bert.onnx"
    mask = torch.ones(4, 9, dtype=torch.long)
    mask[1, 5:] = 0
    given = {"input_ids": torch.randint(0, 60, (4, 9)), "attention_mask": mask}
    export_onnx(compressed, path, given)
    session = load_session(path)
    assert [entry.name for entry in session.get_outputs()] == ["last_hidden_state", "pooler_output"]
    found = session.run(None, {name: value[:3].numpy() for name, value in given.items()})
    with torch.inference_mode():
        wanted = compressed.module(**{name: value[:3] for name, value in given.items()})
    np.testing.assert_allclose(found[0], wanted.last_hidden_state.numpy(), atol=2e-5)
    np.testing.assert_allclose(found[1], wanted.pooler_output.numpy(), atol=2e-5)
    assert verify(compressed, path, given).passed
