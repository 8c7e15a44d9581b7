"""Axes of exported files: at every size that a file takes its answer is the model's, under real sessions."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.utils import _pytree

import muquant as mq
from muquant.models.calls import Inputs, output_tensors
from muquant_onnx import ExportReport, export_float, export_onnx, load_session, running_operators, verify

pytestmark = pytest.mark.slow
SPEC = mq.MuLawSpec(3, mu=20.0)


def compressed(module: nn.Module) -> mq.CompressedModel:
    torch.manual_seed(0)
    return mq.compress(module, SPEC, observer="absmax")


def agrees(path: Path, model: mq.CompressedModel, example: Any, policy: str | None = None) -> None:
    """Run the file and the model on the same, and compare all outputs."""
    inputs = Inputs.of(example)
    session = load_session(path, "accuracy-1", policy=policy)
    names = inputs.names or [entry.name for entry in session.get_inputs()]
    feed = {name: tensor.numpy() for name, tensor in zip(names, inputs.tensors, strict=True)}
    with torch.inference_mode():
        wanted = [tensor.numpy() for _, tensor in output_tensors(inputs.call(model.module))]
    for found, expected in zip(session.run(None, feed), wanted, strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * max(1, np.abs(expected).max()))


def shapes(report: ExportReport) -> dict[str, list[int | str]]:
    found: dict[str, list[int | str]] = {}
    for axis in report.axes:
        found.setdefault(axis.input, []).append(axis.size)
    return found


class Encoder(nn.Module):
    """A transformer with a mask, and a table of as many positions as it can have."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.positions = nn.Embedding(40, 32), nn.Embedding(48, 32)
        layer = nn.TransformerEncoderLayer(32, 2, 64, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, 4)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden = self.embed(input_ids) + self.positions(torch.arange(input_ids.shape[1]))
        output: Tensor = self.head(self.layers(hidden, src_key_padding_mask=attention_mask == 0))
        return output


def sentences(count: int, length: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(count)
    lengths = torch.randint(1, length + 1, (count, 1), generator=generator)
    ids = torch.randint(0, 40, (count, length), generator=generator)
    return {"attention_mask": (torch.arange(length) < lengths).long(), "input_ids": ids}


def test_an_encoder_takes_any_batch_and_length_under_every_policy(tmp_path: Path) -> None:
    model, path = compressed(Encoder()), tmp_path / "a.onnx"
    report = export_onnx(model, path, sentences(1, 7), "int8")
    found = shapes(report)
    assert found["input_ids"] == found["attention_mask"]
    assert all(isinstance(size, str) for size in found["input_ids"])
    assert {axis.reason for axis in report.axes} == {""}
    assert "MatMulNBits" in running_operators(path, "accuracy-1", policy="int8")
    for policy in (None, "float", "int8", "auto", "packed"):
        for count, length in ((1, 7), (1, 1), (3, 2), (5, 48), (2, 13)):
            agrees(path, model, sentences(count, length), policy)


def test_names_of_sizes(tmp_path: Path) -> None:
    model, path = compressed(Encoder()), tmp_path / "a.onnx"
    batch, sequence = Dim("batch"), Dim("sequence", min=2, max=48)
    asked = {"input_ids": {0: batch, 1: sequence}, "attention_mask": [batch, sequence]}
    report = export_onnx(model, path, sentences(2, 7), dynamic_shapes=asked)
    assert shapes(report) == {name: ["batch", "sequence"] for name in ("input_ids", "attention_mask")}
    assert {(axis.least, axis.most) for axis in report.axes if axis.axis == 1} == {(2, 48)}
    session = load_session(path)
    assert [entry.shape for entry in session.get_outputs()] == [["batch", "sequence", 4]]
    agrees(path, model, sentences(4, 20))


class Decoder(nn.Module):
    """Attention over what came before, which it takes and returns; positions are masked over both."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix = nn.Embedding(40, 16), nn.Linear(16, 48)

    def forward(
        self, ids: Tensor, mask: Tensor, past: tuple[tuple[Tensor, Tensor], ...]
    ) -> dict[str, object]:
        hidden, present = self.embed(ids), []
        for key, value in past:
            parts = self.mix(hidden).chunk(3, -1)
            query, *new = (part.unflatten(2, (2, 8)).transpose(1, 2) for part in parts)
            key, value = torch.cat((key, new[0]), 2), torch.cat((value, new[1]), 2)
            scores = query @ key.mT + torch.where(mask == 0, -1e4, 0.0)[:, None, None]
            hidden = hidden + (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)
            present.append((key, value))
        return {"logits": hidden, "present": present}


def remembered(count: int, new: int, before: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(count)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    mask = torch.ones(count, before + new, dtype=torch.long)
    mask[0, 0] = 0
    past = tuple((draw(count, 2, before, 8), draw(count, 2, before, 8)) for _ in range(2))
    return {"ids": torch.randint(0, 40, (count, new), generator=generator), "mask": mask, "past": past}


def test_a_decoder_takes_what_it_remembers(tmp_path: Path) -> None:
    model, path = compressed(Decoder()), tmp_path / "a.onnx"
    report = export_onnx(model, path, remembered(2, 3, 5))
    found = shapes(report)
    assert list(found) == ["ids", "mask", "past.0.0", "past.0.1", "past.1.0", "past.1.1"]
    (batch, new), (_, both), (_, heads, before, _) = found["ids"], found["mask"], found["past.1.0"]
    assert (heads, set(str(both).split(" + "))) == (2, {new, before})
    assert {each[0] for each in found.values()} == {batch}
    assert [entry.name for entry in load_session(path).get_outputs()] == [
        "logits",
        *(f"present.{layer}.{part}" for layer in range(2) for part in range(2)),
    ]
    for sizes in ((1, 1, 9), (4, 2, 1), (2, 6, 20)):
        agrees(path, model, remembered(*sizes))


@pytest.mark.usefixtures("quick")
def test_sizes_that_belong_together_may_have_names(tmp_path: Path) -> None:
    model, path = compressed(Decoder()), tmp_path / "a.onnx"
    asked = {"past": ["batch", None, "before"], "ids": ["batch", "new"], "mask": ["batch", "all"]}
    report = export_onnx(model, path, remembered(1, 2, 5), dynamic_shapes=asked)
    assert shapes(report)["ids"] == ["batch", "new"]
    assert shapes(report)["mask"] == ["batch", "all"]
    assert shapes(report)["past.0.1"] == ["batch", 2, "before", 8]
    for sizes in ((1, 1, 9), (4, 2, 1)):
        agrees(path, model, remembered(*sizes))
    assert verify(model, path, remembered(6, 2, 3), batch_size=4).passed
    with pytest.raises(mq.InputError, match=r"axis 1 of ids was asked .* torch takes a size of 1"):
        export_onnx(model, path, remembered(1, 1, 5), dynamic_shapes=asked)


class Memory:
    """What no exporter knows but by the registry of torch's trees, as caches of other libraries are."""

    def __init__(self, layers: list[Tensor]) -> None:
        self.layers = layers


class Recalls(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        output: Tensor = self.fc(torch.cat((*memory.layers, x), 1))
        return output


@pytest.fixture
def registered() -> Iterator[None]:
    _pytree.register_pytree_node(
        Memory,
        lambda memory: (memory.layers, None),
        lambda layers, _: Memory(list(layers)),
        serialized_type_name="Memory",
        flatten_with_keys_fn=lambda memory: (
            [(_pytree.MappingKey(f"layer{index}"), layer) for index, layer in enumerate(memory.layers)],
            None,
        ),
    )
    yield
    _pytree._deregister_pytree_node(Memory)


@pytest.mark.usefixtures("registered")
def test_a_class_that_torch_knows_the_parts_of(tmp_path: Path) -> None:
    model, path = compressed(Recalls()), tmp_path / "a.onnx"

    def example(count: int, *lengths: int) -> dict[str, Any]:
        layers = [torch.randn(count, length, 8) for length in lengths[1:]]
        return {"x": torch.randn(count, lengths[0], 8), "memory": Memory(layers)}

    report = export_onnx(model, path, example(2, 3, 4, 5))
    assert list(shapes(report)) == ["x", "memory.layer0", "memory.layer1"]
    agrees(path, model, example(1, 2, 9, 1))


class Takes(nn.Module):
    """A linear layer of 8 inputs behind a function."""

    def __init__(self, before: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.fc, self.before = nn.Linear(8, 8), before

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.fc(self.before(x))
        return output


def _padded(x: Tensor) -> Tensor:
    x = nn.functional.pad(x, (0, 0, 0, -x.shape[1] % 4)) if x.shape[1] % 4 else x
    return x.view(x.shape[0], -1, 4, 8).flip(2)


def _by_length(x: Tensor) -> Tensor:
    return x if x.shape[1] > 4 else -x


def _up_to(x: Tensor) -> Tensor:
    return x.flip(1) if x.shape[1] > 16 else x


def _counted(x: Tensor) -> Tensor:
    return x * float(x.shape[1]) + torch.full((8,), x.shape[1] / 7)


def _data_dependent(x: Tensor) -> Tensor:
    return x * int(torch.tensor(x.shape[1]))


def _rolled(x: Tensor) -> Tensor:
    for _ in range(x.shape[1]):
        x = x.roll(1, 2)
    return x


def _wide_or_high(x: Tensor) -> Tensor:
    return x.mean(1) if x.shape[1] > x.shape[2] else x.mean(2) * 2


LENGTHS = {
    "padded": (_padded, 8, False),
    "by-length": (_by_length, 7, False),
    "up-to": (_up_to, 7, False),
    "counted": (_counted, 7, False),
    "data-dependent": (_data_dependent, 7, False),
    "rolled": (_rolled, 7, False),
    "mean": (lambda x: x.mean(1), 7, True),
    "windows": (lambda x: x.unflatten(1, (-1, 4)).amax(2), 8, True),
}


@pytest.mark.parametrize("case", LENGTHS)
def test_never_silently_wrong(case: str, tmp_path: Path) -> None:
    """What changes with the length in a way that no graph states keeps it; all else takes any."""
    before, length, dynamic = LENGTHS[case]
    model, path = compressed(Takes(before)), tmp_path / "a.onnx"
    report = export_onnx(model, path, torch.randn(2, length, 8))
    batch, axis, width = report.axes
    assert (axis.reason == "") == dynamic, axis
    assert batch.reason == ""
    assert width.size == 8
    for count in (1, 3):
        agrees(path, model, torch.randn(count, length, 8))
    if dynamic:
        for other in (4, 12, 40):
            agrees(path, model, torch.randn(2, other, 8))
    else:
        assert load_session(path).get_inputs()[0].shape[1] == length


def test_sizes_that_one_compares_with_another_are_fixed(tmp_path: Path) -> None:
    model, path = compressed(Takes(_wide_or_high)), tmp_path / "a.onnx"
    report = export_onnx(model, path, torch.randn(2, 6, 6, 8))
    assert any(isinstance(axis.size, int) and "the file answers" in axis.reason for axis in report.axes[1:3])


def test_a_path_that_is_asked_for_by_its_bounds(tmp_path: Path) -> None:
    model, path = compressed(Takes(_by_length)), tmp_path / "a.onnx"
    asked = [[None, Dim("length", min=5), None]]
    axis = export_onnx(model, path, torch.randn(2, 7, 8), dynamic_shapes=asked).axes[1]
    assert (axis.size, axis.least, axis.most) == ("length", 5, None)
    agrees(path, model, torch.randn(2, 5, 8))
    with pytest.raises(mq.InputError, match=r"axis 1 of x was asked .* at size 1 the file answers otherwise"):
        export_onnx(model, path, torch.randn(2, 7, 8), dynamic_shapes={"x": {1: "length"}})


def test_convolutions(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3))
    model, path = compressed(net), tmp_path / "a.onnx"
    found = shapes(export_onnx(model, path, torch.randn(1, 3, 16, 20)))
    assert [isinstance(size, str) for size in found["input"]] == [True, False, True, True]
    for size in ((1, 3, 16, 20), (3, 3, 9, 64), (2, 3, 33, 7)):
        agrees(path, model, torch.randn(size))


def test_a_layer_that_fixes_height_and_width_says_so(tmp_path: Path) -> None:
    pooled = (nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * 7 * 9, 3))
    model, path = compressed(nn.Sequential(*pooled)), tmp_path / "a.onnx"
    example = torch.randn(2, 3, 16, 20)
    report = export_onnx(model, path, example)
    reasons = [axis.reason for axis in report.axes]
    assert reasons[0] == ""
    assert "constant" in reasons[1]
    assert all("does not take size" in reason and "mat1" in reason for reason in reasons[2:])
    agrees(path, model, torch.randn(1, 3, 16, 20))
    bytes_before = path.read_bytes()
    export_onnx(model, path, example, dynamic_shapes={"input": {0: Dim.AUTO}})
    assert path.read_bytes() == bytes_before
    with pytest.raises(mq.InputError, match=r"axis 3 of input was asked .* does not take size 40: mat1"):
        export_onnx(model, path, example, dynamic_shapes=[{0: "batch", 3: "width"}])
    assert path.read_bytes() == bytes_before


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.fc = nn.LSTM(8, 16, batch_first=True), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.fc(self.lstm(x)[0])
        return output


def test_recurrent_layers_take_any_length(tmp_path: Path) -> None:
    model, path = compressed(Recurrent()), tmp_path / "a.onnx"
    found = shapes(export_onnx(model, path, torch.randn(2, 7, 8)))
    assert [isinstance(size, str) for size in found["x"]] == [True, True, False]
    assert not isinstance(load_session(path).get_outputs()[0].shape[1], int)  # as torch would state it
    for size in ((1, 7, 8), (3, 1, 8), (2, 30, 8)):
        agrees(path, model, torch.randn(size))


def test_a_size_of_one_is_doubled_where_it_is_asked_for(tmp_path: Path) -> None:
    model, path = compressed(Takes(lambda x: x.cumsum(1))), tmp_path / "a.onnx"
    example = torch.randn(1, 1, 8)
    found = export_onnx(model, path, example).axes[1]
    assert (found.size, found.reason) == (1, "torch takes a size of 1 for a constant")
    export_onnx(model, path, example, dynamic_shapes={"x": ["batch", "length"]})
    for size in ((1, 1, 8), (3, 9, 8)):
        agrees(path, model, torch.randn(size))


def test_an_axis_can_be_fixed(tmp_path: Path) -> None:
    model, path = compressed(Encoder()), tmp_path / "a.onnx"
    asked = {"input_ids": ["batch", 7]}
    report = export_onnx(model, path, sentences(2, 7), dynamic_shapes=asked)
    assert shapes(report) == {name: ["batch", 7] for name in ("input_ids", "attention_mask")}
    reasons = {(axis.input, axis.axis): axis.reason for axis in report.axes}
    assert reasons["input_ids", 1] == "as asked"
    assert reasons["attention_mask", 1] != ""
    agrees(path, model, sentences(5, 7))


def test_a_float_file_has_the_same_axes(tmp_path: Path) -> None:
    model = compressed(Encoder())
    export_float(model.module, tmp_path / "a.onnx", sentences(2, 7))
    agrees(tmp_path / "a.onnx", model, sentences(1, 30))


class Masked(nn.Module):
    """Looks its mask up by the places of its ids, as a causal mask is made of one with a function of places;
    but not where it masks nothing, unless it is exported."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(40, 16), nn.Linear(16, 4)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        hidden: Tensor = self.embed(ids)
        if torch.compiler.is_exporting() or not bool((mask == 1).all()):
            rows, columns = (torch.arange(size) for size in ids.shape)
            hidden = hidden * mask[rows[:, None], columns][..., None]
        output: Tensor = self.head(hidden)
        return output


def test_a_mask_that_has_to_change_with_its_ids(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model, path = compressed(Masked()), tmp_path / "m.onnx"
    ids = torch.randint(0, 40, (2, 7))
    found = shapes(export_onnx(model, path, {"ids": ids, "mask": torch.ones(2, 7)}))
    assert found["ids"] == found["mask"]
    assert all(isinstance(size, str) for size in found["ids"])
    for shape in [(1, 1), (3, 4), (5, 20)]:
        mask = torch.rand(shape).round()
        agrees(path, model, {"ids": torch.randint(0, 40, shape), "mask": mask})
    assert capfd.readouterr().err == ""


def test_sizes_of_different_names_are_not_put_together(tmp_path: Path) -> None:
    asked = {"ids": {0: "batch", 1: "length"}, "mask": {0: "batch", 1: "width"}}
    example = {"ids": torch.randint(0, 40, (2, 7)), "mask": torch.ones(2, 7)}
    with pytest.raises(mq.InputError, match=r"axis 1 of \w+ was asked to be dynamic, but cannot: at size"):
        export_onnx(compressed(Masked()), tmp_path / "m.onnx", example, dynamic_shapes=asked)


class Keys:
    """What a layer remembers; torch knows its parts, and that it makes copies of what it is given."""

    def __init__(self, values: Tensor) -> None:
        self.values = values.clone() if isinstance(values, Tensor) else values


_pytree.register_pytree_node(
    Keys,
    lambda keys: ([keys.values], None),
    lambda values, _: Keys(next(iter(values))),
    flatten_with_keys_fn=lambda keys: ([(_pytree.GetAttrKey("values"), keys.values)], None),
    serialized_type_name="test_dynamic.Keys",
)


class Continues(nn.Module):
    """Looks up whether it may see what it remembers and what is new in a mask of both."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(40, 16), nn.Linear(16, 4)

    def forward(self, ids: Tensor, mask: Tensor, past: Keys) -> dict[str, Any]:
        seen = torch.cat([past.values, self.embed(ids)], 1)
        rows, columns = (torch.arange(size) for size in seen.shape[:2])
        kept = seen * mask[rows[:, None], columns][..., None]
        return {"logits": self.head(kept), "present": Keys(seen)}


def test_a_mask_over_what_is_remembered_and_what_is_new(tmp_path: Path) -> None:
    def example(batch: int, past: int, new: int) -> dict[str, Any]:
        ids, mask = torch.randint(0, 40, (batch, new)), torch.rand(batch, past + new).round()
        return {"ids": ids, "mask": mask, "past": Keys(torch.rand(batch, past, 16))}

    model, path = compressed(Continues()), tmp_path / "m.onnx"
    report = export_onnx(model, path, example(2, 5, 3))
    assert [axis.input for axis in report.axes if axis.reason] == ["past.values"]  # its width
    session = load_session(path)
    assert [output.name for output in session.get_outputs()] == ["logits", "present.values"]
    for sizes in [(1, 1, 1), (3, 5, 1), (2, 9, 4)]:
        agrees(path, model, example(*sizes))
