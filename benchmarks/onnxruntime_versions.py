"""Under which versions of onnxruntime do exported files run, and which use the 8-bit kernel?

    python benchmarks/onnxruntime_versions.py [VERSION ...]

Exports one small network with an embedding, attention, convolutions and linear layers under each policy, then
runs the files in a fresh virtual environment for each version (numpy and onnxruntime alone; needs a package
registry). Writes `results/onnxruntime_versions.json`.
"""

import json
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from provenance import write_results
from torch import Tensor, nn

import muquant
from muquant_onnx import export_onnx

VERSIONS = (
    "1.18.1",
    "1.19.2",
    "1.20.1",
    "1.22.1",
    "1.24.4",
    "1.25.1",
    "1.26.0",
    "1.28.0",
    "1.30.0",
    "1.32.0",
)
GRANULARITIES, POLICIES = ("tensor", "channel", "group:16"), ("float", "int8")
SEED = 0

PROBE = """
import json, sys
import numpy as np, onnxruntime as ort
folder, *files = sys.argv[1:]
found = {}
for file in files:
    inputs = dict(np.load(f"{folder}/{file}.npz"))
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = folder + "/optimized.onnx"
    try:
        session = ort.InferenceSession(f"{folder}/{file}", options, providers=["CPUExecutionProvider"])
        output = session.run(None, inputs)[0]
    except Exception as error:
        found[file] = {"runs": False, "error": str(error).splitlines()[0][:200]}
        continue
    wanted = np.load(f"{folder}/{file}.npy")
    kernel = b"MatMulNBits" in open(options.optimized_model_filepath, "rb").read()
    difference = float(abs(output - wanted).max() / abs(wanted).max())
    found[file] = {"runs": True, "difference": difference, "kernel": kernel}
print(json.dumps(found))
"""


class Network(nn.Module):
    """A little of everything that has a form of its own in ONNX."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.ConvTranspose2d(8, 4, 2, groups=2)
        )
        self.embedding = nn.Embedding(20, 32)
        self.attention = nn.MultiheadAttention(32, 4, batch_first=True)
        self.head = nn.Sequential(nn.Linear(36, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, image: Tensor, tokens: Tensor) -> Tensor:
        """Images [N, 1, 8, 8] and tokens [N, 5] to logits [N, 10]."""
        words = self.embedding(tokens)
        words = self.attention(words, words, words, need_weights=False)[0].mean(1)
        logits: Tensor = self.head(torch.cat((self.conv(image).mean((2, 3)), words), 1))
        return logits


def keep_answers(path: Path, feed: dict[str, NDArray[Any]], wanted: NDArray[Any]) -> None:
    """Write inputs of the file `path`, and what its first output should be, for `tried`."""
    np.savez(f"{path}.npz", allow_pickle=False, **feed)
    np.save(f"{path}.npy", wanted)


def tried(version: str, folder: Path, files: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Run files of a folder under a version of onnxruntime, in an environment of its own.

    Args:
        version: such as "1.19.2".
        folder: with FILE, FILE.npz and FILE.npy for each; the environment is made there.
        files: their names.

    Returns:
        for each file: whether it "runs"; "difference" and "kernel", or "error".
    """
    environment = folder / version
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    wheels = [f"onnxruntime=={version}", "numpy<2" if version < "1.19" else "numpy"]
    subprocess.run([python, "-m", "pip", "install", "--quiet", *wheels], check=True, capture_output=True)
    done = subprocess.run(
        [python, "-c", PROBE, str(folder), *files], check=True, capture_output=True, text=True
    )
    found: dict[str, dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Export, run under each version, print, write."""
    torch.manual_seed(SEED)
    network = Network().eval()
    inputs = (torch.rand(6, 1, 8, 8), torch.randint(0, 20, (6, 5)))
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        feed = {"image": inputs[0].numpy(), "tokens": inputs[1].numpy()}
        files = []
        for granularity in GRANULARITIES:
            compressed = muquant.compress(network, muquant.MuLawSpec(granularity=granularity), flat=True)
            with torch.inference_mode():
                wanted = compressed.module(*inputs).numpy()
            for policy in POLICIES:
                file = f"{policy}, {granularity}"
                export_onnx(compressed, folder / file, inputs, policy)
                keep_answers(folder / file, feed, wanted)
                files.append(file)
        for version in sys.argv[1:] or VERSIONS:
            results[version] = tried(version, folder, files)
            for file, outcome in results[version].items():
                print(f"{version:8} {file:18} {outcome}")
    path = write_results("onnxruntime_versions", SEED, {"count": len(inputs[0]), "versions_tried": results})
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
