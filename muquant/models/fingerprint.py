"""A digest that tells modules apart."""

import hashlib

import torch
from torch import nn


def fingerprint(module: nn.Module) -> str:
    """SHA-256 of a module's structure, as it prints itself, and of all its parameters and buffers."""
    sha = hashlib.sha256(repr(module).encode())
    for name, tensor in module.state_dict().items():
        if isinstance(tensor, torch.Tensor):
            values = tensor.detach().cpu().contiguous()
            sha.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
            sha.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()
