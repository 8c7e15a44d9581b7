"""What commands print is what they were given."""

import pytest

from muquant_cli.output import Output


def test_brackets_in_names_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    output, name = Output(as_json=False), "blocks[red].w[/] [1, 2]"
    output.say(name)
    output.table(f"of {name}", (f"head {name}",), [(name,)])
    printed = capsys.readouterr().out
    assert printed.count(name) == 4
    assert f"of {name}" in printed
    assert f"head {name}" in printed
