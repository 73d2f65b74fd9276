"""A classifier cut behind its first layer, where that layer is linear."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, get_args

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_jsigr.core import arguments
from keras_jsigr.core.acceleration import LINEAR_LAYERS
from keras_jsigr.core.batching import (
    BatchedExplainer,
    Core,
    as_fit_sees,
    as_rows,
    check_chunk,
    map_each,
    probe_of,
    sum_in_chunks,
)
from keras_jsigr.core.inputs import as_float, random_inputs_like, random_weights
from keras_jsigr.core.keras_compat import layer_calls, leaf_layers
from keras_jsigr.core.logits import LogitsFn, as_logits
from keras_jsigr.core.padding import without_padding
from keras_jsigr.core.scores import (
    SCORES,
    HeadKind,
    ScoreName,
    class_targets,
    predicted_targets,
)
from keras_jsigr.saliency.base import (
    SaliencyMethod,
    TargetsFn,
    decision_of,
    input_gradient,
    targets_of,
)
from keras_jsigr.saliency.masks import (
    Layout,
    Replacement,
    check_replacement,
    map_axes,
    replacement,
    resolve_layout,
)


@dataclass(frozen=True)
class LinearStem:
    """What a classifier does first, up to where it stops being affine."""

    logits_fn: LogitsFn
    layer: keras.Layer | None = None

    def __call__(self, x: Any) -> tf.Tensor:
        """Return the logits `(B, C)` of inputs `(B, *S)`."""
        return self.logits_fn(x)

    def features(self, x: tf.Tensor) -> tf.Tensor:
        """Return the features of inputs, `(B, *F)`."""
        if self.layer is None:
            return x
        seen: list[tf.Tensor] = []

        def see(layer: Any, call: Any, *args: Any, **kwargs: Any) -> tf.Tensor:
            activation = layer.activation
            layer.activation = keras.activations.linear
            try:
                seen.append(call(*args, **kwargs))
            finally:
                layer.activation = activation
            return activation(seen[-1])

        with layer_calls([self.layer], see):
            self.logits_fn(x)
        return seen[-1]

    def moved(self, step: tf.Tensor) -> tf.Tensor:
        """Return by what a step `(B, *S)` moves the features, `W step`."""
        if self.layer is None:
            return step
        return self.features(step) - self.features(tf.zeros_like(step[:1]))

    def logits(self, features: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        """Return the logits of features."""
        if self.layer is None:
            return self.logits_fn(features)

        def put(layer: Any, *_: Any, **__: Any) -> tf.Tensor:
            return layer.activation(features)

        shape = tf.concat([tf.shape(features)[:1], tf.shape(x)[1:]], axis=0)
        blank = tf.ensure_shape(tf.zeros(shape, x.dtype), (None, *x.shape[1:]))
        with layer_calls([self.layer], put):
            return self.logits_fn(blank)

    def pull(self, cotangent: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        """Return `W^T cotangent`, `(B, *S)` of the dtype of the inputs `x`."""
        if self.layer is None:
            return tf.cast(cotangent, x.dtype)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            features = self.features(x)
        return tape.gradient(features, x, tf.cast(cotangent, features.dtype))


def find_linear_stem(model: Any, logits_fn: LogitsFn, probe: Any) -> LinearStem:
    """Find the linear layer that all of the input goes through first."""
    nothing = LinearStem(logits_fn)
    if not isinstance(model, keras.Model) or not tf.executing_eagerly():
        return nothing
    x = random_inputs_like(as_float(tf.convert_to_tensor(probe)))
    fed: list[keras.Layer] = []

    def see(layer: Any, call: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if inputs is x:  # The very tensor: what looks like it may be a ReLU of it.
            fed.append(layer)
        return call(inputs, *args, **kwargs)

    linear = [layer for layer in leaf_layers(model) if type(layer) in LINEAR_LAYERS]
    with random_weights(model), layer_calls(linear, see):
        expected = logits_fn(x)
    if len(fed) != 1 or fed[0].compute_dtype not in ("float32", "float64"):
        return nothing
    front = LinearStem(logits_fn, fed[0])
    with random_weights(model):
        got = front.logits(front.features(x), x)
    same = np.allclose(got, expected, rtol=1e-5, atol=1e-5)
    return front if same else nothing


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
        >>> from keras_jsigr.saliency.gradients import gradient_map
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
        >>> from keras_jsigr.saliency.gradients import gradient_explainer
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


@dataclass(frozen=True, kw_only=True)
class AttributionMethod(SaliencyMethod):
    """A method whose natural result has the shape of the input."""

    # Whether the method adds up gradients of copies of an example: see `Front`.
    adds_copies: ClassVar[bool] = False

    score: ScoreName = "log_prob"
    reduce: bool = True

    def __post_init__(self) -> None:
        """Check the settings."""
        super().__post_init__()
        arguments.choice("score", self.score, SCORES)
        arguments.choice("reduce", self.reduce, (False, True))

    @abstractmethod
    def attribution(
        self, front: LinearStem, x: tf.Tensor, targets: TargetsFn, layout: Layout | None
    ) -> tf.Tensor:
        """Compute the signed values."""

    def core(self, model: Any, probe: Any) -> Core:
        """Return the traceable function of `(x, y)`; see `SaliencyMethod`."""
        front = LinearStem(as_logits(model, probe))
        if self.adds_copies:
            front = find_linear_stem(model, front.logits_fn, probe)
        layout = self.layout
        if self.reduce:
            layout = resolve_layout(tuple(probe.shape[1:]), layout)
        beside = without_padding(model, front.logits_fn)

        def explain(x: tf.Tensor, y: tf.Tensor | None) -> tf.Tensor:
            x = as_float(x)
            there = replace(front, logits_fn=beside(x))
            found = self.attribution(there, x, targets_of(y, self.known_kind), layout)
            found = tf.cast(found, tf.float32)
            return sum_channels(found, layout) if self.reduce and layout else found

        return explain


def sum_channels(attribution: Any, layout: Layout) -> tf.Tensor:
    """Sum absolute values over the channels."""
    size = tf.abs(attribution)
    channels = list(range(1 + map_axes(layout), size.shape.rank))
    return tf.reduce_sum(size, channels) if channels else size


@dataclass(frozen=True, kw_only=True)
class Gradient(AttributionMethod):
    """Tell how fast the score changes with every input value, `ds / dx`.

    The same as `gradient_map`: one forward and one backward pass.

    Args:
        score: `"log_prob"`, `"margin"` or `"logit"`, see `class_score`.
        reduce: Whether to sum absolute values over the channels.
        kind: `"softmax"` (exclusive classes) or `"sigmoid"` (independent ones);
            `None` asks the head and the loss of a Keras model, and takes a callable
            for the first.
        layout: What the axes mean where the rank would mislead, see `resolve_layout`.

    Raises:
        ValueError: If a setting is out of range.

    Reference:
        arXiv 1312.6034.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.saliency import explain
        >>> explain(lambda x: x * [2.0, 0.0], np.ones((1, 2)), score="logit")
        array([[2., 0.]], dtype=float32)
    """

    def attribution(
        self, front: LinearStem, x: tf.Tensor, targets: TargetsFn, layout: Layout | None
    ) -> tf.Tensor:
        """Compute the gradient; see `AttributionMethod`."""
        del layout
        return input_gradient(front, x, targets, self.score, self.known_kind)


@dataclass(frozen=True, kw_only=True)
class GradientTimesInput(AttributionMethod):
    """Tell what every input value adds to the linearized score, `x ds / dx`.

    One forward and one backward pass. Values of zero get nothing, so a dark object on
    a light ground is not seen.

    Args:
        score: `"log_prob"`, `"margin"` or `"logit"`, see `class_score`.
        reduce: Whether to sum absolute values over the channels.
        kind: `"softmax"` (exclusive classes) or `"sigmoid"` (independent ones);
            `None` asks the head and the loss of a Keras model, and takes a callable
            for the first.
        layout: What the axes mean where the rank would mislead, see `resolve_layout`.

    Raises:
        ValueError: If a setting is out of range.

    Reference:
        arXiv 1605.01713.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.saliency import explain
        >>> x = np.array([[3.0, 1.0]])
        >>> explain(lambda x: 2.0 * x, x, method="gradient_x_input", score="logit")
        array([[6., 0.]], dtype=float32)
    """

    def attribution(
        self, front: LinearStem, x: tf.Tensor, targets: TargetsFn, layout: Layout | None
    ) -> tf.Tensor:
        """Compute the products; see `AttributionMethod`."""
        del layout
        return x * input_gradient(front, x, targets, self.score, self.known_kind)


RuleName = Literal["gauss_legendre", "midpoint", "trapezoid"]


FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class IntegratedGradients(AttributionMethod):
    """Share the change of the score from a baseline out among the input values.

    `(x - A) int_0^1 ds/dx (A + t (x - A)) dt`, which sums to `s(x) - s(A)`, up to the
    error of the quadrature: `steps` forward and backward passes. Not reduced, the
    values of an example add up to that difference.

    Args:
        steps: Points of the quadrature, at least 2.
        baseline: `A`: a number, `"zero"`, `"blur"` or `"mean"`.
        rule: `"gauss_legendre"` (exact for polynomials of degree `2 steps - 1`),
            `"midpoint"`, or `"trapezoid"`, whose points include both ends.
        chunk: Examples that the model sees at once, see `sum_in_chunks`.
        score: `"log_prob"`, `"margin"` or `"logit"`, see `class_score`.
        reduce: Whether to sum absolute values over the channels.
        kind: `"softmax"` (exclusive classes) or `"sigmoid"` (independent ones);
            `None` asks the head and the loss of a Keras model, and takes a callable
            for the first.
        layout: What the axes mean where the rank would mislead, see `resolve_layout`.

    Raises:
        ValueError: If a setting is out of range.

    Reference:
        arXiv 1703.01365, equation 1.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.saliency import explain
        >>> x = np.array([[3.0, 1.0]])
        >>> maps = explain(
        ...     lambda x: x**2, x, method="integrated_gradients", score="logit"
        ... )
        >>> maps.round(4).tolist()
        [[9.0, 0.0]]
    """

    adds_copies: ClassVar[bool] = True

    steps: int = 32
    baseline: Replacement = "zero"
    rule: RuleName = "gauss_legendre"
    chunk: int | None = None

    def __post_init__(self) -> None:
        """Check the settings."""
        super().__post_init__()
        arguments.count("steps", self.steps, minimum=2)
        check_replacement(self.baseline)
        arguments.choice("rule", self.rule, get_args(RuleName))
        check_chunk(self.chunk)

    def attribution(
        self, front: LinearStem, x: tf.Tensor, targets: TargetsFn, layout: Layout | None
    ) -> tf.Tensor:
        """Compute the shares; see `AttributionMethod`."""
        start = replacement(x, self.baseline, layout)
        there = front.features(x)
        here = tf.broadcast_to(front.features(start), tf.shape(there))
        way = there - here
        chosen = targets(front.logits(there, x))
        points, weights = (
            tf.constant(values, tf.float32)
            for values in quadrature(self.steps, self.rule)
        )

        def part(first: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
            t = tf.reshape(points[first : first + size], (-1, *[1] * there.shape.rank))
            gradient = input_gradient(
                lambda copies: front.logits(copies, x),
                as_rows(here + tf.cast(t, there.dtype) * way),
                tf.tile(chosen, (size, 1)),
                self.score,
                self.known_kind,
            )
            rows = tf.reshape(tf.cast(gradient, tf.float32), (size, tf.size(there)))
            total = tf.linalg.matvec(rows, weights[first : first + size], True)
            return tf.reshape(total, tf.shape(there))

        like = tf.cast(there, tf.float32)
        mean = front.pull(sum_in_chunks(self.steps, x, part, like, self.chunk), x)
        return tf.cast(x - start, tf.float32) * tf.cast(mean, tf.float32)


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
class NoisyGradient(AttributionMethod):
    """A statistic of the gradients at `x + xi_s`, `xi_s ~ N(0, sigma^2)`."""

    samples: int = 50
    noise: float = 0.15
    input_range: tuple[float, float] = (0.0, 1.0)
    seed: int = 0
    chunk: int | None = None

    def __post_init__(self) -> None:
        """Check the settings."""
        super().__post_init__()
        arguments.count("samples", self.samples)
        arguments.number("noise", self.noise, minimum=0.0)
        arguments.count("seed", self.seed, minimum=0)
        check_chunk(self.chunk)
        low, high = self.input_range
        arguments.number("width of input_range", high - low, minimum=0.0)

    def sum_over_noise(
        self,
        front: LinearStem,
        x: tf.Tensor,
        targets: tf.Tensor,
        statistic: Callable[[tf.Tensor], Any],
        like: Any,
    ) -> Any:
        """Add up a statistic of the gradients at the front over all draws."""
        low, high = self.input_range
        sigma = self.noise * (high - low)

        def draw(sample: tf.Tensor) -> tf.Tensor:
            seed = tf.random.experimental.stateless_fold_in(
                [0, self.seed], sample, alg="philox"
            )
            return tf.random.stateless_normal(x.shape[1:], seed, alg="philox")

        features = front.features(x)

        def part(first: tf.Tensor, size: tf.Tensor) -> Any:
            noise = map_each(draw, tf.range(first, first + size), x.shape[1:])
            noise = front.moved(tf.cast(sigma * noise, x.dtype))[:, tf.newaxis]
            gradient = input_gradient(
                lambda copies: front.logits(copies, x),
                as_rows(features[tf.newaxis] + noise),
                tf.tile(targets, (size, 1)),
                self.score,
                self.known_kind,
            )
            shape = tf.concat([[size], tf.shape(features)], axis=0)
            return statistic(tf.reshape(tf.cast(gradient, tf.float32), shape))

        return sum_in_chunks(self.samples, x, part, like, self.chunk)


@dataclass(frozen=True, kw_only=True)
class SmoothGrad(NoisyGradient):
    """Average the gradient over noisy copies, `1/n sum_s ds/dx (x + xi_s)`.

    `samples` forward and backward passes. Every example meets the same draws, so a map
    depends neither on its batch nor on `chunk`.

    Args:
        samples: Number of draws.
        noise: Standard deviation as a share of the input range.
        input_range: `(low, high)` of the inputs.
        seed: Of the draws.
        chunk: Examples that the model sees at once, see `sum_in_chunks`.
        score: `"log_prob"`, `"margin"` or `"logit"`, see `class_score`.
        reduce: Whether to sum absolute values over the channels.
        kind: `"softmax"` (exclusive classes) or `"sigmoid"` (independent ones);
            `None` asks the head and the loss of a Keras model, and takes a callable
            for the first.
        layout: What the axes mean where the rank would mislead, see `resolve_layout`.

    Raises:
        ValueError: If a setting is out of range.

    Reference:
        arXiv 1706.03825.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.saliency import explain
        >>> x = np.ones((1, 2))
        >>> explain(
        ...     lambda x: x * [2.0, 0.0], x, method="smoothgrad", score="logit"
        ... ).tolist()
        [[2.0, 0.0]]
    """

    adds_copies: ClassVar[bool] = True

    def attribution(
        self, front: LinearStem, x: tf.Tensor, targets: TargetsFn, layout: Layout | None
    ) -> tf.Tensor:
        """Compute the mean gradient; see `AttributionMethod`."""
        del layout
        features = front.features(x)
        total = self.sum_over_noise(
            front,
            x,
            targets(front.logits(features, x)),
            lambda gradients: tf.reduce_sum(gradients, axis=0),
            tf.cast(features, tf.float32),
        )
        return front.pull(total, x) / self.samples


@dataclass(frozen=True, kw_only=True)
class VarGrad(NoisyGradient):
    """Compute the variance of the gradient over noisy copies, never negative.

    `1/(n - 1) sum_s (g_s - mean g)^2` with `g_s = ds/dx (x + xi_s)`: `samples + 1`
    forward and backward passes. Every example meets the same draws, so a map depends
    neither on its batch nor on `chunk`.

    Args:
        samples: Number of draws, n, at least 2.
        noise: Standard deviation as a share of the input range.
        input_range: `(low, high)` of the inputs.
        seed: Of the draws.
        chunk: Examples that the model sees at once, see `sum_in_chunks`.
        score: `"log_prob"`, `"margin"` or `"logit"`, see `class_score`.
        reduce: Whether to sum over the channels.
        kind: `"softmax"` (exclusive classes) or `"sigmoid"` (independent ones);
            `None` asks the head and the loss of a Keras model, and takes a callable
            for the first.
        layout: What the axes mean where the rank would mislead, see `resolve_layout`.

    Raises:
        ValueError: If a setting is out of range.

    Reference:
        arXiv 1810.03292, section 2.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.saliency import explain
        >>> explain(lambda x: 2.0 * x, np.ones((1, 2)), method="vargrad", score="logit")
        array([[0., 0.]], dtype=float32)
    """

    def __post_init__(self) -> None:
        """Check the settings."""
        super().__post_init__()
        arguments.count("samples", self.samples, minimum=2)

    def attribution(
        self, front: LinearStem, x: tf.Tensor, targets: TargetsFn, layout: Layout | None
    ) -> tf.Tensor:
        """Compute the variance; see `AttributionMethod`."""
        del layout
        chosen = targets(front(x))
        # Deviations from the gradient at x: their mean is small beside their spread,
        # so the difference of two sums keeps its digits.
        centre = input_gradient(front, x, chosen, self.score, self.known_kind)
        centre = tf.cast(centre, tf.float32)

        def moments(gradients: tf.Tensor) -> Any:
            away = gradients - centre
            return tf.reduce_sum(away, axis=0), tf.reduce_sum(away**2, axis=0)

        first, second = self.sum_over_noise(front, x, chosen, moments, (centre, centre))
        spread = second - first**2 / self.samples
        return tf.maximum(spread, 0.0) / (self.samples - 1)
