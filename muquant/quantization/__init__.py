"""One weight: from float to codes, and fake quantization of it in training.

quantize.py          observe, round, keep the best of what was tried
exact.py             constants that are no weights, told by their values
observers.py         which scale and mu suit a weight
rounding/            which codes: nearest, compensated, reconstructed; one file each, one registry
moments.py           what the inputs of a layer are like
sums.py              of what moments are made, batch for batch
output_error.py      what rounding does to a layer's output, as moments tell
places.py            levels, looked up without a search
threads.py           short operators on one thread
outcome.py           what came of it, and what is said of it
quality.py           how much of a weight is lost
resume.py            finished weights of an interrupted job
fake_quantize.py     the fake-quant module: scale and mu learned
straight_through.py  its gradients
torch_ao.py          the imports from torch.ao
"""
