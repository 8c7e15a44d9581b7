"""Run digits through an ONNX file of muquant, served in each way that `load_session` knows.

    python load.py [FILE.onnx]

This needs muquant, but not torch. Codes are decoded by numpy, several times as fast as onnxruntime folds the
decoder in the file, and the policy is chosen here, whatever the file was exported with.
"""

import sys
import time
from pathlib import Path

from plain import NETWORKS, read_digits

from muquant.base.errors import InputError
from muquant_onnx import load_session
from muquant_onnx.serving.sessions import POLICIES


def main() -> None:
    """Open, run and print for each policy."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else NETWORKS / "3bit.onnx"
    try:
        digits = read_digits(NETWORKS / "digits.pgm")
        for policy in POLICIES:
            start = time.perf_counter()
            session = load_session(path, policy=policy)
            opened = time.perf_counter()
            (logits,) = session.run(None, {session.get_inputs()[0].name: digits})
            answered = time.perf_counter()
            print(f"{policy}: opened in {1e3 * (opened - start):.1f} ms, ", end="")
            print(f"{len(digits)} digits in {1e3 * (answered - opened):.1f} ms:", *logits.argmax(1))
    except (InputError, OSError) as error:
        sys.exit(f"{error}\nexamples/make_networks.py makes the networks.")


if __name__ == "__main__":
    main()
