"""Write the figures of the pages from `results/`: python benchmarks/figures.py [--check]."""

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from paper.networks import OUR_ROWS
from paper.published import published
from paper.targets import accuracy
from robust.page import points, proven, table as leaderboard

from muquant.base.files import write_bytes
from muquant.base.text import byte_size, markdown_table

ROOT = Path(__file__).parent.parent


def mnist_cnn4(document: dict[str, Any]) -> str:
    """Return the table of the whole path on MNIST."""
    plain, ours, source = document["accuracy"].values()
    policies = document["policies"]
    auto = policies["auto"]
    agreement = {
        name: next(
            check["agreement"]
            for check in policies[name]["verify"]["runtimes"]
            if check["setting"] == "default"
        )
        for name in ("float", "auto")
    }
    head = ("", "float32", "**muquant, 3 bits**", "the paper's 3-bit quantizer")
    rows = (
        (f"accuracy, {document['count']:,} test images", f"{plain:.2%}", f"**{ours:.2%}**", f"{source:.2%}"),
        (
            "ONNX file",
            byte_size(document["float_nbytes"]),
            f"**{byte_size(auto['nbytes'])}** (1/{auto['float_over_file']:.2f})",
            "",
        ),
        (
            "same answer as PyTorch, policy `float` / `auto`",
            "",
            f"{agreement['float']:.2%} / {agreement['auto']:.2%}",
            "",
        ),
        (
            "time for one image, policy `auto`",
            "1",
            f"**{document['latency_batch_1']['auto']['ratio_to_float_file']:.2f}**",
            "",
        ),
    )
    return markdown_table(head, "l" * len(head), rows)


ROBUST = {
    "float": "adversarially trained, float32",
    "trained": "**trained on at 3 bits**",
    "rounded": "rounded to 3 bits",
}
"""Name in `robust_3bit.json` -> in the table."""


def robust_3bit(document: dict[str, Any]) -> str:
    """Return the table of what 3 bits do to a robust network."""
    standard = f"AA standard, {document['count']:,} images"
    head = ("", "clean", standard, "of each seed", "as a file", "cost of bits, points", "weights")
    rows = []
    for name, network in document["networks"].items():
        label = ROBUST[name]
        bold, lost = "**" if "**" in label else "", ""
        if name != "float":
            lost = points((network["cost"]["mean"], *network["cost"]["interval"]))
        rows.append(
            (
                label,
                f"{network['clean']:.1%}",
                f"{bold}{network['aa_standard']:.1%}{bold}",
                ", ".join(f"{each['aa_standard']:.1%}" for each in network["of_each_seed"]),
                f"{network['as_a_file']:.1%}",
                lost,
                byte_size(network["nbytes"]),
            )
        )
    return markdown_table(head, "l" * len(head), rows)


NETWORKS = {"mnist": "cnn4, MNIST", "cifar10-jpeg": "wrn-16-2, CIFAR-10 (JPEG)"}
"""Name in `calibrated.json` -> in the table."""


def calibrated(document: dict[str, Any]) -> str:
    """Return the table of what samples do for accuracy."""
    head = ("accuracy", "float32", "bits", "weights alone", f"**{document['samples']} samples**")
    rows = []
    for name, label in NETWORKS.items():
        network = document["results"][name]
        for bits in (3, 2):
            alone, sampled = (
                mean(network[f"{bits} bits"][way]["accuracy"]) for way in ("weights only", "default")
            )
            rows.append((label, f"{network['float']:.2%}", str(bits), f"{alone:.2%}", f"**{sampled:.2%}**"))
    return markdown_table(head, "l" * len(head), rows)


SERVED = {
    "muquant int8": "**muquant, `int8`**",
    "muquant int8, cached": "**muquant, `int8`, loaded before with `cache=`**",
    "muquant int4": "**muquant on the 4-bit grid, `int4`**",
    "muquant auto": "**muquant, `auto`**",
    "muquant float": "**muquant, `float`**",
    "muquant packed": "**muquant, `packed`**",
    **{
        f"muquant {policy}, onnxruntime alone": f"muquant, exported as `{policy}`, onnxruntime alone"
        for policy in ("int8", "int4", "float", "auto")
    },
    **{
        f"muquant {policy}, kernels in the file": f"the same, `--target onnxruntime-kernels`, `{policy}`"
        for policy in ("int8", "int4")
    },
    "MatMulNBits 4-bit, block 32": "onnxruntime, 4 bits, blocks of 32",
    "MatMulNBits 4-bit, block 128": "onnxruntime, 4 bits, blocks of 128",
    "MatMulNBits 8-bit, block 128": "onnxruntime, 8 bits, blocks of 128",
    "static int8 QDQ": "onnxruntime, static int8, activations too",
}
"""Name in `runtime_peers.json` -> in the table."""
COSTS = {
    "file, encoder": ("encoder", "nbytes"),
    "load, 67 million weights": ("MLP, 4 x 4096 x 4096", "load_seconds"),
    "memory then": ("MLP, 4 x 4096 x 4096", "settled_bytes"),
    "4096 x 4096, batch 1": ("Linear, 4096 x 4096", "latency_1_ms"),
    "encoder, batch 1": ("encoder", "latency_1_ms"),
    "cnn4, batch 1": ("cnn4", "latency_1_ms"),
}
"""Column -> network and measure."""


def runtime_peers(document: dict[str, Any]) -> str:
    """Return the table of what files cost, as multiples of the float file's costs."""
    head, rows = ("times float32", *COSTS), []
    for name, label in SERVED.items():
        costs = (cost(document["models"][network]["variants"], name, key) for network, key in COSTS.values())
        rows.append((label, *costs))
    return markdown_table(head, "l" * len(head), rows)


def cost(variants: dict[str, Any], name: str, measure: str) -> str:
    """One cell."""
    if "failed" in variants[name]:
        return "-"
    found = variants[name][measure]
    over = found["over_float"] if isinstance(found, dict) else found / variants["float file"][measure]
    return f"{over:.2f}" if over < 10 else f"{over:.0f}"


def runtimes_matrix(document: dict[str, Any]) -> str:
    """Return the table of which runtimes run which forms, and why some do not."""
    reasons: dict[str, str] = {}
    table = _by_runtime(document["forms"], [f"`{form}`" for form in document["forms"]], reasons)
    lines = (f"({number}) {text}." for number, text in enumerate(reasons.values(), 1))
    return "\n\n".join([table, *lines])


def runtimes(document: dict[str, Any]) -> str:
    """Return the table of how far runtimes are off, by the forms that all of them run."""
    forms = {form: document["forms"][form] for form in ("auto", "float", "portable")}
    return _by_runtime(forms, ("as it comes (`auto`)", "`--policy float`", "`--target portable`"), {})


def _by_runtime(forms: dict[str, Any], heads: Sequence[str], reasons: dict[str, str]) -> str:
    """A row for each runtime, a column for each form; why something does not run goes into `reasons`."""
    names = dict.fromkeys(name for row in forms.values() for found in row.values() for name in found)
    rows = []
    for name in names:
        found = ([one[name]["default"] for one in row.values() if name in one] for row in forms.values())
        label = name.replace("chromium", "onnxruntime-web in Chromium,")
        rows.append((label, *(_runs(files, reasons) for files in found)))
    return markdown_table(("runtime", *heads), "l" * (1 + len(heads)), rows)


def _runs(files: Sequence[dict[str, Any]], reasons: dict[str, str]) -> str:
    """The largest difference of the files that a runtime runs, and numbers of reasons why it does not run
    others; what is new is added to `reasons`, by its beginning."""
    ran = [each["difference"] for each in files if each["passed"]]
    why = sorted({_why_not(each) for each in files if not each["passed"]})
    for text in why:
        reasons.setdefault(text.partition(":")[0], text)
    numbers = sorted({list(reasons).index(text.partition(":")[0]) + 1 for text in why})
    notes = "".join(f" ({number})" for number in numbers)
    if not ran:
        return f"no{notes}" if files else ""
    return f"{len(ran)} of {len(files)}: {max(ran):.0e}{notes}" if notes else f"{max(ran):.0e}"


def _why_not(found: dict[str, Any]) -> str:
    """What is wrong with a file under a runtime."""
    also = "" if found.get("float_runs", True) else "; nor does it run the float file"
    return f"{found.get('error', 'it answers otherwise').rstrip('.')}{also}"


PEERS = (
    "float",
    "onnxruntime RTN 4-bit, block 32",
    "muquant 3-bit, reconstructed, group 128",
    "muquant 3-bit, compensated, channel",
    "Brevitas 3-bit, GPTQ, group 128",
    "AIMET 3-bit, Sequential MSE, group 128",
    "HQQ 3-bit, group 64",
    "torchao 3-bit, HQQ, group 128",
    "RTN 3-bit, min-max, group 128",
    "RTN 3-bit, absmax, channel",
)
"""Those of `compress_peers.json` that the table shows."""


def compress_peers(document: dict[str, Any]) -> str:
    """Return the table of what an encoder loses."""
    count = document["results"]["float"]["masked"]
    head = (
        "",
        "bits a weight",
        "divergence, 1/1000 nat",
        "SQNR of logits",
        f"accuracy, {count:,} masked bytes",
        "compressed in",
    )
    rows = []
    for name in PEERS:
        row = document["results"].get(name, {"failed": "not run"})
        if "failed" in row:
            continue
        bold = "**" if name.startswith("muquant") else ""
        rows.append(
            (
                f"{bold}{name}{bold}",
                f"{row['bits_per_weight']:.2f}",
                f"{1000 * row['divergence']:.2f}",
                "" if row["logit_sqnr"] is None else f"{row['logit_sqnr']:.1f} dB",
                f"{row['accuracy']:.2%}",
                "" if name == "float" else f"{row['seconds']:.1f} s",
            )
        )
    return markdown_table(head, "l" * len(head), rows)


def paper(document: dict[str, Any]) -> str:
    """Return what the source claims, what the same attack finds here, and what is left in the worst case."""
    head = ("accuracy in %, ours (source)", "clean", "PGD", "PGD on the margin", "worst case", "robustness")
    rows = []
    for name, row in document["rows"].items():
        bold = "**" if name in OUR_ROWS else ""
        claims = (published(document["data"], "white_box", name, column) for column in ("Clean", "PGD"))
        found = (accuracy(row, attack) for attack in ("clean", "pgd"))
        cells = (
            f"{bold}{100 * share:.1f}{bold}" + ("" if claim is None else f" ({100 * claim:.1f})")
            for share, claim in zip(found, claims, strict=True)
        )
        rest = (accuracy(row, "pgd-margin"), row["worst_case"])
        shares = (f"{bold}{100 * share:.1f}{bold}" for share in rest)
        rows.append((f"{bold}{name}{bold}", *cells, *shares, row["verdict"]))
    return markdown_table(head, "lrrrrl", rows)


def zoo_answers(document: dict[str, Any]) -> str:
    """Return the table of what keeps the answers of networks that others trained."""
    ways = list(dict.fromkeys(way for row in document["networks"].values() for way in row))
    rows = []
    for name, row in document["networks"].items():
        figures = list(next(iter(row.values()))["draws"][0]["task"]) or ["SQNR, dB"]
        for figure in figures:
            found = [
                [_figure(draw, figure) for draw in row[way]["draws"]] if way in row else [] for way in ways
            ]
            rows.append((name, figure, *(f"{sum(each) / len(each):.3f}" if each else "" for each in found)))
    return markdown_table(("network", "figure", *ways), "ll" + "r" * len(ways), rows)


def zoo_sizes(document: dict[str, Any]) -> str:
    """Return the table of what files cost at each width, beside peers: size, and answers that stay."""
    ways = list(next(iter(document["networks"].values()))["ways"])
    head = ("size: answers", *document["networks"])
    rows = []
    for way in ways:
        bold = "**" if way.startswith("muquant") else ""
        cells = (_size_and_answers(row, way) for row in document["networks"].values())
        rows.append((f"{bold}{way}{bold}", *cells))
    return markdown_table(head, "l" + "r" * len(document["networks"]), rows)


def _size_and_answers(row: dict[str, Any], way: str) -> str:
    """One cell; "no" where there is no such file."""
    found = row["ways"].get(way, {"failed": ""})
    if "failed" in found:
        return "no"
    same = next(iter(found["task"].values()))
    return f"{100 * found['nbytes'] / row['float_nbytes']:.0f}: {100 * same:.1f}"


def decisions(sizes: dict[str, Any], answers: dict[str, Any]) -> str:
    """Return the table of what there is to choose, and what each choice costs: from the least to the most."""
    networks = sizes["networks"]
    rows = []
    for bits in (2, 3, 4, 6):
        found = [row["ways"][f"muquant, {bits} bits"] for row in networks.values()]
        sized = [
            one["nbytes"] / row["float_nbytes"] for one, row in zip(found, networks.values(), strict=True)
        ]
        same, seconds = (
            [next(iter(one["task"].values())) for one in found],
            [one["cpu_seconds"] for one in found],
        )
        rows.append(
            (f"`--bits {bits} --flat --calibration SAMPLES`", _span(sized), _span(same), _seconds(seconds))
        )
    for way, options in (
        ("3 bits for all", "`--bits 3 --flat`"),
        ("default", "`--bits 3`"),
        ("default, samples", "**`--bits 3 --calibration SAMPLES`**"),
    ):
        runs = {name: answers["networks"][name][way]["draws"] for name in networks}
        sized = [draws[0]["nbytes"] / networks[name]["float_nbytes"] for name, draws in runs.items()]
        same = [mean(next(iter(draw["task"].values())) for draw in draws) for draws in runs.values()]
        seconds = [mean(draw["cpu_seconds"] for draw in draws) for draws in runs.values()]
        rows.append((options, _span(sized), _span(same), _seconds(seconds)))
    head = ("options", "file, % of float", "answers that stay, %", "seconds of a processor")
    return markdown_table(head, "lrrr", rows)


def _span(shares: Sequence[float]) -> str:
    """From the least to the most, in percent."""
    return f"{100 * min(shares):.0f} to {100 * max(shares):.0f}"


def _seconds(found: Sequence[float]) -> str:
    return f"{min(found):.0f} to {max(found):.0f}"


def _figure(draw: dict[str, Any], figure: str) -> float:
    found: float = draw["task"].get(figure, min(db for db in draw["sqnr"].values() if db is not None))
    return found


def zoo(document: dict[str, Any]) -> str:
    """Return the table of what the defaults do to networks that others trained."""
    head = ("network", "bytes", "compressed", "left float", "SQNR, dB", "answers", "load", "answer", "memory")
    rows = []
    for name, row in document["networks"].items():
        outputs = [db for db in row["sqnr"].values() if db is not None]
        rows.append(
            (
                name,
                byte_size(row["source_nbytes"]),
                f"{byte_size(row['nbytes'])} ({row['ratio']:.2f})",
                f"{row['left_float_share']:.1%}",
                " to ".join(f"{db:.1f}" for db in sorted({min(outputs), max(outputs)})),
                ", ".join(f"{figure} {value:.3f}" for figure, value in row["task"].items()),
                *(
                    f"{row[measure]['ratio']:.2f}"
                    for measure in ("load_cpu_seconds", "answer_cpu_seconds", "load_peak_bytes")
                ),
            )
        )
    return markdown_table(head, "lrrrllrrr", rows)


def beyond_scales(document: dict[str, Any]) -> str:
    """Return tables of what could be had beside a scale for each channel: layers, networks, language."""
    parts = {name: part["results"] for name, part in document["parts"].items()}
    tables = []
    if layers := parts.get("layers"):
        head = ("layers alone, 3 bits", *(f"{name}: bits, dB alone, dB with samples" for name in layers))
        rows = [
            (
                way,
                *(
                    f"{own[way]['bits']:.2f}, {own[way]['alone']:+.2f}, {own[way]['sampled']:+.2f}"
                    for own in layers.values()
                ),
            )
            for way in next(iter(layers.values()))
        ]
        tables.append(markdown_table(head, "l" + "r" * len(layers), rows))
    if whole := parts.get("whole"):
        head = ("networks, 3 bits for all, samples", "", "bits", "file", "distortion", "answers")
        rows = [
            (
                name,
                way,
                f"{row['bits']:.2f}",
                byte_size(row["nbytes"]),
                f"{row['decibels']:.1f} dB",
                ", ".join(f"{figure} {value:.3f}" for figure, value in row["task"].items()),
            )
            for name, ways in whole.items()
            for way, row in ways.items()
        ]
        tables.append(markdown_table(head, "llrrrl", rows))
    if language := parts.get("language"):
        head = ("SmolLM2-135M, weights alone", "bits", "perplexity")
        rows = [(way, f"{row['bits']:.2f}", f"{row['perplexity']:,.1f}") for way, row in language.items()]
        tables.append(markdown_table(head, "lrr", rows))
    return "\n\n".join(tables)


FIGURES: dict[str, dict[str, Callable[..., str]]] = {
    "README.md": {"runtimes_matrix": runtimes},
    "docs/index.md": {"mnist_cnn4": mnist_cnn4},
    "docs/choose.md": {
        "calibrated": calibrated,
        "zoo_sizes and zoo_answers": decisions,
        "runtime_peers": runtime_peers,
        "zoo_answers": zoo_answers,
        "zoo_sizes": zoo_sizes,
    },
    "docs/language.md": {"compress_peers": compress_peers},
    "docs/robustness.md": {"robust_3bit": robust_3bit, "leaderboard": proven},
    "docs/serve.md": {"runtimes_matrix": runtimes_matrix},
    "benchmarks/README.md": {
        "paper_cnn4": paper,
        "paper_wrn-16-2": paper,
        "zoo": zoo,
        "zoo_answers": zoo_answers,
        "beyond_scales": beyond_scales,
    },
    "benchmarks/robust/README.md": {"leaderboard": leaderboard},
}
"""Page -> name of a file in `results/`, or of several, and of a place in the page -> what makes one of the
other."""


def with_figures(page: str, text: str) -> str:
    """Return a page's text with every figure taken anew from its file."""
    for name, render in FIGURES[page].items():
        paths = [ROOT / "benchmarks" / "results" / f"{one}.json" for one in name.split(" and ")]
        measured = all(path.exists() for path in paths)
        table = (
            render(*(json.loads(path.read_text()) for path in paths)) if measured else "*Not measured yet.*"
        )
        begin, end = f"<!-- figures: {name} -->\n", "<!-- end of figures -->"
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        if not pattern.search(text):
            sys.exit(f"{page} has no place for {name}; expected a line {begin.strip()}")
        text = pattern.sub(lambda _: f"{begin}{table}\n{end}", text)  # noqa: B023  # used at once
    return text


def write() -> None:
    """Write every figure of every page."""
    for page in FIGURES:
        text = with_figures(page, (ROOT / page).read_text())
        write_bytes(ROOT / page, text.encode())


def main() -> None:
    """Write, or with `--check` exit with status 1 if there is something to write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    if not parser.parse_args().check:
        write()
        return
    for page in FIGURES:
        text = (ROOT / page).read_text()
        if text != with_figures(page, text):
            sys.exit(f"{page} differs from benchmarks/results; run: python benchmarks/figures.py")


if __name__ == "__main__":
    main()
