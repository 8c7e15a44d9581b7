"""Figures as people read them."""

import pytest
from markdown_it import MarkdownIt

from muquant.base.text import byte_size, markdown_table


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (12_300, "12.30 kB"),
        (1_252_901, "1.25 MB"),
        (-2_000_000, "-2.00 MB"),
        (3 * 10**9, "3.00 GB"),
    ],
)
def test_bytes_have_a_unit(nbytes: int, text: str) -> None:
    assert byte_size(nbytes) == text


def test_another_librarys_parser_finds_the_cells_of_a_table() -> None:
    html = (
        MarkdownIt("commonmark").enable("table").render(markdown_table(["a|b", "c"], "lr", [["`x|y`", "|"]]))
    )
    assert "<th>a|b</th>" in html
    assert '<th style="text-align:right">c</th>' in html
    assert "<td><code>x|y</code></td>" in html
    assert '<td style="text-align:right">|</td>' in html
