"""The momentum iterative fast gradient sign method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import keras
import tensorflow as tf

from keras_jsigr.attacks.balls.normalize import mean_normalize
from keras_jsigr.attacks.engine import GradientAttack
from keras_jsigr.core import settings


@keras.saving.register_keras_serializable(package="keras_jsigr")
@dataclass(frozen=True, kw_only=True)
class MIFGSM(GradientAttack):
    """Take small steps along gathered gradients: weaker at home, better transferred.

    `m_{t+1} = momentum * m_t + g_t / mean_i |g_ti|` and
    `x_{t+1} = project(x_t + step_size * sign(m_{t+1}))`, with `m / ||m||_2` for the
    sign under `norm="l2"`.

    Args:
        epsilon: Radius in input units, >= 0.
        steps: Number of gradient steps, >= 1.
        momentum: Weight of the former steps, >= 0.
        norm: `"linf"`, `"l2"` or `"l1"`.
        input_range: `(low, high)` of valid inputs.
        loss: `"cross_entropy"`, `"margin"` or `"dlr"`.
        targeted: Whether `y` is the class to reach.
        step_size: In input units; default `epsilon / steps`.
        random_start: Whether to start at a random point of the ball.
        restarts: Number of random starts; per example the strongest is kept.
        early_stop: Whether to leave an example alone once it is misclassified.
            Keep it off for examples that are to fool another model.
        batch_size: Number of examples worked on at once.
        seed: Of the random starts.
        verbose: 1 shows a progress bar, 0 none, `"auto"` one for long runs.

    Raises:
        TypeError: If a setting has the wrong type.
        ValueError: If a setting is out of range.

    Reference:
        arXiv 1710.06081.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.attacks import MIFGSM
        >>> x = np.array([[0.5, 0.75]], "float32")
        >>> MIFGSM(epsilon=0.25)(lambda x: x, x, [1]).round(6).tolist()
        [[0.75, 0.5]]
    """

    steps: int = 10
    momentum: float = 1.0

    def __post_init__(self) -> None:
        """Check the settings and bring them to their plain Python types."""
        super().__post_init__()
        self._set("momentum", settings.number("momentum", self.momentum, minimum=0.0))

    @classmethod
    def nips2017(
        cls, *, input_range: tuple[float, float] = (0.0, 1.0), **others: Any
    ) -> Self:
        """Make the attack that won the NIPS 2017 competition, as its authors set it.

        Radius 16/255 of the range, 10 steps of a tenth of it, momentum 1, no random
        start. They ran it on an ensemble in logits, with the ensemble's own decisions
        for labels: `MIFGSM.nips2017()(LogitsEnsemble(models, weights), x)`. Their
        auxiliary heads of the Inception networks are left out.

        Args:
            input_range: `(low, high)` of valid inputs.
            others: Further settings, such as `targeted` or `batch_size`.

        Returns:
            The attack.

        Reference:
            arXiv 1710.06081.

        Example:
            >>> from keras_jsigr.attacks import MIFGSM
            >>> MIFGSM.nips2017(input_range=(0.0, 255.0)).epsilon
            16.0
        """
        low, high = settings.interval("input_range", input_range)
        fixed = {"steps": 10, "momentum": 1.0, "random_start": False}
        epsilon = 16.0 * (high - low) / 255.0
        return cls(epsilon=epsilon, input_range=(low, high), **(fixed | others))

    def start_state(self, x: tf.Tensor) -> Any:
        """Return no momentum yet."""
        return tf.zeros_like(x)

    def direction(self, gradient: tf.Tensor, state: Any) -> tuple[tf.Tensor, Any]:
        """Return the gathered gradient, which is the new state too."""
        gathered = self.momentum * state + mean_normalize(gradient)
        return gathered, gathered
