"""Whether a file computes what the model computes.

verify.py     `verify`: all of it, and its report
weights.py    the weights, bit for bit, however they are decoded
runtimes.py   the outputs and the kernels, under each setting and policy
costs.py      what loading and running costs, in processes of their own
"""
