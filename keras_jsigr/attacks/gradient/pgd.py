"""Projected gradient descent."""

from __future__ import annotations

from dataclasses import dataclass

import keras

from keras_jsigr.attacks.engine import GradientAttack


@keras.saving.register_keras_serializable(package="keras_jsigr")
@dataclass(frozen=True, kw_only=True)
class PGD(GradientAttack):
    """Take many small steps along the gradient, each projected onto the ball.

    `x_{t+1} = project(x_t + step_size * sign(dL/dx))` under `norm="linf"`, with
    `g / ||g||_2` for the sign under `"l2"`, from a random point of the ball.

    Args:
        epsilon: Radius in input units, >= 0.
        steps: Number of gradient steps, >= 1.
        norm: `"linf"`, `"l2"` or `"l1"`.
        input_range: `(low, high)` of valid inputs.
        loss: `"cross_entropy"`, `"margin"` or `"dlr"`.
        targeted: Whether `y` is the class to reach.
        step_size: In input units; default `2.5 * epsilon / steps`, so that the whole
            ball can be crossed.
        random_start: Whether to start at a random point of the ball; without it, this
            is the basic iterative method (arXiv 1607.02533).
        restarts: Number of random starts; per example the strongest is kept.
        early_stop: Whether to leave an example alone once it is misclassified.
        batch_size: Number of examples worked on at once.
        seed: Of the random starts.
        verbose: 1 shows a progress bar, 0 none, `"auto"` one for long runs.

    Raises:
        TypeError: If a setting has the wrong type.
        ValueError: If a setting is out of range.

    Reference:
        arXiv 1706.06083.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.attacks import PGD
        >>> x = np.array([[0.5, 0.75]], "float32")
        >>> PGD(epsilon=0.25, steps=10)(lambda x: x, x, [1]).tolist()
        [[0.75, 0.5]]
    """

    steps: int = 20
    random_start: bool = True

    def default_step_size(self) -> float:
        """Return `2.5 * epsilon / steps`."""
        return 2.5 * self.epsilon / self.steps
