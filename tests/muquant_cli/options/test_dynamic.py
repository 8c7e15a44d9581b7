"""`--dynamic`: axes by the names of inputs, said in lines and in the document."""

from pathlib import Path
from typing import Any

import onnxruntime as ort
import pytest
import torch

from muquant import InputError
from muquant_cli.options.common import parse_dynamic

from ..conftest import fails, invoke, invoke_json

NET = """
import torch
from torch import nn

class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.fc = nn.Embedding(9, 8), nn.Linear(8, 8)

    def forward(self, ids, mask):
        return self.fc(self.embed(ids) * mask[..., None])

def encoder():
    return Encoder(), {"ids": torch.ones(2, 5, dtype=torch.long), "mask": torch.ones(2, 5)}

def flat():
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), torch.rand(1, 3, 4)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("net_of_dynamic.py").write_text(NET)
    return tmp_path


@pytest.mark.parametrize(
    ("texts", "shapes"),
    [
        ([], None),
        (["ids=batch,sequence"], {"ids": ["batch", "sequence"]}),
        (["x=,-,3, width", "past.0.1=batch"], {"x": [None, None, 3, "width"], "past.0.1": ["batch"]}),
        (["x="], {"x": [None]}),
    ],
)
def test_axes_are_named_in_order(texts: list[str], shapes: Any) -> None:
    assert parse_dynamic(texts) == shapes


@pytest.mark.parametrize("texts", [["ids"], ["=batch"], ["ids=batch", "ids=batch"]], ids=str)
def test_what_names_no_axes_is_refused(texts: list[str]) -> None:
    with pytest.raises(InputError, match=r"--dynamic is '.*'; expected INPUT=AXIS,..., once for each input"):
        parse_dynamic(texts)


@pytest.mark.slow
@pytest.mark.usefixtures("folder")
def test_axes_are_dynamic_and_said_to_be() -> None:
    source = ("compress", "net_of_dynamic:encoder", "-o", "a.onnx")
    document = invoke_json(*source, "--dynamic", "ids=batch,sequence", "--dynamic", "mask=batch,sequence")
    assert {(axis["input"], axis["axis"], axis["size"], axis["reason"]) for axis in document["axes"]} == {
        (name, axis, size, "") for name in ("ids", "mask") for axis, size in enumerate(("batch", "sequence"))
    }
    session = ort.InferenceSession("a.onnx")
    assert [entry.shape for entry in session.get_inputs()] == [["batch", "sequence"]] * 2
    ids = torch.ones(3, 11, dtype=torch.long).numpy()
    assert session.run(None, {"ids": ids, "mask": ids.astype("float32")})[0].shape == (3, 11, 8)
    said = " ".join(invoke(*source, "--dynamic", "ids=batch,-").stdout.split())
    assert "Inputs, any size where a name stands: ids, mask (batch, 5)" in said
    assert "Fixed: 5 of ids: as asked" in said

    invoke_json("compress", "net_of_dynamic:encoder", "-o", "a.mq")
    line = fails(
        "export", "a.mq", "-o", "b.onnx", "--module", "net_of_dynamic:encoder", "--dynamic", "x=batch"
    )
    assert "dynamic axes: there is no input 'x'; expected one of ids, mask" in line
    exported = ("export", "a.mq", "-o", "b.onnx", "--module", "net_of_dynamic:encoder", "--json")
    assert all(axis["reason"] == "" for axis in invoke_json(*exported[:-1])["axes"])


@pytest.mark.slow
@pytest.mark.usefixtures("folder")
def test_what_cannot_be_dynamic_is_one_line_and_writes_nothing() -> None:
    line = fails("compress", "net_of_dynamic:flat", "-o", "a.onnx", "--dynamic", "input=batch,-,width")
    assert "axis 2 of input was asked to be dynamic, but cannot: the model does not take size 8: mat1" in line
    for source, out in (("net_of_dynamic:flat", "a.mq"), ("any.onnx", "a.onnx")):
        assert "--dynamic is for a model that is exported" in fails(
            "compress", source, "-o", out, "--dynamic", "input=batch"
        )
    assert sorted(path.name for path in Path().glob("*.*")) == ["net_of_dynamic.py"]
