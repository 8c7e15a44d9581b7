"""How many threads torch computes with."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread(alone: bool = True) -> Iterator[None]:
    """Let torch compute with one thread inside the block, if `alone`.

    Many short operators gain nothing from more: threads wait for each other, busily, and where others use the
    processor too for long.
    """
    threads = torch.get_num_threads()
    if alone:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
