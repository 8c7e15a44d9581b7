"""The examples, copied beside networks that are made for them, and packages of npm."""

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import make_networks
import pytest
from filelock import FileLock

EXAMPLES = Path(make_networks.__file__).parent


@pytest.fixture(scope="session")
def examples(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder like `examples`, with networks of 8x8 digits, trained for seconds; workers share it."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "examples"
    with FileLock(folder.with_suffix(".lock")):
        if not (folder / "networks/networks.json").is_file():  # which is written last
            for path in (
                p for pattern in ("python/*.py", "node/*.mjs", "web/*.*") for p in EXAMPLES.glob(pattern)
            ):
                (folder / path.parent.name).mkdir(parents=True, exist_ok=True)
                shutil.copy(path, folder / path.parent.name)
            config = replace(make_networks.CONFIGS["digits"], epochs=5)
            make_networks.make_networks(config, folder / "networks", folder)
    return folder


@pytest.fixture(scope="session")
def packages() -> Callable[[Path], Path]:
    """A function that returns the `node_modules` of a folder, installed by its lock file, or skips."""

    def install(folder: Path) -> Path:
        if not shutil.which("npm") or not shutil.which("node"):
            pytest.skip("needs npm and node")
        version = subprocess.run(["node", "--version"], capture_output=True, text=True).stdout.strip()
        if int(version.removeprefix("v").split(".")[0]) < 20:
            pytest.skip(f"needs node 20 or later, found {version}")
        modules, lock = folder / "node_modules", folder / "package-lock.json"
        done = modules / ".package-lock.json"  # which npm writes last
        if not done.is_file() or done.stat().st_mtime < lock.stat().st_mtime:
            command = ["npm", "ci", "--prefer-offline", "--fetch-retries=1", "--fetch-timeout=30000"]
            try:
                tried = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=180)
            except subprocess.TimeoutExpired:
                pytest.skip(f"npm takes too long to install what {folder.name} needs")
            assert "EUSAGE" not in tried.stderr, tried.stderr  # the lock file is not that of package.json
            if tried.returncode:
                reason = tried.stderr.partition("\n")[0]
                pytest.skip(f"npm cannot install what {folder.name} needs: {reason}")
        return modules

    return install
