"""MI-FGSM on a gradient taken ahead, over diverse and scaled copies, and smoothed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import tensorflow as tf

from keras_jsigr.attacks.calls.images import image_sides
from keras_jsigr.attacks.objectives.loss_slope import loss_slope
from keras_jsigr.attacks.search.problem import Problem
from keras_jsigr.attacks.search.seeds import fold_in
from keras_jsigr.attacks.transfer.even_step import even_step
from keras_jsigr.attacks.transfer.gradient_smoothing import (
    default_kernel,
    smooth_gradient,
)
from keras_jsigr.attacks.transfer.input_diversity import input_diversity
from keras_jsigr.attacks.transfer.mean_over import mean_over
from keras_jsigr.attacks.transfer.mifgsm import MIFGSM
from keras_jsigr.attacks.transfer.scale_copies import scale_copy
from keras_jsigr.core import settings
from keras_jsigr.core.logits import LogitsFn


@dataclass(frozen=True, kw_only=True)
class TransformedMIFGSM(MIFGSM):
    """Ask the model at transformed inputs: what `TransferAttack` tunes and names.

    `g = mean_{i < scales} grad_x L(diverse(p / 2^i))` at `p = x_t`, or with Nesterov's
    look ahead `p = x_t + momentum * step_size * m_t`; smoothed before it is gathered.

    Args:
        nesterov: Whether the gradient is taken where the momentum leads.
        diversity: Probability, 0 to 1, of showing an image shrunk and shifted.
        diversity_scale: The smallest size then, a share of the side, above 0, below 1.
        kernel_size: Length of the Gaussian that smooths the gradient, an odd number of
            pixels; 0 for none, `"auto"` for 15 from 200 pixels on, else 5.
        scales: Number of copies `x / 2^i`, >= 1.

    Example:
        >>> from keras_jsigr.attacks.transfer.transformed_mifgsm import (
        ...     TransformedMIFGSM,
        ... )
        >>> TransformedMIFGSM(epsilon=0.1, steps=10, scales=5).passes
        50
    """

    nesterov: bool = False
    diversity: float = 0.0
    diversity_scale: float = 0.9
    kernel_size: int | Literal["auto"] = 0
    scales: int = 1

    def __post_init__(self) -> None:
        """Check the settings and bring them to their plain Python types."""
        settings.choice("nesterov", self.nesterov, (False, True))
        self._set("diversity", settings.share("diversity", self.diversity))
        scale = settings.share("diversity_scale", self.diversity_scale, ends="()")
        self._set("diversity_scale", scale)
        self._set("kernel_size", _odd("kernel_size", self.kernel_size))
        self._set("scales", settings.count("scales", self.scales))
        self._set("stochastic", self.diversity > 0.0)
        super().__post_init__()

    @property
    def passes(self) -> int:
        """Number of gradients per example."""
        return super().passes * self.scales

    @property
    def sums_gradients(self) -> bool:
        """Whether gradients from several points are added, so that lengths count."""
        return self.scales > 1

    def momentum_of(self, state: Any) -> tf.Tensor:
        """Return the gathered gradient, like `x`, out of the state."""
        return state

    def transform(self, x: tf.Tensor, state: Any, seed: tf.Tensor) -> tf.Tensor:
        """Return what the model sees in place of `x`; `state` numbers the copy."""
        if self.scales > 1:
            x = scale_copy(x, state)
        if self.diversity > 0.0:
            low, high = self.input_range
            x = input_diversity(
                x,
                seed,
                probability=self.diversity,
                scale=self.diversity_scale,
                fill=min(max(0.0, low), high),
            )
        return x

    def gradient(
        self,
        logits_fn: LogitsFn,
        x: tf.Tensor,
        problem: Problem,
        *,
        state: Any,
        seed: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Return the mean gradient over the copies, and the logits if `x` was seen."""
        if not self.nesterov:
            return self.mean_gradient(logits_fn, x, problem, seed)
        # The momentum has mean magnitude one per step it gathered.
        length = self.momentum * even_step(self.step_length, x, self.norm)
        ahead = x + length * self.momentum_of(state)
        return self.mean_gradient(logits_fn, ahead, problem, seed)[0], None

    def direction(self, gradient: tf.Tensor, state: Any) -> tuple[tf.Tensor, Any]:
        """Smooth the gradient and gather it."""
        if self.kernel_size:
            length = self.kernel_size
            if length == "auto":
                length = default_kernel(*image_sides(gradient.shape, "Smoothing"))
            gradient = smooth_gradient(gradient, length)
        return super().direction(gradient, state)

    def mean_gradient(
        self, logits_fn: LogitsFn, x: tf.Tensor, problem: Problem, seed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Return the mean gradient over the copies of `x`, and the logits at `x`.

        Args:
            logits_fn: Maps inputs to float32 logits `(B, C)`.
            x: Float `(B, *S)`, any points, also outside the ball.
            problem: The batch.
            seed: Int32 `(2,)`.

        Returns:
            The gradient, like `x`, and the logits, or `None` if they are of others.
        """
        if self.scales == 1:
            return self._gradient_of_copy(0, logits_fn, x, problem, seed)

        def term(number: tf.Tensor) -> tf.Tensor:
            stream = fold_in(seed, number)
            return self._gradient_of_copy(number, logits_fn, x, problem, stream)[0]

        return mean_over(self.scales, term, x), None

    def _gradient_of_copy(
        self,
        number: Any,
        logits_fn: LogitsFn,
        x: tf.Tensor,
        problem: Problem,
        seed: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor | None]:
        seen: list[tf.Tensor] = []

        def noted(inputs: tf.Tensor) -> tf.Tensor:
            seen.append(logits_fn(inputs))
            return seen[-1]

        gradient, logits = super().gradient(noted, x, problem, state=number, seed=seed)
        if self.sums_gradients:
            # In a sum the lengths count; alone, the direction is all.
            slope = loss_slope(seen[0], problem.targets, self.loss)
            rows = tf.reshape(slope, [-1] + [1] * (x.shape.rank - 1))
            gradient *= tf.cast(rows, gradient.dtype)
        return gradient, logits


def _odd(name: str, value: Any) -> int | Literal["auto"]:
    if value == "auto":
        return "auto"
    length = settings.count(name, value, minimum=0)
    if length and length % 2 == 0:
        raise ValueError(
            f"`{name}` has no middle: got {length}, expected an odd number of pixels, "
            f"0 or 'auto'. Pass {length + 1}."
        )
    return length
