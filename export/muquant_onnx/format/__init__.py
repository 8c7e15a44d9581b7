"""The ONNX form of a weight, as FORMAT.md states it: what the writer and the readers of a file share.

names.py             NAME.part: how what belongs to a weight is called, and read back
metadata.py          the block that describes a file's weights
decode_function.py   the companding decoder as an ONNX function
packed_weight.py     `PackedWeight`: codes and steps, as a file holds them
reference.py         a reader in numpy alone
first_functions.py   the functions of format 1, which nothing writes any more
expressions.py       what values of a graph compute, as digests

Import from the modules: this file imports nothing, so that who only decodes a file loads no torch.
"""
