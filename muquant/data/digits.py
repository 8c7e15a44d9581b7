"""scikit-learn's handwritten digits: 1,797 grey images of 8x8 pixels, embedded in its package."""

import torch

from muquant.data.dataset import Dataset
from muquant.data.request import DatasetRequest

_BRIGHTEST = 16  # its grey levels are 0..16
_TEST_EVERY = 5  # of each class, every fifth image is a test image


def load_digits(request: DatasetRequest) -> Dataset:
    """The digits: 1,433 to train on and 364 to test on, the same share of every class.

    The split is fixed: it depends neither on a seed nor on a version of scikit-learn's splitter.
    """
    from sklearn.datasets import load_digits as load_bundle  # a second to import, and only needed here

    bundle = load_bundle()
    levels = torch.from_numpy(bundle.images)
    images = (levels * 255 / _BRIGHTEST).round().to(torch.uint8)[:, None]
    labels = torch.from_numpy(bundle.target).to(torch.int64)
    is_test = torch.zeros(len(labels), dtype=torch.bool)
    for label in range(10):
        is_test[(labels == label).nonzero()[::_TEST_EVERY, 0]] = True
    chosen = is_test if request.split == "test" else ~is_test
    return Dataset(
        request.name, request.split, images[chosen], labels[chosen], tuple(str(label) for label in range(10))
    )
