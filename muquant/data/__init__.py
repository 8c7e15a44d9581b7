"""Data sets of labelled images behind one registry.

registry.py    `load_dataset`, and the one table of data sets
request.py     what a loader is asked for, and where files are looked for
dataset.py     `Dataset`: images and labels, whole in memory
mnist.py       MNIST
cifar.py       CIFAR-10
digits.py      scikit-learn's handwritten digits, which need no files
folder.py      image files in folders
arrays.py      arrays in a .npz file, to test with
downloads.py   what downloads have in common
"""

from muquant.data.dataset import Dataset
from muquant.data.registry import DATASETS, DatasetEntry, dataset_names, load_dataset
from muquant.data.request import DatasetRequest

__all__ = ["DATASETS", "Dataset", "DatasetEntry", "DatasetRequest", "dataset_names", "load_dataset"]
