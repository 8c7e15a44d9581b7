"""Make the networks of the examples from nothing: a small classifier of handwritten digits, float and 3-bit.

    python examples/make_networks.py [--data mnist|digits]

MNIST takes a minute or two on one core, and is fetched where it is missing. The digits that come with
scikit-learn have 8x8 pixels and take seconds; they are used where MNIST cannot be had. Then there are in the
folder `networks`:

- `3bit.onnx` and `float32.onnx`: images [N, 1, size, size] in [0, 1] to 10 logits each;
- `3bit-web.onnx`: the same 3-bit weights for the browser, where onnxruntime's integer kernels are slow;
- `digits.pgm`: a test image of each class, 0 to 9, one under the other; so its bytes are [10, 1, size, size];
- `networks.json`, for the page: the size of the images, that of the box that digits fill there, and of each
  network its file, bytes and accuracy on the test set.
"""

import argparse
import os
import shutil
import sys
from pathlib import Path

import torch

import muquant
from muquant.base.errors import InputError
from muquant.base.files import make_folder, write_bytes, write_json
from muquant.data import load_dataset
from muquant.data.request import DATA_VARIABLE
from muquant.models.evaluation import evaluate
from muquant.training import TrainingConfig, train
from muquant_onnx import export_float, export_onnx

HERE = Path(__file__).parent
CONFIGS = {
    "mnist": TrainingConfig(data="mnist", model="cnn4", epochs=2),
    "digits": TrainingConfig(data="digits", model="cnn4-small", epochs=10, batch_size=32, augment="none"),
}
BOXES = {"mnist": 20, "digits": 8}
"""The longer side of a digit in its image, in pixels."""
CALIBRATION = 512


def find_data(root: Path) -> str:
    """Return "mnist" if it is in the folder `root` or can be fetched; else say why, and return "digits"."""
    try:
        load_dataset("mnist", "test", root=make_folder(root), download=True)
    except InputError as error:
        print(f"{error}\nMNIST cannot be had: here are the 8x8 digits of scikit-learn instead.")
        return "digits"
    return "mnist"


def make_networks(config: TrainingConfig, out: Path, root: Path) -> None:
    """Train, compress and export into `out`; a training that was interrupted there goes on.

    Args:
        config: what to train; its data are a name of `BOXES`.
        out: a folder, made where it is missing.
        root: the folder of MNIST.

    Raises:
        InputError: MNIST is asked for and cannot be had, or `out` cannot be written.
    """
    print(f"Training {config.model} on {config.data}, {config.epochs} epochs")
    run = make_folder(out) / f"run-{config.data}"
    model = train(config, run, root=root, download=True, resume=True).model.eval()
    images = load_dataset(config.data, "train", root=root).inputs(slice(CALIBRATION))
    test = load_dataset(config.data, "test", root=root)
    compressed = muquant.compress(model, calibration=images)
    example = images[:2]
    export_onnx(compressed, out / "3bit.onnx", example)
    for_web = export_onnx(compressed, out / "3bit-web.onnx", example, target="web")
    float_nbytes = export_float(model, out / "float32.onnx", example)
    networks = [
        {"name": name, "file": file, "bytes": nbytes, "accuracy": accuracy}
        for name, file, nbytes, accuracy in (
            ("3 bits", "3bit-web.onnx", for_web.nbytes, evaluate(compressed.module, test)),
            ("float32", "float32.onnx", float_nbytes, evaluate(model, test)),
        )
    ]
    firsts = [int((test.labels == label).nonzero()[0, 0]) for label in range(len(test.classes))]
    size = test.input_shape[-1]
    header = f"P5\n{size} {size * len(firsts)}\n255\n".encode()
    write_bytes(out / "digits.pgm", header + test.images[firsts].numpy().tobytes())
    write_json(
        out / "networks.json",
        {"data": config.data, "size": size, "box": BOXES[config.data], "networks": networks},
    )
    shutil.rmtree(run)
    for name, file, nbytes, accuracy in (each.values() for each in networks):
        print(f"{name}: {accuracy:.2%} of the test images right; {file} has {nbytes:,} bytes")


def main() -> None:
    """Make them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", choices=CONFIGS, help="instead of MNIST, or digits where it cannot be had")
    parser.add_argument(
        "--root",
        type=Path,
        default=Path(os.environ.get(DATA_VARIABLE) or "data"),
        help=f"folder of MNIST (default: the environment's {DATA_VARIABLE}, or data)",
    )
    parser.add_argument("--out", type=Path, default=HERE / "networks", help="folder to write")
    options = parser.parse_args()
    torch.set_num_threads(1)  # the networks are small
    try:
        make_networks(CONFIGS[options.data or find_data(options.root)], options.out, options.root)
    except InputError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
