"""Packed codes, kept in a file until the model is written."""

from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from muquant.format.tensor import QuantizedTensor
from muquant_onnx.format.names import Part, label
from muquant_onnx.format.packed_weight import PackedWeight


@dataclass
class Spool:
    """A file that packed codes are appended to, so that memory holds those of one weight alone."""

    path: Path
    nbytes: int = 0

    def add(self, name: str, quantized: QuantizedTensor, dtype: ir.DataType) -> PackedWeight:
        """Append the codes of `quantized`; they are read again when the model is written.

        Args:
            name: of the weight.
            quantized: the weight.
            dtype: what its consumers compute with.
        """
        packed = quantized.packed()
        with self.path.open("ab") as file:
            packed.tofile(file)
        tensor = ir.ExternalTensor(
            str(self.path),
            self.nbytes,
            packed.nbytes,
            ir.DataType.UINT8,
            shape=ir.Shape(packed.shape),
            name=label(name, Part.PACKED),
        )
        self.nbytes += packed.nbytes
        spec, step, channels = quantized.spec, quantized.step.numpy(), quantized.channels
        return PackedWeight(spec, quantized.shape, tensor, step, channels, dtype)
