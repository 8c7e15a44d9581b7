"""One thread, no deadlines, and slow files first."""

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)  # models and tensors of the tests are small: threads would only wait for each other
settings.register_profile("muquant", deadline=None)  # a busy machine is no failure, nor is a first call
settings.load_profile("muquant")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests go first: workers, which take whole files, end at much the same time."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
