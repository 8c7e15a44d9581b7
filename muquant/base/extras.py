"""Which extra has a package that is missing: one line, wherever it is imported."""

import sys
from collections.abc import Iterator
from importlib.abc import MetaPathFinder
from types import FrameType

from muquant.base.errors import InputError

EXTRAS = {
    "serve": ("numpy", "onnx", "onnx_ir", "onnxruntime"),
    "torch": (
        "PIL", "filelock", "lightning_fabric", "onnxscript", "psutil", "safetensors", "scipy", "sklearn",
        "sympy", "torch", "torchvision",
    ),
    "bench": ("jinja2", "matplotlib"),
    "timm": ("timm",),
}  # fmt: skip
"""Extra -> the modules that it brings, each before those that have it in them. Of several that are wanted at
once the last is named."""
_LEVELS = list(EXTRAS)
_OWNERS = {module: level for level, modules in enumerate(EXTRAS.values()) for module in modules}
NEEDS = {
    "muquant": "torch",
    "muquant.base": "serve",
    "muquant.format": "serve",
    "muquant.format.tensor": "torch",
    "muquant.robustness": "bench",
    "muquant_onnx": "torch",
    "muquant_onnx.files": "serve",
    "muquant_onnx.format": "serve",
    "muquant_onnx.lowering": "serve",
    "muquant_onnx.serving": "serve",
    "muquant_integrations": "torch",
    "muquant_cli": "serve",
    "muquant_cli.commands": "torch",
    "muquant_cli.commands.bench": "bench",
    "muquant_cli.commands.demo": "bench",
    "muquant_cli.commands.inspect": "serve",
}
"""Room or module -> the extra that it needs to be of use, whichever of its packages is missed first."""


class MissingExtraError(ModuleNotFoundError, InputError):
    """A package that an extra brings is not installed; its message is the command that installs it."""


class _LastFinder(MetaPathFinder):
    """Asked for a module that no other finder has found: says of those that our files import where they come
    from. What others import or look for is none of its business."""

    def find_spec(self, name: str, path: object, target: object = None) -> None:
        """Find nothing.

        Raises:
            MissingExtraError: a file of ours imports it, and an extra has it.
        """
        if name not in _OWNERS:
            return
        stack = _modules(sys._getframe(1))
        importer = next(stack, "")
        if importer.partition(".")[0] in NEEDS:
            levels = [_OWNERS[name], _level(importer), *map(_level, stack)]
            raise MissingExtraError(
                f"{importer} needs {name}, which is not installed; run: "
                f"pip install 'muquant[{_LEVELS[max(levels)]}]'",
                name=name,
            )


def name_missing_extras() -> None:
    """Let imports of our files that fail say which extra to install."""
    if not any(isinstance(finder, _LastFinder) for finder in sys.meta_path):
        sys.meta_path.append(_LastFinder())


def _modules(frame: FrameType | None) -> Iterator[str]:
    """The names of the modules whose code is running, innermost first, without the import system's own."""
    while frame is not None:
        name = str(frame.f_globals.get("__name__", ""))
        if not name.startswith("importlib._bootstrap"):
            yield name
        frame = frame.f_back


def _level(module: str) -> int:
    """The level of what a module needs: as its room does; 0 for what is none of ours."""
    while module and module not in NEEDS:
        module = module.rpartition(".")[0]
    return _LEVELS.index(NEEDS[module]) if module else 0
