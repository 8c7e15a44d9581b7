"""Export: awkward models, files written whole or not at all, equal bytes, errors that say what to do."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import muquant as mq
from muquant_onnx import decode_file, export_float, export_onnx, load_session
from muquant_onnx.verification.weights import check_weights

pytestmark = pytest.mark.slow
SPEC = mq.MuLawSpec(3, mu=20.0)


class TwoInputs(nn.Module):
    """Two inputs of different widths, two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(8, 4), nn.Linear(6, 4)

    def forward(self, left: Tensor, right: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        both = self.left(left) + self.right(right)
        return both, {"largest": both.argmax(-1)}


class WeightAsOutput(nn.Module):
    """Returns a weight beside what it computes with it."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(32, 8)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.fc(x), self.fc.weight


class OddUses(nn.Module):
    """Weights at operators that no form knows: a norm of all of it, its columns, the left of a product."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.conv = nn.Linear(32, 32), nn.Conv1d(32, 6, 2)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.fc.weight
        left = (weight @ x.t()).t() + weight[:, 3] + self.conv.weight[2].flatten()[:32]
        output: Tensor = torch.tanh(self.fc(x)) * weight.square().sum().sqrt() + left + x @ weight
        return output


class Unused(nn.Module):
    """Has a layer that it never calls."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Linear(32, 8), nn.Linear(32, 8)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.used(x)
        return output


class Branch(nn.Module):
    """Uses a weight inside a branch: read there, which torch cannot trace, or outside, which it can."""

    def __init__(self, outside: bool) -> None:
        super().__init__()
        self.fc, self.outside = nn.Linear(32, 32), outside

    def forward(self, x: Tensor) -> Tensor:
        weight = self.fc.weight if self.outside else None

        def one(x: Tensor) -> Tensor:
            return x @ (self.fc.weight if weight is None else weight).t()

        def other(x: Tensor) -> Tensor:
            return x - (self.fc.weight if weight is None else weight)[0]

        output: Tensor = torch.cond(x.sum() > 0, one, other, (x,)) + self.fc(x)
        return output


class Names(nn.Module):
    """Layers named like the parts of others, one name the start of another, and odd characters."""

    def __init__(self) -> None:
        super().__init__()
        inner = nn.ModuleDict({"weight": nn.Linear(32, 32), "levels": nn.Linear(32, 32)})
        names = {"fc": nn.Linear(32, 32), "fc1": nn.Linear(32, 32)}
        odd = {"fc weight": nn.Linear(32, 32), "größe/µ: [0]": nn.Linear(32, 32)}
        self.layers = nn.ModuleDict({**names, **odd, "fc2": inner["levels"]})
        self.fc, self.decoded, self.packed = nn.Linear(32, 32), inner["weight"], nn.Linear(32, 32)

    def forward(self, x: Tensor) -> Tensor:
        for layer in (*self.layers.values(), self.fc, self.decoded, self.packed):
            x = torch.tanh(layer(x))
        return x


def _zero_channel() -> nn.Module:
    layer = nn.Linear(32, 8)
    with torch.no_grad():
        layer.weight[3] = 0
        layer.weight[5] = -0.0
    return layer


class SideBySide(nn.Module):
    """Layers that are odd by themselves, each with an input and an output of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [
                _zero_channel(),
                nn.Linear(1, 1),
                nn.Conv1d(1, 1, 1),
                nn.Sequential(nn.Linear(32, 1), nn.ReLU()),
                nn.Linear(1, 40),
            ]
        )

    def forward(self, *inputs: Tensor) -> list[Tensor]:
        return [layer(x) for layer, x in zip(self.layers, inputs, strict=True)]


AWKWARD: dict[str, tuple[nn.Module, tuple[tuple[int, ...], ...]]] = {
    "two-inputs": (TwoInputs(), ((8,), (6,))),
    "weight-as-output": (WeightAsOutput(), ((32,),)),
    "odd-uses": (OddUses(), ((32,),)),
    "unused-layer": (Unused(), ((32,),)),
    "branch": (Branch(outside=True), ((32,),)),
    "names": (Names(), ((32,),)),
    "zero-channel, one weight, output, input": (SideBySide(), ((32,), (1,), (1, 3), (32,), (1,))),
    "half": (nn.Sequential(nn.Linear(32, 8), nn.BatchNorm1d(8)).half(), ((32,),)),
    "bfloat16": (nn.Linear(32, 8).bfloat16(), ((32,),)),
    "no-batch-of-one": (nn.Sequential(nn.Flatten(), nn.Linear(32, 8)), ((2, 16),)),
}


@pytest.mark.usefixtures("traced_once")
@pytest.mark.parametrize("case", AWKWARD)
def test_awkward_models(case: str, tmp_path: Path) -> None:
    module, shapes = AWKWARD[case]
    torch.manual_seed(0)
    compressed, path = mq.compress(module, SPEC, observer="absmax"), tmp_path / "model.onnx"
    inputs = [torch.randn(5, *shape) for shape in shapes]
    for policy in ("float", "int8"):
        report = export_onnx(compressed, path, [x[:1] for x in inputs], policy)
        assert report.nbytes == path.stat().st_size
        assert report.policy == policy
        assert all(bool(use.reason) == (policy == "int8" and use.form == "float") for use in report.served)
        assert all(check.passed for check in check_weights(compressed, path)), policy
        for setting in ("accuracy-1", "unoptimized"):
            session = load_session(path, setting)
            names = [entry.name for entry in session.get_inputs()]
            for batch in (1, 2, 5):
                with torch.inference_mode():
                    output = compressed.module(*(x[:batch] for x in inputs))
                expected = torch.utils._pytree.tree_leaves(output)
                feed = {name: x[:batch].numpy() for name, x in zip(names, inputs, strict=True)}
                for found, wanted in zip(session.run(None, feed), expected, strict=True):
                    np.testing.assert_allclose(
                        found,
                        wanted.detach().numpy(),
                        rtol=0,
                        atol=1e-5 * float(wanted.abs().max()),
                        err_msg=f"{policy}, {setting}, batch {batch}",
                    )


def test_what_is_not_used_is_named_and_not_stored(tmp_path: Path) -> None:
    compressed = mq.compress(Unused(), SPEC, observer="absmax")
    export_onnx(compressed, tmp_path / "model.onnx", torch.randn(2, 32))
    assert set(decode_file(tmp_path / "model.onnx")) == {"used.weight"}


def test_a_zero_channel_is_exactly_zero(tmp_path: Path) -> None:
    compressed = mq.compress(_zero_channel(), SPEC, observer="absmax")
    export_onnx(compressed, tmp_path / "model.onnx", torch.randn(2, 32), "int8")
    weight = decode_file(tmp_path / "model.onnx")["weight"]
    np.testing.assert_array_equal(weight[[3, 5]].view(np.uint32), 0)


_EXPORTS = """
import torch, muquant as mq
from torch import nn
from muquant_onnx import export_onnx
torch.manual_seed(0)
torch.set_num_threads(1)
net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 9), nn.ReLU(), nn.Linear(9, 2))
compressed = mq.compress(net, mq.MuLawSpec(mu=20.0), observer="absmax")  # no sum, whose last digit may differ
for policy in ("float", "int8", "auto"):
    export_onnx(compressed, f"{folder}/{policy}", torch.zeros(2, 3, 6, 6), policy)
"""


def test_equal_bytes_in_every_process(tmp_path: Path) -> None:
    """In a fresh process, whose hashes of strings are others, and in this one, which has exported before."""
    fresh, here = tmp_path / "fresh", tmp_path / "here"
    fresh.mkdir()
    here.mkdir()
    seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    with subprocess.Popen(
        [sys.executable, "-c", f"folder = {str(fresh)!r}{_EXPORTS}"],
        env={**os.environ, "PYTHONHASHSEED": seed},
    ) as process:
        exec(_EXPORTS, {"folder": here})  # noqa: S102
        assert process.wait(300) == 0
    for policy in ("float", "int8", "auto"):
        assert (fresh / policy).read_bytes() == (here / policy).read_bytes(), policy


def test_no_trace_of_the_machine(tmp_path: Path) -> None:
    compressed, path = mq.compress(nn.Linear(32, 8), SPEC), tmp_path / "model.onnx"
    export_onnx(compressed, path, torch.randn(2, 32))
    content = path.read_bytes()
    assert b".py" not in content
    assert str(Path.cwd()).encode() not in content
    model = onnx.load(path)
    assert model.ir_version == 10
    assert {entry.domain: entry.version for entry in model.opset_import} == {"": 21}
    assert len(model.graph.initializer) == 5  # packed, mu, shape, step, bias: the float weight is not there


def test_the_model_is_left_as_it_was(tmp_path: Path) -> None:
    compressed = mq.compress(nn.Sequential(nn.Linear(32, 8), nn.Linear(8, 2)), SPEC)
    before = {name: value.clone() for name, value in compressed.module.state_dict().items()}
    export_onnx(compressed, tmp_path / "model.onnx", torch.randn(2, 32))
    torch.testing.assert_close(dict(compressed.module.state_dict()), before, rtol=0, atol=0)
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize("path", ["none/model.onnx", "."])
def test_a_path_that_cannot_be_written(path: str, tmp_path: Path) -> None:
    with pytest.raises(mq.InputError, match="cannot write"):
        export_onnx(mq.compress(nn.Linear(4, 2), SPEC), tmp_path / path, torch.randn(2, 4))
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compressed, path = mq.compress(nn.Linear(4, 2), SPEC), tmp_path / "model.onnx"
    path.write_bytes(b"old")

    def full(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises((mq.InputError, OSError), match="No space left"):
        export_onnx(compressed, path, torch.randn(2, 4))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_unknown_policy() -> None:
    with pytest.raises(
        mq.InputError, match="policy 'int2' is unknown; expected one of auto, float, int8, int4"
    ):
        export_onnx(mq.compress(nn.Linear(4, 2), SPEC), "model.onnx", torch.randn(2, 4), "int2")


class Untraceable(nn.Module):
    """Decides by the values of its input."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.fc(x) if float(x.sum()) > 0 else x
        return output


@pytest.mark.parametrize(
    ("module", "example", "message"),
    [
        (Untraceable(), torch.randn(2, 4), "could not export Untraceable"),
        (Branch(outside=False), torch.randn(2, 32), "could not export Branch"),
        (nn.Linear(4, 4), torch.randn(2, 5), "could not export .*Linear.* shape"),
        (nn.Linear(4, 4), (torch.randn(2, 4), torch.randn(2, 4)), "could not export .*Linear"),
        (nn.Linear(4, 4), (), "first axis is the batch"),
        (nn.Linear(4, 4), torch.tensor(1.0), "first axis is the batch"),
        (nn.Linear(4, 4), torch.randn(0, 4), "first axis is the batch"),
    ],
    ids=["untraceable", "weight-in-branch", "other-shape", "two-inputs", "no-inputs", "scalar", "empty"],
)
def test_a_model_that_cannot_be_exported(
    module: nn.Module, example: Tensor | tuple[Tensor, ...], message: str, tmp_path: Path
) -> None:
    with pytest.raises(mq.InputError, match=message) as caught:
        export_onnx(mq.compress(module, SPEC), tmp_path / "model.onnx", example)
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_export_float(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, path, x = nn.Linear(32, 8).eval(), tmp_path / "float.onnx", torch.randn(3, 32)
    assert export_float(module, path, x[:1]) == path.stat().st_size
    session = load_session(path)
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    np.testing.assert_allclose(found, module(x).detach().numpy(), rtol=0, atol=1e-6)


class SharedWithTwoBiases(nn.Module):
    """Two layers of one weight and two biases, each in front of an activation."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(16, 16), nn.Linear(16, 16)
        self.other.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.other(torch.relu(self.one(x))))


def test_layers_of_one_weight_keep_their_own_biases(tmp_path: Path) -> None:
    torch.manual_seed(0)
    compressed = mq.compress(SharedWithTwoBiases())
    x = torch.rand(8, 16)
    export_onnx(compressed, tmp_path / "a.onnx", x, "int8")
    session = load_session(tmp_path / "a.onnx", "accuracy-1")
    found = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
    with torch.inference_mode():
        expected = compressed.module(x).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max(), rtol=0)


class Translates(nn.Module):
    """A transformer that is given a mask, whose values torch looks at to know a causal one."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Transformer(16, 2, 1, 1, 32, batch_first=True)

    def forward(self, source: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        output: Tensor = self.layers(source, target, tgt_mask=mask)
        return output


def test_masks_of_torch_s_transformer(tmp_path: Path) -> None:
    compressed, path = mq.compress(Translates(), SPEC, observer="absmax"), tmp_path / "m.onnx"
    source, target = torch.randn(2, 5, 16), torch.randn(2, 4, 16)
    causal = nn.Transformer.generate_square_subsequent_mask(4)
    export_onnx(compressed, path, {"source": source, "target": target, "mask": causal}, "float")
    for mask in (causal, causal.flip(0)):
        feed = {"source": source.numpy(), "target": target.numpy(), "mask": mask.numpy()}
        (found,) = load_session(path).run(None, feed)
        wanted = compressed.module(source, target, mask).detach().numpy()
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)
