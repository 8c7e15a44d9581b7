"""What commands print is what they were given."""

import json
import math
import warnings

import pytest
from hypothesis import given, strategies as st

from muquant.base.text import printable
from muquant_cli.output import Output
from muquant_cli.streams import one_line


def test_brackets_in_names_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    output, name = Output(as_json=False), "blocks[red].w[/] [1, 2]"
    output.say(name)
    output.table(f"of {name}", (f"head {name}",), [(name,)])
    printed = capsys.readouterr().out
    assert printed.count(name) == 4
    assert f"of {name}" in printed
    assert f"head {name}" in printed


HOSTILE = "\x1b]0;title\x07\x1b[2J\rx\nWrote all\u202egpj.exe\u2066\x9b31m\ud800 [/x] :boom:"
ESCAPED = r"\x1b]0;title\x07\x1b[2J\rx\nWrote all\u202egpj.exe\u2066\x9b31m\ud800 [/x] :boom:"


def test_text_from_files_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(as_json=False)
    output.say(HOSTILE)
    output.remark(HOSTILE)
    output.complain(HOSTILE)
    output.table(HOSTILE, (HOSTILE,), [(HOSTILE,)])
    with output.progress(HOSTILE) as update:
        update(1, 2, HOSTILE)
    out, err = capsys.readouterr()
    assert out.count(ESCAPED) == 4
    assert err.count(ESCAPED.replace(r"\r", " ").replace(r"\n", " ")) == 1
    assert err.count(ESCAPED) == 1
    assert (out + err).replace("\n", "").isprintable()


def test_a_document_is_json_whatever_it_holds(capsys: pytest.CaptureFixture[str]) -> None:
    document = {
        "name": HOSTILE,
        "nested": [{"x": math.nan, "y": (math.inf, 1.5)}],
        "big": 10**400,
        "no": None,
    }
    Output(as_json=True).result(document)
    printed = capsys.readouterr().out
    assert printed.strip().isascii()
    assert printed.strip().isprintable()
    expected = {**document, "nested": [{"x": None, "y": [None, 1.5]}]}
    assert json.loads(printed) == expected


@given(st.text(st.characters()))
def test_what_is_printable_stays_and_nothing_else_is_printed(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert (shown == text) == text.isprintable()
    assert printable(shown) == shown
    assert all(each in shown for each in text if each.isprintable())


def test_a_warning_is_a_line_of_text(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with one_line():
            warnings.warn("a [red]b\n\x1b[2Jc", UserWarning, stacklevel=1)
    assert capsys.readouterr().err == "muquant: warning: a [red]b \\x1b[2Jc\n"
