"""The reference evaluator of the package onnx: what the standard means, in numpy, slowly."""

from pathlib import Path

from muquant_onnx.verification.runners.runtime import Opened, PythonRuntime, Way


class OnnxReference(PythonRuntime):
    """Every node as the file states it."""

    package = "onnx"

    def open(self, path: str, way: Way, scratch: Path) -> Opened:
        """As in the base."""
        from onnx.reference import ReferenceEvaluator

        evaluator = ReferenceEvaluator(path)
        return Opened(lambda feed: list(evaluator.run(None, dict(feed))))
