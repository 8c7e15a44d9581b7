"""The processes that work together: one, or those that torchrun has started, through Lightning Fabric."""

import atexit
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

from muquant.base.devices import find_device
from muquant.base.errors import InputError

T = TypeVar("T")


def join_processes(device: str) -> "Processes":
    """The processes as torchrun started them, or this one alone.

    Args:
        device: name of the device; of the kind of devices where there are several processes.

    Raises:
        InputError: the device is not here, or a single one was named for several processes.
    """
    return FabricProcesses(device) if _world() > 1 else Processes(device)


class Processes:
    """This process alone; `FabricProcesses` is the same for several.

    All processes make the same calls in the same order. What is decided or measured once, the first one
    decides or measures; it also writes all files.

    Args:
        device: name of the device.

    Attributes:
        rank: number of this process, 0 for the first.
        count: of processes.
        device: on which this one works.

    Raises:
        InputError: the device is not here.
    """

    rank = 0
    count = 1

    def __init__(self, device: str = "cpu") -> None:
        self.device = find_device(device)

    def part_of(self, batch: Tensor) -> Tensor:
        """The part of a batch [N, ...] that is this process' own, [N / count, ...]."""
        return batch

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Replace each of these floating point tensors by its mean over the processes."""

    def share(self, value: T) -> T:
        """What the first process gives, in all of them."""
        return value

    def gather(self, parts: Mapping[int, T], total: int) -> list[T]:
        """Parts 0..total - 1 in every process, from those that each has."""
        return [parts[number] for number in range(total)]

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """Let the first process do something that leaves files before the others do it."""
        if self.rank:
            self.share(None)
        yield
        if not self.rank:
            self.share(None)


class FabricProcesses(Processes):
    """The processes of one torchrun.

    Gradients are averaged here rather than by DistributedDataParallel, whose hooks do not bear that an attack
    runs the model and asks for gradients of its images between two backward passes.

    Raises:
        InputError: the device is not here, or a single one was named for all of them.
    """

    def __init__(self, device: str) -> None:
        from lightning_fabric import Fabric  # late: it takes seconds, which one process need not spend

        kind, _, number = device.partition(":")
        if number:
            raise InputError(
                f"device {device!r} for {_world()} processes; give --device {kind}, one for each"
            )
        local = int(os.environ.get("LOCAL_WORLD_SIZE", _world()))
        self._fabric: Fabric = Fabric(
            accelerator=find_device(device).type, devices=local, num_nodes=_world() // local, strategy="ddp"
        )
        self._fabric.launch()
        atexit.register(_leave)
        self.device = self._fabric.device
        self.rank, self.count = self._fabric.global_rank, self._fabric.world_size

    def part_of(self, batch: Tensor) -> Tensor:
        """Consecutive images; as many for each process.

        Raises:
            InputError: their number does not divide.
        """
        if len(batch) % self.count:
            raise InputError(
                f"a batch of {len(batch)} images for {self.count} processes; give a --batch-size that is a "
                f"multiple of {self.count}"
            )
        return batch.chunk(self.count)[self.rank]

    def average(self, tensors: Iterable[Tensor]) -> None:
        """As in the base; in one message."""
        several = list(tensors)
        flat = torch.cat([tensor.detach().reshape(-1).float() for tensor in several])
        mean = self._fabric.all_reduce(flat, reduce_op="mean")
        assert isinstance(mean, Tensor)
        with torch.no_grad():
            parts = torch.split(mean, [tensor.numel() for tensor in several])
            for tensor, part in zip(several, parts, strict=True):
                tensor.copy_(part.view(tensor.shape))

    def share(self, value: T) -> T:
        """As in the base; also a point where all wait for each other."""
        return self._fabric.broadcast(value)

    def gather(self, parts: Mapping[int, T], total: int) -> list[T]:
        """As in the base; every process in turn sends its parts to all others."""
        everything: dict[int, T] = {}
        for sender in range(self.count):
            everything |= self._fabric.broadcast(dict(parts), src=sender)
        return [everything[number] for number in range(total)]


def _leave() -> None:
    """Leave the group in order: where its threads still run when the interpreter goes, they abort the process
    now and then, after all its work is done."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _world() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))
