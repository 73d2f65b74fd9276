"""FAB: the fast adaptive boundary attack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from keras_jsigr.attacks.base import AttackContext
from keras_jsigr.attacks.gradient_attack import (
    expand_dims_like,
    nonzero_rows,
    scatter_rows,
    take_rows,
    where_rows,
)
from keras_jsigr.attacks.minimum_norm import (
    Boundary,
    Closest,
    MinimumNormAttack,
    lengths,
    linear_projection,
    nearest_boundary,
    refuse_targeted,
    top_other_classes,
    value_at,
)
from keras_jsigr.core import arguments
from keras_jsigr.core.random import ALGORITHM, fold_in


def fab_step(
    x: tf.Tensor,
    origin: tf.Tensor,
    plane: Boundary,
    input_range: tuple[float, float],
    norm: str,
    *,
    alpha_max: float = 0.1,
    eta: float = 1.05,
) -> tf.Tensor:
    """Step across a linearized boundary, with a bias towards the input."""
    # Both projections at once: their rounds are shared.
    points = tf.concat([x, origin], axis=0)
    normals = tf.concat([plane.weights] * 2, axis=0)
    gaps = tf.concat([plane.gap, value_at(plane, x, origin)], axis=0)
    ways = linear_projection(points, normals, gaps, input_range, norm) - points
    way, way_0 = tf.split(ways, 2)
    length, length_0 = lengths(way, norm), lengths(way_0, norm)
    share = tf.math.divide_no_nan(length, length + length_0)
    share = expand_dims_like(tf.minimum(share, alpha_max), x)
    mixed = (1.0 - share) * (x + eta * way) + share * (origin + eta * way_0)
    return tf.clip_by_value(mixed, *input_range)


def sphere_point(context: AttackContext, radius: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Draw a point at the distance `radius` per example, then clip to the range."""
    origin, norm, (low, high) = context.origin, context.norm, context.input_range
    shape, dtype = tf.shape(origin), origin.dtype
    if norm == "l2":
        noise = tf.random.stateless_normal(shape, seed, dtype=dtype, alg=ALGORITHM)
    else:
        noise = tf.random.stateless_uniform(shape, seed, -1.0, 1.0, dtype, alg=ALGORITHM)
    if norm == "l1":
        noise = -tf.sign(noise) * tf.math.log1p(-tf.abs(noise))
    free = tf.ones_like(origin) if context.region is None else context.region
    noise *= free
    radius = tf.minimum(radius, (high - low) * lengths(free, norm) / 2)
    scale = tf.math.divide_no_nan(radius, lengths(noise, norm))
    return tf.clip_by_value(origin + expand_dims_like(scale, origin) * noise, low, high)


@keras.saving.register_keras_serializable(package="keras_jsigr")
@dataclass(frozen=True, kw_only=True)
class FAB(MinimumNormAttack):
    """Walk along the decision boundary towards the closest point (arXiv 1907.02044).

    Every step linearizes the boundary, moves a little across it, near `x` rather than
    near the iterate, and steps back towards `x` where that fooled the model. It needs
    no step size and works where gradients vanish.

    A step takes two forward passes and one backward pass per other class; with
    `target_classes=9` (FAB-T, arXiv 2003.01690, for many classes) one, and all steps
    are repeated for each of the 9 other classes with the largest logits at `x`. Other
    arguments are those of `MinimumNormAttack`, without `targeted`.

    Args:
        steps: Number of steps per start (and class), >= 1.
        restarts: Number of starts, >= 1: `x` itself, then random points at half the distance known.
        target_classes: Number of classes taken one by one, >= 1, at most all others;
            `None` takes the nearest of all in every step.
        alpha_max: Largest share of the step from `x` instead of the iterate, 0 to 1.
        eta: How far across the boundary a step goes, >= 1.
        beta: Share of the perturbation kept in stepping back, above 0, below 1.

    Example:
        >>> import numpy as np, keras_jsigr as kj
        >>> kj.attacks.FAB()(lambda x: x, np.array([[0.5, 0.75]]), [1]).round(3)
        array([[0.625, 0.625]])
    """

    steps: int = 100
    restarts: int = 1
    target_classes: int | None = None
    alpha_max: float = 0.1
    eta: float = 1.05
    beta: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_targeted(self)
        self._normalize(arguments.count, "steps", "restarts", "target_classes")
        for name, least, most in (
            ("alpha_max", 0.0, 1.0),
            ("eta", 1.0, float("inf")),
            ("beta", 0.0, 1.0),
        ):
            self._normalize(arguments.number, name, minimum=least)
            value = getattr(self, name)
            if value > most or (name == "beta" and value in (0.0, 1.0)):
                raise ValueError(
                    f"`{name}` is out of range: got {value:g}, expected a number "
                    f"between {least:g} and {most:g}. The default suits most models."
                )

    @property
    def name(self) -> str:
        """`"FAB"`, or `"FAB-T"` if classes are taken one by one."""
        return "FAB" if self.target_classes is None else "FAB-T"

    @property
    def passes(self) -> int:
        """Number of steps per example."""
        return self.steps * self.restarts * (self.target_classes or 1)

    def approach(
        self, context: AttackContext, logits: tf.Tensor, known: Closest
    ) -> tuple[Closest, tf.Tensor]:
        """Take all steps of all runs; see `MinimumNormAttack.approach`."""
        origin, one_by_one = context.origin, self.target_classes is not None
        count = self.target_classes or logits.shape[-1]
        rivals = top_other_classes(logits, context.targets, count)
        runs = self.restarts * (rivals.shape[-1] if one_by_one else 1)

        def start(run: tf.Tensor, best: Closest) -> tf.Tensor:
            radius = tf.minimum(best.distance, context.epsilon) / 2
            point = sphere_point(context, radius, fold_in(context.seed, run))
            return tf.where(run % self.restarts > 0, point, origin)

        def one_step(number: tf.Tensor, x: tf.Tensor, best: Closest, finite: tf.Tensor) -> Any:
            run = number // self.steps
            anew = (number % self.steps == 0) & (number > 0)
            x = tf.cond(anew, lambda: start(run, best), lambda: x)
            rows = nonzero_rows(self.unfinished(context, best))
            part, near = context.take(rows), take_rows(best, rows)
            point, against = take_rows((x, rivals), rows)
            if one_by_one:
                against = against[:, run // self.restarts, None]
            plane = nearest_boundary(part, point, against, part.input_range)
            point = fab_step(
                point,
                part.origin,
                plane,
                part.input_range,
                self.norm,
                alpha_max=self.alpha_max,
                eta=self.eta,
            )
            near, fools, _ = self.judge(part, point, near)
            back = part.origin + self.beta * (point - part.origin)
            point = where_rows(fools, back, point)
            healthy = plane.finite & tf.gather(finite, rows)
            x, best, finite = scatter_rows((point, near, healthy), rows, (x, best, finite))
            return number + 1, x, best, finite

        _, _, best, finite = tf.while_loop(
            lambda number, x, best, finite: tf.reduce_any(self.unfinished(context, best)),
            one_step,
            (tf.constant(0), origin, known, tf.ones_like(known.found)),
            maximum_iterations=self.steps * runs,
        )
        return self.refined(context, best), finite
