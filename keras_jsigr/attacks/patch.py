"""Adversarial patches: a square of any content, where it does the most harm."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn

import keras
import numpy as np
import tensorflow as tf

from keras_jsigr.attacks.base import Attack, AttackContext
from keras_jsigr.attacks.gradient_attack import (
    BestPoint,
    keep_stronger,
    run_restarts,
    zero_nonfinite,
)
from keras_jsigr.attacks.pgd import PGD
from keras_jsigr.attacks.transfer import image_sides
from keras_jsigr.core import arguments
from keras_jsigr.core.random import ALGORITHM, fold_in


def patch_side(size: int | float, corner: tuple[int, int], height: int, width: int) -> int:
    """Return the side of a patch on an image, in pixels."""
    side = size
    if isinstance(side, float):
        side = max(1, int(side * min(height, width) + 0.5))
    if corner[0] + side > height or corner[1] + side > width:
        raise ValueError(
            f"The patch does not fit: got side {side} at {corner} on {height} x {width} pixels, "
            "expected it inside. Choose a smaller `size`, or a `location` further up or left."
        )
    return side


def random_corner(seed: tf.Tensor, last: tuple[int, int], examples: Any) -> tf.Tensor:
    """Draw the top left pixels of patches, each place equally likely."""

    def draw(axis: int) -> tf.Tensor:
        stream = fold_in(seed, axis)
        return tf.random.stateless_uniform(
            [examples], stream, 0, last[axis] + 1, tf.int32, alg=ALGORITHM
        )

    return tf.stack([draw(0), draw(1)], axis=1)


def patch_gain(
    gradient: tf.Tensor,
    x: tf.Tensor,
    input_range: tuple[float, float],
    region: tf.Tensor | None = None,
) -> tf.Tensor:
    """Compute what each pixel adds to a linear loss if it may take any value."""
    low, high = input_range
    gain = tf.maximum(gradient * (high - x), gradient * (low - x))
    if region is not None:
        gain *= region
    return tf.reduce_sum(gain, axis=3)


def best_corner(gain: tf.Tensor, side: int) -> tf.Tensor:
    """Find the square window of the largest sum."""
    sums = tf.nn.avg_pool2d(gain[..., tf.newaxis], side, 1, "VALID")
    columns = sums.shape[2]
    flat = tf.argmax(tf.reshape(sums, (-1, sums.shape[1] * columns)), 1, tf.int32)
    return tf.stack([flat // columns, flat % columns], axis=1)


def patch_region(corners: Any, side: int, like: tf.Tensor) -> tf.Tensor:
    """Mark the pixels of a square patch."""

    def covered(axis: int) -> tf.Tensor:
        first = corners[:, axis, tf.newaxis]
        place = tf.range(like.shape[1 + axis])
        return tf.cast((place >= first) & (place < first + side), like.dtype)

    rows, columns = covered(0), covered(1)
    square = rows[:, :, tf.newaxis, tf.newaxis] * columns[:, tf.newaxis, :, tf.newaxis]
    return square * tf.ones_like(like)


@keras.saving.register_keras_serializable(package="keras_jsigr")
@dataclass(frozen=True, kw_only=True)
class Patch(Attack):
    """Put a square patch on each image; its pixels may take any value of the range.

    PGD on the pixels of the patch, `x_{t+1} = clip(x_t + step_size * sign(dL/dx))`,
    from random content (LaVAN, arXiv 1801.02608). There is no radius: `epsilon` is the
    width of the range. With a `region`, only what lies in both may change. Other
    arguments are those of `Attack`, without `norm`.

    Args:
        size: Side of the patch: an int in pixels, or a float as a share of the image's
            shorter side, above 0, at most 1.
        location: `"gradient"`, where the first-order gain at `x` is largest; `"random"`, another
            place at each restart; or `(row, column)` of the top left pixel.
        steps, step_size: As in `PGD`; default step `2.5 * (high - low) / steps`.
        restarts: Number of contents (and random places) tried; the strongest is kept.

    Example:
        >>> import numpy as np, keras_jsigr as kj
        >>> model = lambda x: x[:, 0, :, 0] * [1.0, -1.0, 5.0]
        >>> kj.attacks.Patch(size=1)(model, np.full((1, 1, 3, 1), 0.5), [2]).ravel()
        array([0.5, 0.5, 0. ])
    """

    epsilon: float | None = field(default=None, init=False, repr=False)
    norm: Any = field(default="linf", init=False, repr=False)
    size: int | float = field(kw_only=False)
    location: Literal["gradient", "random"] | tuple[int, int] = "gradient"
    steps: int = 50
    step_size: float | None = None
    restarts: int = 1

    def __post_init__(self) -> None:
        if self.input_range is not None:
            low, high = arguments.interval("input_range", self.input_range)
            self._set("epsilon", high - low)
        super().__post_init__()
        self._set("size", _size(self.size))
        self._set("location", _location(self.location))
        self._normalize(arguments.count, "steps", "restarts")
        self._normalize(arguments.number, "step_size", minimum=0.0, above=True)

    @property
    def passes(self) -> int:
        """Number of gradients per example."""
        return self.steps * self.restarts

    def at(self, epsilon: float) -> NoReturn:
        """Refuse with `ValueError`: a patch has no radius."""
        raise ValueError(
            f"A patch has no radius: got epsilon {epsilon!r}, expected none. Its "
            "pixels may take any value of `input_range`; vary `size` instead."
        )

    def search(self, context: AttackContext) -> tuple[tf.Tensor, tf.Tensor]:
        """Attack one batch and keep the strongest patch; see `Attack.search`."""
        height, width = image_sides(context.x.shape, "A patch")
        corner = self.location if isinstance(self.location, tuple) else (0, 0)
        side = patch_side(self.size, corner, height, width)
        most = (height - side, width - side)
        by_place = self.location == "random"
        tries = self.restarts if by_place else 1
        low, high = context.input_range
        pgd = PGD(
            steps=self.steps,
            step_size=self.step_size or 2.5 * (high - low) / self.steps,
            restarts=1 if by_place else self.restarts,
            loss=self.loss,
            targeted=self.targeted,
        )

        def again(number: tf.Tensor, best: BestPoint, finite: tf.Tensor) -> Any:
            stream = fold_in(context.seed, number)
            corners = self._corners(context, pgd, fold_in(stream, 0), most)
            region = patch_region(corners, side, context.origin)
            if context.region is not None:
                region *= context.region
            part = context._replace(region=region, seed=fold_in(stream, 1))
            new, healthy = run_restarts(pgd, part)
            return number + 1, keep_stronger(new, best), finite & healthy

        nothing = BestPoint.none(context.origin)
        start = (tf.constant(0), nothing, tf.ones_like(nothing.success))
        _, found, finite = tf.while_loop(
            lambda number, *_: number < tries, again, start, maximum_iterations=tries
        )
        return context.to_model_input(found.x), finite

    def _corners(
        self, context: AttackContext, pgd: PGD, seed: tf.Tensor, most: tuple[int, int]
    ) -> tf.Tensor:
        """Return row and column of the top left pixels, int32 `(B, 2)`."""
        x = context.origin
        if self.location == "gradient":
            gradient, _ = pgd.gradient(context, x, state=(), seed=seed)
            gradient, _ = zero_nonfinite(gradient)
            gain = patch_gain(gradient, x, context.input_range, context.region)
            return best_corner(gain, x.shape[1] - most[0])
        if self.location == "random":
            return random_corner(seed, most, tf.shape(x)[0])
        return tf.tile(tf.constant([self.location]), [tf.shape(x)[0], 1])


def _size(value: Any) -> int | float:
    if isinstance(value, float | np.floating):
        return arguments.share("size", value, ends="(]")
    return arguments.count("size", value)


def _location(value: Any) -> Any:
    if isinstance(value, tuple | list) and len(value) == 2:
        return tuple(arguments.count("location", place, minimum=0) for place in value)
    arguments.choice("location", value, ("gradient", "random"))
    return value
