"""Gradient saliency maps of any classifier, in one call."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_jsigr.core.as_float import as_float
from keras_jsigr.core.logits import as_logits
from keras_jsigr.core.scores import (
    HeadKind,
    ScoreName,
    class_targets,
    predicted_targets,
)
from keras_jsigr.saliency.batched import BatchedExplainer, as_fit_sees, probe_of
from keras_jsigr.saliency.decision import decision_of
from keras_jsigr.saliency.gradient import input_gradient
from keras_jsigr.saliency.layout import Layout, map_axes, resolve_layout


def gradient_map(
    model: Any,
    x: Any,
    y: Any = None,
    *,
    score: ScoreName = "log_prob",
    kind: HeadKind | None = None,
    layout: Layout | None = None,
    reduce: bool = True,
    batch_size: int = 128,
) -> Any:
    """Map how fast the score of the decision changes with every input value.

    `sum_channels |d s / d x|`, or the signed `d s / d x` if not `reduce`.

    Args:
        model: A Keras classifier, a hardened model or a callable, see `as_logits`.
        x: Data `(B, *S)`.
        y: Labels `(B,)` or `(B, C)`; `None` explains the model's own decision.
        score: `"log_prob"`, `"margin"` or `"logit"`.
        kind: `"softmax"` (exclusive classes) or `"sigmoid"` (independent ones);
            `None` asks the head and the loss of a Keras model, and takes a callable
            for the first.
        layout: What the axes mean where the rank would mislead, see `resolve_layout`.
        reduce: Whether to sum absolute values over the channels.
        batch_size: Examples per compiled call.

    Returns:
        Float32 `(B, *map_shape)`, or the float shape of `x` if not `reduce`: a tensor
        if `x` is one, else a NumPy array.

    Raises:
        ValueError: If a setting or shape is out of range.
        TypeError: If `model` cannot be called.

    Reference:
        arXiv 1312.6034.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.saliency.gradient_map import gradient_map
        >>> gradient_map(lambda x: x * [2.0, 0.0], np.ones((1, 2)), score="logit")
        array([[2., 0.]], dtype=float32)
    """
    x = as_fit_sees(x)
    return gradient_explainer(
        model,
        probe_of(x),
        score=score,
        kind=kind,
        layout=layout,
        reduce=reduce,
        batch_size=batch_size,
    )(x, y)


def gradient_explainer(
    model: Any,
    probe: Any,
    *,
    score: ScoreName = "log_prob",
    kind: HeadKind | None = None,
    layout: Layout | None = None,
    reduce: bool = True,
    batch_size: int = 128,
) -> BatchedExplainer:
    """Compile `gradient_map` once, to call it again and again as `f(x, y=None)`.

    Args:
        model: A Keras classifier, a hardened model or a callable, see `as_logits`.
        probe: A batch of inputs, at least one.
        score: `"log_prob"`, `"margin"` or `"logit"`.
        kind: `"softmax"` (exclusive classes) or `"sigmoid"` (independent ones);
            `None` asks the head and the loss of a Keras model, and takes a callable
            for the first.
        layout: What the axes mean where the rank would mislead, see `resolve_layout`.
        reduce: Whether to sum absolute values over the channels.
        batch_size: Examples per compiled call.

    Returns:
        The reusable function; it follows the model's weights.

    Raises:
        ValueError: If a setting or shape is out of range.
        TypeError: If `model` cannot be called.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.saliency.gradient_map import gradient_explainer
        >>> x = np.ones((3, 2), "float32")
        >>> gradient_explainer(lambda x: x, x[:1])(x).shape
        (3, 2)
    """
    probe = as_float(probe)
    decision = decision_of(model, probe, kind)
    chosen, score = decision.kind, decision.score(score)
    logits_fn = as_logits(model, probe)
    axes = map_axes(resolve_layout(tuple(probe.shape[1:]), layout)) if reduce else 0

    def explain(x: tf.Tensor, y: tf.Tensor | None) -> tf.Tensor:
        def targets(z: tf.Tensor) -> tf.Tensor:
            return predicted_targets(z, chosen) if y is None else class_targets(y, z)

        gradient = input_gradient(logits_fn, x, targets, score, chosen)
        if not reduce:
            return gradient
        magnitude = tf.abs(tf.cast(gradient, tf.float32))
        channels = list(range(1 + axes, gradient.shape.rank))
        return tf.reduce_sum(magnitude, channels) if channels else magnitude

    return BatchedExplainer(explain, batch_size, decision.classes)
