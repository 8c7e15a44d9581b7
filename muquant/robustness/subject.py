"""What a benchmark looks at: a model by name, in PyTorch, under a runtime, or both."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from muquant.attacks import CallableTarget, TorchTarget

Session = Callable[[NDArray[np.float32]], NDArray[Any]]
"""images float32 [N, ...] -> logits [N, classes]"""


@dataclass(frozen=True, eq=False)
class Subject:
    """One model under test.

    Attributes:
        name: by which reports call it.
        module: in PyTorch; None where there is only a file for a runtime.
        session: the exported model under onnxruntime; None where it is not tried there.
        bits: of a compressed weight; 32 where nothing is compressed, None where it is not known.
        nbytes: of the file that is deployed; None where there is none.
        file: what names the session's file: a digest, which tells finished attacks on it from others'.
    """

    name: str
    module: nn.Module | None = None
    session: Session | None = None
    bits: int | None = None
    nbytes: int | None = None
    file: str = ""

    def torch_target(self) -> TorchTarget | None:
        """The module as a target with gradients."""
        return None if self.module is None else TorchTarget(self.module)

    def onnx_target(self) -> CallableTarget | None:
        """The session as a target without gradients."""
        return None if self.session is None else CallableTarget(self.session)

    def digest(self, runtime: str) -> str:
        """SHA-256 of what is attacked under "torch" or "onnx"."""
        return fingerprint(self.module) if runtime == "torch" and self.module is not None else self.file


def fingerprint(module: nn.Module) -> str:
    """SHA-256 of a module's structure, as it prints itself, and of all its parameters and buffers."""
    sha = hashlib.sha256(repr(module).encode())
    for name, tensor in module.state_dict().items():
        if isinstance(tensor, torch.Tensor):
            values = tensor.detach().cpu().contiguous()
            sha.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
            sha.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()
