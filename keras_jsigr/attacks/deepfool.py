"""DeepFool: straight to the nearest linearized boundary, again and again."""

from __future__ import annotations

import math
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
)
from keras_jsigr.attacks.minimum_norm import (
    Closest,
    MinimumNormAttack,
    lengths,
    linear_projection,
    nearest_boundary,
    refuse_targeted,
    top_other_classes,
)
from keras_jsigr.core import arguments

# Where many components have no room left, the whole way to the plane within the range
# is so long that the plane means nothing there: steps are clipped after they are taken.
_UNLIMITED = (-math.inf, math.inf)

# Added to the length of a step, in widths of the range: steps that shrink with the gap
# would approach the boundary for ever.
_LEAST = 1e-4


@keras.saving.register_keras_serializable(package="keras_jsigr")
@dataclass(frozen=True, kw_only=True)
class DeepFool(MinimumNormAttack):
    """Move onto the nearest of the linearized class boundaries until one is crossed.

    `r_{i+1} = r_i + d_i` with `d_i` the shortest way to the plane of the nearest rival,
    linearized at `clip(x + (1 + overshoot) r_i)`, where the model is asked. A quick
    first estimate of the distance: a few steps suffice as a rule, and an example that
    is fooled takes no more. FAB gets closer.

    Args:
        epsilon: Radius in input units, >= 0; infinity, the default, sets no limit.
        norm: `"l2"` or `"linf"`.
        steps: Largest number of steps, >= 1.
        candidates: Number of rivals, >= 1: the other classes with the largest logits
            at `x`. A step takes one backward pass for each.
        overshoot: Share of the perturbation that is added to cross the boundary, >= 0.
        search_passes: Number of forward passes that move a point towards its input in
            the end, which takes the overshoot back; 0 returns the method's own point.
        input_range, batch_size, verbose: See `Attack`. Nothing is random.

    Raises:
        ValueError: If a setting is out of range, or with `targeted=True`.

    Reference:
        arXiv 1511.04599, algorithm 2 and section 3.3.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.attacks import DeepFool
        >>> x = np.array([[0.5, 0.75]], "float32")
        >>> DeepFool()(lambda x: x, x, [1]).round(3).tolist()
        [[0.625, 0.625]]
    """

    norm: str = "l2"
    steps: int = 50
    candidates: int = 10
    overshoot: float = 0.02

    def __post_init__(self) -> None:
        """Check the settings and bring them to their plain Python types."""
        super().__post_init__()
        arguments.choice("norm", self.norm, ("l2", "linf"))
        refuse_targeted(self)
        self._normalize(arguments.count, "steps", "candidates")
        self._normalize(arguments.number, "overshoot", minimum=0.0)

    @property
    def passes(self) -> int:
        """Largest number of steps per example."""
        return self.steps

    def approach(
        self, context: AttackContext, logits: tf.Tensor, known: Closest
    ) -> tuple[Closest, tf.Tensor]:
        """Take steps until all are fooled; see `MinimumNormAttack.approach`."""
        origin, (low, high) = context.origin, context.input_range
        rivals = top_other_classes(logits, context.targets, self.candidates)

        def beyond(foot: tf.Tensor, origin: tf.Tensor) -> tf.Tensor:
            point = origin + (1.0 + self.overshoot) * (foot - origin)
            return tf.clip_by_value(point, low, high)

        def one_step(on_plane: tf.Tensor, best: Closest, finite: tf.Tensor) -> Any:
            rows = nonzero_rows(~best.found)
            part, near = context.take(rows), take_rows(best, rows)
            foot, against = take_rows((on_plane, rivals), rows)
            point = beyond(foot, part.origin)
            plane = nearest_boundary(part, point, against, _UNLIMITED)
            way = -foot + linear_projection(
                foot, plane.weights, plane.gap, _UNLIMITED, self.norm
            )
            least = _LEAST * (high - low)
            extra = tf.math.divide_no_nan(least, lengths(way, self.norm))
            foot += (1.0 + expand_dims_like(extra, way)) * way
            near, _, _ = self.judge(part, beyond(foot, part.origin), near)
            healthy = plane.finite & tf.gather(finite, rows)
            return scatter_rows((foot, near, healthy), rows, (on_plane, best, finite))

        _, best, finite = tf.while_loop(
            lambda on_plane, best, finite: tf.reduce_any(~best.found),
            one_step,
            (origin, known, tf.ones_like(known.found)),
            maximum_iterations=self.steps,
        )
        return self.refined(context, best), finite
