"""onnxruntime-node: onnxruntime for JavaScript on servers and desktops."""

from collections.abc import Callable

from muquant_onnx.verification.runners.javascript import NodeRuntime
from muquant_onnx.verification.runners.runtime import Way


class OnnxRuntimeNode(NodeRuntime):
    """On the processor."""

    package = "onnxruntime-node"
    provider = "cpu"

    def rounds(self, way: Way, promised: Callable[[str | None], int]) -> bool:
        """As in the base: kernels of integer weights do."""
        return promised(None) > 0
