"""Smooth activations, and models with them in the place of ReLU."""

from keras_jsigr.activations.smooth import with_smooth_activations
from keras_jsigr.activations.swish import Swish

__all__ = ["Swish", "with_smooth_activations"]
