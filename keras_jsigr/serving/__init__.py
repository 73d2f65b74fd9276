"""A hardened model as a SavedModel that any TensorFlow can serve, and its card."""

from keras_jsigr.serving.export import export
from keras_jsigr.serving.model_card import read_model_card, verify

__all__ = ["export", "read_model_card", "verify"]
