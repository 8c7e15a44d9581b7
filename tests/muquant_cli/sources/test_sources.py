"""Models from anywhere: compressed, exported and verified by the text that names them."""

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

import muquant
from muquant import InputError
from muquant_cli.sources import read_source
from muquant_onnx import decode_file

from ..conftest import fails, invoke, invoke_json

pytestmark = pytest.mark.slow
CODE = """
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

Path("was_run").touch()

@dataclass
class Encoded:
    logits: torch.Tensor
    hidden: torch.Tensor

class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.mix, self.head = nn.Embedding(50, 32), nn.Linear(32, 64), nn.Linear(64, 5)

    def forward(self, ids, kinds=None, mask=None):
        hidden = self.mix(self.embed(ids) * mask.unsqueeze(-1)).relu()
        return Encoded(self.head(hidden.mean(1)), hidden)

def encoder():
    return Encoder(), {"mask": torch.ones(3, 7), "ids": torch.arange(21).reshape(3, 7)}

class Images(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 4, 3), nn.Linear(144, 10)

    def forward(self, pixels):
        return self.head(self.conv(pixels).relu().flatten(1))

class Wrapped(Images):
    def forward(self, pixels):
        logits = super().forward(pixels)
        return Encoded(logits, logits)

def images(): return Images(), {"pixels": torch.zeros(1, 1, 8, 8)}
def wrapped(): return Wrapped(), torch.zeros(1, 1, 8, 8)
def no_example(): return Encoder()
def no_weight(): return nn.ReLU(), torch.ones(1, 3)
def needs(width): return nn.Linear(width, 2)
def raises(): raise RuntimeError("no such weights")
def text(): return "model"
"""

ENCODER = "zoo_of_cli.nets:encoder"


@pytest.fixture(autouse=True)
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put the module above into a package in the current folder, as a user has his."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    Path("zoo_of_cli").mkdir()
    Path("zoo_of_cli/nets.py").write_text(CODE)
    yield
    forget()


def forget() -> None:
    """Let the next import of the user's package run it again."""
    for name in [name for name in sys.modules if name.startswith("zoo_of_cli")]:
        del sys.modules[name]


def written() -> set[str]:
    """Files in the current folder besides the user's own."""
    return {path.name for path in Path.cwd().iterdir()} - {"zoo_of_cli", "was_run"}


def test_an_encoder_goes_all_the_way() -> None:
    document = invoke_json("compress", ENCODER, "-o", "a.mq")
    assert [layer["name"] for layer in document["layers"]] == ["embed.weight", "mix.weight", "head.weight"]
    invoke_json("export", "a.mq", "-o", "a.onnx", "--module", ENCODER)
    session = ort.InferenceSession("a.onnx", providers=["CPUExecutionProvider"])
    assert {entry.name for entry in session.get_inputs()} == {"ids", "mask"}
    assert [entry.name for entry in session.get_outputs()] == ["logits", "hidden"]

    source = read_source(ENCODER)  # the same float weights again; the decoded ones are numpy's
    for name, values in decode_file("a.onnx").items():
        source.module.get_parameter(name).data = torch.from_numpy(values.copy())
    given = {"ids": torch.randint(0, 50, (4, 7)), "mask": torch.rand(4, 7)}
    found = session.run(None, {name: value.numpy() for name, value in given.items()})
    with torch.inference_mode():
        wanted = source.module(**given)
    np.testing.assert_allclose(found[0], wanted.logits.numpy(), atol=1e-5)
    np.testing.assert_allclose(found[1], wanted.hidden.numpy(), atol=1e-5)

    report = invoke_json("verify", "a.mq", "a.onnx", "--module", ENCODER, "--limit", 12)
    assert (report["passed"], report["count"]) == (True, 12)
    invoke_json("compress", ENCODER, "-o", "at_once.onnx")
    assert Path("at_once.onnx").read_bytes() == Path("a.onnx").read_bytes()


def test_verify_tells_the_file_of_another_model() -> None:
    invoke_json("compress", ENCODER, "-o", "a.onnx")
    other = muquant.compress(read_source(ENCODER).module)
    with torch.no_grad():
        other.module.get_parameter("head.bias").add_(1.0)
    other.save("b.mq")
    result = invoke("verify", "b.mq", "a.onnx", "--module", ENCODER, "--json")
    assert result.exit_code == 1
    assert not json.loads(result.stdout)["passed"]


def test_no_code_runs_unless_it_is_named() -> None:
    invoke_json("compress", ENCODER, "-o", "a.mq")
    Path("was_run").unlink()
    forget()
    assert invoke_json("inspect", "a.mq")["source"] == ENCODER
    assert f"made from {ENCODER}" in invoke("inspect", "a.mq").stdout
    for arguments in (
        ("export", "a.mq", "-o", "b.onnx"),
        ("verify", "a.mq", "a.onnx"),
        ("bench", "a.mq", "--data", "digits", "--out", "report"),
    ):
        assert (
            f"a.mq holds the weights of a model, but not its code; add --module {ENCODER}, if you"
            in fails(*arguments)
        )
    assert not Path("was_run").exists()
    assert written() == {"a.mq"}
    invoke_json("export", "a.mq", "-o", "b.onnx", "--module", ENCODER)
    assert Path("was_run").exists()


def test_without_a_known_source_the_forms_are_told_and_a_strange_one_is_quoted() -> None:
    compressed = muquant.compress(read_source(ENCODER).module)
    compressed.save("a.mq")
    assert "add --module SOURCE, which is a run folder, torchvision:NAME," in fails(
        "export", "a.mq", "-o", "a.onnx"
    )
    replace(compressed, source="x:y; touch it").save("a.mq")
    assert "add --module 'x:y; touch it', if" in fails("export", "a.mq", "-o", "a.onnx")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("zoo_of_cli.nets:encodr", "factory 'encodr' is unknown; did you mean encoder"),
        ("zoo_of_cli.missing:encoder", "cannot import zoo_of_cli.missing"),
        ("zoo_of_cli.nets:raises", "raised RuntimeError: no such weights"),
        ("zoo_of_cli.nets:text", "expected a torch.nn.Module, or (module, example), found str"),
        ("zoo_of_cli.nets:needs", "expected a function without arguments"),
        ("zoo_of_cli.nets:no_weight", "ReLU has no layer with a weight to compress"),
        ("torchvision:resnet81", "torchvision model 'resnet81' is unknown; did you mean resnet18"),
        ("resnet18", "pkg.module:factory, a .onnx file or a .pt2 file"),
        ("none.pt2", "cannot read none.pt2"),
        ("none.onnx", "cannot read none.onnx"),
    ],
)
def test_a_source_that_cannot_be_used_is_one_line(source: str, words: str) -> None:
    assert words in fails("compress", source, "-o", "a.onnx")
    assert written() == set()


def test_an_example_is_needed_for_onnx_and_for_nothing_else() -> None:
    source = "zoo_of_cli.nets:no_example"
    assert f"{source} gives no example input" in fails("compress", source, "-o", "a.onnx")
    invoke_json("compress", source, "-o", "a.mq")
    assert f"{source} gives no example input" in fails("export", "a.mq", "-o", "a.onnx", "--module", source)
    invoke_json("export", "a.mq", "-o", "a.onnx", "--module", ENCODER)
    assert "does not fit Images" in fails(
        "export", "a.mq", "-o", "b.onnx", "--module", "zoo_of_cli.nets:images"
    )
    assert written() == {"a.mq", "a.onnx"}


def test_a_model_of_torchvision_by_name() -> None:
    source = "torchvision:squeezenet1_1"
    options = ("--state", "none", "--layers", "last:2", "--observer", "absmax", "--mu", 2)
    invoke_json("compress", source, "-o", "a.mq", *options)
    assert invoke_json("inspect", "a.mq")["source"] == source
    invoke_json("export", "a.mq", "-o", "a.onnx", "--module", source)
    images = torch.rand(2, 3, 224, 224)
    session = ort.InferenceSession("a.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    module = read_source(source, state="none").module
    for name, values in decode_file("a.onnx").items():
        module.get_parameter(name).data = torch.from_numpy(values.copy())
    with torch.inference_mode():
        np.testing.assert_allclose(found, module(images).numpy(), atol=1e-5 * found.max())


def test_a_state_that_does_not_fit_leaves_nothing() -> None:
    Path("b.safetensors").write_bytes(b"text")
    message = fails("compress", ENCODER, "-o", "a.mq", "--state", "b.safetensors")
    assert "--state: expected a whole safetensors file, found b.safetensors" in message
    assert written() == {"b.safetensors"}


@pytest.fixture
def graphs() -> dict[str, Any]:
    """The same model as a .pt2 and as an .onnx file."""
    source = read_source("zoo_of_cli.nets:images")
    program = torch.export.export(source.module, (torch.zeros(1, 1, 8, 8),))
    torch.export.save(program, "net.pt2")
    exported = torch.onnx.export(program, dynamo=True, verbose=False)
    assert exported is not None
    onnx.save(exported.model_proto, "net.onnx")
    return dict(source.module.named_parameters())


@pytest.mark.filterwarnings("ignore")  # torch's exporter has deprecations of its own
def test_graphs_are_compressed_without_a_module(graphs: dict[str, Any]) -> None:
    for suffix in (".pt2", ".onnx"):
        document = invoke_json("compress", f"net{suffix}", "-o", "out.onnx", "--bits", "3,head=8")
        assert {w["source"]: w["bits"] for w in document["weights"]} == {"conv.weight": 3, "head.weight": 8}
        assert document["nbytes"] == Path("out.onnx").stat().st_size
        decoded = decode_file("out.onnx")
        (head,) = (w["name"] for w in document["weights"] if w["source"] == "head.weight")
        wanted = graphs["head.weight"].detach().numpy()
        np.testing.assert_allclose(decoded[head], wanted, atol=0.02 * np.abs(wanted).max())
        assert list(invoke_json("inspect", "out.onnx")["weights"]) == list(decoded)
        text = invoke("compress", f"net{suffix}", "-o", "out.onnx").stdout
        assert "Wrote out.onnx" in text
        left = {each["name"]: each["nbytes"] for each in document["left_alone"]}
        assert left == {name: 4 * graphs[name].numel() for name in ("conv.bias", "head.bias")}
        assert re.search(rf"conv\.bias +{left['conv.bias']} +it has one axis", text)
        assert f"; {sum(left.values())} bytes stay float\n" in text
        assert "Less than half" not in text


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("graphs")
def test_what_a_graph_cannot_have_is_refused() -> None:
    before = written()
    for source in ("net.pt2", "net.onnx"):
        for options, words in (
            (("-o", "a.mq"), "is a graph of operators, not a model of layers; expected an output that ends"),
            (("-o", "a.onnx", "--state", "none"), f"--state none: {source} brings its own weights"),
            (("-o", "a.onnx", "--layers", "auto"), f"--layers auto needs a model of layers, found {source}"),
            (("-o", "a.onnx", "--layers", "foo"), "layers 'foo' matches no layer"),
            (("-o", "no/a.onnx"), "name a writable folder"),
        ):
            assert words in fails("compress", source, *options)
        Path(f"cut_{source}").write_bytes(Path(source).read_bytes()[:900])
        assert f"cut_{source} is not a whole" in fails("compress", f"cut_{source}", "-o", "a.onnx")
    assert written() == before | {"cut_net.pt2", "cut_net.onnx"}


def test_bench_attacks_models_by_their_source() -> None:
    few = ("--data", "digits", "--limit", 10, "--suite", "seed", "--out", "report")
    source = "zoo_of_cli.nets:images"
    invoke_json("compress", source, "-o", "a.mq")
    models = invoke_json("bench", source, "a.mq", *few, "--module", source)["models"]
    assert [(model["name"], model["runtime"], model["bits"]) for model in models] == [
        ("images", "torch", 32),
        ("images", "onnx", 32),
        ("a", "torch", 3),
        ("a", "onnx", 3),
    ]
    (wrapped, served) = invoke_json("bench", "zoo_of_cli.nets:wrapped", *few)["models"]
    assert wrapped["clean"] == served["clean"]
    assert wrapped["worst_case"] == served["worst_case"]
    assert "expected a model of one input, found 2" in fails("bench", ENCODER, *few)


def test_a_file_of_weights_alone_is_told_how_it_is_taken() -> None:
    Path("net.pt").write_bytes(b"")
    with pytest.raises(InputError, match=r"cannot tell what net.pt is; .*; weights alone go by --state"):
        read_source("net.pt")
    with pytest.raises(InputError, match=r"pkg.module:factory$"):
        read_source("net.txt")
