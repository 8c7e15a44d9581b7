"""ONNX files of any size: parsed, checked and written without their large tensors in memory.

wire.py       the protobuf encoding: large tensors out of a file, and back
external.py   tensors that lie in files: where, and whether that is allowed
parse.py      a file as a model whose large tensors stay where they are
check.py      whether a model is valid: onnx's checker, and where it objects onnxruntime
write.py      the way back: a file, whole or not at all, and what it cannot hold beside it
"""
