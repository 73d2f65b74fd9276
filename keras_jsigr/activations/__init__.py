"""Smooth activations in the place of ReLU."""

from keras_jsigr.activations.smooth import with_smooth_activations

__all__ = ["with_smooth_activations"]
