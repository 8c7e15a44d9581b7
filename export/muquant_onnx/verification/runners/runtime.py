"""What a runtime is, and what is asked of the process in which it runs a file."""

import json
import os
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from muquant.base.errors import first_line
from muquant_onnx.serving.serve import Kernels

Array = NDArray[Any]
LIMIT = 3600.0
"""Seconds after which a process is ended."""


@dataclass(frozen=True)
class Way:
    """A way to run a file under a runtime.

    Attributes:
        setting: a name of the runtime's own; "default" is how it comes.
        policy: a name of `POLICIES` by which `load_session` opens the file; None for the file as it is.
    """

    setting: str = "default"
    policy: str | None = None


@dataclass(frozen=True)
class Request:
    """What a process is asked to do: to open a file once, to run it, and to say what that takes.

    Attributes:
        path: of the ONNX file.
        empty: of a file with `y = Identity(x)`, which is opened before the clock starts.
        way: how to run.
        timed: files of inputs whose latency is measured, by their number; the first is run first.
        feeds: files of inputs whose outputs are wanted.
        outputs: folder for them: NUMBER.safetensors for each of `feeds`, the tensors called by their place.
            What a runtime writes beside goes there, too.
        external: files beside it that hold its tensors, whole paths by the names that the file has for them.
        seconds: of runs for a latency, at most 50.

    Files of inputs are safetensors too, by the names of inputs.
    """

    path: str
    empty: str
    way: Way
    timed: Mapping[int, str]
    feeds: Sequence[str]
    outputs: str
    external: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.5


@dataclass(frozen=True)
class Measured:
    """What a process found.

    Attributes:
        failed: why the file does not run, in a line; "" where it does, and only then is there the rest.
        outputs: how many the file has; those that are no arrays of numbers are not written.
        seconds, peak, loaded, settled, latency: see `LoadCost`.
        operators: operator types that ran, with their number; empty where the runtime does not tell.
    """

    failed: str = ""
    outputs: int = 0
    seconds: float = 0.0
    peak: int | None = None
    loaded: int | None = None
    settled: int | None = None
    latency: Mapping[int, float] = field(default_factory=dict)
    operators: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> "Measured":
        """Read what a process prints."""
        latency = {int(count): seconds for count, seconds in document.get("latency", {}).items()}
        return cls(**{**document, "latency": latency})


class Runtime(ABC):
    """A runtime for ONNX files.

    Attributes:
        settings: names of its own settings; True where it computes in fewer bits than float32 states.
        kernels_round: whether it has kernels of integer weights, as onnxruntime, that round activations.
    """

    settings: Mapping[str, bool] = {"default": False}
    kernels_round = False

    @abstractmethod
    def missing(self) -> str:
        """What to install, in a line; "" where the runtime is there."""

    @abstractmethod
    def version(self) -> str:
        """Its version, where it is there."""

    @abstractmethod
    def measure(self, request: Request) -> Measured:
        """Open and run a file in a fresh process."""

    def ways(self, policies: Sequence[str]) -> list[Way]:
        """How a file can be run; `policies` are those of `POLICIES` that mean anything for it."""
        return [Way(setting) for setting in self.settings]

    def kernels(self, way: Way, promised: Callable[[str | None], Kernels]) -> int | None:
        """How many products have to run on kernels of integer weights; None where the runtime does not tell.

        Args:
            way: how the file is run.
            promised: policy -> how many the form of the file promises under onnxruntime.
        """
        return None

    def rounds(self, way: Way, promised: Callable[[str | None], Kernels]) -> bool:
        """Whether activations are rounded to fewer bits on the way, so that parity is not exact."""
        return self.settings[way.setting] or (self.kernels_round and sum(promised(way.policy)) > 0)


@dataclass(frozen=True, eq=False)
class Opened:
    """A file that a runtime of Python has opened.

    Attributes:
        run: inputs by name -> all outputs.
        operators: what ran, see `Measured`; asked for after runs.
    """

    run: Callable[[Mapping[str, Array]], Sequence[Any]]
    operators: Callable[[], dict[str, int]] = dict


class PythonRuntime(Runtime):
    """A runtime that is a package of Python.

    Attributes:
        package: its name, to import and to install.
    """

    package: str

    @abstractmethod
    def open(self, path: str, way: Way, scratch: Path) -> Opened:
        """Open a file in this process, with a folder for what it has to write; what it raises says why it
        cannot."""

    def reason(self, error: Exception) -> str:
        """Say in a line what an error of the runtime means."""
        return first_line(error)

    def missing(self) -> str:
        """As in the base."""
        return "" if find_spec(self.package) else f"not installed; pip install {self.package}"

    def version(self) -> str:
        """As in the base."""
        try:
            return version(self.package)
        except PackageNotFoundError:  # a build of another name, such as onnxruntime-openvino
            return "?"

    def measure(self, request: Request) -> Measured:
        """As in the base."""
        command = [sys.executable, "-P", "-m", "muquant_onnx.verification.runners.child"]
        same_modules = {"PYTHONPATH": os.pathsep.join(place or str(Path.cwd()) for place in sys.path)}
        return process([*command, type(self).__module__, type(self).__qualname__], request, same_modules)


def process(
    command: Sequence[str], request: Request, environment: Mapping[str, str] | None = None
) -> Measured:
    """Run a command, give it a request, and read the last line that it prints.

    Args:
        command: it.
        request: what it reads, as JSON.
        environment: variables to add or to change.
    """
    try:
        done = subprocess.run(  # noqa: S603
            command,
            input=json.dumps(asdict(request)),
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=LIMIT,
            env={**os.environ, **(environment or {})},
        )
    except subprocess.TimeoutExpired:
        return Measured(f"it took longer than {LIMIT / 60:.0f} minutes")
    except OSError as error:
        return Measured(f"{Path(command[0]).name} does not start: {error.strerror or first_line(error)}")
    found = done.stdout.splitlines()
    if done.returncode or not found:
        lines = done.stderr.strip().splitlines()
        told = [line.strip() for line in lines if "Error" in line] or lines
        return Measured(f"its process ended with status {done.returncode}: {told[-1] if told else 'no word'}")
    return Measured.read(json.loads(found[-1]))
