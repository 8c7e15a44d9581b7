"""The number format: what a spec says, and how codes, levels and bytes follow from it.

spec.py      `MuLawSpec`: width, mu, domain, granularity, levels, grid, steps; the one definition
law.py       the mu-law, and the levels of a spec
packing.py   codes <-> bytes
channels.py  `Channels`: which weights are one output channel
rows.py      a weight as rows that share a step
steps.py     steps in 8 bits
tensor.py    `QuantizedTensor`: codes and steps, and what they decode to
stored.py    the same as tensors of a file

Import from the modules: this file imports nothing, so that who only decodes a file loads no torch.
"""
