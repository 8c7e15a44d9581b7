"""A model card beside a file: Markdown in the shape of Hugging Face's, a section for each command that had
`--card`.

What stands between a command's marks is written anew whenever it runs; all else in the card is whoever's it
is, and stays.
"""

import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import muquant
from muquant import AnswersCheck, CompressedModel
from muquant.base.errors import InputError
from muquant.base.files import check_writable, write_bytes
from muquant.base.provenance import provenance
from muquant.base.reading import read_bytes
from muquant.base.text import byte_size, code, escape, markdown_table
from muquant_cli.output import Output
from muquant_onnx import CompressReport, ExportReport, VerifyReport

SUFFIX = ".card.md"
_LARGEST = 2**24
_STALE = {"compress": ("export", "verify", "bench"), "export": ("verify", "bench")}
"""Command -> those whose sections tell of files that it has replaced."""
_SECTION = re.compile(
    r"<!-- muquant (\w+) -->\n(?:(?!<!-- muquant \w+ -->\n).)*?<!-- end of muquant \1 -->\n", re.DOTALL
)
_FEW = 5


def card_of(file: Path) -> Path:
    """Return the path of the card of a file: model.card.md, of model.mq and of model.onnx alike."""
    return file.with_name(f"{file.stem}{SUFFIX}")


def check_card(file: Path, wanted: bool) -> None:
    """Refuse a card that could not be written, before any work is done.

    Raises:
        InputError: it is none, or its folder cannot be written.
    """
    if wanted:
        path = card_of(file)
        check_writable(path)
        _read(path)


def write_card(output: Output, file: Path, sections: Mapping[str, Iterable[str]]) -> dict[str, Any]:
    """Put sections into the card of a file, say so, and return that as a document.

    Args:
        output: where to say it.
        file: whose card it is.
        sections: command -> its lines.

    Raises:
        InputError: the card cannot be read or written.
    """
    path = card_of(file)
    text = _read(path) or "\n".join(_new(file))
    ran = provenance(["muquant", *sys.argv[1:]])
    about = [
        f"- command: {code(ran['command'])}",
        f"- date: {ran['date']}",
        f"- versions: {escape(', '.join(f'{name} {found}' for name, found in ran['versions'].items()))}",
    ]
    for command, lines in sections.items():
        body = "\n".join([*lines, "", *about])
        text = _put(text, command, f"<!-- muquant {command} -->\n{body}\n<!-- end of muquant {command} -->\n")
    write_bytes(path, text.encode())
    output.say(f"Wrote {path}")
    return {"card_path": str(path)}


def of_compression(
    source: str, file: Path, made: CompressedModel | CompressReport, answers: AnswersCheck | None
) -> Iterator[str]:
    """Yield the section of `compress`.

    Args:
        source: what was compressed.
        file: that was written.
        made: what compression returned.
        answers: of the compressed model beside the float one's; None where nobody looked.
    """
    weights = made.weights if isinstance(made, CompressReport) else made.report
    nbytes = made.nbytes if isinstance(made, CompressReport) else file.stat().st_size
    yield "## Weights in few bits"
    yield ""
    yield f"Made from {code(source)}: {escape(made.average_bits.words)}."
    yield ""
    widths = Counter(weight.bits for weight in weights)
    yield markdown_table(
        ["", ""],
        "ll",
        [
            ["file", f"{code(file.name)}, {nbytes:,} bytes"],
            ["weights", escape(made.weight_bytes.words.splitlines()[0])],
            ["widths", ", ".join(f"{bits} bits: {count}" for bits, count in sorted(widths.items()))],
        ],
    )
    yield ""
    yield from _left_float(made.left_alone)
    yield "### Answers beside the float model's"
    yield ""
    yield from ["They were not compared."] if answers is None else _answers(answers)


def of_export(report: ExportReport) -> Iterator[str]:
    """Yield the section of `export`."""
    forms = Counter(use.form for use in report.served)
    inputs: dict[str, list[str]] = {}
    for axis in report.axes:
        inputs.setdefault(axis.input, []).append(str(axis.size))
    yield "## The ONNX file"
    yield ""
    yield markdown_table(
        ["", ""],
        "ll",
        [
            ["file", f"{code(Path(report.path).name)}, {report.nbytes:,} bytes"],
            ["policy", code(report.policy)],
            ["weights are served as", ", ".join(f"{form}: {count}" for form, count in forms.items())],
            *([f"input {code(name)}", code(f"[{', '.join(sizes)}]")] for name, sizes in inputs.items()),
        ],
    )
    yield ""
    yield "A name in place of a size may be any."
    if report.left_float:
        yield ""
        yield from _left_float(report.left_float)


def of_verification(report: VerifyReport, file: Path, beside: Path) -> Iterator[str]:
    """Yield the section of `verify`.

    Args:
        report: what was found.
        file: that was verified.
        beside: the model that it was held against.
    """
    yield "## Verified"
    yield ""
    same = sum(check.passed for check in report.weights)
    bits = f" {same} of {len(report.weights)} weights are the same, bit for bit." if report.weights else ""
    yield (
        f"**{'PASS' if report.passed else 'FAIL'}**: {code(file.name)} beside {code(beside.name)}, on "
        f"{report.count:,} inputs.{bits}"
    )
    yield ""
    floats = {run.runtime: run.cost for run in report.floats}
    rows = []
    for check in report.runtimes:
        cost, plain = check.cost, floats.get(check.runtime)
        rows.append(
            [
                f"{escape(check.runtime)} {escape(check.version)}",
                escape(check.setting if check.policy is None else f"policy {check.policy}"),
                escape(check.failed) if check.failed else f"{check.difference:.1e}",
                "-" if check.agreement is None else f"{check.agreement:.2%}",
                "PASS" if check.passed else "FAIL",
                "-" if cost is None or plain is None else f"{cost.seconds / plain.seconds:.2f}",
            ]
        )
    header = ["runtime", "how", "largest difference", "same class", "", "time to load, of the float file's"]
    yield markdown_table(header, "llrrlr", rows)
    if report.answers is not None:
        yield ""
        yield from _answers(report.answers)


def _put(text: str, command: str, section: str) -> str:
    """Return a card with the section of a command in the place of its old one, or at the end."""
    stale = _STALE.get(command, ())
    text = _SECTION.sub(lambda found: "" if found[1] in stale else found[0], text)
    for found in _SECTION.finditer(text):
        if found[1] == command:
            return text[: found.start()] + section + text[found.end() :]
    return f"{text.rstrip()}\n\n{section}"


def _new(file: Path) -> Iterator[str]:
    yield from ["---", "library_name: muquant", "tags:", "- muquant", "- quantization", "- onnx", "---", ""]
    yield f"# {escape(file.stem)}"
    yield ""
    yield (
        f"A neural network with weights in few bits, spaced by the mu-law, made by muquant "
        f"{muquant.__version__}. Stock onnxruntime runs its ONNX file."
    )
    yield ""
    yield "<!-- What is it for, what is it not for, on which data was it trained, under which license? -->"
    yield ""


def _left_float(left: Sequence[Any]) -> Iterator[str]:
    """What stays float, the most bytes first."""
    if not left:
        yield from ["Nothing stays float.", ""]
        return
    rows = [[code(each.name), byte_size(each.nbytes), escape(each.reason)] for each in left[:_FEW]]
    if left[_FEW:]:
        nbytes = byte_size(sum(each.nbytes for each in left[_FEW:]))
        rows.append([f"{len(left) - _FEW} more", nbytes, ""])
    yield from [markdown_table(["stays float", "size", "because"], "lrl", rows), ""]


def _answers(answers: AnswersCheck) -> Iterator[str]:
    yield f"{escape(answers.words)}."
    if answers.outputs:
        rows = [[code(each.name), each.decibels, each.percent] for each in answers.outputs]
        yield from ["", markdown_table(["output", "SQNR", "equal answers"], "lrr", rows)]
    warning = answers.warning()
    if warning:
        yield from ["", f"**Warning:** {escape(warning)}."]


def _read(path: Path) -> str:
    """Return what is in a card; "" where there is none."""
    if not path.exists():
        return ""
    try:
        return read_bytes(path, _LARGEST).decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no text in UTF-8; move it away, and a card is written") from error
