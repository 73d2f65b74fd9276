"""Similarity of two maps: ranks, top pixels, angle and structure."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import tensorflow as tf


def map_rows(maps: Any) -> tf.Tensor:
    """Flatten every map to one row, with a number of columns known to the graph."""
    maps = tf.cast(maps, tf.float32)
    if maps.shape.rank is None or maps.shape.rank < 2:
        raise ValueError(
            f"Got maps of shape {maps.shape}, expected (B, *map_shape) with a batch "
            "axis. Add one to a single map: `saliency[None]`."
        )
    return tf.reshape(maps, (-1, math.prod(maps.shape[1:])))


def two_map_rows(maps: Any, others: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """Flatten two batches of maps that are to be compared."""
    maps, others = tf.convert_to_tensor(maps), tf.convert_to_tensor(others)
    if maps.shape[1:] != others.shape[1:]:
        raise ValueError(
            f"Got maps of shapes {tuple(maps.shape)} and {tuple(others.shape)}, "
            "expected the same shape. Compare maps of the same inputs."
        )
    return map_rows(maps), map_rows(others)


def is_constant(rows: tf.Tensor) -> tf.Tensor:
    """Tell which rows hold a single value."""
    return tf.equal(tf.reduce_max(rows, axis=1), tf.reduce_min(rows, axis=1))


def unit_rows(rows: tf.Tensor) -> tf.Tensor:
    """Divide each row by its L2 norm; a row of zeros stays one."""
    # Scaled to a maximum of one first: squares of tiny gradients underflow in float32.
    peak = tf.reduce_max(tf.abs(rows), axis=1, keepdims=True)
    rows = tf.math.divide_no_nan(rows, peak)
    return tf.math.divide_no_nan(rows, tf.norm(rows, axis=1, keepdims=True))


def rank_correlation(maps: Any, others: Any) -> tf.Tensor:
    """Compute Spearman's rank correlation of two maps.

    Pearson's correlation of the ranks; equal values share the mean of their ranks. It
    depends on the order of the pixels alone. With a constant map it is undefined: 0.

    Args:
        maps: Float `(B, *map_shape)`.
        others: Of the same shape.

    Returns:
        Float32 `(B,)`, -1 to 1; larger is more alike, 0 for unrelated maps.

    Raises:
        ValueError: If shapes differ.

    Reference:
        arXiv 1810.03292 (to compare saliency maps).

    Example:
        >>> from keras_jsigr.saliency.metrics import rank_correlation
        >>> rank_correlation([[1.0, 2.0, 3.0]], [[0.0, 10.0, 500.0]]).numpy().tolist()
        [1.0]
    """
    ranks = (average_ranks(rows) for rows in two_map_rows(maps, others))
    one, other = (r - tf.reduce_mean(r, axis=1, keepdims=True) for r in ranks)
    size = tf.norm(one, axis=1) * tf.norm(other, axis=1)
    found = tf.math.divide_no_nan(tf.reduce_sum(one * other, axis=1), size)
    return tf.cast(tf.clip_by_value(found, -1.0, 1.0), tf.float32)


def average_ranks(rows: Any) -> tf.Tensor:
    """Rank the values of each row from 1 to n; equal values share their mean rank."""
    # Adding zero makes -0.0 a 0.0: some kernels sort the two apart.
    rows = tf.convert_to_tensor(rows) + 0.0
    ordered = tf.sort(rows, axis=1)
    below = tf.searchsorted(ordered, rows, side="left")
    up_to = tf.searchsorted(ordered, rows, side="right")
    return tf.cast(below + up_to + 1, tf.float64) / 2.0


def top_k_intersection(maps: Any, others: Any, *, top: float = 0.1) -> tf.Tensor:
    """Compute the share of the top pixels of one map that are top in the other too.

    `|T(a) & T(b)| / k` with `T` the `k = round(top n)` largest values, at least one. Of
    equal values the first ones are taken. A constant map has no top: 0.

    Args:
        maps: As `rank_correlation`.
        others: As `rank_correlation`.
        top: Share of the pixels, above 0, below 1. Two unrelated maps share `top`.

    Returns:
        Float32 `(B,)`, 0 to 1; larger is more alike.

    Raises:
        ValueError: If shapes differ or `top` is out of range.

    Reference:
        arXiv 1710.10547.

    Example:
        >>> from keras_jsigr.saliency.metrics import top_k_intersection
        >>> top_k_intersection([[4, 3, 2, 1]], [[4, 1, 2, 3]], top=0.5).numpy().tolist()
        [0.5]
    """
    if not 0.0 < top < 1.0:
        raise ValueError(
            f"Got top {top!r}, expected a share above 0 and below 1. Use 0.1 for a "
            "tenth of the pixels."
        )
    rows, other_rows = two_map_rows(maps, others)
    k = max(1, round(top * rows.shape[1]))
    shared = _top(rows, k) & _top(other_rows, k)
    found = tf.reduce_sum(tf.cast(shared, tf.float32), axis=1) / k
    flat = is_constant(rows) | is_constant(other_rows)
    return tf.where(flat, tf.zeros_like(found), found)


def _top(rows: tf.Tensor, k: int) -> tf.Tensor:
    # Of equal values `top_k` takes those of the lower index.
    chosen = tf.reshape(tf.math.top_k(rows, k, sorted=False).indices, (-1,))
    row = tf.repeat(tf.range(tf.shape(rows)[0]), k)
    places, marks = tf.stack([row, chosen], axis=1), tf.ones_like(row, tf.bool)
    return tf.scatter_nd(places, marks, tf.shape(rows))


class Agreement(NamedTuple):
    """Agreement of two maps, per example, in the three measures of `agreement`."""

    rank: tf.Tensor
    cosine: tf.Tensor
    overlap: tf.Tensor


def agreement(maps: Any, others: Any) -> Agreement:
    """Compare two maps of the same inputs, such as gradient and perturbation map.

    `rank = Spearman(a, b)`, `cosine = <a, b> / (||a|| ||b||)`, and
    `overlap = |T(a) & T(b)| / |T(a) | T(b)|` with `T` the top half of the pixels. A
    map of zeros has cosine 0; a constant one has rank and overlap 0. Arguments are
    those of `rank_correlation`.

    Returns:
        `rank` and `cosine`, -1 to 1, and `overlap`, 0 to 1 and 1/3 for unrelated maps,
        each float32 `(B,)`; larger is more alike.

    Example:
        >>> from keras_jsigr.saliency.metrics import agreement
        >>> maps, twice = [[0.0, 1.0, 2.0, 3.0]], [[0.0, 2.0, 4.0, 6.0]]
        >>> [float(part[0]) for part in agreement(maps, twice)]
        [1.0, 1.0, 1.0]
    """
    rows, other_rows = two_map_rows(maps, others)
    cosine = tf.reduce_sum(unit_rows(rows) * unit_rows(other_rows), axis=1)
    shared = top_k_intersection(rows, other_rows, top=0.5)
    return Agreement(
        rank=rank_correlation(rows, other_rows),
        cosine=tf.clip_by_value(cosine, -1.0, 1.0),
        overlap=shared / (2.0 - shared),
    )


def ssim(maps: Any, others: Any) -> tf.Tensor:
    """Compute the structural similarity of two maps, each brought to a maximum of one.

    Means, variances and the covariance in Gaussian windows of 11 pixels (fewer where
    the map is smaller), sigma 1.5, constants 0.01 and 0.03. A map of zeros stays one;
    two maps of zeros are the same: 1.

    Args:
        maps: Float `(B, H, W)`, not negative.
        others: Of the same shape.

    Returns:
        Float32 `(B,)`, -1 to 1; larger is more alike.

    Raises:
        ValueError: If shapes differ or the maps are no images.

    Reference:
        Wang et al. 2004, as in arXiv 1810.03292.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.saliency.metrics import ssim
        >>> maps = tf.reshape(tf.range(144.0), (1, 12, 12))
        >>> ssim(maps, 3.0 * maps).numpy().tolist()
        [1.0]
    """
    maps, others = tf.cast(maps, tf.float32), tf.cast(others, tf.float32)
    if maps.shape.rank != 3 or maps.shape[1:] != others.shape[1:]:
        raise ValueError(
            f"Got maps of shapes {tuple(maps.shape)} and {tuple(others.shape)}, expected the same "
            "shape (B, H, W). Use `rank_correlation` for maps of other data."
        )
    one, other = (
        tf.math.divide_no_nan(m, tf.reduce_max(tf.abs(m), [1, 2], keepdims=True))
        for m in (maps[..., tf.newaxis], others[..., tf.newaxis])
    )
    return tf.image.ssim(one, other, 1.0, filter_size=min(11, *maps.shape[1:]))
