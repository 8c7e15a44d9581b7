"""Under which runtimes do files run, for each form that they can have?

    python benchmarks/runtimes_matrix.py [--versions VERSION ...]

Small networks are exported, and ONNX files compressed, in every form, and run under every runtime of
`muquant verify` that is installed; with `--versions` also under these versions of onnxruntime, as
`onnxruntime_versions.py` does it. Outputs have to be those of the compressed model in PyTorch, or of the file
with its weights decoded by numpy. Writes `results/runtimes_matrix.json`, and prints the table of the README.

Packages of npm are found in `node_modules` of the working folder or one above, or by NODE_PATH:
`npm install --ignore-scripts onnxruntime-node onnxruntime-web`.
"""

import argparse
import logging
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx
import torch
from figures import runtimes_matrix
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime_versions import Network, keep_answers, tried
from provenance import RESULTS, write_results
from torch import Tensor, nn

import muquant
from muquant.base.reading import read_json
from muquant.compression.answers.report import AnswersWarning
from muquant.models import build_model
from muquant.quantization.outcome import finite
from muquant_onnx import compress_onnx, export_float, export_onnx, load_session
from muquant_onnx.lowering.lower import Policy
from muquant_onnx.lowering.targets import TARGETS
from muquant_onnx.verification.parity import FLOAT_TOLERANCE, ROUNDED_TOLERANCE
from muquant_onnx.verification.runtimes import ALL, Answers, check_runtimes

Array = NDArray[Any]
FORMS: dict[str, dict[str, Any]] = {
    **{policy: {"policy": policy} for policy in get_args(Policy)},
    **{target: {"target": target} for target in TARGETS if target != "onnxruntime"},
    "onnxruntime-kernels": {"target": "onnxruntime-kernels", "policy": "int4"},
    "functions": {"functions": True},
}
"""What a file can be asked to be -> options of whoever writes it."""
SEED, COUNT = 0, 4


@dataclass(frozen=True, eq=False)
class Files:
    """A network in one form.

    Attributes:
        path: of the compressed file.
        plain: of the float file beside it.
        feed: inputs by name.
        expected: the first output.
    """

    path: Path
    plain: Path
    feed: dict[str, Array]
    expected: Array


def spec_for(form: str) -> muquant.MuLawSpec:
    """The number format that a form wants."""
    return muquant.MuLawSpec(grid="int4" if FORMS[form].get("policy") == "int4" else "auto")


@dataclass(frozen=True, eq=False)
class Exported:
    """A network in PyTorch, exported.

    Attributes:
        build: makes it.
        inputs: by the names of arguments.
    """

    build: Callable[[], nn.Module]
    inputs: dict[str, Tensor]

    def files(self, form: str, folder: Path) -> Files:
        """Write it in a form, and as a float file."""
        torch.manual_seed(SEED)
        compressed = muquant.compress(self.build().eval(), spec_for(form), flat=True)
        path, plain = folder / "small.onnx", folder / "float.onnx"
        export_onnx(compressed, path, self.inputs, **FORMS[form])
        export_float(compressed.module, plain, self.inputs)
        with torch.inference_mode():
            expected = compressed.module(**self.inputs).numpy()
        return Files(path, plain, {name: value.numpy() for name, value in self.inputs.items()}, expected)


@dataclass(frozen=True, eq=False)
class Foreign:
    """An ONNX file, compressed.

    Attributes:
        write: writes it.
        feed: inputs by name.
    """

    write: Callable[[Path], None]
    feed: dict[str, Array]

    def files(self, form: str, folder: Path) -> Files:
        """Write it in a form, and as a float file."""
        path, plain = folder / "small.onnx", folder / "float.onnx"
        self.write(plain)
        compress_onnx(plain, path, spec_for(form), flat=True, check=False, **FORMS[form])
        expected = load_session(path, policy="float").run(None, self.feed)[0]
        return Files(path, plain, self.feed, expected)


class Transformer(nn.Module):
    """Two layers of attention on an embedding: tokens int64 [N, T] -> logits [N, classes]."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(64, 64)
        layer = nn.TransformerEncoderLayer(64, 4, 128, activation="gelu", batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(64, 10)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.head(self.layers(self.embedding(tokens)).mean(1))
        return logits


def drawn(*shape: int) -> Array:
    """Normal numbers."""
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def write_graph(
    path: Path, opset: int, nodes: list[onnx.NodeProto], shapes: tuple[Any, Any], **weights: Array
) -> None:
    """Write a model from x to y, of these shapes."""
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in zip("xy", shapes, strict=True)
    )
    stored = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "graph", [x], [y], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=7)
    onnx.save(model, path)


def write_residual(path: Path) -> None:
    """Convolutions with a sum around them, and a product without a bias in front of a Relu."""
    nodes = [
        helper.make_node("Conv", ["x", "first", "bias"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "second"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["a", "c"], ["d"]),
        helper.make_node("GlobalAveragePool", ["d"], ["e"]),
        helper.make_node("Flatten", ["e"], ["f"]),
        helper.make_node("MatMul", ["f", "hidden"], ["g"]),
        helper.make_node("Relu", ["g"], ["h"]),
        helper.make_node("MatMul", ["h", "head"], ["y"]),
    ]
    weights = {
        "first": drawn(32, 3, 3, 3) / 5,
        "bias": drawn(32),
        "second": drawn(32, 32, 3, 3) / 17,
        "hidden": drawn(32, 64) / 5,
        "head": drawn(64, 10) / 8,
    }
    write_graph(path, 17, nodes, (["n", 3, 12, 12], ["n", 10]), **weights)


def write_recurrent(path: Path) -> None:
    """An LSTM and a product behind it, of an old opset."""
    nodes = [
        helper.make_node("LSTM", ["x", "w", "r", "b"], ["", "h"], hidden_size=32),
        helper.make_node("Squeeze", ["h", "axis"], ["s"]),
        helper.make_node("Gemm", ["s", "head", "bias"], ["y"]),
    ]
    weights = {
        "w": drawn(1, 128, 24) / 5,
        "r": drawn(1, 128, 32) / 6,
        "b": drawn(1, 256) / 5,
        "axis": np.array([0]),
        "head": drawn(32, 10) / 6,
        "bias": drawn(10),
    }
    write_graph(path, 13, nodes, ([6, "n", 24], ["n", 10]), **weights)


def images(*shape: int) -> Tensor:
    """Numbers from 0 to 1."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(SEED))


def tokens(most: int, length: int) -> Tensor:
    """Whole numbers below `most`."""
    return torch.randint(0, most, (COUNT, length), generator=torch.Generator().manual_seed(SEED))


NETWORKS: dict[str, Exported | Foreign] = {
    "cnn4": Exported(lambda: build_model("cnn4", (1, 28, 28), 10), {"x": images(COUNT, 1, 28, 28)}),
    "transformer": Exported(Transformer, {"tokens": tokens(64, 12)}),
    "mixed": Exported(Network, {"image": images(COUNT, 1, 8, 8), "tokens": tokens(20, 5)}),
    "residual.onnx": Foreign(write_residual, {"x": drawn(COUNT, 3, 12, 12)}),
    "recurrent.onnx": Foreign(write_recurrent, {"x": drawn(6, COUNT, 24)}),
}


def main() -> None:
    """Write the files, run them, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS), metavar="FORM")
    parser.add_argument(
        "--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS), metavar="NAME"
    )
    parser.add_argument("--versions", nargs="+", default=[], help="of onnxruntime, installed for a while")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    options = parser.parse_args()
    logging.disable(logging.WARNING)  # the exporter's progress
    warnings.filterwarnings("ignore", category=AnswersWarning)  # the networks have not learned anything
    results: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder, written = Path(name), dict[tuple[str, str], str]()
        for form in options.forms:
            results[form] = {}
            for network in options.networks:
                place = folder / f"{form}-{network}"
                place.mkdir()
                files = NETWORKS[network].files(form, place)
                results[form][network], missing = under_runtimes(files)
                written[form, network] = str(files.path.relative_to(folder))
                keep_answers(files.path, files.feed, files.expected)
                print(form, network, results[form][network], flush=True)
        for version in options.versions:
            found = tried(version, folder, list(written.values()))
            for (form, network), file in written.items():
                results[form][network][f"onnxruntime {version}"] = {"default": by_version(found[file])}
    document = {"count": COUNT, "missing": missing, "forms": results}
    path = write_results("runtimes_matrix", SEED, document, options.out)
    print(runtimes_matrix(read_json(path)))
    print(f"wrote {path}")


def under_runtimes(files: Files) -> tuple[dict[str, Any], dict[str, str]]:
    """Runtime with its version -> setting -> what was found; and which runtimes are missing."""
    found = check_runtimes(files.path, files.plain, [], Answers([files.feed], [[files.expected]], {}), [ALL])
    plain = {run.runtime: run.failed for run in found.floats}
    row: dict[str, Any] = {}
    for check in found.runtimes:
        about: dict[str, Any] = {"runs": not check.failed, "passed": check.passed}
        if check.failed:
            about["error"] = check.failed
            about["float_runs"] = not plain[check.runtime]
        else:
            about["difference"] = finite(check.difference)
        row.setdefault(f"{check.runtime} {check.version}", {})[check.setting] = about
    return row, found.missing


def by_version(found: dict[str, Any]) -> dict[str, Any]:
    """What `tried` found, in the same words."""
    near = found["runs"] and found["difference"] <= (
        ROUNDED_TOLERANCE if found["kernel"] else FLOAT_TOLERANCE
    )
    return {"passed": near, **found}


if __name__ == "__main__":
    main()
