"""What is installed, and what the files around the code say of it."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

from muquant.base.extras import EXTRAS, NEEDS

ROOT = Path(__file__).parent.parent
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
OPTIONAL: dict[str, list[str]] = PROJECT["optional-dependencies"]
DISTRIBUTIONS = packages_distributions()
"""Module -> what has installed it."""
PACKAGES = [ROOT / path for path in PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]]
SAY_THEMSELVES = {"imagecorruptions", "lightning", "olive", "openvino", "torchao"}
"""Modules whose own files say how they are installed."""
BEFORE = {"serve": [], "torch": ["serve"], "bench": ["torch"], "timm": ["torch"]}
"""Extra -> those that are in it."""


def distributions(requirements: list[str]) -> set[str]:
    """The names of distributions, without ours."""
    names = {re.split(r"[\[<>=~; ]", each)[0].lower() for each in requirements}
    return names - {"muquant"}


def distribution(module: str) -> str:
    return DISTRIBUTIONS.get(module, [module])[0].lower().replace("_", "-")


def imports(file: Path) -> Iterator[str]:
    """The top names of all that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            assert node.module is not None
            yield node.module.partition(".")[0]


@pytest.mark.parametrize("extra", EXTRAS)
def test_an_extra_brings_the_modules_that_it_is_said_to_bring(extra: str) -> None:
    assert {distribution(module) for module in EXTRAS[extra]} == distributions(OPTIONAL[extra])


def test_extras_come_after_those_that_are_in_them() -> None:
    order = list(EXTRAS)
    assert set(NEEDS.values()) <= set(BEFORE) == set(order)
    for extra, inside in BEFORE.items():
        assert [each for each in OPTIONAL[extra] if each.startswith("muquant")] == [
            f"muquant[{each}]" for each in inside
        ]
        assert all(order.index(each) < order.index(extra) for each in inside)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_whatever_is_imported_is_installed_by_something(package: Path) -> None:
    always = {"click", "lazy_loader", "rich"}
    assert {distribution(module) for module in always} == distributions(PROJECT["dependencies"])
    known = sys.stdlib_module_names | {each.name for each in PACKAGES} | always | SAY_THEMSELVES
    known |= {module for modules in EXTRAS.values() for module in modules}
    unknown = {(name, file) for file in package.rglob("*.py") for name in imports(file) if name not in known}
    assert not unknown


def test_what_needs_something_is_there() -> None:
    for name in NEEDS:
        folder = next(each.parent for each in PACKAGES if each.name == name.partition(".")[0])
        path = folder / name.replace(".", "/")
        assert path.is_dir() or path.with_suffix(".py").is_file(), name


def test_all_packages_have_types() -> None:
    assert all((package / "py.typed").is_file() for package in PACKAGES)


def test_extras_that_texts_name_are_there() -> None:
    texts = [*ROOT.glob("*.md"), *ROOT.glob(".ci/run"), *(p for each in PACKAGES for p in each.rglob("*.py"))]
    named = {
        extra
        for text in texts
        for names in re.findall(r"muquant\\?\[([a-z,]+)\\?\]", text.read_text())
        for extra in names.split(",")
    }
    assert {"serve", "torch"} <= named <= set(OPTIONAL)


def test_ci_runs_the_pythons_that_are_promised() -> None:
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    (listed,) = re.findall(r"python: \[(.+)\]", workflow)
    pythons = re.findall(r"\"(3\.\d+)\"", listed)
    prefix = "Programming Language :: Python :: 3."
    assert [f"{prefix}{each[2:]}" for each in pythons] == [
        each for each in PROJECT["classifiers"] if each.startswith(prefix)
    ]
    assert PROJECT["requires-python"] == f">={pythons[0]}"
    assert re.search(r"run: \.ci/run$", workflow, re.MULTILINE)


def test_the_citation_is_of_this_version() -> None:
    citation = (ROOT / "CITATION.cff").read_text()
    assert re.findall(r"^version: (.+)$", citation, re.MULTILINE) == [PROJECT["version"]]
    assert re.findall(r"^license: (.+)$", citation, re.MULTILINE) == [PROJECT["license"]]
