"""Tables of the READMEs, from documents that are made up."""

from typing import Any

from figures import runtimes_matrix


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
        "| policy or target | one 1.0 | two 2.0 | three 3 |\n"
        "| --- | --- | --- | --- |\n"
        "| `float` | 5e-07 | 1 of 2: 1e-06 (1) |  |\n"
        "| `int8` | 1 of 2: 1e-03 (2) | no (1) (3) | 0e+00 |\n"
        "\n"
        "(1) no operator: X.\n"
        "\n"
        "(2) it answers otherwise.\n"
        "\n"
        "(3) It hurts; nor does it run the float file."
    )
