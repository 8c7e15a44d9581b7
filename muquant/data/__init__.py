"""Data sets of labelled images behind one registry."""

from muquant.data.dataset import Dataset
from muquant.data.registry import DATASETS, DatasetEntry, dataset_names, load_dataset
from muquant.data.request import DatasetRequest

__all__ = ["DATASETS", "Dataset", "DatasetEntry", "DatasetRequest", "dataset_names", "load_dataset"]
