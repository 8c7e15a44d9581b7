"""Run digits through an ONNX file of muquant, by onnxruntime as it comes:

    python plain.py [FILE.onnx]

This needs onnxruntime and numpy alone.
"""

import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime

NETWORKS = Path(__file__).parent.parent / "networks"


def read_digits(path: Path) -> np.ndarray:
    """Square pictures, one under the other in a binary PGM file, as float32 [N, 1, size, size] in [0, 1]."""
    data = path.read_bytes()
    _, width, height, _ = data.split(maxsplit=4)[:4]
    size, pixels = int(width), np.frombuffer(data[-int(width) * int(height) :], np.uint8)
    return pixels.reshape(-1, 1, size, size).astype(np.float32) / 255


def main() -> None:
    """Open, run, print."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else NETWORKS / "3bit.onnx"
    try:
        digits = read_digits(NETWORKS / "digits.pgm")
        start = time.perf_counter()
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        opened = time.perf_counter()
        (logits,) = session.run(None, {session.get_inputs()[0].name: digits})
        answered = time.perf_counter()
    except Exception as error:
        sys.exit(f"{error}\nexamples/make_networks.py makes the networks.")
    print(f"{path.name}: {path.stat().st_size:,} bytes, opened in {1e3 * (opened - start):.1f} ms")
    print(f"{len(digits)} digits in {1e3 * (answered - opened):.1f} ms:", *logits.argmax(1))


if __name__ == "__main__":
    main()
