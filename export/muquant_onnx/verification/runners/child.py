"""The process of a runtime that is a package of Python: opens a file, runs it, prints what that took."""

import importlib
import json
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from muquant_onnx.verification.costs import Memory, median_seconds
from muquant_onnx.verification.runners.runtime import Measured, Opened, PythonRuntime, Request, Way


def measure(runtime: PythonRuntime, request: Request) -> Measured:
    """Do in this process what `request` asks for."""
    try:
        scratch = Path(request.outputs)
        runtime.open(request.empty, Way(), scratch).run({"x": np.zeros(1, np.float32)})
        memory, start = Memory(), time.perf_counter()
        opened = runtime.open(request.path, request.way, scratch)
        seconds, loaded = time.perf_counter() - start, memory.more()
        peak = max(memory.peak(), loaded)
        latency, settled = dict[int, float](), loaded
        for count, file in request.timed.items():
            with suppress(Exception):  # a number of inputs that it does not take
                feed = load_file(file)
                latency[count] = median_seconds(lambda: opened.run(feed), request.seconds)  # noqa: B023
                settled = settled if len(latency) > 1 else memory.more()
        outputs = [_answer(opened, request, number) for number in range(len(request.feeds))]
    except Exception as error:  # runtimes' errors have no common base
        return Measured(runtime.reason(error))
    return Measured("", outputs[0], seconds, peak, loaded, settled, latency, opened.operators())


def _answer(opened: Opened, request: Request, number: int) -> int:
    """Run inputs, write the outputs that are numbers, and return how many there are."""
    outputs = opened.run(load_file(request.feeds[number]))
    arrays = {str(place): np.array(output) for place, output in enumerate(outputs) if is_numbers(output)}
    save_file(arrays, Path(request.outputs, f"{number}.safetensors"))
    return len(outputs)


def is_numbers(output: Any) -> bool:
    """Whether an output is an array of numbers, not of texts, nor a list or a map."""
    return isinstance(output, np.ndarray | np.generic) and output.dtype.kind in "biuf"


def main() -> None:
    """Read the class of the runtime and the request, and print what was found as a line of JSON."""
    module, name = sys.argv[1:]
    document = json.load(sys.stdin)
    document["way"] = Way(**document["way"])
    runtime: PythonRuntime = getattr(importlib.import_module(module), name)()
    print(json.dumps(asdict(measure(runtime, Request(**document)))))  # noqa: T201


if __name__ == "__main__":
    main()
