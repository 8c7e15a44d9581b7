"""One table: every kind of layer by policies, granularities and widths, run by stock onnxruntime."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import muquant as mq
from muquant.models.calls import Inputs
from muquant_onnx import export_onnx
from muquant_onnx.from_torch.export import fill_placeholders, serialized, trace_placeholders
from muquant_onnx.lowering.lower import Policy, Served
from muquant_onnx.lowering.targets import choose_target
from muquant_onnx.serving.sessions import RUNTIME_SETTINGS, load_session, running_operators
from muquant_onnx.verification.weights import check_weights

pytestmark = pytest.mark.slow
Array = NDArray[Any]
MATRIX = {"Gemm", "MatMul", "Transpose"}  # consumers whose integer forms are kernels of that width
KERNELS = {"int4": 4, "int8": 8}
BATCHES = (1, 2, 5)


class Tied(nn.Module):
    """An embedding whose table is the output layer too."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(40, 32)
        self.head = nn.Linear(32, 40)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        output: Tensor = self.head(self.embedding(tokens))
        return output


class Twice(nn.Module):
    """One layer called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(32, 32)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.fc(torch.relu(self.fc(x)))
        return output


class Shared(nn.Module):
    """Three layers of one input, as queries, keys and values are."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(32, 24) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.a(x) * self.b(x) + self.c(x)
        return output


class Attention(nn.Module):
    """Self-attention, or attention to keys and values of other widths."""

    def __init__(self, kdim: int | None = None, vdim: int | None = None) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(32, 4, kdim=kdim, vdim=vdim, batch_first=True)

    def forward(self, query: Tensor, key: Tensor | None = None, value: Tensor | None = None) -> Tensor:
        keys, values = query if key is None else key, query if value is None else value
        output: Tensor = self.attention(query, keys, values)[0]
        return output


class Functional(nn.Module):
    """A weight used by hand, transposed, with an activation behind the bias."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(32, 24)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x @ self.fc.weight.t() + self.fc.bias)


@dataclass(frozen=True)
class Case:
    """A module and what it takes: shapes without the batch, or the number of tokens."""

    make: Callable[[], nn.Module]
    shapes: tuple[tuple[int, ...], ...]
    tokens: int = 0

    def inputs(self, batch: int) -> tuple[Tensor, ...]:
        torch.manual_seed(batch)
        if self.tokens:
            return tuple(torch.randint(self.tokens, (batch, *shape)) for shape in self.shapes)
        return tuple(torch.randn(batch, *shape) for shape in self.shapes)


def _normed() -> nn.Module:
    norm = nn.BatchNorm2d(8)
    nn.init.uniform_(norm.running_mean, -1, 1)  # type: ignore[arg-type]
    nn.init.uniform_(norm.running_var, 0.5, 2)  # type: ignore[arg-type]
    nn.init.uniform_(norm.weight, -2, 2)
    nn.init.uniform_(norm.bias)
    return nn.Sequential(nn.Conv2d(4, 8, 3), norm, nn.ReLU())


CASES = {
    "linear-2d": Case(lambda: nn.Linear(32, 24), ((32,),)),
    "linear-3d": Case(lambda: nn.Linear(32, 24), ((5, 32),)),
    "linear-no-bias": Case(lambda: nn.Linear(32, 24, bias=False), ((32,),)),
    "linear-relu": Case(lambda: nn.Sequential(nn.Linear(32, 24), nn.ReLU()), ((32,),)),
    "linear-3d-relu": Case(lambda: nn.Sequential(nn.Linear(32, 24), nn.ReLU()), ((5, 32),)),
    "linear-sigmoid": Case(lambda: nn.Sequential(nn.Linear(32, 24), nn.Sigmoid()), ((32,),)),
    "linear-gelu": Case(lambda: nn.Sequential(nn.Linear(32, 24), nn.GELU()), ((32,),)),
    "linear-transposed-by-hand": Case(Functional, ((32,),)),
    "linear-big": Case(lambda: nn.Sequential(nn.Linear(512, 272), nn.ReLU(), nn.Linear(272, 3)), ((512,),)),
    "conv1d": Case(lambda: nn.Conv1d(4, 8, 9), ((4, 12),)),
    "conv1d-grouped": Case(lambda: nn.Conv1d(8, 8, 9, groups=2), ((8, 12),)),
    "conv2d": Case(lambda: nn.Conv2d(4, 8, 3), ((4, 6, 6),)),
    "conv2d-1x1": Case(lambda: nn.Conv2d(36, 8, 1), ((36, 4, 4),)),
    "conv2d-grouped": Case(lambda: nn.Conv2d(8, 8, 3, groups=2), ((8, 6, 6),)),
    "conv2d-depthwise": Case(lambda: nn.Conv2d(4, 4, 3, groups=4), ((4, 6, 6),)),
    "conv2d-norm-relu": Case(_normed, ((4, 6, 6),)),
    "conv3d": Case(lambda: nn.Conv3d(2, 4, (2, 3, 3)), ((2, 3, 4, 4),)),
    "conv3d-grouped": Case(lambda: nn.Conv3d(4, 4, (2, 3, 3), groups=2), ((4, 3, 4, 4),)),
    "conv-transpose1d": Case(lambda: nn.ConvTranspose1d(4, 8, 9), ((4, 3),)),
    "conv-transpose1d-grouped": Case(lambda: nn.ConvTranspose1d(4, 8, 9, groups=2), ((4, 3),)),
    "conv-transpose2d": Case(lambda: nn.ConvTranspose2d(4, 6, 3), ((4, 4, 4),)),
    "conv-transpose2d-grouped": Case(lambda: nn.ConvTranspose2d(4, 6, 3, groups=2), ((4, 4, 4),)),
    "conv-transpose2d-depthwise": Case(lambda: nn.ConvTranspose2d(4, 4, 3, groups=4), ((4, 4, 4),)),
    "conv-transpose3d": Case(lambda: nn.ConvTranspose3d(2, 4, (2, 3, 3)), ((2, 2, 3, 3),)),
    "conv-transpose3d-grouped": Case(lambda: nn.ConvTranspose3d(4, 4, (2, 3, 3), groups=2), ((4, 2, 3, 3),)),
    "embedding": Case(lambda: nn.Embedding(40, 32), ((6,),), tokens=40),
    "embedding-1d": Case(lambda: nn.Embedding(40, 32), ((),), tokens=40),
    "attention": Case(Attention, ((5, 32),)),
    "attention-other-widths": Case(lambda: Attention(16, 48), ((5, 32), (7, 16), (7, 48))),
    "transformer": Case(
        lambda: nn.TransformerEncoderLayer(32, 4, 48, batch_first=True, dropout=0.0), ((5, 32),)
    ),
    "tied": Case(Tied, ((6,),), tokens=40),
    "called-twice": Case(Twice, ((32,),)),
}
POLICIES: tuple[Policy, ...] = ("float", "int8", "int4", "auto")
# 16 divides the 32 inputs of the matrices and not the 36 of most convolutions; 12 the other way round
SPECS = {
    f"{bits}-{granularity}": mq.MuLawSpec(bits, mu=20.0, granularity=granularity)
    for bits in (3, 2, 4, 8)
    for granularity in ("tensor", "channel", "group:16", "group:12")
} | {
    "mid-tread": mq.MuLawSpec(3, mu=20.0, levels="mid-tread"),
    "mapped": mq.MuLawSpec(3, mu=255.0, domain="mapped"),
    "source": mq.SOURCE_SPEC,
    "8-int8-grid": mq.MuLawSpec(8, mu=5.0, grid="int8"),
    "int4": mq.MuLawSpec(3, mu=5.0, grid="int4"),
    "int4-tensor": mq.MuLawSpec(2, mu=0.0, granularity="tensor", grid="int4"),
    "int4-group:16": mq.MuLawSpec(3, mu=5.0, granularity="group:16", grid="int4"),
    "int4-group:12": mq.MuLawSpec(4, mu=2.0, granularity="group:12", grid="int4"),
    "int4-mid-tread": mq.MuLawSpec(3, mu=5.0, levels="mid-tread", grid="int4"),
    "int4-mid-tread-group:16": mq.MuLawSpec(
        4, mu=2.0, granularity="group:16", levels="mid-tread", grid="int4"
    ),
}
# What a policy makes of a weight depends on its grid, its granularity and whether its levels have a zero; its
# width and its law only change the levels. So each of the former meets each policy, and a width or a law only
# once each granularity and each policy: a Latin square of widths and granularities.
WIDE: dict[str, str] = {
    "3-tensor": "float auto",
    "3-channel": "float int8 int4 auto",
    "3-group:16": "int8 auto",
    "3-group:12": "float int8",
    "2-tensor": "int8",
    "2-channel": "auto",
    "2-group:16": "float",
    "2-group:12": "auto",
    "4-tensor": "auto",
    "4-channel": "float",
    "4-group:16": "int8",
    "4-group:12": "auto",
    "8-tensor": "float",
    "8-channel": "int8 int4",
    "8-group:16": "auto",
    "8-group:12": "float",
    "mid-tread": "float int8 auto",
    "mapped": "float int8",
    "source": "auto",
    "8-int8-grid": "float int8",
}
FOUR_BITS: dict[str, str] = {
    "int4": "float int8 int4 auto",
    "int4-tensor": "int4 auto",
    "int4-group:16": "float int4",
    "int4-group:12": "int8 int4",
    "int4-mid-tread": "int8 int4 auto",
    "int4-mid-tread-group:16": "int4 auto",
}
RUNS = [
    (spec, policy)
    for table in (WIDE, FOUR_BITS)
    for spec, policies in table.items()
    for policy in policies.split()
]


def _batches(spec: str) -> tuple[int, ...]:
    """To save time only 3 bits meet every batch size: widths and batches know nothing of each other."""
    return BATCHES if spec.startswith("3-") else BATCHES[-1:]


class All(nn.Module):
    """Every case side by side in one model: traced once, and one file for each format and policy."""

    def __init__(self) -> None:
        super().__init__()
        self.cases = nn.ModuleDict({name: case.make() for name, case in CASES.items()})

    def forward(self, *inputs: Tensor) -> list[Tensor]:
        rest = iter(inputs)
        return [self.cases[name](*(next(rest) for _ in case.shapes)) for name, case in CASES.items()]


@cache
def _inputs(batch: int) -> tuple[Tensor, ...]:
    return tuple(value for case in CASES.values() for value in case.inputs(batch))


@cache
def _traced() -> tuple[nn.Module, ir.Model]:
    torch.manual_seed(0)
    module = All().eval()
    compressed = mq.compress(module, mq.MuLawSpec(mu=20.0), observer="absmax", flat=True)
    inputs = Inputs.of(_inputs(2))
    return module, trace_placeholders(
        compressed, inputs, [(index, 0) for index in range(len(inputs.tensors))]
    )


@cache
def _compressed(spec: str) -> tuple[mq.CompressedModel, dict[int, list[Array]]]:
    """The model in one format, and PyTorch's outputs for each batch size."""
    compressed = mq.compress(_traced()[0], SPECS[spec], observer="absmax", flat=True)
    with torch.inference_mode():
        return compressed, {
            batch: [x.numpy() for x in compressed.module(*_inputs(batch))] for batch in _batches(spec)
        }


@dataclass(frozen=True)
class Run:
    """What one file is and does."""

    served: list[Served]
    initializers: list[str]
    checks: dict[str, bool]
    operators: dict[str, Counter[str]]  # of each case
    kernels: Counter[int]
    outputs: dict[tuple[str, int], list[Array]]
    loaded: dict[Policy, int]  # kernels for integer matrices


LOADED: dict[Policy, tuple[Policy, ...]] = {
    "float": ("int4", "int8", "auto"),
    "int8": ("float", "int4"),
    "int4": ("float", "int8"),
    "auto": ("float", "int8"),
}
"""Policies by which files of a policy are loaded, too; of most formats only the first, to save time."""


def _filled(spec: str, policy: Policy) -> tuple[ir.Model, list[Served]]:
    model = _traced()[1].clone()
    return model, fill_placeholders(model, _compressed(spec)[0], choose_target("onnxruntime", policy))[0]


@cache
def _run(spec: str, policy: Policy) -> Run:
    model, served = _filled(spec, policy)
    outputs, loaded = {}, {}
    with TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        path.write_bytes(serialized(model))  # runs the full checker
        for setting in RUNTIME_SETTINGS:
            optimized = str(Path(folder, f"{setting}.onnx"))
            session = load_session(path, setting, threads=1, optimized_path=optimized)
            for batch in _batches(spec):
                outputs[setting, batch] = _outputs(session, batch)
        for other in LOADED[policy][: None if spec in ("3-channel", "int4") else 1]:
            optimized = str(Path(folder, f"{other}.onnx"))
            session = load_session(path, "accuracy-1", policy=other, threads=1, optimized_path=optimized)
            outputs[f"loaded as {other}", BATCHES[-1]] = _outputs(session, BATCHES[-1])
            loaded[other] = _kernels(_graph(Path(optimized))).total()
        return Run(
            served,
            [value.name for value in model.graph.initializers.values() if value.name],
            {check.name: check.passed for check in check_weights(_compressed(spec)[0], path)},
            _operators(_graph(Path(folder, "default.onnx"))),
            _kernels(_graph(Path(folder, "default.onnx"))),
            outputs,
            loaded,
        )


def _outputs(session: ort.InferenceSession, batch: int) -> list[Array]:
    names = [entry.name for entry in session.get_inputs()]
    feed = {name: x.numpy() for name, x in zip(names, _inputs(batch), strict=True)}
    outputs: list[Array] = session.run(None, feed)
    return outputs


def _graph(path: Path) -> onnx.GraphProto:
    return onnx.load(path, load_external_data=False).graph


def _operators(graph: onnx.GraphProto) -> dict[str, Counter[str]]:
    """The operators of an optimised model that lead to the output of each case."""
    makes = {name: node for node in graph.node for name in node.output}
    found = {}
    for case, output in zip(CASES, graph.output, strict=True):
        nodes, names = {}, [output.name]
        while names:
            node = makes.get(names.pop())
            if node is not None and node.output[0] not in nodes:
                nodes[node.output[0]] = node.op_type
                names.extend(node.input)
        found[case] = Counter(nodes.values())
    assert sum(map(Counter.total, found.values())) == len(graph.node)  # cases have nothing in common
    return found


def _kernels(graph: onnx.GraphProto) -> Counter[int]:
    """The bits of an optimised model's kernels for integer matrices."""
    return Counter(
        attribute.i
        for node in graph.node
        if node.op_type == "MatMulNBits"
        for attribute in node.attribute
        if attribute.name == "bits"
    )


def _matrices(served: Iterable[Served]) -> Counter[int]:
    """The bits of the kernels for integer matrices that are reported."""
    return Counter(KERNELS[use.form] for use in served if use.form in KERNELS and use.consumer in MATRIX)


@pytest.mark.parametrize(("spec", "policy"), RUNS)
def test_served_as_reported(spec: str, policy: Policy) -> None:
    run, (compressed, expected) = _run(spec, policy), _compressed(spec)
    for place, case in enumerate(CASES):
        prefix = f"cases.{case}."
        weights = {name for name in compressed.tensors if name.startswith(prefix)}
        served = [use for use in run.served if use.weight in weights]

        assert weights, case
        assert {use.weight for use in served} == weights, case
        assert {name for name, passed in run.checks.items() if passed} >= weights, case
        packed = [name for name in run.initializers if name.startswith(prefix) and name.endswith(".packed")]
        assert sorted(packed) == sorted(f"{name}.packed" for name in weights), case
        if policy == "float":
            assert {(use.form, use.reason) for use in served} == {("float", "")}, case
        elif policy == "int4" or (policy == "auto" and SPECS[spec].grid == "int4"):
            assert all(bool(use.reason) == (use.form != "int4") for use in served), case
        else:
            assert all(bool(use.reason) == (use.form == "float") for use in served), case
        assert run.operators[case]["MatMulNBits"] == _matrices(served).total(), case
        for (setting, batch), outputs in run.outputs.items():
            wanted = expected[batch][place]
            tolerance = 0.05 if _matrices(served) and setting == "default" else 1e-5
            np.testing.assert_allclose(
                outputs[place],
                wanted,
                rtol=0,
                atol=tolerance * np.abs(wanted).max(),
                err_msg=f"{case}, {setting}, batch {batch}",
            )
    assert run.kernels == _matrices(run.served)
    assert not any(operators["DequantizeLinear"] for operators in run.operators.values())
    for other, kernels in run.loaded.items():  # a file is served by any policy when it is loaded
        assert kernels == _matrices(_filled(spec, other)[1]).total(), other


@pytest.mark.parametrize("policy", POLICIES)
def test_the_cases_meet_both_forms(policy: Policy) -> None:
    """The table above would say little if everything were served alike."""
    served = {(use.weight.split(".")[1], use.form) for use in _run("3-channel", policy).served}
    int8 = {case for case, form in served if form == "int8"}
    if policy in ("int8", "int4"):  # on this grid 4 bits are not to be had
        matrices = {case for case in CASES if not case.startswith(("conv", "norm"))}
        assert int8 == matrices
    else:
        assert int8 == {"float": set(), "auto": {"linear-big", "embedding", "embedding-1d", "tied"}}[policy]


@pytest.mark.parametrize("spec", ["int4", "int4-mid-tread"])
def test_the_int4_grid_is_served_in_4_bits(spec: str) -> None:
    matrices = {case for case in CASES if not case.startswith(("conv", "embedding"))}
    for policy, in_four_bits in (("int4", matrices), ("auto", {"linear-big"}), ("int8", set())):
        served = _run(spec, policy).served
        assert {use.weight.split(".")[1] for use in served if use.form == "int4"} == in_four_bits
        assert {use.form for use in served if use.consumer == "Gather"} == {"int8"}
        assert {use.consumer for use in served if use.form == "int4"} <= MATRIX


@pytest.mark.parametrize("spec", ["int4", "int4-group:16"])
def test_what_the_4_bit_kernel_leaves_out_takes_few_nodes(spec: str) -> None:
    for case, operators in {
        "linear-2d": {"MatMulNBits": 1, "ReduceSum": 1, "Gemm": 1},
        "linear-no-bias": {"MatMulNBits": 1, "ReduceSum": 1, "Gemm": 1},
        "linear-relu": {"MatMulNBits": 1, "ReduceSum": 1, "FusedGemm": 1},
        "linear-transposed-by-hand": {"MatMulNBits": 1, "ReduceSum": 1, "FusedGemm": 1},
        "linear-3d": {"MatMulNBits": 1, "ReduceSum": 1, "MatMul": 1, "Sum": 1},
        "linear-3d-relu": {"MatMulNBits": 1, "ReduceSum": 1, "MatMul": 1, "Sum": 1, "Relu": 1},
        "called-twice": {"MatMulNBits": 2, "ReduceSum": 2, "FusedGemm": 1, "Gemm": 1},
    }.items():
        found = dict(_run(spec, "int4").operators[case])
        assert found.pop("Reshape", 0) == (0 if spec == "int4" else operators["MatMulNBits"]), case
        assert found == operators, case


def test_products_of_one_input_share_its_sums(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Shared()
    x = torch.randn(4, 32)
    for granularity in ("channel", "group:16"):
        compressed = mq.compress(model, mq.MuLawSpec(3, 5.0, granularity=granularity, grid="int4"), flat=True)
        export_onnx(compressed, tmp_path / "model.onnx", x, "int4")
        running = running_operators(tmp_path / "model.onnx")
        assert (running["MatMulNBits"], running["ReduceSum"]) == (3, 1)
        (found,) = load_session(tmp_path / "model.onnx", "accuracy-1").run(None, {"x": x.numpy()})
        wanted = compressed.module(x).detach().numpy()
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
