"""Faithfulness of maps by deletion and insertion, and control maps to compare with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import numpy as np
import tensorflow as tf

from keras_jsigr.core import arguments
from keras_jsigr.core.arguments import BaselineName
from keras_jsigr.core.batching import sequential_map
from keras_jsigr.saliency import masks
from keras_jsigr.saliency.masks import Layout, compute_baseline
from keras_jsigr.saliency.metrics.similarity import map_rows

ControlName = Literal["random", "intensity"]
ScoreFn = Callable[[tf.Tensor], tf.Tensor]


def control_map(
    x: Any,
    kind: ControlName = "random",
    *,
    seed: Any = (0, 0),
    low: float = 0.0,
    layout: Layout | None = None,
) -> tf.Tensor:
    """Make a map from the image alone, or from nothing.

    Args:
        x: Data `(B, *S)`.
        kind: `"random"` (uniform numbers, other ones for each example) or `"intensity"`
            (`sum_channels |x - low|`, a strong map of bright objects on black).
        seed: Int32 `(2,)`, of the random maps.
        low: The value of a dark pixel.
        layout: What the axes mean, see `resolve_layout`.

    Returns:
        Float32 `(B, *map_shape)`.

    Raises:
        ValueError: If `kind` is unknown or the shape fits no layout.

    Example:
        >>> from keras_jsigr.saliency.metrics import control_map
        >>> control_map([[[1.0, 2.0], [0.0, 0.5]]], "intensity").numpy()
        array([[3. , 0.5]], dtype=float32)
    """
    advice = "Use 'random' for the level of chance."
    arguments.choice("kind", kind, get_args(ControlName), advice=advice)
    x = tf.cast(x, tf.float32)
    shape = tuple(x.shape[1:])
    kept = 1 + masks.map_axes(masks.resolve_layout(shape, layout))
    if layout is None:
        masks.check_channels_last(shape)
    if kind == "random":
        return tf.random.stateless_uniform(tf.shape(x)[:kept], seed)
    return tf.reduce_sum(tf.abs(x - low), axis=list(range(kept, x.shape.rank)))


def exchange_curve(
    score_fn: ScoreFn, start: Any, end: Any, maps: Any, *, steps: int = 28
) -> tf.Tensor:
    """Compute the score while pixels of one input replace those of another, top first.

    After step k the `round(n k / steps)` most salient pixels, all channels of each,
    come from `end` and the others from `start`. Of equal values the first ones go
    first. Float32 `(B, steps + 1)`, from `score_fn(start)` to `score_fn(end)`.

    Raises:
        ValueError: If `steps` is out of range or a map does not fit the inputs.
    """
    start, end, maps = (tf.convert_to_tensor(part) for part in (start, end, maps))
    rows = map_rows(maps)
    n = rows.shape[1]
    if not isinstance(steps, int) or not 1 <= steps <= n:
        raise ValueError(
            f"Got steps {steps!r}, expected an integer from 1 to {n}, the number of "
            "pixels. The usual number is 28."
        )
    order = tf.argsort(rows, axis=1, direction="DESCENDING", stable=True)
    place = tf.argsort(order, axis=1, stable=True)
    place = masks.expand_map(tf.reshape(place, [-1, *maps.shape[1:]]), start)

    def score(count: tf.Tensor) -> tf.Tensor:
        return tf.cast(score_fn(tf.where(place < count, end, start)), tf.float32)

    return tf.transpose(sequential_map(score, exchange_counts(n, steps), (None,)))


def exchange_counts(n: int, steps: int) -> tf.Tensor:
    """Count the pixels that are exchanged after each step, `round(n k / steps)`."""
    # Integers round alike for every float type; pixels times steps may exceed 32 bits.
    step = np.arange(steps + 1, dtype=np.int64)
    return tf.constant((2 * n * step + steps) // (2 * steps), tf.int32)


def area_under(curve: tf.Tensor) -> tf.Tensor:
    """Compute the area under curves over 0..1, by the trapezoidal rule."""
    return tf.reduce_mean((curve[:, 1:] + curve[:, :-1]) / 2.0, axis=1)


def deletion(
    score_fn: ScoreFn,
    x: Any,
    maps: Any,
    *,
    steps: int = 28,
    baseline: BaselineName = "blur",
    low: float = 0.0,
    layout: Layout | None = None,
) -> tf.Tensor:
    """Compute the area under the score while pixels are removed, most salient first.

    The score at `x` with the top pixels exchanged for those of `A(x)`, over the share
    removed from 0 to 1 (`exchange_curve`), trapezoidal rule.

    Args:
        score_fn: Maps inputs `(B, *S)` to scores `(B,)`, such as the probability of
            the class explained.
        x: Float `(B, *S)`.
        maps: Float `(B, *map_shape)`: of an explanation or a `control_map`.
        steps: How often pixels are removed, 1 to their number.
        baseline: What removed pixels become: `"blur"`, `"mean"` or `"zero"`.
        low: The value for `"zero"`.
        layout: What the axes mean, see `resolve_layout`.

    Returns:
        Float32 `(B,)`, in the range of the score; smaller is better.

    Raises:
        ValueError: If a setting or shape is out of range.

    Reference:
        arXiv 1806.07421.

    Example:
        >>> from keras_jsigr.saliency.metrics import deletion
        >>> x, score = [[1.0, 3.0]], lambda x: x[:, 0] + x[:, 1]
        >>> deletion(score, x, x, steps=2, baseline="zero").numpy().tolist()
        [1.5]
    """
    x = tf.convert_to_tensor(x)
    end = compute_baseline(x, baseline, layout=layout, low=low)
    return area_under(exchange_curve(score_fn, x, end, maps, steps=steps))


def insertion(
    score_fn: ScoreFn,
    x: Any,
    maps: Any,
    *,
    steps: int = 28,
    baseline: BaselineName = "blur",
    low: float = 0.0,
    layout: Layout | None = None,
) -> tf.Tensor:
    """Compute the area under the score while pixels are put in, most salient first.

    The score at `A(x)` with the top pixels exchanged for those of `x`, over the share
    put in from 0 to 1 (`exchange_curve`), trapezoidal rule. Arguments as in `deletion`.

    Returns:
        Float32 `(B,)`, in the range of the score; larger is better.

    Reference:
        arXiv 1806.07421.

    Example:
        >>> from keras_jsigr.saliency.metrics import insertion
        >>> x, score = [[1.0, 3.0]], lambda x: x[:, 0] + x[:, 1]
        >>> insertion(score, x, x, steps=2, baseline="zero").numpy().tolist()
        [2.5]
    """
    x = tf.convert_to_tensor(x)
    start = compute_baseline(x, baseline, layout=layout, low=low)
    return area_under(exchange_curve(score_fn, start, x, maps, steps=steps))
