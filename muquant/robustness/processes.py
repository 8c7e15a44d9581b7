"""How the batches of an attack are shared out over processes."""

import os
from collections.abc import Mapping
from typing import Protocol, TypeVar

import torch
from lightning_fabric import Fabric

from muquant.attacks import AttackResult

T = TypeVar("T")


class Processes(Protocol):
    """Processes that run the same benchmark side by side: the same attacks, in the same order."""

    @property
    def rank(self) -> int:
        """This process, 0..count - 1."""

    @property
    def count(self) -> int:
        """How many there are."""

    def share(self, value: T) -> T:
        """What the first process gives, in all of them."""

    def gather(self, parts: Mapping[int, AttackResult], total: int) -> list[AttackResult]:
        """The results of batches 0..total - 1 in every process, from those that each has."""


class OneProcess:
    """All batches in this process."""

    rank, count = 0, 1

    def share(self, value: T) -> T:
        """It is shared already."""
        return value

    def gather(self, parts: Mapping[int, AttackResult], total: int) -> list[AttackResult]:
        """They are all here."""
        return [parts[number] for number in range(total)]


def join_processes(device: torch.device) -> Processes:
    """The processes that `torchrun` started, or this one where it did not."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        return OneProcess()
    local = int(os.environ.get("LOCAL_WORLD_SIZE", count))
    fabric = Fabric(accelerator=device.type, devices=local, num_nodes=count // local, strategy="ddp")
    fabric.launch()
    return FabricProcesses(fabric)


class FabricProcesses:
    """The processes that `torchrun` started, joined by Lightning Fabric."""

    def __init__(self, fabric: Fabric) -> None:
        self.fabric = fabric
        self.rank, self.count = fabric.global_rank, fabric.world_size

    def share(self, value: T) -> T:
        """Send it from the first process to all others."""
        shared: T = self.fabric.broadcast(value, src=0)
        return shared

    def gather(self, parts: Mapping[int, AttackResult], total: int) -> list[AttackResult]:
        """Every process in turn sends its batches to all others."""
        everything: dict[int, AttackResult] = {}
        for sender in range(self.count):
            everything |= self.fabric.broadcast(dict(parts), src=sender)
        return [everything[number] for number in range(total)]
