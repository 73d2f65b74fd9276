"""Second derivatives for models that have none."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_jsigr.attacks.base import Attack, AttackBatch
from keras_jsigr.attacks.ensemble import MemberLogits
from keras_jsigr.attacks.gradient_attack import usable_part
from keras_jsigr.attacks.losses import LossName, misclassified
from keras_jsigr.attacks.norms import BALLS
from keras_jsigr.core import arguments
from keras_jsigr.core.logits import LogitsFn
from keras_jsigr.core.scores import class_score, predicted_targets


class BorrowedCurvature:
    """Give a model's logits and gradients, with the second derivatives of another one.

    A ReLU network is piecewise linear: its gradient map is a constant around almost
    every input, so no gradient tells how to change the map. A smooth stand-in with the
    same weights does; what is attacked and judged stays the model itself.

    Args:
        model: A Keras model, a hardened model or a callable.
        surrogate: A smooth one of the same inputs and classes, such as
            `keras_jsigr.with_smooth_activations(model, "softplus")`.

    Raises:
        TypeError: If one of them cannot be called.

    Reference:
        arXiv 1710.10547 (softplus in the place of ReLU).

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.saliency_attack import BorrowedCurvature
        >>> f = BorrowedCurvature(lambda x: 3.0 * x, lambda x: x**2)
        >>> x = tf.constant([[1.0, 5.0]])
        >>> with tf.GradientTape() as outer:
        ...     outer.watch(x)
        ...     with tf.GradientTape() as inner:
        ...         inner.watch(x)
        ...         z = f(x)
        ...     first = inner.gradient(z, x)
        >>> z.numpy().tolist(), first.numpy().tolist()
        ([[3.0, 15.0]], [[3.0, 3.0]])
        >>> outer.gradient(first, x).numpy().tolist()
        [[2.0, 2.0]]
    """

    def __init__(self, model: Any, surrogate: Any) -> None:
        self._model, self._surrogate = MemberLogits(model), MemberLogits(surrogate)

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


def odds_gradient(
    logits_fn: LogitsFn, x: tf.Tensor, problem: AttackBatch
) -> tuple[tf.Tensor, tf.Tensor]:
    """Compute the gradient of the log odds of a class, and the logits."""
    # The whole map counts, also where the input must not change: watch what is seen.
    point = tf.cast(problem.see(x), x.dtype)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(point)
        logits = tf.cast(logits_fn(tf.cast(point, problem.x.dtype)), tf.float32)
        odds = class_score(logits, problem.targets, "margin")
    gradient = tape.gradient(odds, point)
    if gradient is None:
        raise ValueError(
            "The model's outputs do not depend on its input by TensorFlow operations: "
            "got no gradient, expected one. Attack a surrogate."
        )
    return gradient, logits


def flat_map(gradient: tf.Tensor) -> tf.Tensor:
    """Compute the map `sum_channels |gradient|`, as one row per example."""
    size = tf.abs(gradient)
    if size.shape.rank > 2:
        size = tf.reduce_sum(size, axis=-1)
    pixels = 1
    for length in size.shape[1:]:
        pixels *= length
    return tf.reshape(size, (-1, pixels))


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

    `x_{t+1} = project(x_t - step_size * sign(dM/dx))`, where `M` is the share of the
    map `sum_channels |d s / d x|` that lies on the `top` share of the pixels of the map
    at `x`, and `s` the log probability of the class decided for at `x`. Where a step
    lost the class, the next one goes back up `s`. Returned is, per example, the point
    of the smallest `M` among those decided as `x` is; `x` itself is one of them.

    This is no attack on the decision: `y` is not used, and there is no `targeted`. It
    needs second derivatives and hardly moves a ReLU network's map without them: attack
    `BorrowedCurvature(model, with_smooth_activations(model, "softplus"))`, which has
    the outputs and maps of the model itself.

    Args:
        epsilon: Radius in input units, >= 0.
        top: Share of the pixels whose mass is moved, above 0, below 1.
        steps: Number of steps, >= 1.
        step_size: In input units; default `2.5 * epsilon / steps`.
        norm: `"linf"`, `"l2"` or `"l1"`.
        input_range: `(low, high)` of valid inputs.
        batch_size: Number of examples worked on at once.
        seed: Not used; nothing is random.
        verbose: 1 shows a progress bar, 0 none, `"auto"` one for long runs.

    Raises:
        TypeError: If a setting has the wrong type.
        ValueError: If a setting is out of range.

    Reference:
        arXiv 1710.10547 (the top-k attack).

    Example:
        >>> import numpy as np, tensorflow as tf
        >>> from keras_jsigr.attacks.saliency_attack import SaliencyAttack
        >>> model = lambda x: tf.stack([x[:, 0] ** 2 + x[:, 1] ** 2, -x[:, 0]], 1)
        >>> x = np.array([[0.8, 0.7]], "float32")  # |gradient|: 2 x_0 + 1, 2 x_1
        >>> SaliencyAttack(epsilon=0.25, top=0.5)(model, x).round(3).tolist()
        [[0.550000011920929, 0.949999988079071]]
    """

    loss: LossName = field(default="cross_entropy", init=False, repr=False)
    targeted: bool = field(default=False, init=False, repr=False)
    top: float = 0.1
    steps: int = 50
    step_size: float | None = None

    def __post_init__(self) -> None:
        """Check the settings and bring them to their plain Python types."""
        super().__post_init__()
        self._set("top", arguments.share("top", self.top, ends="()"))
        self._set("steps", arguments.count("steps", self.steps))
        if self.step_size is not None:
            step_size = arguments.number(
                "step_size", self.step_size, minimum=0.0, above=True
            )
            self._set("step_size", step_size)

    @property
    def passes(self) -> int:
        """Number of gradients per example: of the map, and of its mass."""
        return 2 * self.steps

    def search(
        self, logits_fn: LogitsFn, problem: AttackBatch, seed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Attack the maps of one batch; see `Attack.search`."""
        del seed
        origin = problem.origin
        ball = BALLS[self.norm](origin, self.epsilon, self.input_range, problem.region)
        length = self.step_size or 2.5 * self.epsilon / self.steps
        decided = predicted_targets(problem.logits(logits_fn, origin))
        problem = problem._replace(targets=decided)
        gradient, _ = odds_gradient(logits_fn, origin, problem)
        pixels = top_share(flat_map(gradient), self.top)

        def look(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            """Return mass, gradient of the odds, and where the class is lost."""
            gradient, logits = odds_gradient(logits_fn, x, problem)
            lost = misclassified(logits, problem.targets)
            return mass_share(flat_map(gradient), pixels), gradient, lost

        def keep(x: tf.Tensor, mass: tf.Tensor, lost: tf.Tensor, best: Any) -> Any:
            better = ~lost & (mass < best[1])
            where = tf.ensure_shape(tf.where(_rows(better, x), x, best[0]), x.shape)
            return where, tf.where(better, mass, best[1])

        def one_step(step: tf.Tensor, x: tf.Tensor, best: Any, finite: Any) -> Any:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(x)
                mass, back, lost = look(x)
            best = keep(x, mass, lost, best)
            uphill = tape.gradient(mass, x, unconnected_gradients="zero")
            direction = tf.where(_rows(lost, x), back, -uphill)
            direction, healthy = usable_part(direction)
            finite &= healthy
            moved = x + length * ball.steepest(direction)
            return step + 1, ball.project(moved), best, finite

        mass = mass_share(flat_map(gradient), pixels)
        start = (tf.constant(0), origin, (origin, mass), tf.ones_like(mass, tf.bool))
        _, x, best, finite = tf.while_loop(
            lambda step, *_: step < self.steps,
            one_step,
            start,
            maximum_iterations=self.steps,
        )
        mass, _, lost = look(x)
        return problem.see(keep(x, mass, lost, best)[0]), finite


def _rows(flags: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    return tf.reshape(flags, [-1] + [1] * (x.shape.rank - 1))


def salient_region(maps: Any, share: float = 0.5, *, salient: bool = True) -> Any:
    """Mark the most salient share of the pixels of each map, or all the others.

    A defense that smooths the model only where it does not look leaves holes where it
    does: attack both sides, `attack(model, x, y, region=...)`.

    Args:
        maps: `(N, H, W)`, or `(N, T)`, `(N, D)`, such as those of
            `keras_jsigr.perturbation_map` or `gradient_map`; the larger, the more
            salient.
        share: Of the pixels that are salient, above 0, at most 1; see `top_share`.
        salient: False for the complement of that region.

    Returns:
        Float32 of the shape of `maps`, one inside and zero outside: a tensor if `maps`
        is one, else a NumPy array.

    Raises:
        TypeError: If `maps` hold no numbers or `share` is none.
        ValueError: If `share` is out of range, or a map is empty or not finite.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.attacks.saliency_attack import salient_region
        >>> salient_region(np.array([[0.1, 0.9, 0.3, 0.3]])).tolist()
        [[0.0, 1.0, 1.0, 0.0]]
        >>> salient_region(np.array([[0.1, 0.9, 0.3, 0.3]]), salient=False).tolist()
        [[1.0, 0.0, 0.0, 1.0]]
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
