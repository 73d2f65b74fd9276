"""Linearized robustness: how far the decision boundary is if the model were linear."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_jsigr.attacks.balls.normalize import l2_norm
from keras_jsigr.attacks.calls.predictions import PROGRAMS
from keras_jsigr.core import settings
from keras_jsigr.core.logits import LogitsFn
from keras_jsigr.evaluation.records import LinearizedRecord

_SHARES = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
_PROBES = 16


class Linearized(NamedTuple):
    """The linearized robustness of each example, and what it is made of.

    Attributes:
        robustness: Float32 `(N,)` in input units; infinity where the gradient is zero,
            NaN where one is not finite.
        margin: Float32 `(N,)`: the largest minus the second logit.
        gradient: Float32 `(N,)`: the dual norm of the gradient of the difference to
            the class that is closest in this sense.
    """

    robustness: npt.NDArray[np.float32]
    margin: npt.NDArray[np.float32]
    gradient: npt.NDArray[np.float32]


def linearized_robustness(
    model: Any,
    x: Any,
    *,
    norm: str = "linf",
    rivals: int | None = None,
    batch_size: int = 128,
) -> Linearized:
    """Compute how far each example is from the boundary of the linearized model.

    `rho(x) = min_{j != i} (z_i - z_j) / ||grad_x (z_i - z_j)||_*` with the predicted
    class `i` and the dual norm: L1 for `"linf"`, L2 for `"l2"`, the maximum for
    `"l1"`. The distance to the boundary of a linear model, where the range of the
    inputs does not bind; of any other only its first-order estimate, no certificate.
    Multiplying the logits by a number does not change it.

    Args:
        model: A Keras classifier, a hardened model or a callable, see `as_logits`.
        x: Float `(N, *S)`, at least one.
        norm: Of the perturbation: `"linf"`, `"l2"` or `"l1"`.
        rivals: Consider only so many classes of the largest other logits; the result
            is then an upper bound. `None`: all, at a reverse pass each.
        batch_size: Examples per call of the model.

    Returns:
        The robustness, margin and gradient norm per example.

    Raises:
        ValueError: If a setting is out of range, `x` is empty or holds no floats, or
            the outputs do not depend on `x`.

    Reference:
        arXiv 1905.04172.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.evaluation.linearized import linearized_robustness
        >>> x = np.array([[3.0, 1.0]], "float32")
        >>> linearized_robustness(lambda x: x, x, norm="linf").robustness.tolist()
        [1.0]
    """
    settings.choice("norm", norm, tuple(_DUAL))
    rivals = None if rivals is None else settings.count("rivals", rivals)
    batch_size = settings.count("batch_size", batch_size)
    if not len(x):
        raise ValueError(
            f"Got no examples, `x` of shape {tuple(x.shape)}; expected at least one. "
            "Pass arrays of shape (N, ...) with N >= 1."
        )
    dtype = tf.as_dtype(x.dtype)
    if not dtype.is_floating:
        raise ValueError(
            f"Got `x` of dtype {dtype.name}, expected floats: integers have no "
            "gradient. Pass x.astype('float32')."
        )

    def build(logits_fn: LogitsFn, probe: tf.Tensor, classes: int) -> Any:
        count = classes - 1 if rivals is None else min(rivals, classes - 1)
        spec = tf.TensorSpec((None, *probe.shape[1:]), probe.dtype)
        return (lambda x: _batch(logits_fn, x, norm, count)), [spec]

    probe = tf.convert_to_tensor(x[:_PROBES])
    run = PROGRAMS.get(f"linearized {norm} {rivals}", build, model, probe).run
    parts = [
        [part.numpy() for part in run(tf.convert_to_tensor(x[i : i + batch_size]))]
        for i in range(0, len(x), batch_size)
    ]
    return Linearized(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def linearized_record(values: Linearized, norm: str) -> LinearizedRecord:
    """Sum up the linearized robustness of the rightly classified examples.

    Args:
        values: Of at least one example. Those without a finite gradient do not count.
        norm: Of the perturbation.

    Returns:
        Quantiles (each is the value of an example) and medians.

    Raises:
        ValueError: If no example has a finite gradient.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.evaluation.linearized import Linearized, linearized_record
        >>> one = np.ones(1, "float32")
        >>> linearized_record(Linearized(one, 2 * one, 2 * one), "l2").quantiles[3]
        (0.5, 1.0)
    """
    known = ~np.isnan(values.robustness)
    if not known.any():
        raise ValueError(
            f"The gradient is NaN or infinite at all {len(known)} examples: expected a "
            "finite one at some. Look for a square root, a norm or a logarithm of zero "
            "in the model."
        )

    def quantile(column: npt.NDArray[np.float32], share: float) -> float:
        # No interpolation, which would make NaN of two infinities.
        return float(np.quantile(column[known], share, method="inverted_cdf"))

    return LinearizedRecord(
        norm=norm,
        quantiles=[(share, quantile(values.robustness, share)) for share in _SHARES],
        margin=quantile(values.margin, 0.5),
        gradient=quantile(values.gradient, 0.5),
    )


def _batch(logits_fn: LogitsFn, x: tf.Tensor, norm: str, rivals: int) -> Any:
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(x)
        z = tf.cast(logits_fn(x), tf.float32)
    classes = z.shape[-1]
    ordered, order = tf.math.top_k(z, rivals + 1)
    own = tf.one_hot(order[:, 0], classes)

    def consider(number: Any, closest: Any, slope: Any) -> Any:
        other = tf.one_hot(tf.gather(order, number, axis=1), classes)
        gradient = tape.gradient(z, x, own - other)
        if gradient is None:
            raise ValueError(
                "The model's outputs do not depend on its input by TensorFlow "
                "operations: got no gradient, expected one. The linearized robustness "
                "exists for differentiable models only."
            )
        size = _DUAL[norm](tf.cast(gradient, tf.float32))
        margin = ordered[:, 0] - tf.gather(ordered, number, axis=1)
        # A zero gradient never reaches the boundary, unless it is there already.
        away = tf.where(margin > 0, float("inf"), 0.0)
        distance = tf.where(size > 0, margin / tf.where(size > 0, size, 1.0), away)
        # Without a gradient the class may be anywhere, so nothing is known of the
        # closest: once NaN stays NaN.
        distance = tf.where(tf.math.is_finite(size), distance, float("nan"))
        nearer = (distance < closest) | tf.math.is_nan(distance)
        slope = tf.where(nearer, size, slope)
        return number + 1, tf.where(nearer, distance, closest), slope

    number, *start = consider(1, tf.fill(tf.shape(z)[:1], float("inf")), 0.0)
    if rivals > 1:
        _, *start = tf.while_loop(
            lambda number, *_: number <= rivals, consider, (number, *start)
        )
    closest, slope = start
    return closest, ordered[:, 0] - ordered[:, 1], slope


def _flat(gradient: tf.Tensor) -> tf.Tensor:
    return tf.abs(tf.reshape(gradient, (tf.shape(gradient)[0], -1)))


_DUAL = {
    "linf": lambda gradient: tf.reduce_sum(_flat(gradient), axis=-1),
    "l2": lambda gradient: l2_norm(_flat(gradient))[:, 0],
    "l1": lambda gradient: tf.reduce_max(_flat(gradient), axis=-1),
}
