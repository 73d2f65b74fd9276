"""The fast gradient (sign) method."""

from __future__ import annotations

from dataclasses import dataclass, field

import keras

from keras_jsigr.attacks.engine import GradientAttack


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
        norm: `"linf"`, `"l2"` or `"l1"`.
        input_range: `(low, high)` of valid inputs.
        loss: `"cross_entropy"`, `"margin"` or `"dlr"`.
        targeted: Whether `y` is the class to reach.
        step_size: In input units; default `epsilon`, with a random start
            `1.25 * epsilon`.
        random_start: Whether to start at a random point of the ball.
        restarts: Number of random starts; per example the strongest is kept.
        early_stop: Whether to leave an example alone in further restarts once it is
            misclassified.
        batch_size: Number of examples worked on at once.
        seed: Of the random starts.
        verbose: 1 shows a progress bar, 0 none, `"auto"` one for long runs.

    Raises:
        TypeError: If a setting has the wrong type.
        ValueError: If a setting is out of range.

    Reference:
        arXiv 1412.6572, arXiv 2001.03994 (random start).

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.attacks import FGSM
        >>> x = np.array([[0.5, 0.75]], "float32")
        >>> FGSM(epsilon=0.25)(lambda x: x, x, [1]).tolist()
        [[0.75, 0.5]]
    """

    steps: int = field(default=1, init=False, repr=False)

    def default_step_size(self) -> float:
        """Return `epsilon`, with a random start `1.25 * epsilon`."""
        return self.epsilon * (1.25 if self.random_start else 1.0)
