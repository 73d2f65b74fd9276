"""How soon a decision rises when the most salient pixels are put in."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_jsigr.core.choices import BaselineName
from keras_jsigr.saliency.baselines import baseline as compute_baseline
from keras_jsigr.saliency.layout import Layout
from keras_jsigr.saliency.metrics.exchange_curve import (
    ScoreFn,
    area_under,
    exchange_curve,
)


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
    put in from 0 to 1 (`exchange_curve`), trapezoidal rule.

    Args:
        score_fn: Maps inputs `(B, *S)` to scores `(B,)`, such as the probability of
            the class explained.
        x: Float `(B, *S)`.
        maps: Float `(B, *map_shape)`: of an explanation or a `control_map`.
        steps: How often pixels are put in, 1 to their number.
        baseline: What the others are: `"blur"`, `"mean"` or `"zero"`.
        low: The value for `"zero"`.
        layout: What the axes mean, see `resolve_layout`.

    Returns:
        Float32 `(B,)`, in the range of the score; larger is better.

    Raises:
        ValueError: If a setting or shape is out of range.

    Reference:
        arXiv 1806.07421.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.saliency.metrics.insertion import insertion
        >>> x = tf.constant([[1.0, 3.0]])
        >>> score = lambda x: tf.reduce_sum(x, 1)
        >>> insertion(score, x, x, steps=2, baseline="zero").numpy().tolist()
        [2.5]
    """
    x = tf.convert_to_tensor(x)
    start = compute_baseline(x, baseline, layout=layout, low=low)
    return area_under(exchange_curve(score_fn, start, x, maps, steps=steps))
