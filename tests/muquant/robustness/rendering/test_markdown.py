"""The Markdown is read back by another library's parser."""

import re
from dataclasses import replace

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from muquant.base.text import code, escape
from muquant.robustness.rendering import to_markdown
from muquant.robustness.report import Report

HOSTILE = "a|b `c` ``d`` <script>x</script> *e* [f](http://g) @h #1 &amp; \\| \n| i"


def tokens(text: str) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(text)


def tables(text: str) -> list[list[list[str]]]:
    """All tables, as rows of the plain text of their cells."""
    found: list[list[list[str]]] = []
    for token, inside in zip(tokens(text), tokens(text)[1:], strict=False):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append([])
        elif token.type in ("th_open", "td_open"):
            found[-1][-1].append("".join(child.content for child in inside.children or []))
    return found


def named(text: str, *head: str) -> dict[str, list[str]]:
    """The table whose head begins with `head`: first column -> the others."""
    (found,) = (rows for rows in tables(text) if tuple(rows[0][: len(head)]) == head)
    return {row[0]: row[1:] for row in found}


def test_corruptions_stand_apart(report: Report) -> None:
    _, _, text = to_markdown(report).partition("### Accuracy under corruptions, which are no attacks\n")
    empty = " - |" * (len(report.models) - 1)
    for row in (
        f"| fog | 75.0% (90 85 80 70 50) |{empty}",
        f"| jpeg compression | 80.0% (90 85 80 75 70) |{empty}",
        f"| mean | 77.5% (90 85 80 72 60) |{empty}",
    ):
        assert row in text
    assert "adversarial float, PyTorch: 77.5% on average over 2 kinds and 5 severities" in text
    bare = replace(report, models=tuple(replace(model, corruptions=None) for model in report.models))
    assert "corruptions" not in to_markdown(bare)


def test_the_first_table_is_the_worst_case(report: Report) -> None:
    header, *body = tables(to_markdown(report))[0]
    assert header[4:] == ["certified", "AA standard", "worst case", "95% interval", "verdict"]
    for row, model in zip(body, report.models, strict=True):
        assert model.worst_case is not None
        assert model.worst_case_interval is not None
        low, high = model.worst_case_interval
        assert row[0] == model.name
        assert row[3:8] == [
            f"{model.clean:.1%}",
            "-" if model.certified is None else f"{model.certified:.1%}",
            "-" if model.aa_standard is None else f"{model.aa_standard:.1%}",
            f"{model.worst_case:.1%}",
            f"{low:.1%} to {high:.1%}",
        ]
        assert f" {model.verdict} (" in row[8]


def test_without_autoattack_nothing_is_said_of_it(report: Report) -> None:
    models = tuple(replace(model, aa_standard=None) for model in report.models)
    assert "AA standard" in to_markdown(report)
    assert "AA standard" not in to_markdown(replace(report, models=models))


def test_without_proofs_nothing_is_said_of_them(report: Report) -> None:
    models = tuple(replace(model, certified=None) for model in report.models)
    assert "ertified" in to_markdown(report)
    assert "ertified" not in to_markdown(replace(report, models=models))


def test_every_attack_on_every_model_is_in_the_table(report: Report) -> None:
    text = to_markdown(report)
    found = named(text, "attack", "with") | named(text, "attack", "within")
    for place, model in enumerate(report.models):
        assert found["attack"][1 + place].startswith(model.name)
        for name, attack in model.attacks.items():
            cell = found[name][1 + place]
            if attack.accuracy is None:
                assert cell == "not available"
                continue
            assert re.findall(r"[\d.]+%", cell)[0] == f"{attack.accuracy:.1%}"
            assert ("of 200" in cell) == (attack.count != 1000)
            assert ("↻" in cell) == (attack.source == "replay")
            assert ("(99.5%)" in cell) == (attack.agreement is not None)
        for name in set(found) - set(model.attacks) - {"attack"}:
            assert found[name][1 + place] == "-"


def test_noises_are_apart(report: Report) -> None:
    text = to_markdown(report)
    assert list(named(text, "attack", "with")) == ["attack", "normal-noise", "uniform-noise"]
    assert "normal-noise" not in named(text, "attack", "within")


def test_the_curves_are_in_tables(report: Report) -> None:
    first, second = (rows for rows in tables(to_markdown(report)) if rows[0][0] == "epsilon")
    for rows, place in ((first, 0), (second, 1)):
        for column, model in ((1, 0), (2, 2), (3, 4)):
            curve = report.models[model].curves[place]
            assert [float(row[0]) for row in rows[1:]] == list(curve.epsilon)
            assert [row[column] for row in rows[1:]] == [f"{share:.1%}" for share in curve.accuracy]


def test_curves_with_other_radii_leave_gaps(report: Report) -> None:
    curve = report.models[0].curves[0]
    short = replace(curve, epsilon=(0.0, 0.123), accuracy=(1.0, 0.5))
    models = (report.models[0], replace(report.models[1], curves=(short,)))
    rows = next(
        rows for rows in tables(to_markdown(replace(report, models=models))) if rows[0][0] == "epsilon"
    )
    cells = {row[0]: row[1:] for row in rows}
    assert cells["0.123"] == ["-", "50.0%"]
    assert cells["0.05"] == ["99.0%", "-"]


def test_flags_come_with_value_threshold_and_explanation(report: Report) -> None:
    lines = [token.content for token in tokens(to_markdown(report)) if token.type == "inline"]
    for flag in (flag for model in report.models for flag in model.flags):
        (line,) = (line for line in lines if line.startswith(f"**{flag.check}** ({flag.kind})"))
        assert f"{flag.value:g} where at most {flag.threshold:g} is expected" in line
        assert flag.explanation in line


def test_models_without_checks_say_why(report: Report) -> None:
    lines = [token.content for token in tokens(to_markdown(report)) if token.type == "inline"]
    assert "`robust 3 bits`, onnxruntime: checked as a PyTorch model" in lines
    assert "`vendor.onnx`, onnxruntime: no check was run" in lines


def test_the_costs_are_in_a_table(report: Report) -> None:
    found = named(to_markdown(report), "queries, time")
    for place, model in enumerate(report.models):
        for name, attack in model.attacks.items():
            queries = found[name][place].split(" in ")[0].replace(",", "")
            assert queries == ("-" if attack.source == "not available" else str(attack.queries))


def test_the_provenance_is_there(report: Report) -> None:
    text = to_markdown(report)
    assert f"- command: `{report.provenance['command']}`" in text
    assert report.data["digest"] in text
    assert "10, 20, 30" not in text


def test_names_of_strangers_stay_names(report: Report) -> None:
    first = report.models[0]
    attacks = {HOSTILE: first.attacks["apgd-ce"]}
    flag = replace(first.flags[0], check=HOSTILE, explanation=HOSTILE)
    models = [replace(first, name=HOSTILE, attacks=attacks, checks=(flag,))]
    text = to_markdown(
        replace(
            report, models=tuple(models), suite=HOSTILE, provenance={"command": HOSTILE, HOSTILE: HOSTILE}
        )
    )
    found = [child for token in tokens(text) for child in token.children or []]
    kinds = {token.type for token in (*tokens(text), *found)}
    assert not kinds & {"link_open", "image", "em_open", "fence", "code_block"}
    tags = {child.content for child in found if child.type == "html_inline"}
    assert tags <= {"<br>", "</details>"}
    assert all("script" not in token.content for token in tokens(text) if token.type == "html_block")
    plain = " ".join(HOSTILE.split())
    assert tables(text)[0][1][0] == plain
    assert {len(row) for row in tables(text)[0]} == {7}
    assert any(plain in "".join(child.content for child in token.children or []) for token in tokens(text))


@pytest.mark.parametrize("text", ["a", "a`b", "``", "`", " a ", "a\nb", "", "|", "\\", "a``b`c"])
def test_a_code_span_holds_any_text(text: str) -> None:
    (token,) = (token for token in tokens(f"x {code(text)} y") if token.type == "inline")
    spans = [child for child in token.children or [] if child.type == "code_inline"]
    assert [span.content.strip() for span in spans] == [" ".join(text.split())]


@pytest.mark.parametrize("text", [HOSTILE, "# a", "1. a", "- a", "> a", "_a_ __b__ ~c~ ![d](e)", "<!-- a"])
def test_an_escaped_sentence_is_plain(text: str) -> None:
    (token,) = (token for token in tokens(f"x {escape(text)}") if token.type == "inline")
    assert {child.type for child in token.children or []} == {"text"}
    assert "".join(child.content for child in token.children or []) == "x " + " ".join(text.split())
