"""Whether a file computes what the model computes: weights, outputs, kernels, costs."""
