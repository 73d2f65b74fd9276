"""Callbacks for hardened models."""

from keras_jsigr.callbacks.refresh_maps import RefreshMaps

__all__ = ["RefreshMaps"]
