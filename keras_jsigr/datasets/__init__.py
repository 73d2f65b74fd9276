"""Image classification data from this machine: never downloads."""

from keras_jsigr.datasets.dataset import Dataset
from keras_jsigr.datasets.loading import load

__all__ = ["Dataset", "load"]
