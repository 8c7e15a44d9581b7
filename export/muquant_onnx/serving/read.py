"""Read a compressed file for serving, its large tensors left where they are."""

import os
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import onnx
import onnx_ir as ir

from muquant.base.errors import InputError, first_line, naming
from muquant_onnx.files.external import locate
from muquant_onnx.files.parse import parse
from muquant_onnx.format.metadata import Metadata, metadata_of
from muquant_onnx.format.packed_weight import PackedWeight
from muquant_onnx.format.reference import decode_model, read_model
from muquant_onnx.serving.order import put_in_order
from muquant_onnx.serving.proof import Proof
from muquant_onnx.serving.weights import Array, read_weights


class PlainWarning(UserWarning):
    """Weights of a file are left to onnxruntime, as if no policy had been asked for."""


@dataclass(frozen=True, eq=False)
class ServedFile:
    """A file that muquant wrote.

    Attributes:
        path: of the file.
        proto: the model in it, in order, its external data located.
        weights: its compressed weights, by name.
        metadata: what it says of itself.
    """

    path: Path
    proto: onnx.ModelProto
    weights: dict[str, PackedWeight]
    metadata: Metadata

    @cached_property
    def proof(self) -> Proof:
        """What its graph makes of the weights, as it was read."""
        return Proof(self.proto, self.weights)

    def warn_of_doubts(self) -> None:
        """Say which weights nothing but the graph can decode, and why."""
        if self.proof.doubts:
            names, (reason, *_) = ", ".join(self.proof.doubts), self.proof.doubts.values()
            text = f"{self.path}: what uses {names} is left to onnxruntime as it is: {reason}"
            warnings.warn(text, PlainWarning, stacklevel=5)

    def graph(self) -> ir.Model:
        """The model, to be changed.

        Raises:
            InputError: it is not valid.
        """
        try:
            return ir.from_proto(self.proto)
        except Exception as error:  # onnx_ir's errors have no common base
            raise InputError(
                f"{self.path} is not a valid ONNX model: {first_line(error)}; export it again"
            ) from error


def read_compressed(path: str | os.PathLike[str]) -> ServedFile:
    """Return a compressed file.

    Raises:
        InputError: the file is missing, is not ONNX, was not written by muquant, or its parts do not fit.
    """
    path = Path(path)
    proto = parse(path)
    metadata = metadata_of(proto, path)
    locate(proto, path)
    inputs = {value.name for value in proto.graph.input}  # which callers may set are no constants
    tensors = {tensor.name: tensor for tensor in proto.graph.initializer if tensor.name not in inputs}
    with naming(os.fspath(path)):
        weights = read_weights(tensors, metadata["weights"])
        put_in_order(proto.graph)
    return ServedFile(path, proto, weights, metadata)


def read_consistent(path: str | os.PathLike[str]) -> ServedFile:
    """Return a compressed file whose graph decodes each weight as its metadata says.

    Raises:
        InputError: as `read_compressed`; or the graph does something else.
    """
    file = read_compressed(path)
    for name, reason in file.proof.doubts.items():
        raise InputError(
            f"{path}: the graph and the metadata differ about {name}: {reason}; export it again, or run it "
            "without a policy"
        )
    return file


def decode_file(path: str | os.PathLike[str]) -> dict[str, Array]:
    """Return the float32 weights of an exported file by name, each in its own shape, decoded by numpy.

    Raises:
        InputError: the file cannot be read, or its parts do not fit together, or its graph decodes other
            weights than its metadata describes.
    """
    read_consistent(path)
    model, metadata = read_model(path)
    return decode_model(model, metadata, path)
