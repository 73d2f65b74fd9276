"""Gradient maps: plain, times the input, of noisy copies, and integrated on a path."""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_jsigr.core import arguments, batching
from keras_jsigr.core.batching import Core, as_fit_sees, probe_of
from keras_jsigr.core.inputs import as_float
from keras_jsigr.core.logits import LogitsFn, as_logits
from keras_jsigr.core.padding import without_padding
from keras_jsigr.core.random import fold_in
from keras_jsigr.core.scores import SCORES, HeadKind, ScoreName
from keras_jsigr.saliency import masks
from keras_jsigr.saliency.base import (
    Explainer,
    RangedMethod,
    SaliencyMethod,
    TargetsFn,
    check_replaceable,
    input_gradient,
    layout_of,
    setting,
    targets_of,
)
from keras_jsigr.saliency.masks import Layout, Replacement

RuleName = Literal["gauss_legendre", "midpoint", "trapezoid"]
FloatArray = npt.NDArray[np.float64]


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

    `sum_channels |d s / d x|`, or the signed `d s / d x` if not `reduce`. The same as
    `explain(model, x, y, method="gradient")`: arguments, result and errors are those of
    `explain`, and the settings those of `Gradient`.

    Reference:
        arXiv 1312.6034.

    Example:
        >>> import keras_jsigr as kj
        >>> kj.gradient_map(lambda x: x * [2.0, 0.0], [[1.0, 1.0]], score="logit")
        array([[2., 0.]], dtype=float32)
    """
    x = as_fit_sees(x)
    method = Gradient(score=score, kind=kind, layout=layout, reduce=reduce)
    return method.explainer(model, probe_of(x), batch_size)(x, y)


def gradient_explainer(
    model: Any, probe: Any, *, batch_size: int = 128, **settings: Any
) -> Explainer:
    """Compile `gradient_map` once, to call it again and again as `f(x, y=None)`."""
    return Gradient(**settings).explainer(model, probe, batch_size)


@dataclass(frozen=True, kw_only=True)
class AttributionMethod(SaliencyMethod):
    """A method that computes one signed value per input value.

    Args:
        score: `"log_prob"`, `"margin"` or `"logit"`, see `class_score`.
        reduce: Whether to sum absolute values over the channels.
    """

    score: ScoreName = setting("log_prob", arguments.choice, SCORES)
    reduce: bool = setting(True, arguments.choice, (False, True))

    @property
    def why_zero(self) -> str:
        """Cause and way out; see `SaliencyMethod`."""
        return (
            "no gradient arrives. Where decisions are too sure for float32, use "
            "score='logit' or 'margin'; where ReLUs are all off, method 'occlusion'."
        )

    @abstractmethod
    def attribution(self, logits_fn: LogitsFn, x: tf.Tensor, targets: TargetsFn) -> tf.Tensor:
        """Compute the signed values, shaped like `x`."""

    def core(self, model: Any, probe: Any) -> Core:
        """Return the traceable function of `(x, y)`; see `SaliencyMethod`."""
        axes = None
        baseline: Any = getattr(self, "baseline", None)
        if self.reduce or baseline in ("blur", "mean"):
            layout = layout_of(model, probe, self.layout)
            check_replaceable(model, probe, baseline, layout)
            axes = masks.map_axes(layout) if self.reduce else None
        beside = without_padding(model, as_logits(model, probe))

        def explain(x: tf.Tensor, y: tf.Tensor | None) -> tf.Tensor:
            x, targets = as_float(x), targets_of(y, self.known_kind)
            found = tf.cast(self.attribution(beside(x), x, targets), tf.float32)
            if axes is None:
                return found
            # `reduce_sum` over no axes is the tensor itself.
            return tf.reduce_sum(tf.abs(found), list(range(1 + axes, x.shape.rank)))

        return explain

    def gradient(self, logits_fn: LogitsFn, x: tf.Tensor, targets: Any) -> tf.Tensor:
        """Return the gradient of the score at `x`."""
        return input_gradient(logits_fn, x, targets, self.score, self.known_kind)

    def gradients(self, logits_fn: LogitsFn, copies: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        """Return the gradients at k copies of a batch, `(k, B, *S)`, as float32."""
        targets = tf.tile(targets, (tf.shape(copies)[0], 1))
        found = self.gradient(logits_fn, batching.as_rows(copies), targets)
        found = tf.cast(found, tf.float32)
        return tf.reshape(found, tf.shape(copies))


@dataclass(frozen=True, kw_only=True)
class Gradient(AttributionMethod):
    """Compute how fast the score changes with every input value, `ds / dx`.

    The same as `gradient_map`: one forward and one backward pass.

    Reference:
        arXiv 1312.6034.

    Example:
        >>> from keras_jsigr.saliency import explain
        >>> explain(lambda x: x * [2.0, 0.0], [[1.0, 1.0]], score="logit")
        array([[2., 0.]], dtype=float32)
    """

    def attribution(self, logits_fn: LogitsFn, x: tf.Tensor, targets: TargetsFn) -> tf.Tensor:
        """Compute the gradient; see `AttributionMethod`."""
        return self.gradient(logits_fn, x, targets)


@dataclass(frozen=True, kw_only=True)
class GradientTimesInput(AttributionMethod):
    """Compute what every input value adds to the linearized score, `x ds / dx`.

    One forward and one backward pass. Values of zero get nothing, so a dark object on
    a light ground does not show.

    Reference:
        arXiv 1605.01713.

    Example:
        >>> from keras_jsigr.saliency import explain
        >>> x = [[3.0, 1.0]]
        >>> explain(lambda x: 2.0 * x, x, method="gradient_x_input", score="logit")
        array([[6., 0.]], dtype=float32)
    """

    def attribution(self, logits_fn: LogitsFn, x: tf.Tensor, targets: TargetsFn) -> tf.Tensor:
        """Compute the products; see `AttributionMethod`."""
        return x * self.gradient(logits_fn, x, targets)


@dataclass(frozen=True, kw_only=True)
class IntegratedGradients(AttributionMethod, RangedMethod):
    """Divide the change of the score from a baseline among the input values.

    `(x - A) int_0^1 ds/dx (A + t (x - A)) dt` by `steps` forward and backward passes.
    With `reduce=False` the values of an example add up to `s(x) - s(A)`, up to the
    error of the quadrature.

    Args:
        steps: Points of the quadrature, at least 2.
        baseline: `A`: a number, `"zero"` (the low end of the input range), `"blur"` or
            `"mean"`.
        rule: `"gauss_legendre"` (exact for polynomials of degree `2 steps - 1`),
            `"midpoint"`, or `"trapezoid"`, whose points include both ends.

    Reference:
        arXiv 1703.01365, equation 1.

    Example:
        >>> from keras_jsigr.saliency import explain
        >>> x, settings = [[3.0, 1.0]], {"steps": 9, "score": "logit"}
        >>> explain(lambda x: x, x, method="integrated_gradients", **settings).round(4)
        array([[3., 0.]], dtype=float32)
    """

    steps: int = setting(32, arguments.count, minimum=2)
    baseline: Replacement = setting("zero", masks.check_replacement)
    rule: RuleName = setting("gauss_legendre", arguments.choice, get_args(RuleName))

    def attribution(self, logits_fn: LogitsFn, x: tf.Tensor, targets: TargetsFn) -> tf.Tensor:
        """Compute the shares; see `AttributionMethod`."""
        start = masks.replacement(x, self.baseline, self.layout, self.known_range[0])
        path, chosen = x - start, targets(logits_fn(x))
        rule = quadrature(self.steps, self.rule)
        points, weights = (tf.constant(values, tf.float32) for values in rule)

        def part(first: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
            t = tf.reshape(points[first : first + size], (-1, *[1] * x.shape.rank))
            copies = start + tf.cast(t, x.dtype) * path
            slopes = self.gradients(logits_fn, copies, chosen)
            return tf.tensordot(weights[first : first + size], slopes, 1)

        like, chunk = tf.cast(x, tf.float32), batching.copies_at_once(x, self.chunk)
        mean = batching.chunked_sum(self.steps, chunk, part, like)
        return tf.cast(path, tf.float32) * mean


def quadrature(steps: int, rule: RuleName) -> tuple[FloatArray, FloatArray]:
    """Return points and weights of a rule on [0, 1]."""
    if rule == "gauss_legendre":
        points, weights = np.polynomial.legendre.leggauss(steps)
        return (points + 1.0) / 2.0, weights / 2.0
    if rule == "midpoint":
        return (np.arange(steps) + 0.5) / steps, np.full(steps, 1.0 / steps)
    weights = np.full(steps, 1.0 / (steps - 1))
    weights[[0, -1]] /= 2.0
    return np.linspace(0.0, 1.0, steps), weights


@dataclass(frozen=True, kw_only=True)
class NoisyGradient(AttributionMethod, RangedMethod):
    """A statistic of the gradients at `x + xi_s`, `xi_s ~ N(0, sigma^2)`.

    Every example gets the same draws, so a map depends neither on its batch nor on
    `chunk`.

    Args:
        samples: Number of draws.
        noise: Standard deviation as a share of the width of the input range.
        seed: Of the draws.
    """

    samples: int = setting(50, arguments.count)
    noise: float = setting(0.15, arguments.number, minimum=0.0)
    seed: int = setting(0, arguments.count, minimum=0)

    def sum_over_noise(
        self,
        logits_fn: LogitsFn,
        x: tf.Tensor,
        targets: tf.Tensor,
        statistic: Callable[[tf.Tensor], Any],
        like: Any,
    ) -> Any:
        """Add up a statistic of the gradients over all draws."""
        low, high = self.known_range
        sigma = self.noise * (high - low)

        def draw(sample: tf.Tensor) -> tf.Tensor:
            seed = fold_in([0, self.seed], sample)
            return tf.random.stateless_normal(x.shape[1:], seed, alg="philox")

        def part(first: tf.Tensor, size: tf.Tensor) -> Any:
            numbers = tf.range(first, first + size)
            noise = batching.sequential_map(draw, numbers, x.shape[1:])
            copies = x + tf.cast(sigma * noise, x.dtype)[:, tf.newaxis]
            return statistic(self.gradients(logits_fn, copies, targets))

        chunk = batching.copies_at_once(x, self.chunk)
        return batching.chunked_sum(self.samples, chunk, part, like)


@dataclass(frozen=True, kw_only=True)
class SmoothGrad(NoisyGradient):
    """Average the gradient over noisy copies, `1/n sum_s ds/dx (x + xi_s)`.

    `samples` forward and backward passes, of the same draws for every example.

    Reference:
        arXiv 1706.03825.

    Example:
        >>> from keras_jsigr.saliency import explain
        >>> x = [[1.0, 0.0]]
        >>> explain(lambda x: 2.0 * x, x, method="smoothgrad", score="logit")
        array([[2., 0.]], dtype=float32)
    """

    def attribution(self, logits_fn: LogitsFn, x: tf.Tensor, targets: TargetsFn) -> tf.Tensor:
        """Compute the mean gradient; see `AttributionMethod`."""
        chosen, like = targets(logits_fn(x)), tf.cast(x, tf.float32)
        added = functools.partial(tf.reduce_sum, axis=0)
        total = self.sum_over_noise(logits_fn, x, chosen, added, like)
        return total / self.samples


@dataclass(frozen=True, kw_only=True)
class VarGrad(NoisyGradient):
    """Compute the variance of the gradient over noisy copies, never negative.

    `1/(n - 1) sum_s (g_s - mean g)^2` with `g_s = ds/dx (x + xi_s)`: `samples + 1`
    forward and backward passes, of the same draws for every example.

    Args:
        samples: Number of draws, n, at least 2.

    Reference:
        arXiv 1810.03292, section 2.

    Example:
        >>> from keras_jsigr.saliency import explain
        >>> explain(lambda x: 2.0 * x, [[1.0, 1.0]], method="vargrad", score="logit")
        array([[0., 0.]], dtype=float32)
    """

    samples: int = setting(50, arguments.count, minimum=2)

    @property
    def why_zero(self) -> str:
        """Nothing: gradients of a linear model have no variance."""
        return ""

    def attribution(self, logits_fn: LogitsFn, x: tf.Tensor, targets: TargetsFn) -> tf.Tensor:
        """Compute the variance; see `AttributionMethod`."""
        chosen = targets(logits_fn(x))
        # Deviations from the gradient at x: their mean is small beside their spread,
        # so the difference of the two sums keeps its digits.
        centre = tf.cast(self.gradient(logits_fn, x, chosen), tf.float32)

        def moments(slopes: tf.Tensor) -> Any:
            away = slopes - centre
            return tf.reduce_sum(away, axis=0), tf.reduce_sum(away**2, axis=0)

        like = (centre, centre)
        first, second = self.sum_over_noise(logits_fn, x, chosen, moments, like)
        spread = second - first**2 / self.samples
        return tf.maximum(spread, 0.0) / (self.samples - 1)
