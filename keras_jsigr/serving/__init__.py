"""A hardened model as a SavedModel that any TensorFlow can serve, and its card."""

from keras_jsigr.serving.card_file import read_model_card
from keras_jsigr.serving.export import export

__all__ = ["export", "read_model_card"]
