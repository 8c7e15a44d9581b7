"""Nothing is imported before it is used, and what is missing is one line."""

import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import muquant_integrations
from muquant.base.errors import InputError
from muquant_integrations.packages import needing

REFERENCE = Path(__file__).parents[2] / "docs/reference/muquant_integrations.md"


def remove(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a package be one that is not installed."""
    for name in [package, *(name for name in sys.modules if name.startswith(f"{package}."))]:
        monkeypatch.setitem(sys.modules, name, None)


def test_what_is_missing_is_one_line_that_says_what_to_install() -> None:
    line = r"^the pass needs the package absent \(No module .*\); install it: pip install absent$"
    with pytest.raises(InputError, match=line), needing("absent", "the pass"):
        importlib.import_module("package_that_nobody_has")


@pytest.mark.parametrize(("package", "called"), [("olive", "olive-ai"), ("lightning", "lightning")])
def test_a_door_to_a_missing_package_says_what_to_install(
    package: str, called: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove(package, monkeypatch)
    monkeypatch.delitem(sys.modules, f"muquant_integrations.{package}", raising=False)
    with pytest.raises(InputError, match=rf"; install it: pip install {called}$"):
        importlib.import_module(f"muquant_integrations.{package}")


def test_torchao_is_asked_for_only_by_its_own_function(monkeypatch: pytest.MonkeyPatch) -> None:
    remove("torchao", monkeypatch)
    with pytest.raises(InputError, match=r"; install it: pip install torchao$"):
        muquant_integrations.register_with_torchao()


def test_the_package_imports_none_of_them() -> None:
    names = {"torch", "olive", "lightning", "torchao"}
    code = f"import sys, muquant_integrations; print({names} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.skipif(not REFERENCE.is_file(), reason="needs the pages of a checkout")
def test_every_public_name_is_in_the_reference() -> None:
    text = REFERENCE.read_text()
    assert all(f"::: muquant_integrations.{name}\n" in text for name in muquant_integrations.__all__)


def test_every_public_name_is_there_where_its_package_is() -> None:
    needs = {"MuLawCompression": "olive", "package_config": "olive", "MuLawQAT": "lightning"}
    for name in muquant_integrations.__all__:
        if name not in needs or importlib.util.find_spec(needs[name]):
            assert hasattr(muquant_integrations, name)
