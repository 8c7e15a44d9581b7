"""From any ONNX file to one with weights in few bits; edited as a graph, and run only for
samples, to check its answers, and where its opset is raised.

compress.py     `compress_onnx`: the whole way
quantizer.py    its weights, from float to packed codes, one at a time
plan.py         `plan_onnx`: widths within a budget
measure.py      what weights cost and lose at each width, and what that does to the answers
given.py        a model in memory, as a file for a while
opened.py       a graph in memory, as onnxruntime runs it
opset.py        an older file, raised to opset 13 for a while
read.py         the file, checked, in order, its large tensors left where they are
functions.py    functions of the model, written out where they are called
find.py         weights with all their uses
consumers.py    the operators that compute with weights, and where their channels are
steps.py        the way from a constant to the operator that computes with it
views.py        how the operator sees it, and its channels in what is stored
constants.py    constants, and what is computed of constants alone
others.py       floating-point constants that are no weights, and why
floats.py       the values of float tensors, read from files
calibrate.py    what layers see of samples, by onnxruntime
watch.py        a graph that shows what weights are multiplied by
replay.py       the float and the compressed graph side by side, up to one layer after the other
pieces.py       parts of a graph that run by themselves
feeds.py        samples in batches that a graph takes
made_up.py      inputs of which only types and shapes are known
check.py        what a file answers under onnxruntime, before and after
states.py       what a graph remembers, where samples do not say it
biases.py       where a layer's bias is added, and how to change it
gradients.py    a copy in PyTorch, and what its gradients say of errors of weights
tuning.py       the training of all weights together, by such a copy
spool.py        packed codes, in a file until the model is written
synthetic.py    inputs that are made up, in the place of samples
edit.py         packed codes in the weights' place
report.py       what was done
"""

from muquant_onnx.from_onnx.compress import compress_onnx
from muquant_onnx.from_onnx.find import FoundWeight, Use, find_weights
from muquant_onnx.from_onnx.plan import plan_onnx
from muquant_onnx.from_onnx.read import read_graph
from muquant_onnx.from_onnx.report import CompressReport, LeftAlone, WeightReport

__all__ = [
    "CompressReport",
    "FoundWeight",
    "LeftAlone",
    "Use",
    "WeightReport",
    "compress_onnx",
    "find_weights",
    "plan_onnx",
    "read_graph",
]
