"""The runtimes that `verify` runs a file under, each in a process of its own.

runtime.py            what a runtime is, and what is asked of its process
child.py              the process of a runtime that is a package of Python
onnxruntime.py        onnxruntime: its settings, and `load_session`'s policies
openvino.py           OpenVINO, on the processor
onnx_reference.py     the evaluator of the standard, of the package onnx
javascript.py         where packages of npm are, and the process of a runtime that is one
onnxruntime_node.py   onnxruntime-node
onnxruntime_web.py    onnxruntime-web, which is WebAssembly, under Node.js
chromium.py           the same in a browser without a window
measure.mjs           what all of JavaScript share; node.mjs, page.mjs and page.html start it

A new runtime is one file, and one line in `RUNTIMES`.
"""

from muquant_onnx.verification.runners.chromium import Chromium
from muquant_onnx.verification.runners.onnx_reference import OnnxReference
from muquant_onnx.verification.runners.onnxruntime import OnnxRuntime
from muquant_onnx.verification.runners.onnxruntime_node import OnnxRuntimeNode
from muquant_onnx.verification.runners.onnxruntime_web import OnnxRuntimeWeb
from muquant_onnx.verification.runners.openvino import OpenVino
from muquant_onnx.verification.runners.runtime import Runtime

RUNTIMES: dict[str, Runtime] = {
    "onnxruntime": OnnxRuntime(),
    "openvino": OpenVino(),
    "onnxruntime-node": OnnxRuntimeNode(),
    "onnxruntime-web": OnnxRuntimeWeb(),
    "chromium": Chromium(),
    "onnx-reference": OnnxReference(),
}
"""Name -> runtime."""
