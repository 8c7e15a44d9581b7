"""Compressed files as sessions of stock onnxruntime: decoded here, in the form that a policy asks for.

sessions.py       `load_session`: settings and policies by name, and the operators that really run
classifier.py     a session as a function from images to logits
read.py           the file, its codes left where they are; `decode_file`
order.py          its nodes, in order
proof.py          whether its graph makes of a weight what the metadata says
lookups.py        the same of a weight's integers
templates.py      what this version would write for a weight, to compare with
serve.py          the file as a policy wants it: lowered anew where it was written by another
decoders.py       where a graph decodes its weights, and what it makes of them
restore.py        each weight one value again, as before it was lowered
finish.py         finished arrays in the place of what would decode them
scan.py           for `packed`: products that decode a block of rows at a time
weights.py        what numpy makes of a weight's codes
matmul_nbits.py   a weight in the layout of onnxruntime's kernel for integer weights
arrays.py         initializers whose values stay arrays
handing.py        the graph and the arrays, to onnxruntime
cache.py          optimised models that are kept

Nothing here loads torch. Import from the modules.
"""
