"""Serves a file that an earlier version wrote, by every policy, with the extra `serve` alone.

The argument is the folder of the file."""

import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from muquant_onnx import decode_file, load_session
from muquant_onnx.serving.sessions import POLICIES

assert not any(map(find_spec, ("torch", "onnxscript", "scipy", "matplotlib", "PIL"))), "more than serve has"
folder = Path(sys.argv[1])
known = np.load(folder / "outputs.npz")
for policy in (None, *POLICIES):
    session = load_session(folder / "model.onnx", policy=policy)
    (logits,) = session.run(None, {session.get_inputs()[0].name: known["images"]})
    difference = np.abs(logits - known["logits"]).max() / np.abs(logits).max()
    assert difference < 0.05, (policy, difference)  # integer kernels round activations
assert len(decode_file(folder / "model.onnx")) == 4
print(f"serve: passed, {len(POLICIES) + 1} ways")
