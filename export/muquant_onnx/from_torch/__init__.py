"""From PyTorch: a compressed model, or a program that torch.export saved, to an ONNX file.

tracing.py   a module or a program as a graph, by torch's own exporter
asked.py     which axes of its inputs a caller wants dynamic
axes.py      which can be: what torch.export finds, and why others are fixed
trials.py    other sizes, tried: on the model, and on the file
names.py     names of sizes in the graph
placing.py   where the weights of a module are in its graph
export.py    a compressed model: traced with a placeholder for each weight, then lowered
program.py   a .pt2 file: made a graph, which is then compressed
"""
