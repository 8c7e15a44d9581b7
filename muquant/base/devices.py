"""Devices by name."""

import torch

from muquant.base.errors import InputError


def find_device(name: str) -> torch.device:
    """The device that `name` names here: "auto" (a GPU where there is one), "cpu", "cuda" or "cuda:N".

    Raises:
        InputError: it is no such name, or this machine has no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        known = device.type == "cpu" or (
            device.type == "cuda" and (device.index or 0) < torch.cuda.device_count()
        )
    except RuntimeError:
        known = False
    if not known:
        raise InputError(
            f"device {name!r}: expected auto, cpu or one of the {torch.cuda.device_count()} cuda devices "
            f"here; choose one of these"
        )
    return device


def computes_bf16(device: torch.device) -> bool:
    """Whether a device has instructions for bfloat16; without them it is many times slower than float32.

    True also where torch cannot tell.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()  # not in torch 2.9
    found = [has for name, has in capabilities.items() if name.endswith("bf16")]
    return any(found) or not found
