"""OpenVINO, on the processor."""

from pathlib import Path

from muquant_onnx.verification.runners.runtime import Opened, PythonRuntime, Way

_NO_NEWS = ("Exception from", "Check '", "FrontEnd API failed", "Model wasn't fully converted")


class OpenVino(PythonRuntime):
    """As it comes, in 16-bit floats where the processor has those, and asked for accuracy."""

    package = "openvino"
    settings = {"default": True, "accuracy": False}  # noqa: RUF012

    def open(self, path: str, way: Way, scratch: Path) -> Opened:
        """As in the base."""
        import openvino

        hints = {"EXECUTION_MODE_HINT": "ACCURACY"} if way.setting == "accuracy" else {}
        model = openvino.Core().compile_model(path, "CPU", hints)

        def run(feed: object) -> list[object]:
            found = model(feed)
            return [found[output] for output in model.outputs]

        return Opened(run)

    def reason(self, error: Exception) -> str:
        """As in the base: the summary, or the first line that is not where in OpenVINO it was raised."""
        text = str(error).rpartition("Summary:")[2]
        lines = [line.removeprefix("-- ").strip() for line in text.splitlines()]
        news = [line for line in lines if line and not line.startswith(_NO_NEWS)]
        return "; ".join(news[:1]) or super().reason(error)
