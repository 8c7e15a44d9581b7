"""Devices by name."""

import torch

from muquant.errors import InputError


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
