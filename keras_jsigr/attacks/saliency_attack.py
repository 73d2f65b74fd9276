"""An attack on the gradient map, and the regions that maps mark."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_jsigr.attacks.base import Attack, AttackContext
from keras_jsigr.attacks.ensemble import LazyLogits
from keras_jsigr.attacks.gradient_attack import where_rows, with_gradient, zero_nonfinite
from keras_jsigr.attacks.losses import LossName, misclassified
from keras_jsigr.core import arguments
from keras_jsigr.core.scores import class_score, predicted_targets


class SmoothSecondOrder:
    """Give a model's logits and gradients, with the second derivatives of another one.

    A ReLU network is piecewise linear: no gradient tells how to change its gradient
    map. A smooth stand-in with the same weights does (arXiv 1710.10547); what is
    attacked and judged stays the model itself.

    Args:
        model: A Keras model, a hardened model or a callable.
        surrogate: A smooth one of the same inputs and classes, such as
            `keras_jsigr.with_smooth_activations(model, "softplus")`.

    Example:
        >>> from keras_jsigr.attacks import SmoothSecondOrder
        >>> model = SmoothSecondOrder(lambda x: 3.0 * x, lambda x: x**2)
        >>> model([[1.0, 5.0]]).numpy().tolist()
        [[3.0, 15.0]]
    """

    def __init__(self, model: Any, surrogate: Any) -> None:
        self._model, self._surrogate = LazyLogits(model), LazyLogits(surrogate)

    def __call__(self, x: Any) -> tf.Tensor:
        """Return the model's logits, float32 `(B, C)`."""

        @tf.custom_gradient
        def logits(x: tf.Tensor) -> tuple[tf.Tensor, Any]:
            with tf.GradientTape(persistent=True) as tape:
                tape.watch(x)
                z = self._model(x)

            def pull(cotangent: tf.Tensor, variables: Any = None) -> Any:
                real = tape.gradient(z, x, cotangent)
                with tf.GradientTape(watch_accessed_variables=False) as smooth:
                    smooth.watch(x)
                    stand_in = self._surrogate(x)
                soft = smooth.gradient(stand_in, x, cotangent)
                gradient = soft + tf.stop_gradient(real - soft)
                if variables is None:
                    return gradient
                return gradient, tape.gradient(z, variables, cotangent)

            return z, pull

        return logits(tf.convert_to_tensor(x))


def odds_gradient(context: AttackContext, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Compute the gradient of the log odds of a class, and the logits."""
    # The whole map counts, also where the input must not change: watch what is seen.
    point = tf.cast(context.to_model_input(x), x.dtype)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(point)
        inputs = tf.cast(point, context.x.dtype)
        logits = tf.cast(context.logits_fn(inputs), tf.float32)
        odds = class_score(logits, context.targets, "margin")
    return with_gradient(tape.gradient(odds, point)), logits


def flat_map(gradient: tf.Tensor) -> tf.Tensor:
    """Compute the map `sum_channels |gradient|`, as one row per example."""
    size = tf.abs(gradient)
    if size.shape.rank > 2:
        size = tf.reduce_sum(size, axis=-1)
    return tf.reshape(size, (-1, size.shape[1:].num_elements()))


def mass_share(maps: tf.Tensor, pixels: tf.Tensor) -> tf.Tensor:
    """Compute the share of the sum of each map that lies on its pixels."""
    # To size one first: products of tiny sums would vanish in the derivative.
    size = tf.stop_gradient(tf.reduce_max(maps, axis=1, keepdims=True))
    maps /= tf.where(size > 0, size, tf.ones_like(size))
    total = tf.reduce_sum(maps, axis=1)
    inside = tf.reduce_sum(tf.where(pixels, maps, tf.zeros_like(maps)), axis=1)
    some = total > 0
    return tf.where(some, inside / tf.where(some, total, tf.ones_like(total)), 1.0)


def top_share(values: tf.Tensor, share: float) -> tf.Tensor:
    """Mark the `round(share * n)` largest of the `n` values per row, at least one."""
    count = max(1, round(share * values.shape[1]))
    order = tf.argsort(values, axis=1, direction="DESCENDING", stable=True)
    return tf.argsort(order, axis=1, stable=True) < count


@keras.saving.register_keras_serializable(package="keras_jsigr")
@dataclass(frozen=True, kw_only=True)
class SaliencyAttack(Attack):
    """Move the mass of the gradient map away from its top pixels, the class kept.

    `x_{t+1} = project(x_t - step_size * sign(dM/dx))`, where `M` is the share of the map
    `sum_channels |d s / d x|` that lies on the `top` share of the pixels of the map at `x`, and `s`
    the log probability of the class decided for at `x` (the top-k attack of arXiv 1710.10547).
    Where a step lost the class, the next one goes back up `s`. Returned is, per example, the point
    of the smallest `M` among those decided as `x` is.

    This is no attack on the decision: `y` is not used. It needs second derivatives: for
    a ReLU network, attack `SmoothSecondOrder(model, with_smooth_activations(model,
    "softplus"))`, which has the outputs and maps of the model itself. Nothing is
    random. Other arguments are those of `Attack`, without `loss` and `targeted`.

    Args:
        top: Share of the pixels whose mass is moved, above 0, below 1.
        steps: Number of steps, >= 1.
        step_size: In input units; default `2.5 * epsilon / steps`.

    Example:
        >>> import numpy as np, tensorflow as tf, keras_jsigr as kj
        >>> model = lambda x: tf.stack([x[:, 0] ** 2 + x[:, 1] ** 2, -x[:, 0]], 1)
        >>> x = np.array([[0.8, 0.7]])  # |gradient|: 2 x_0 + 1, 2 x_1
        >>> kj.attacks.SaliencyAttack(0.25, top=0.5)(model, x).round(3).tolist()
        [[0.55, 0.95]]
    """

    loss: LossName = field(default="cross_entropy", init=False, repr=False)
    targeted: bool = field(default=False, init=False, repr=False)
    top: float = 0.1
    steps: int = 50
    step_size: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._normalize(arguments.share, "top", ends="()")
        self._normalize(arguments.count, "steps")
        self._normalize(arguments.number, "step_size", minimum=0.0, above=True)

    @property
    def passes(self) -> int:
        """Number of gradients per example: of the map, and of its mass."""
        return 2 * self.steps

    def search(self, context: AttackContext) -> tuple[tf.Tensor, tf.Tensor]:
        """Attack the maps of one batch; see `Attack.search`."""
        origin, ball = context.origin, context.ball
        length = self.step_size or 2.5 * context.epsilon / self.steps
        decided = predicted_targets(context.logits(origin))
        context = context._replace(targets=decided)
        gradient, _ = odds_gradient(context, origin)
        pixels = top_share(flat_map(gradient), self.top)

        def look(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            """Return mass, gradient of the odds, and where the class is lost."""
            gradient, logits = odds_gradient(context, x)
            lost = misclassified(logits, context.targets)
            return mass_share(flat_map(gradient), pixels), gradient, lost

        def keep(x: tf.Tensor, mass: tf.Tensor, lost: tf.Tensor, best: Any) -> Any:
            return where_rows(~lost & (mass < best[1]), (x, mass), best)

        def one_step(step: tf.Tensor, x: tf.Tensor, best: Any, finite: Any) -> Any:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(x)
                mass, back, lost = look(x)
            best = keep(x, mass, lost, best)
            uphill = tape.gradient(mass, x, unconnected_gradients="zero")
            direction, healthy = zero_nonfinite(where_rows(lost, back, -uphill))
            moved = x + length * ball.steepest(direction)
            return step + 1, ball.project(moved), best, finite & healthy

        mass = mass_share(flat_map(gradient), pixels)
        start = (tf.constant(0), origin, (origin, mass), tf.ones_like(mass, tf.bool))
        _, x, best, finite = tf.while_loop(
            lambda step, *_: step < self.steps, one_step, start, maximum_iterations=self.steps
        )
        mass, _, lost = look(x)
        return context.to_model_input(keep(x, mass, lost, best)[0]), finite


def salient_region(maps: Any, share: float = 0.5, *, salient: bool = True) -> Any:
    """Mark the most salient share of the pixels of each map, or all the others.

    Attack both sides of a defense by `attack(model, x, y, region=...)`: one that
    smooths the model only where it does not look leaves holes where it does.

    Args:
        maps: Finite `(N, H, W)`, `(N, T)` or `(N, D)`, as of `perturbation_map`; the
            larger, the more salient.
        share: Of the pixels that are salient, above 0, at most 1.
        salient: False for the complement of that region.

    Returns:
        Float32 of the shape of `maps`, one inside and zero outside: a tensor if `maps`
        is one, else a NumPy array.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.attacks import salient_region
        >>> salient_region(np.array([[0.1, 0.9, 0.3, 0.3]])).tolist()
        [[0.0, 1.0, 1.0, 0.0]]
    """
    share = arguments.share("share", share, ends="(]")
    arguments.choice("salient", salient, (True, False))
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
