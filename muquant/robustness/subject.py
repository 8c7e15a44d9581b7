"""What a benchmark looks at: a model by name, in PyTorch, under a runtime, or both."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from muquant.attacks import Averaged, CallableTarget, Target, TorchTarget
from muquant.attacks.base import BATCH_SIZE
from muquant.attacks.problem import checked_logits, differentiate, naming_shape, traced_logits
from muquant.base.errors import InputError
from muquant.models.fingerprint import fingerprint

LogitsFunction = Callable[[NDArray[np.float32]], NDArray[Any]]
"""images float32 [N, ...] -> logits [N, classes]"""


@dataclass(frozen=True, eq=False)
class Subject:
    """One model under test.

    Attributes:
        name: by which reports call it.
        module: in PyTorch; None where there is only a file for a runtime.
        session: the exported model under onnxruntime; None where it is not tried there.
        bits: of a compressed weight, on average; 32 where nothing is compressed, None where not known.
        nbytes: of the file that is deployed; None where there is none.
        file: what names the session's file: a digest, which tells finished attacks on it from others'.
        abstains: whether the last output is no class, but says that the model does not answer.
    """

    name: str
    module: nn.Module | None = None
    session: LogitsFunction | None = None
    bits: float | None = None
    nbytes: int | None = None
    file: str = ""
    abstains: bool = False

    @property
    def runtimes(self) -> tuple[str, ...]:
        """Where it is tried: "torch", "onnx" or both."""
        parts = {"torch": self.module, "onnx": self.session}
        return tuple(runtime for runtime, part in parts.items() if part is not None)

    def torch_target(self) -> TorchTarget | None:
        """The module as a target with gradients."""
        return None if self.module is None else TorchTarget(self.module, abstains=self.abstains)

    def onnx_target(self) -> CallableTarget | None:
        """The session as a target without gradients."""
        return None if self.session is None else CallableTarget(self.session, abstains=self.abstains)

    def averaged(self, passes: int) -> "Subject":
        """The same model by its mean answers over several passes; itself for one pass."""
        if passes == 1:
            return self
        session = self.session

        def mean(images: NDArray[np.float32]) -> NDArray[Any]:
            assert session is not None
            return np.asarray(np.mean([session(images) for _ in range(passes)], axis=0))

        return replace(
            self,
            module=None if self.module is None else Averaged(self.module, passes),
            session=None if session is None else mean,
            file=f"{self.file} mean of {passes}",
        )

    def check(self, images: Tensor, classes: int) -> None:
        """Refuse what does not give logits [N, classes] for images [N, ...], in PyTorch or under onnxruntime.

        Where the model abstains it gives one more. In PyTorch these must have gradients by the images.

        Raises:
            InputError: it does not, or they have none.
        """
        expected = classes + self.abstains
        for found in self.outputs(images):
            if found != expected:
                more = ", and one for abstaining" if self.abstains else ""
                raise InputError(
                    f"expected logits [{len(images)}, {expected}] for {len(images)} images of {classes} "
                    f"classes{more}, found {[len(images), found]}; give a model of the same data"
                )
        target = self.torch_target()
        if target is not None:
            with target.ready(), torch.enable_grad():
                leaf = images.detach().to(target.device).requires_grad_()
                differentiate(traced_logits(target, leaf).sum(), leaf)

    def outputs(self, images: Tensor) -> list[int]:
        """How many outputs it has for each image, under each of its runtimes.

        Raises:
            InputError: it does not take the images, or its output is no logits.
        """
        found = []
        for target in (self.torch_target(), self.onnx_target()):
            if target is not None:
                with target.ready(), torch.no_grad(), naming_shape(images):
                    found.append(checked_logits(target, images.to(target.device)).shape[1])
        return found

    def digest(self, runtime: str) -> str:
        """SHA-256 of what is attacked under "torch" or "onnx"."""
        return fingerprint(self.module) if runtime == "torch" and self.module is not None else self.file


def batched_logits(target: Target, images: Tensor) -> Tensor:
    """The outputs of a target for images [N, ...] with N >= 1, float32 on the CPU: [N, classes], or one more.

    Raises:
        InputError: its output is no logits, or not finite.
    """
    batches = torch.split(images, BATCH_SIZE)
    return torch.cat([checked_logits(target, batch.to(target.device)).cpu() for batch in batches])
