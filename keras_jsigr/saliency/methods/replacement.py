"""What stands for "nothing there", by name or by number."""

from __future__ import annotations

import tensorflow as tf

from keras_jsigr.core import settings
from keras_jsigr.core.choices import BaselineName
from keras_jsigr.saliency.baselines import baseline as compute_baseline
from keras_jsigr.saliency.baselines import check_baseline
from keras_jsigr.saliency.layout import Layout

Replacement = BaselineName | float


def replacement(
    x: tf.Tensor, baseline: Replacement, layout: Layout | None
) -> tf.Tensor:
    """Compute the uninformative counterpart of every example.

    Args:
        x: Float data `(B, *S)`.
        baseline: A number, or `"zero"`, `"blur"` or `"mean"`, see `baselines`.
        layout: What the axes of an example mean; `None` tells by their number.

    Returns:
        Tensor shaped and typed like `x`.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.saliency.methods.replacement import replacement
        >>> replacement(tf.ones((1, 2)), 0.5, "features").numpy().tolist()
        [[0.5, 0.5]]
    """
    if isinstance(baseline, str):
        return compute_baseline(x, baseline, layout=layout)
    return compute_baseline(x, "zero", low=baseline)


def check_replacement(baseline: Replacement) -> None:
    """Refuse what is neither the name of a baseline nor a number.

    Args:
        baseline: The name or number.

    Raises:
        ValueError: If it is something else.

    Example:
        >>> from keras_jsigr.saliency.methods.replacement import check_replacement
        >>> check_replacement("blur")
    """
    if isinstance(baseline, str):
        check_baseline(baseline)
    else:
        settings.number("baseline", baseline)
