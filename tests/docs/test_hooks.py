"""Links of the repository, as the site has them."""

import importlib.util
from pathlib import Path
from types import ModuleType

import click
import pytest

ROOT = Path(__file__).parent.parent.parent
pytest.importorskip("mkdocs", reason="needs the extra docs")
pytestmark = pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="needs the pages of a checkout")


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("site_hooks", ROOT / "docs" / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("path", "page", "written", "led"),
    [
        ("docs/serve.md", "serve.md", "[a](choose.md#policy)", "[a](choose.md#policy)"),
        ("docs/serve.md", "serve.md", "[a](../export/FORMAT.md)", "[a](reference/format.md)"),
        ("docs/serve.md", "serve.md", "[a](../examples/web)", "[a](examples/web.md)"),
        ("docs/serve.md", "serve.md", "[a](../Makefile)", "a"),
        ("docs/serve.md", "serve.md", "[a](https://b.c) [d](#e)", "[a](https://b.c) [d](#e)"),
        ("docs/serve.md", "serve.md", "[a](gone.md)", "[a](gone.md)"),
        ("docs/serve.md", "serve.md", "`[a](../Makefile)`", "`[a](../Makefile)`"),
        ("docs/serve.md", "serve.md", "```sh\n[a](../Makefile)\n```", "```sh\n[a](../Makefile)\n```"),
        ("export/FORMAT.md", "reference/format.md", "[a `[b]`](README.md)", "[a `[b]`](../why/onnx.md)"),
        (
            "benchmarks/README.md",
            "measured/benchmarks.md",
            "![a](results/paper_cnn4.png)",
            "[![a](../pictures/paper_cnn4.png)](../pictures/paper_cnn4.png)",
        ),
    ],
)
def test_links_lead_to_the_site(hooks: ModuleType, path: str, page: str, written: str, led: str) -> None:
    assert hooks.led(written, path, page) == led


def test_all_commands_and_options_are_on_their_page(hooks: ModuleType) -> None:
    from muquant_cli import main

    text = hooks.commands()
    context = click.Context(main)
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        assert command is not None
        assert f"## muquant {name}\n" in text
        for option in command.params:
            assert isinstance(option, click.Argument) or option.opts[-1] in text
