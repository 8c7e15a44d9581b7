"""onnxruntime-node: onnxruntime for JavaScript on servers and desktops."""

from muquant_onnx.verification.runners.javascript import NodeRuntime


class OnnxRuntimeNode(NodeRuntime):
    """On the processor."""

    package = "onnxruntime-node"
    provider = "cpu"
    kernels_round = True
