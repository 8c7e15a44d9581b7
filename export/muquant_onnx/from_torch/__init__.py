"""From PyTorch: a compressed model, or a program that torch.export saved, to an ONNX file.

tracing.py   a module or a program as a graph, by torch's own exporter
export.py    a compressed model: traced with a placeholder for each weight, then lowered
program.py   a .pt2 file: made a graph, which is then compressed
"""
