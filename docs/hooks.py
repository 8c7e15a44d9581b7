"""What the site takes from elsewhere in the repository: pages, pictures, notebooks, options of the commands.

Links are written as they work in the repository, from the folder of the file that has them. Those to pages
and pictures of the site lead there; of others, such as those to a script, the site keeps the words alone. A
picture is a link to itself in full size.
"""

import base64
import json
import posixpath
import re
from pathlib import Path

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from muquant_cli import main

ROOT = Path(__file__).parent.parent
PAGES = {
    "reference/format.md": "export/FORMAT.md",
    "reference/report.md": "muquant/robustness/REPORT.md",
    "reference/changes.md": "CHANGES.md",
    "examples/index.md": "examples/README.md",
    "examples/web.md": "examples/web/README.md",
    "examples/node.md": "examples/node/README.md",
    "examples/cpp.md": "examples/cpp/README.md",
    "examples/python.md": "examples/python/README.md",
    "measured/benchmarks.md": "benchmarks/README.md",
    "measured/leaderboard.md": "benchmarks/robust/README.md",
    "measured/paper-mnist.md": "benchmarks/results/paper_cnn4.md",
    "measured/paper-cifar10.md": "benchmarks/results/paper_wrn-16-2.md",
    "why/quantizer.md": "muquant/README.md",
    "why/onnx.md": "export/README.md",
    "why/robustness.md": "muquant/robustness/README.md",
    "why/command-line.md": "cli/README.md",
    "why/contributing.md": "CONTRIBUTING.md",
}
"""Page of the site -> file of the repository that it is."""
PICTURES = "benchmarks/results"
NOTEBOOKS = "docs/notebooks"
COMMANDS = "<!-- commands -->"
"""Where the page of the commands has what `--help` says."""
FENCE = re.compile(r"^(```+)(\S+) \S.*$", re.MULTILINE)
CODE_OR_LINK = re.compile(
    r"^(```+).*?^\1$|`[^`\n]+`|(!?)\[((?:`[^`]*`|[^\[\]`])*)\]\(([^()\s]+)\)", re.M | re.S
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what lies elsewhere."""
    for uri, source in PAGES.items():
        files.append(File.generated(config, uri, content=(ROOT / source).read_text()))
    for path in sorted((ROOT / PICTURES).glob("*.png")):
        files.append(File.generated(config, f"pictures/{path.name}", abs_src_path=str(path)))
    for notebook in sorted((ROOT / NOTEBOOKS).glob("*.ipynb")):
        page, shown = page_of(notebook)
        files.append(File.generated(config, f"notebooks/{notebook.stem}.md", content=page))
        for name, picture in shown.items():
            files.append(File.generated(config, f"notebooks/{name}", content=picture))
    return files


def page_of(notebook: Path) -> tuple[str, dict[str, bytes]]:
    """A notebook as a page, with what its cells showed when they ran; and its pictures by their names."""
    parts, pictures = [], dict[str, bytes]()
    for cell in json.loads(notebook.read_text())["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            data = output.get("data", {"text/plain": output.get("text", "")})
            if "image/png" in data:
                name = f"{notebook.stem}-{len(pictures)}.png"
                pictures[name] = base64.b64decode(data["image/png"])
                parts.append(f"![What the cell above draws]({name})")
            else:
                text = "".join(data["text/plain"]).rstrip()
                parts.append(f"```text\n{text}\n```")
    parts.append(f"[The notebook itself]({notebook.name})")
    return "\n\n".join(parts), pictures


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links lead to where their files are on the site."""
    uri = page.file.src_uri
    if uri not in PAGES:
        return led(markdown.replace(COMMANDS, commands()), f"docs/{uri}", uri)
    return led(FENCE.sub(r"\1\2", markdown), PAGES[uri], uri)


def led(markdown: str, path: str, uri: str) -> str:
    """The text of the file `path` of the repository as that of the page `uri`."""

    def lead(found: re.Match[str]) -> str:
        _, picture, words, target = found.groups()
        if target is None or re.match(r"#|[a-z]+:", target):
            return found[0]
        place, _, anchor = target.partition("#")
        file = posixpath.normpath(posixpath.join(posixpath.dirname(path), place))
        if not (ROOT / file).exists():
            return found[0]  # which mkdocs then says
        there = place_of(file)
        if there is None:
            return str(words)
        relative = posixpath.relpath(there, posixpath.dirname(uri) or ".")
        link = f"[{words}]({relative}{'#' + anchor if anchor else ''})"
        return f"[!{link}]({relative})" if picture else link

    return CODE_OR_LINK.sub(lead, markdown)


def place_of(path: str) -> str | None:
    """Where a file of the repository is on the site; None where it is not there."""
    places = {file: page for page, file in PAGES.items()}
    if path.startswith("docs/"):
        return re.sub(r"\.ipynb$", ".md", path.removeprefix("docs/"))
    if path.startswith(PICTURES) and path.endswith(".png"):
        return f"pictures/{posixpath.basename(path)}"
    return places.get(path, places.get(f"{path}/README.md"))


def commands() -> str:
    """All commands and their options."""
    context, parts = click.Context(main, info_name="muquant"), []
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        assert command is not None
        parts += [f"## muquant {name}", in_blocks(command.help or "")]
        inner = click.Context(command, info_name=name, parent=context)
        for option in command.params:
            record = option.get_help_record(inner)
            if record is not None:
                parts.append(f"`{record[0]}`\n:   {escaped(record[1])}")
    return "\n\n".join(parts)


def in_blocks(text: str) -> str:
    """The paragraphs of a help text, those that keep their lines as code."""
    paragraphs = []
    for paragraph in re.split(r"\n\s*\n", text):
        kept = paragraph.startswith("\b")
        lines = paragraph.removeprefix("\b\n")
        paragraphs.append(f"```text\n{lines}\n```" if kept else escaped(lines))
    return "\n\n".join(paragraphs)


def escaped(text: str) -> str:
    """Words that are no Markdown."""
    return re.sub(r"([\\`*_{}<>|\[\]])", r"\\\1", text)
