"""What `muquant train` made."""

from pathlib import Path

import torch
from torch import nn

from muquant.compression.computed import unwrap
from muquant.training import load_run
from muquant_cli.sources.source import Source


def is_run(text: str) -> bool:
    """Whether it is a folder, or the model file in one."""
    return Path(text).is_dir() or Path(text).name == "model.safetensors"


def load_run_folder(text: str, _pretrained: bool) -> Source:
    """Return the trained model of a finished run, which takes images in [0, 1]."""
    model = load_run(text)
    return Source(model, torch.zeros(1, *model.architecture.input_shape))


def float_model(run: Path) -> nn.Module:
    """Return the model of a run, after `train --qat` with the float weights under the fake quantization."""
    model = load_run(run)
    unwrap(model)
    return model
