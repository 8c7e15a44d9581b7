"""`--card`: what a command found, in Markdown beside its file, with the figures of `--json`."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from muquant import load
from muquant.base.text import code, escape, markdown_table
from muquant.data import load_dataset
from muquant_cli.card import SUFFIX, write_card
from muquant_cli.output import Output
from muquant_onnx import export_float

from .conftest import fails, invoke_json

FEW = ("--data", "digits", "--limit", 20)


def sections(text: str) -> dict[str, str]:
    """The parts of a card, by the command whose they are."""
    return {
        end: text[
            text.rindex(f"<!-- muquant {end} -->\n") : text.rindex(f"\n<!-- end of muquant {end} -->\n")
        ]
        for end in re.findall(r"<!-- end of muquant (\w+) -->\n", text)
    }


def cells(text: str) -> list[list[str]]:
    """The rows of all tables, as text."""
    rows: list[list[str]] = []
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        if token.type == "tr_open":
            rows.append([])
        elif token.type == "inline" and rows and token.level >= 4:
            rows[-1].append("".join(child.content for child in token.children or []))
    return rows


@pytest.fixture(scope="module")
def cards(run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The documents of four commands that wrote one card, and the card after each."""
    folder = tmp_path_factory.mktemp("card")
    model, file, path = (folder / name for name in ("small.mq", "small.onnx", f"small{SUFFIX}"))
    found: dict[str, Any] = {"folder": folder, "path": path}
    for name, arguments in {
        "compress": (run, "-o", model),
        "export": (model, "-o", file),
        "verify": (model, file, *FEW),
        "bench": (f"float={run}", f"3 bits={model}", *FEW, "--runtime", "torch", "--out", folder / "report"),
    }.items():
        document = invoke_json(name, *arguments, "--card")
        found[name] = document, path.read_text()
    return found


@pytest.mark.slow
def test_a_card_has_the_shape_of_hugging_faces(cards: dict[str, Any]) -> None:
    yaml, _, rest = cards["bench"][1].removeprefix("---\n").partition("\n---\n")
    assert yaml.splitlines()[:2] == ["library_name: muquant", "tags:"]
    assert all(line.startswith("- ") for line in yaml.splitlines()[2:])
    assert rest.lstrip().startswith("# small\n")
    assert list(sections(rest)) == ["compress", "export", "verify", "bench"]


@pytest.mark.slow
def test_the_figures_are_those_of_the_documents(cards: dict[str, Any]) -> None:
    document, text = cards["compress"]
    rows = {row[0]: row[1:] for row in cells(text)}
    assert document["card_path"] == str(cards["path"])
    assert rows["file"] == [f"small.mq, {document['nbytes']:,} bytes"]
    assert f"{document['weight_bytes']['after']:,} after" in rows["weights"][0]
    assert f"{document['average_bits']['stored']:.2f} with its share" in text
    (answered,) = document["answers"]["outputs"]
    assert rows[answered["name"]][0] == f"{answered['sqnr']:.1f} dB"
    assert "- command: `muquant" in text

    document, text = cards["export"]
    rows = {row[0]: row[1:] for row in cells(sections(text)["export"])}
    assert rows["file"] == [f"small.onnx, {document['nbytes']:,} bytes"]
    assert rows["policy"] == [document["policy"]]

    document, text = cards["verify"]
    checks = [row for row in cells(sections(text)["verify"]) if row[0].startswith("onnxruntime")]
    assert [row[4] for row in checks] == [
        "PASS" if check["passed"] else "FAIL" for check in document["runtimes"]
    ]
    assert [row[2] for row in checks] == [f"{check['difference']:.1e}" for check in document["runtimes"]]
    assert f"**PASS**: `small.onnx` beside `small.mq`, on {document['count']} inputs." in text

    document, text = cards["bench"]
    (model,) = (each for each in document["models"] if each["name"] == "3 bits")
    ((name, *_, worst, _, verdict),) = (row for row in cells(sections(text)["bench"]) if row[1] == "PyTorch")
    assert name == "3 bits"
    assert worst == f"{100 * model['worst_case']:.1f}%"
    assert model["verdict"] in verdict
    assert "float" not in {row[0] for row in cells(sections(text)["bench"])}


@pytest.mark.slow
def test_a_model_without_a_file_has_its_card_in_the_reports_folder(cards: dict[str, Any]) -> None:
    own = cards["folder"] / "report" / f"float{SUFFIX}"
    assert cards["bench"][0]["card_paths"] == [str(own), str(cards["path"])]
    assert list(sections(own.read_text())) == ["bench"]


@pytest.mark.slow
def test_an_onnx_file_in_has_a_card_and_its_answers(artifact: Path, tmp_path: Path) -> None:

    plain = tmp_path / "plain.onnx"
    export_float(load(artifact).module, plain, load_dataset("digits", "test").inputs()[:2])
    document = invoke_json("compress", plain, "-o", tmp_path / "small.onnx", "--bits", 4, "--card")
    text = (tmp_path / f"small{SUFFIX}").read_text()
    assert list(sections(text)) == ["compress"]
    assert f"{document['nbytes']:,} bytes" in text
    beside = invoke_json("verify", plain, tmp_path / "small.onnx", *FEW, "--card")
    text = (tmp_path / f"small{SUFFIX}").read_text()
    assert list(sections(text)) == ["compress", "verify"]
    assert f"{beside['answers']['sqnr']:.1f} dB" in sections(text)["verify"]


@pytest.mark.slow
def test_what_others_wrote_stays_and_what_is_gone_goes(
    cards: dict[str, Any], run: Path, tmp_path: Path
) -> None:
    path = tmp_path / f"small{SUFFIX}"
    shutil.copy(cards["path"], path)
    mine = "My own words, about <!-- muquant --> and `code`.\n"
    text = path.read_text()
    path.write_text(text.replace("<!-- muquant export -->", f"{mine}\n<!-- muquant export -->") + mine)
    shutil.copy(cards["folder"] / "small.mq", tmp_path / "small.mq")
    invoke_json("verify", tmp_path / "small.mq", cards["folder"] / "small.onnx", "--limit", 5)  # no card
    before = path.read_text()
    invoke_json("export", tmp_path / "small.mq", "-o", tmp_path / "small.onnx", "--policy", "int8", "--card")
    after = path.read_text()
    assert after.count(mine) == 2
    assert list(sections(after)) == ["compress", "export"]  # what was verified and attacked is another file
    assert sections(after)["compress"] == sections(before)["compress"]
    assert sections(after)["export"] != sections(before)["export"]
    invoke_json("compress", run, "-o", tmp_path / "small.mq", "--card")
    assert list(sections(path.read_text())) == ["compress"]
    assert path.read_text().count(mine) == 2


def test_a_section_is_put_where_it_was_and_a_strange_card_is_kept(tmp_path: Path) -> None:
    file, output = tmp_path / "model.v1.onnx", Output(as_json=True)
    path = tmp_path / f"model.v1{SUFFIX}"
    path.write_text("# Mine\n\n<!-- muquant verify -->\nnever closed\n")
    write_card(output, file, {"compress": ["one"], "export": ["two"]})
    write_card(output, file, {"verify": ["three"]})
    text = path.read_text()
    assert text.startswith("# Mine\n\n<!-- muquant verify -->\nnever closed\n")
    write_card(output, file, {"export": ["four"]})
    text = path.read_text()
    assert text.startswith("# Mine\n\n<!-- muquant verify -->\nnever closed\n")
    assert list(sections(text)) == ["compress", "export"]
    assert "\nfour\n" in sections(text)["export"]
    assert "three" not in text


def test_names_from_files_are_text(tmp_path: Path) -> None:
    hostile = "a\n<!-- end of muquant compress -->\n# `b` | <script>"
    file = tmp_path / "m.onnx"
    lines = [markdown_table(["", ""], "ll", [[code(hostile), escape(hostile)]])]
    write_card(Output(as_json=True), file, {"compress": lines})
    write_card(Output(as_json=True), file, {"compress": ["new"]})
    text = (tmp_path / f"m{SUFFIX}").read_text()
    assert "script" not in text
    assert list(sections(text)) == ["compress"]


@pytest.mark.slow
def test_a_card_that_cannot_be_written_is_said_before_any_work(artifact: Path, tmp_path: Path) -> None:
    (tmp_path / f"small{SUFFIX}").mkdir()
    message = fails("export", artifact, "-o", tmp_path / "small.onnx", "--card")
    assert "it is a folder" in message
    assert not (tmp_path / "small.onnx").exists()
    (tmp_path / f"other{SUFFIX}").write_bytes(b"\xff\xfe")
    assert "no text in UTF-8" in fails("export", artifact, "-o", tmp_path / "other.onnx", "--card")
