"""Tables of the READMEs, from documents that are made up."""

from typing import Any

import pytest
from figures import decisions, runtimes, runtimes_matrix, with_figures, zoo_sizes


def ran(difference: float) -> dict[str, Any]:
    return {"default": {"runs": True, "passed": True, "difference": difference}}


def failed(error: str, float_runs: bool = True) -> dict[str, Any]:
    return {"default": {"runs": False, "passed": False, "error": error, "float_runs": float_runs}}


def test_the_matrix_of_runtimes_numbers_the_reasons() -> None:
    off = {"default": {"runs": True, "passed": False, "difference": 0.3}}
    forms = {
        "float": {
            "a": {"one 1.0": ran(2e-7), "two 2.0": failed("no operator: X")},
            "b": {"one 1.0": ran(5e-7), "two 2.0": ran(1e-6)},
        },
        "int8": {
            "a": {"one 1.0": ran(1e-3), "two 2.0": failed("no operator: Y"), "three 3": ran(0.0)},
            "b": {"one 1.0": off, "two 2.0": failed("It hurts.", float_runs=False)},
        },
    }
    assert runtimes_matrix({"forms": forms}) == (
        "| runtime | `float` | `int8` |\n"
        "| --- | --- | --- |\n"
        "| one 1.0 | 5e-07 | 1 of 2: 1e-03 (1) |\n"
        "| two 2.0 | 1 of 2: 1e-06 (2) | no (2) (3) |\n"
        "| three 3 |  | 0e+00 |\n"
        "\n"
        "(1) it answers otherwise.\n"
        "\n"
        "(2) no operator: X.\n"
        "\n"
        "(3) It hurts; nor does it run the float file."
    )


def test_the_front_page_has_a_row_for_each_runtime() -> None:
    forms = {
        "auto": {"a": {"one 1.0": ran(2e-3), "chromium 2.0": ran(5e-7)}, "b": {"one 1.0": ran(4e-3)}},
        "float": {"a": {"one 1.0": ran(2e-7), "chromium 2.0": failed("no operator: X")}},
        "portable": {"a": {"one 1.0": ran(3e-7)}},
        "int8": {"a": {"three 3": ran(0.0)}},
    }
    assert runtimes({"forms": forms}).splitlines()[2:] == [
        "| one 1.0 | 4e-03 | 2e-07 | 3e-07 |",
        "| onnxruntime-web in Chromium, 2.0 | 5e-07 | no (1) |  |",
    ]


def sized(nbytes: int, same: float, seconds: float = 1.0) -> dict[str, Any]:
    return {"nbytes": nbytes, "task": {"same": same, "other": 0.0}, "cpu_seconds": seconds}


def test_sizes_are_shares_of_the_float_file_and_what_cannot_be_made_says_no() -> None:
    networks = {
        "a": {"float_nbytes": 200, "ways": {"muquant, 3 bits": sized(20, 0.5), "peer": sized(50, 1.0)}},
        "b": {"float_nbytes": 100, "ways": {"muquant, 3 bits": sized(40, 0.987), "peer": {"failed": "x"}}},
    }
    assert zoo_sizes({"networks": networks}).splitlines()[2:] == [
        "| **muquant, 3 bits** | 10: 50.0 | 40: 98.7 |",
        "| peer | 25: 100.0 | no |",
    ]


def test_decisions_go_from_the_least_to_the_most_of_the_networks() -> None:
    ways = {f"muquant, {bits} bits": sized(10 * bits, bits / 10, bits) for bits in (2, 3, 4, 6)}
    other = {way: sized(20, 1.0, 9.0) for way in ways}
    sizes = {"a": {"float_nbytes": 100, "ways": ways}, "b": {"float_nbytes": 200, "ways": other}}
    draws = {"draws": [sized(50, 0.4), sized(50, 0.8)]}
    answers = {
        name: dict.fromkeys(("3 bits for all", "default", "default, samples"), draws) for name in sizes
    }
    lines = decisions({"networks": sizes}, {"networks": answers}).splitlines()
    assert lines[2] == "| `--bits 2 --flat --calibration SAMPLES` | 10 to 20 | 20 to 100 | 2 to 9 |"
    assert lines[-1] == "| **`--bits 3 --calibration SAMPLES`** | 25 to 50 | 60 to 60 | 1 to 1 |"


def test_a_page_without_a_place_for_its_figures_is_an_exit() -> None:
    empty = "<!-- figures: mnist_cnn4 -->\n<!-- end of figures -->\n"
    assert "| accuracy, 10,000 test images |" in with_figures("docs/index.md", empty)
    with pytest.raises(SystemExit, match="no place for mnist_cnn4"):
        with_figures("docs/index.md", "")
