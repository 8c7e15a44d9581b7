"""Training for few bits under Lightning.

trainer = Trainer(max_epochs=10, callbacks=[MuLawQAT(3, module="net", path="model.onnx", example=images)])
trainer.fit(lightning_module)

Fake quantization is on before optimizers are built and checkpoints are read, so that both see its scale and
mu: a run goes on from its checkpoint. A float network is loaded before the fit.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from torch import nn

from muquant import CompressedModel, MuLawFakeQuantize, MuLawSpec, compress, prepare_qat
from muquant.base.errors import InputError
from muquant.base.files import check_writable
from muquant.compression.selection import Override
from muquant.models.calls import Example
from muquant_integrations.packages import needing
from muquant_onnx import export_onnx

with needing("lightning", "MuLawQAT"):
    from lightning.pytorch import Callback, LightningModule, Trainer


class MuLawQAT(Callback):  # type: ignore[misc]  # its package has no place among those of the type checker
    """Train with weights in few bits: `prepare_qat` before the fit, `compress` behind it.

    Args:
        spec: a width or a format, in the decoded domain.
        module: path of the network in the LightningModule, such as "model"; "" for all of it. It has to be
            there before Lightning sets up.
        layers: "all", "last:K" or a regular expression, as `prepare_qat` takes them.
        overrides: layers -> another width or format, likewise.
        path: of the result: a .mq file, or an .onnx file, which needs `example`; None writes nothing.
        example: an input of the network, or several.

    Attributes:
        compressed: the frozen network, once a fit has ended; None before.

    Raises:
        InputError: lightning is missing, the format cannot be used, or `path` cannot be written.
    """

    def __init__(
        self,
        spec: int | MuLawSpec = 3,
        *,
        module: str = "",
        layers: str = "all",
        overrides: Mapping[str, Override] | None = None,
        path: str | os.PathLike[str] | None = None,
        example: Example | None = None,
    ) -> None:
        self.spec = MuLawSpec(spec) if isinstance(spec, int) else spec
        self.module, self.layers, self.overrides = module, layers, overrides
        self.path = None if path is None else Path(path)
        self.example = example
        self.compressed: CompressedModel | None = None
        if self.path is not None:
            self._check_path(self.path)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Put fake quantization on the weights, where it is not yet; also to validate, test and predict, so
        that checkpoints fit and what is measured is the network in few bits."""
        network = self._network(pl_module)
        if not any(isinstance(part, MuLawFakeQuantize) for part in network.modules()):
            prepare_qat(
                network, self.spec, layers=self.layers, overrides=self.overrides, example=self.example
            )

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Freeze a copy of the network, and write it; the module stays prepared, and can be trained on."""
        self.compressed = compress(self._network(pl_module), example=self.example)
        if self.path is None or not trainer.is_global_zero:
            return
        if self.path.suffix == ".mq":
            self.compressed.save(self.path)
        elif self.example is not None:
            export_onnx(self.compressed, self.path, self.example)

    def _network(self, pl_module: LightningModule) -> nn.Module:
        try:
            network: nn.Module = pl_module.get_submodule(self.module)
        except AttributeError as error:
            children = ", ".join(name for name, _ in pl_module.named_children()) or "none"
            raise InputError(
                f"module: {type(pl_module).__name__} has no {self.module!r}; its modules are {children}"
            ) from error
        return network

    def _check_path(self, path: Path) -> None:
        if path.suffix not in (".mq", ".onnx"):
            raise InputError(f"path: cannot tell what {path} should be; expected .mq or .onnx at its end")
        if path.suffix == ".onnx" and self.example is None:
            raise InputError(f"path: {path} is traced from an example input; give example=")
        check_writable(path)
