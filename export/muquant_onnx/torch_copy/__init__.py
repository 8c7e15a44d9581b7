"""A graph as a PyTorch module, for its gradients: it computes in float32 what onnxruntime computes.

copy.py         `TorchCopy`: runs a graph node by node; constants are its parameters
registry.py     the operators that are known
operator.py     what an operator is here, and how its attributes are read
geometry.py     padding of convolutions and pools
elementwise.py  number by number
products.py     matrix products and convolutions
pools.py        pools, and `Resize`
shapes.py       other shapes and orders of the same numbers, and sizes
indexing.py     numbers that are looked up, written or sorted by place
reductions.py   sums, means and the like over axes
norms.py        softmax and normalisations
recurrent.py    LSTM, GRU, RNN
"""

from muquant_onnx.torch_copy.copy import TorchCopy

__all__ = ["TorchCopy"]
