"""`compress_program`: files of torch.export, compressed as graphs."""

import logging
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

from muquant import InputError, MuLawSpec
from muquant_onnx import compress_program, decode_file

pytestmark = pytest.mark.slow


class Net(nn.Module):
    """An embedding, a convolution and a linear layer, two inputs and two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.conv, self.head = nn.Embedding(20, 6), nn.Conv1d(6, 8, 3), nn.Linear(8, 4)

    def forward(self, ids: Tensor, scale: Tensor) -> dict[str, Tensor]:
        hidden = self.conv(self.embed(ids).transpose(1, 2)).relu().mean(2) * scale
        return {"hidden": hidden, "logits": self.head(hidden)}


def inputs(count: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(count)
    return {
        "ids": torch.randint(0, 20, (count, 9), generator=generator),
        "scale": torch.rand(count, 1, generator=generator),
    }


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    batch = torch.export.Dim("batch")
    exported = torch.export.export(
        Net().eval(), (), inputs(2), dynamic_shapes={"ids": {0: batch}, "scale": {0: batch}}
    )
    path = tmp_path_factory.mktemp("program") / "net.pt2"
    torch.export.save(exported, path)
    return path


def test_onnxruntime_computes_what_the_module_does_with_the_decoded_weights(
    program: Path, tmp_path: Path
) -> None:
    report = compress_program(program, tmp_path / "a.onnx", MuLawSpec(bits=4), overrides={"head": 8})
    assert report.path == str(tmp_path / "a.onnx")
    assert {weight.source: weight.bits for weight in report.weights} == {
        "embed.weight": 4,
        "conv.weight": 4,
        "head.weight": 8,
    }
    torch.manual_seed(0)
    net = Net().eval()
    before = net(**inputs(5))["logits"]
    decoded = decode_file(tmp_path / "a.onnx")
    for weight in report.weights:
        values = torch.from_numpy(decoded[weight.name].copy())
        original = net.get_parameter(weight.source)
        assert values.shape == original.shape
        assert 0 < (values - original).abs().max() < 0.3 * original.abs().max()
        original.data = values
    session = ort.InferenceSession(str(tmp_path / "a.onnx"), providers=["CPUExecutionProvider"])
    given = inputs(5)
    found = session.run(None, {name: value.numpy() for name, value in given.items()})
    with torch.inference_mode():
        wanted = net(**given)
    assert (wanted["logits"] - before).abs().max() > 1e-3
    for output, name in zip(found, ("hidden", "logits"), strict=True):
        np.testing.assert_allclose(output, wanted[name].numpy(), atol=1e-5)


def test_the_source_and_no_temporary_file_is_named(program: Path, tmp_path: Path) -> None:
    torch.export.save(torch.export.export(nn.ReLU(), (torch.ones(2, 3),)), tmp_path / "relu.pt2")
    with pytest.raises(InputError, match=r"relu.pt2 holds no weight to compress") as caught:
        compress_program(tmp_path / "relu.pt2", tmp_path / "a.onnx")
    assert "graph.onnx" not in str(caught.value)
    with pytest.raises(InputError, match="layers 'foo' matches no layer"):
        compress_program(program, tmp_path / "a.onnx", layers="foo")
    assert [path.name for path in tmp_path.iterdir()] == ["relu.pt2"]


@pytest.mark.parametrize("damage", ["cut", "byte", "text", "empty", "torch-save"])
def test_what_is_no_program_is_one_line(
    damage: str, program: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data, path = program.read_bytes(), tmp_path / "a.pt2"
    place = data.index(b"graph_module")
    contents = {
        "cut": data[: len(data) // 2],
        "byte": data[:place] + b"?" + data[place + 1 :],
        "text": b"text",
        "empty": b"",
    }
    if damage in contents:
        path.write_bytes(contents[damage])
    else:
        torch.save(Net().state_dict(), path)
    with caplog.at_level(logging.WARNING), pytest.raises(InputError, match=r"a.pt2 is not a whole") as caught:
        compress_program(path, tmp_path / "a.onnx")
    assert "\n" not in str(caught.value)
    assert caplog.records == []
    assert [each.name for each in tmp_path.iterdir()] == ["a.pt2"]


def test_a_missing_program_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*none.pt2: no such file"):
        compress_program(tmp_path / "none.pt2", tmp_path / "a.onnx")


def test_an_operator_without_an_onnx_form_is_one_line(tmp_path: Path) -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            output: Tensor = torch.special.bessel_j0(x)
            return output

    torch.export.save(torch.export.export(Odd(), (torch.ones(2, 3),)), tmp_path / "odd.pt2")
    with pytest.raises(InputError, match=r"odd.pt2: torch could not convert .*bessel_j0") as caught:
        compress_program(tmp_path / "odd.pt2", tmp_path / "a.onnx")
    assert "\n" not in str(caught.value)
