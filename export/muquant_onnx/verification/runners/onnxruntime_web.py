"""onnxruntime-web: onnxruntime as WebAssembly, which Node.js runs as browsers do."""

from muquant_onnx.verification.runners.javascript import NodeRuntime


class OnnxRuntimeWeb(NodeRuntime):
    """WebAssembly, on one thread."""

    package = "onnxruntime-web"
    provider = "wasm"
    kernels_round = True
