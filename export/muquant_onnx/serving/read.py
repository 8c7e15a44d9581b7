"""Read a compressed file for serving, its large tensors left where they are."""

import os
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir

from muquant.base.errors import InputError, first_line
from muquant_onnx.files.external import locate
from muquant_onnx.files.parse import parse
from muquant_onnx.format.metadata import metadata_of
from muquant_onnx.format.packed_weight import PackedWeight
from muquant_onnx.serving.weights import read_weights


@dataclass(frozen=True, eq=False)
class ServedFile:
    """A file that muquant wrote.

    Attributes:
        path: of the file.
        proto: the model in it, its external data located.
        weights: its compressed weights, by name.
        policy: that it was written with.
    """

    path: Path
    proto: onnx.ModelProto
    weights: dict[str, PackedWeight]
    policy: str

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
    tensors = {tensor.name: tensor for tensor in proto.graph.initializer}
    return ServedFile(path, proto, read_weights(tensors, metadata["weights"]), metadata["policy"])
