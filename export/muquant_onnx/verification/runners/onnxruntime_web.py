"""onnxruntime-web: onnxruntime as WebAssembly, which Node.js runs as browsers do."""

from collections.abc import Callable

from muquant_onnx.verification.runners.javascript import NodeRuntime
from muquant_onnx.verification.runners.runtime import Way


class OnnxRuntimeWeb(NodeRuntime):
    """WebAssembly, on one thread."""

    package = "onnxruntime-web"
    provider = "wasm"

    def rounds(self, way: Way, promised: Callable[[str | None], int]) -> bool:
        """As in the base: kernels of integer weights do."""
        return promised(None) > 0
