"""PGD and its relatives of one and of many plain steps: FGSM and BIM."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import keras

from keras_jsigr.attacks.gradient_attack import GradientAttack


@keras.saving.register_keras_serializable(package="keras_jsigr")
@dataclass(frozen=True, kw_only=True)
class FGSM(GradientAttack):
    """Take one step of the full radius along the gradient of the loss.

    `x_adv = clip(x + epsilon * sign(dL/dx))` under `norm="linf"`,
    `x + epsilon * g / ||g||_2` under `"l2"`. With `random_start=True` the step starts
    at a random point of the ball and the result is projected (FGSM-RS): as cheap, and
    enough for adversarial training.

    Args:
        epsilon: Radius in input units, >= 0.
        step_size: In input units; default `epsilon`, with a random start
            `1.25 * epsilon`.
        random_start: Whether to start at a random point of the ball.
        restarts: Number of random starts; per example the strongest is kept.
        early_stop: Whether to leave an example alone in further restarts once it is
            misclassified.
        norm, input_range, loss, targeted, batch_size, seed, verbose: See `Attack`.

    Reference: arXiv 1412.6572, arXiv 2001.03994 (random start).

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.attacks import FGSM
        >>> x = np.array([[0.5, 0.75]], "float32")
        >>> FGSM(epsilon=0.25)(lambda x: x, x, [1]).tolist()
        [[0.75, 0.5]]
    """

    steps: int = field(default=1, init=False, repr=False)

    def default_step_size(self, epsilon: Any) -> Any:
        """Return `epsilon`, with a random start `1.25 * epsilon`."""
        return epsilon * (1.25 if self.random_start else 1.0)


@keras.saving.register_keras_serializable(package="keras_jsigr")
@dataclass(frozen=True, kw_only=True)
class BIM(GradientAttack):
    """Take small steps of FGSM from the input itself: the basic iterative method.

    `x_{t+1} = project(x_t + step_size * sign(dL/dx))` from `x_0 = x`: PGD without a
    random start and with steps that just reach the edge of the ball.

    Args:
        epsilon: Radius in input units, >= 0.
        steps: Number of gradient steps, >= 1.
        step_size: In input units; default `epsilon / steps`.
        random_start, restarts, early_stop: See `GradientAttack`.
        norm, input_range, loss, targeted, batch_size, seed, verbose: See `Attack`.

    Reference: arXiv 1607.02533.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.attacks import BIM
        >>> x = np.array([[0.5, 0.75]], "float32")
        >>> BIM(epsilon=0.25)(lambda x: x, x, [1]).round(6).tolist()
        [[0.75, 0.5]]
    """

    steps: int = 10


@keras.saving.register_keras_serializable(package="keras_jsigr")
@dataclass(frozen=True, kw_only=True)
class PGD(GradientAttack):
    """Take many small steps along the gradient, each projected onto the ball.

    `x_{t+1} = project(x_t + step_size * sign(dL/dx))` under `norm="linf"`, with
    `g / ||g||_2` for the sign under `"l2"`, from a random point of the ball.

    Args:
        epsilon: Radius in input units, >= 0.
        steps: Number of gradient steps, >= 1.
        step_size: In input units; default `2.5 * epsilon / steps`, so that the whole
            ball can be crossed.
        random_start: Whether to start at a random point of the ball; without it, this
            is the basic iterative method (arXiv 1607.02533).
        restarts, early_stop: See `GradientAttack`.
        norm, input_range, loss, targeted, batch_size, seed, verbose: See `Attack`.

    Reference: arXiv 1706.06083.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.attacks import PGD
        >>> x = np.array([[0.5, 0.75]], "float32")
        >>> PGD(epsilon=0.25, steps=10)(lambda x: x, x, [1]).tolist()
        [[0.75, 0.5]]
    """

    steps: int = 20
    random_start: bool = True

    def default_step_size(self, epsilon: Any) -> Any:
        """Return `2.5 * epsilon / steps`."""
        return 2.5 * epsilon / self.steps
