"""A user's program, as mypy sees it beside the installed wheel: what is public has types."""

from typing import assert_type

from torch import nn

import muquant
import muquant_cli
import muquant_onnx

compressed = assert_type(muquant.compress(nn.Linear(8, 8), muquant.MuLawSpec(3)), muquant.CompressedModel)
assert_type(compressed.report[0].sqnr, float | None)
assert_type(muquant_onnx.compress_onnx("any.onnx", "small.onnx"), muquant_onnx.CompressReport)
assert_type(muquant_onnx.decode_file("small.onnx")["weight"].nbytes, int)
muquant_cli.main()
muquant.compress("any.onnx")  # type: ignore[arg-type] # where nothing had types, this would go unused
