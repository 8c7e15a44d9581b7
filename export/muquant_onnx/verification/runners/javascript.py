"""Where packages of npm are, and the process of a runtime that is one."""

import json
import os
import shutil
from pathlib import Path

from muquant_onnx.verification.runners.runtime import Measured, Request, Runtime, process

SCRIPTS = Path(__file__).parent


def find_package(name: str) -> Path | None:
    """The folder of a package of npm: in `node_modules` here or in a folder above, or on `NODE_PATH`."""
    here = Path.cwd()
    places = [folder / "node_modules" for folder in (here, *here.parents)]
    places += [Path(entry) for entry in os.environ.get("NODE_PATH", "").split(os.pathsep) if entry]
    return next((place / name for place in places if (place / name / "package.json").is_file()), None)


def missing_package(name: str) -> str:
    """What to install for a package of npm, in a line; "" where it is there."""
    if find_package(name):
        return ""
    return (
        f"not installed; npm install {name}, here or in a folder above, or name its node_modules in NODE_PATH"
    )


def package_version(name: str) -> str:
    """The version of a package of npm that is there."""
    folder = find_package(name)
    assert folder is not None
    return str(json.loads((folder / "package.json").read_text())["version"])


class NodeRuntime(Runtime):
    """A runtime that is a package of npm, under Node.js.

    Attributes:
        package: its name.
        provider: what computes there.
    """

    package: str
    provider: str

    def missing(self) -> str:
        """As in the base."""
        return missing_package(self.package) if shutil.which("node") else "needs Node.js; install nodejs"

    def version(self) -> str:
        """As in the base."""
        return package_version(self.package)

    def measure(self, request: Request) -> Measured:
        """As in the base."""
        folder = find_package(self.package)
        assert folder is not None
        command = ["node", "--expose-gc", str(SCRIPTS / "node.mjs"), self.package, self.provider]
        return process(command, request, {"NODE_PATH": str(folder.parent)})
