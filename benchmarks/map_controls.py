"""Maps to train with that know less of the image than a teacher's perturbation maps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

import keras_jsigr as kj
from keras_jsigr.saliency.cache import hashed_examples, quantize

Control = Callable[[kj.PerturbationCache, np.ndarray, np.ndarray, np.random.Generator], Any]


def controlled(
    kind: str, teacher: keras.Model, x: np.ndarray, y: np.ndarray, seed: int
) -> kj.PerturbationCache:
    """Make the maps that a network is trained with.

    Args:
        kind: A key of `CONTROLS`.
        teacher: A plain network.
        x: Float32 `(N, H, W, C)`, the training images.
        y: Class indices `(N,)`.
        seed: Of the shuffling.

    Returns:
        A cache that finds a map for each of the images.
    """
    cache = kj.PerturbationCache.build(teacher, x, y, verbose=0)
    rows = np.searchsorted(cache.keys, hashed_examples(x))
    images, labels = np.empty_like(x[: cache.size]), np.empty(cache.size, y.dtype)
    images[rows], labels[rows] = x, y
    codes = CONTROLS[kind](cache, images, labels, np.random.default_rng(seed))
    return kj.PerturbationCache(cache.keys, codes, cache.bank, cache.identity)


def shuffled(cache: Any, images: Any, labels: Any, rng: np.random.Generator) -> Any:
    """Give every image the map of another one."""
    return cache.codes[rng.permutation(cache.size)]


def shuffled_in_class(cache: Any, images: Any, labels: Any, rng: np.random.Generator) -> Any:
    """Give every image the map of another one of its class."""
    codes = cache.codes.copy()
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        codes[rows] = cache.codes[rng.permutation(rows)]
    return codes


def mean(cache: Any, images: Any, labels: Any, rng: np.random.Generator) -> Any:
    """Give every image the mean map of all."""
    means = cache.codes.astype(np.float64).mean(0)
    return np.broadcast_to(quantize(means / means.max()), cache.codes.shape).copy()


def edges(cache: Any, images: Any, labels: Any, rng: np.random.Generator) -> Any:
    """Mark where the image itself changes: the mean energy of its gradient in each mask."""
    grey = images.mean(-1)
    energy = np.square(np.gradient(grey, axis=1)) + np.square(np.gradient(grey, axis=2))
    basis = cache.bank.hats.reshape(cache.bank.size, -1)
    found = np.sqrt(energy.reshape(len(images), -1) @ (basis / basis.sum(1, keepdims=True)).T)
    return quantize(found / np.maximum(found.max(1, keepdims=True), 1e-12))


CONTROLS: dict[str, Control] = {
    "cached": lambda cache, images, labels, rng: cache.codes,
    "shuffled": shuffled,
    "shuffled in class": shuffled_in_class,
    "mean": mean,
    "edges": edges,
}
