"""Randomness as a function of the run's seed and a place in the run."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derive_seed(seed: int, purpose: str, index: int = 0) -> int:
    """A seed in 0..2**63 - 1 for one purpose at one place (an epoch, a step), unrelated to that of any other.

    A run that is resumed at a step derives the same seeds as one that has come there without a break, so no
    generator's state has to be kept.
    """
    digest = hashlib.sha256(f"{seed}/{purpose}/{index}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator_for(seed: int, purpose: str, index: int = 0) -> torch.Generator:
    """A generator on the CPU that starts from `derive_seed`."""
    return torch.Generator().manual_seed(derive_seed(seed, purpose, index))


@contextmanager
def own_randomness(device: torch.device) -> Iterator[None]:
    """Give the caller back its global random state, on the CPU and on `device`, whatever is seeded inside."""
    devices = [device.index or 0] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        yield
