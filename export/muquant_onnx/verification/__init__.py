"""Whether a file computes what the model computes, and what that costs, under each runtime.

verify.py         `verify`: an exported file beside the model it was made from, and the report
verify_onnx.py    `verify_onnx`: a compressed file beside the float ONNX file it was made from
weights.py        the weights, bit for bit, however they are decoded
runtimes.py       the outputs and the kernels, under each runtime, setting and policy
parity.py         how far outputs are from what they should be, and how far they may be
costs.py          what loading and running costs
runners/          the runtimes: how each opens and runs a file, in a process of its own
"""
