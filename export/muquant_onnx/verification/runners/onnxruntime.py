"""onnxruntime, as the environment has it: under each setting, and by each policy of `load_session`."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from muquant_onnx.serving.serve import Kernels
from muquant_onnx.serving.sessions import RUNTIME_SETTINGS, load_session
from muquant_onnx.verification.runners.runtime import Array, Opened, PythonRuntime, Way


class OnnxRuntime(PythonRuntime):
    """Files as they are under every setting, and by every policy as it comes."""

    package = "onnxruntime"
    settings = {name: setting.rounds_activations for name, setting in RUNTIME_SETTINGS.items()}  # noqa: RUF012

    def ways(self, policies: Sequence[str]) -> list[Way]:
        """As in the base."""
        return [*super().ways(policies), *(Way(policy=policy) for policy in policies)]

    def kernels(self, way: Way, promised: Callable[[str | None], Kernels]) -> int:
        """As in the base: none but stored ones where graphs are not optimised."""
        fused, stored = promised(way.policy)
        return stored + (fused if RUNTIME_SETTINGS[way.setting].optimize else 0)

    def rounds(self, way: Way, promised: Callable[[str | None], Kernels]) -> bool:
        """As in the base: kernels of integer weights do, if the setting lets them; stored ones say it
        themselves in a file that is loaded as it is."""
        stored = way.policy is None and promised(None).stored > 0
        return stored or (super().rounds(way, promised) and self.kernels(way, promised) > 0)

    def open(self, path: str, way: Way, scratch: Path) -> Opened:
        """As in the base. The first run is watched: it tells which operators run."""
        session = load_session(path, way.setting, policy=way.policy, profile=scratch / "profile")
        written: list[Path] = []

        def run(feed: Mapping[str, Array]) -> Sequence[Any]:
            outputs: Sequence[Any] = session.run(None, feed)
            if not written:
                written.append(Path(session.end_profiling()))
            return outputs

        def operators() -> dict[str, int]:
            return operators_of(json.loads(written[0].read_bytes()))

        return Opened(run, operators)


def operators_of(profile: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Return the operator types of a profile, with the number of nodes; one in a loop counts once."""
    nodes = {
        (event["name"], event["args"].get("node_index")): event["args"]["op_name"]
        for event in profile
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")
    }
    return dict(sorted(Counter(nodes.values()).items()))
