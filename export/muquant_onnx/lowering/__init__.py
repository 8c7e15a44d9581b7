"""From a graph with quantized weights to one that decodes them, each use by the form that a policy allows.

targets.py   what a file is for: a policy and other choices by name
lower.py     every use of every weight: the policies
forms.py     how one use is served from integers, by the operator that it is
kernels.py   the matrix of a product, in the shapes from which onnxruntime makes its integer kernels
store.py     one weight in a graph: its initializers, and the nodes that use what is decoded
decode.py    the nodes that decode, of all weights together
"""
