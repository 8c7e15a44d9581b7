"""One process alone, and what is refused; several at work are in the tests of training and robustness."""

import pytest
import torch

from muquant.base.errors import InputError
from muquant.base.processes import Processes, join_processes


@pytest.mark.parametrize("device", ["tpu", "cuda:99", "meta", ""])
def test_a_device_that_is_not_here_is_refused(device: str) -> None:
    with pytest.raises(InputError, match="expected auto, cpu or one of"):
        join_processes(device)


def test_one_device_for_several_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match=r"device 'cuda:1' for 2 processes.* --device cuda"):
        join_processes("cuda:1")


def test_one_process_alone_changes_nothing() -> None:
    processes = Processes("cpu")
    batch = torch.rand(3, 2)
    assert processes.part_of(batch) is batch
    before = batch.clone()
    processes.average([batch])
    assert torch.equal(batch, before)
    assert processes.share("this") == "this"
    assert processes.gather({1: "second", 0: "first"}, 2) == ["first", "second"]
    with processes.in_turn():
        pass
