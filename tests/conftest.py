"""One thread, no deadlines; which tests share a worker, and in which order they are given out."""

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)  # models and tensors of the tests are small: threads would only wait for each other
settings.register_profile(
    "muquant", deadline=None
)  # a busy machine is no failure, nor is what a first call imports
settings.load_profile("muquant")


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests of a file share models, so they are a group unless they name another; slow ones go first."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
