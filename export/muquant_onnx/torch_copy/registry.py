"""The operators that are known."""

import onnx_ir as ir

from muquant_onnx.torch_copy import (
    elementwise,
    indexing,
    norms,
    pools,
    products,
    recurrent,
    reductions,
    shapes,
)
from muquant_onnx.torch_copy.operator import Operator

OPERATORS: dict[str, Operator] = {
    **elementwise.OPERATORS,
    **indexing.OPERATORS,
    **norms.OPERATORS,
    **pools.OPERATORS,
    **products.OPERATORS,
    **recurrent.OPERATORS,
    **reductions.OPERATORS,
    **shapes.OPERATORS,
}
"""Names of operators, those of other domains than the standard one behind their domain -> what they compute.
A new operator is one function in the file of its family and one line at the end of that."""


def name_of(node: ir.Node) -> str:
    """Return an operator's key in `OPERATORS`."""
    return f"{node.domain}.{node.op_type}" if node.domain else node.op_type
