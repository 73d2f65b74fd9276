"""Regions that an attack is restricted to, from saliency maps."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from keras_jsigr.attacks.regions.top_share import top_share
from keras_jsigr.core import settings


def salient_region(maps: Any, share: float = 0.5, *, salient: bool = True) -> Any:
    """Mark the most salient share of the pixels of each map, or all the others.

    A defense that smooths the model only where it does not look leaves holes where it
    does: attack both sides, `attack(model, x, y, region=...)`.

    Args:
        maps: `(N, H, W)`, or `(N, T)`, `(N, D)`, such as those of
            `keras_jsigr.perturbation_map` or `gradient_map`; the larger, the more
            salient.
        share: Of the pixels that are salient, above 0, at most 1; see `top_share`.
        salient: False for the complement of that region.

    Returns:
        Float32 of the shape of `maps`, one inside and zero outside: a tensor if `maps`
        is one, else a NumPy array.

    Raises:
        TypeError: If `maps` hold no numbers or `share` is none.
        ValueError: If `share` is out of range, or a map is empty or not finite.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.attacks.regions.regions import salient_region
        >>> salient_region(np.array([[0.1, 0.9, 0.3, 0.3]])).tolist()
        [[0.0, 1.0, 1.0, 0.0]]
        >>> salient_region(np.array([[0.1, 0.9, 0.3, 0.3]]), salient=False).tolist()
        [[1.0, 0.0, 0.0, 1.0]]
    """
    share = settings.share("share", share, ends="(]")
    settings.choice("salient", salient, (True, False))
    values = np.asarray(maps)
    _check_maps(values)
    flat = tf.constant(values.reshape(len(values), -1), tf.float64)
    region = tf.reshape(top_share(flat, share), values.shape)
    region = tf.cast(region if salient else ~region, tf.float32)
    return region if tf.is_tensor(maps) else region.numpy()


def _check_maps(maps: np.ndarray[Any, Any]) -> None:
    if maps.dtype.kind not in "fiub":
        raise TypeError(
            f"`maps` hold no numbers: got dtype {maps.dtype}, expected a float array "
            "(N, H, W). Pass the result of `perturbation_map` or `gradient_map`."
        )
    if maps.ndim < 2 or 0 in maps.shape:
        raise ValueError(
            f"`maps` has shape {maps.shape}, expected one map per example, (N, H, W). "
            "Pass maps[None] for a single one."
        )
    if not np.isfinite(maps.astype("float64")).all():
        raise ValueError(
            "`maps` contain NaN or infinity, expected finite values. Find them with "
            "np.isfinite(maps)."
        )
