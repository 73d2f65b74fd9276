"""What an occluded pixel is replaced by."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from keras_jsigr.core import settings
from keras_jsigr.core.as_float import as_float
from keras_jsigr.core.choices import BASELINES, BaselineName
from keras_jsigr.saliency.gaussian_blur import gaussian_blur
from keras_jsigr.saliency.layout import Layout, map_axes, resolve_layout


def baseline(
    x: Any,
    kind: BaselineName = "blur",
    *,
    layout: Layout | None = None,
    sigma: float | None = None,
    low: float = 0.0,
) -> tf.Tensor:
    """Compute `A(x)`, the uninformative counterpart of every example.

    - `"blur"`: Gaussian blur over the image or along time, borders reflected;
    - `"mean"`: the example's own mean over the image or time, per channel;
    - `"zero"`: the constant `low`.

    For features, which have no neighbours, `"blur"` is `"mean"`: the mean over the
    features of the same example. No example depends on the rest of the batch.

    Args:
        x: Data `(B, *S)`; integers are taken as float32.
        kind: `"blur"`, `"mean"` or `"zero"`.
        layout: What the axes mean, see `resolve_layout`.
        sigma: Blur in pixels or steps; default 3/80 of the mean side, at least 1.
        low: The value for `"zero"`, such as the lower end of the input range.

    Returns:
        Tensor shaped like `x`, of its float dtype.

    Raises:
        ValueError: If `kind` is unknown or the shape fits no layout.

    Reference:
        arXiv 1711.00138 (blur, sigma 3 on 80 x 80 frames).

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.saliency.baselines import baseline
        >>> baseline(tf.constant([[1.0, 3.0]]), "mean").numpy().tolist()
        [[2.0, 2.0]]
    """
    check_baseline(kind)
    x = tf.convert_to_tensor(x)
    x = as_float(x)
    if kind == "zero":
        return tf.zeros_like(x) + tf.cast(low, x.dtype)
    layout = resolve_layout(tuple(x.shape[1:]), layout)
    axes = tuple(range(1, 1 + map_axes(layout)))
    if kind == "mean" or layout == "features":
        wide = x if x.dtype == tf.float64 else tf.cast(x, tf.float32)
        mean = tf.reduce_mean(wide, axes, keepdims=True)
        return tf.zeros_like(x) + tf.cast(mean, x.dtype)
    side = float(np.mean([x.shape[axis] for axis in axes]))
    return gaussian_blur(x, max(1.0, 3 / 80 * side) if sigma is None else sigma, axes)


def check_baseline(kind: str) -> None:
    """Refuse a name that is no baseline.

    Args:
        kind: The name.

    Raises:
        ValueError: If it is not one of `BASELINES`.

    Example:
        >>> from keras_jsigr.saliency.baselines import check_baseline
        >>> check_baseline("blur")
    """
    advice = "Use 'blur' for images, 'mean' for tables."
    settings.choice("baseline", kind, BASELINES, advice=advice)
