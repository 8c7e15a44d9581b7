"""README and site tell the truth: their code runs, their commands exist, their figures were measured."""

import io
import re
import shlex
import shutil
import sys
import tomllib
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from sklearn.datasets import load_digits
from torch import Tensor, nn

import muquant
import muquant_onnx
from muquant_cli import main
from muquant_onnx import export_float
from muquant_onnx.verification.runners.child import measure
from muquant_onnx.verification.runners.runtime import PythonRuntime

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
OTHERS = [ROOT / path for path in re.findall(r'": "(.*\.md)",\n', (ROOT / "docs" / "hooks.py").read_text())]
"""Pages of the site that lie elsewhere, whose blocks belong to other tests."""
EXAMPLES = {"js": ROOT / "examples/node/run.mjs", "cpp": ROOT / "examples/cpp/digits.cpp"}
BLOCK = re.compile(
    r'(<!-- not run: [^\n]+ -->\n)?^```(\w+)(?: title="([^"\n]+)")?\n(.*?)^```', re.MULTILINE | re.DOTALL
)

pytestmark = pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="needs the pages of a checkout")
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


@dataclass
class Block:
    """Code on a page.

    Attributes:
        language: such as "python".
        code: its lines.
        runs: whether it does here, with neither data sets nor downloads.
        title: the file that it is, where it is one.
    """

    language: str
    code: str
    runs: bool
    title: str | None


def blocks(page: Path, *languages: str) -> Iterator[Block]:
    for found in BLOCK.finditer(page.read_text()):
        marked, language, title, code = found.groups()
        if language in languages:
            yield Block(language, code, marked is None, title)


class Classifier(nn.Module):
    """The network of `any.onnx`."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(64, 64), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc2(self.fc1(x.flatten(1)).relu())
        return logits


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the pages take for granted."""
    folder = tmp_path_factory.mktemp("given")
    images = (load_digits().images[:, None] / 16).astype("float32")
    np.savez(folder / "samples.npz", x=images[:64])
    (folder / "mydata.py").write_text(
        "import numpy as np\n\n\ndef loader():\n    return [np.load('samples.npz')['x'][:64]]\n"
    )
    torch.manual_seed(0)
    model, labels = Classifier(), torch.tensor(load_digits().target)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(torch.tensor(images)), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    export_float(model, folder / "any.onnx", torch.tensor(images[:2]))
    run(f"muquant train --data digits --model cnn4-small --epochs 2 --out {folder}/runs/digits")
    return folder


@pytest.fixture
def session(given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of its own for the blocks of a page, in which they run."""
    shutil.copytree(given, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    monkeypatch.setattr(  # in this process; a new one for each file would take half a minute
        PythonRuntime, "measure", lambda own, request: measure(own, replace(request, seconds=0))
    )
    yield tmp_path
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


@pytest.mark.slow
@each_page
def test_the_blocks_of_a_page_run_one_after_the_other(page: Path, session: Path) -> None:
    names: dict[str, Any] = {"__name__": page.stem}
    for block in blocks(page, "python", "sh"):
        if block.title:
            (session / block.title).write_text(block.code)
        elif not block.runs:
            continue
        elif block.language == "python":
            execute(block.code, names)
        else:
            for line in lines(block):
                run(line)


def execute(code: str, names: dict[str, Any]) -> None:
    """Run it; what it prints is what the comments behind `print` begin with."""
    with redirect_stdout(io.StringIO()) as printed:
        exec(compile(code, "<page>", "exec"), names)  # noqa: S102
    found = printed.getvalue().splitlines()
    stated = re.findall(r"^print\(.*\)  # (.*)$", code, re.MULTILINE)
    assert len(found) == len(stated), (found, stated)
    for one, comment in zip(found, stated, strict=True):
        assert comment.startswith(one)


def lines(block: Block) -> list[str]:
    """Commands; a backslash at the end of a line goes on in the next."""
    return [line for line in block.code.replace("\\\n", "").splitlines() if shlex.split(line, comments=True)]


def run(line: str) -> None:
    """Run a command in this process."""
    program, *arguments = shlex.split(line, comments=True)
    assert program == "muquant", f"{line}: mark its block as not run"
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, (line, result.output)


@pytest.mark.parametrize("page", PAGES + OTHERS, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_is_not_run_is_right_as_far_as_can_be_told(page: Path) -> None:
    for block in blocks(page, "python", "sh"):
        if block.language == "python":
            compile(block.code, page.name, "exec")
            continue
        for line in lines(block):
            check(shlex.split(line, comments=True))


def check(words: list[str]) -> None:
    """Fail for a command, an option, a target, an extra or a script that there is not."""
    program, *arguments = words
    match Path(program).name, arguments:
        case "muquant", [name, *rest]:
            command = main.get_command(click.Context(main), name)
            assert command is not None, words
            command.make_context(name, rest)  # raises for an unknown option or a missing argument
        case "make", targets:
            makefile = (ROOT / "Makefile").read_text()
            assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets), words
        case "pip", ["install", what]:
            project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
            extras = re.findall(r"\[(.*)\]", what)
            assert set(extras) <= set(project["optional-dependencies"]), words
        case "python", [script, *_]:
            assert (ROOT / script).is_file(), words
        case "cd" | "cmake" | "digits" | "export" | "git" | "mkdir" | "node" | "npm" | "python3", _:
            pass
        case _:
            raise AssertionError(f"{shlex.join(words)}: not a command that this test knows")


@each_page
def test_every_name_of_a_page_is_public(page: Path) -> None:
    text = page.read_text()
    assert set(re.findall(r"\bmq\.(\w+)", text)) <= set(muquant.__all__)
    for imported in re.findall(r"from muquant_onnx import (.*)", text):
        assert set(imported.split(", ")) <= set(muquant_onnx.__all__)


def test_all_public_names_are_there_and_in_the_reference() -> None:
    for module in (muquant, muquant_onnx):
        page = (ROOT / "docs" / "reference" / f"{module.__name__}.md").read_text()
        for name in module.__all__:
            assert hasattr(module, name)
            assert f"::: {module.__name__}.{name}\n" in page


@each_page
def test_code_in_other_languages_is_that_of_the_examples(page: Path) -> None:
    for block in blocks(page, *EXAMPLES):
        example = {line.strip() for line in EXAMPLES[block.language].read_text().splitlines()}
        assert {line.strip() for line in block.code.splitlines()} <= example


@pytest.mark.parametrize("page", PAGES + OTHERS, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file(page: Path) -> None:
    words = re.sub(r"```.*?```|`[^`]*`", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^()\s#]+)", words):
        assert re.match(r"[a-z]+:", target) or (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES + OTHERS, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_words_are_taken_for_html(page: Path) -> None:
    code = r"^(```+).*?^\1|`[^`]*`|<!--.*?-->"
    words = re.sub(code, "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    assert set(re.findall(r"<(?!https?:)[A-Za-z/][^>\n]*", words)) <= {"<br"}


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / "benchmarks").is_dir(), reason="needs the benchmarks of a checkout")
def test_the_figures_are_those_that_were_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    import figures

    monkeypatch.setattr(sys, "argv", ["figures.py", "--check"])
    figures.main()  # an exit fails the test
