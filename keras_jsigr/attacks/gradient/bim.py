"""The basic iterative method."""

from __future__ import annotations

from dataclasses import dataclass

import keras

from keras_jsigr.attacks.engine import GradientAttack


@keras.saving.register_keras_serializable(package="keras_jsigr")
@dataclass(frozen=True, kw_only=True)
class BIM(GradientAttack):
    """Take small steps of FGSM from the input itself.

    `x_{t+1} = project(x_t + step_size * sign(dL/dx))` from `x_0 = x`: PGD without a
    random start and with steps that just reach the edge of the ball.

    Args:
        epsilon: Radius in input units, >= 0.
        steps: Number of gradient steps, >= 1.
        norm: `"linf"`, `"l2"` or `"l1"`.
        input_range: `(low, high)` of valid inputs.
        loss: `"cross_entropy"`, `"margin"` or `"dlr"`.
        targeted: Whether `y` is the class to reach.
        step_size: In input units; default `epsilon / steps`.
        random_start: Whether to start at a random point of the ball, as PGD does.
        restarts: Number of random starts; per example the strongest is kept.
        early_stop: Whether to leave an example alone once it is misclassified.
        batch_size: Number of examples worked on at once.
        seed: Of the random starts.
        verbose: 1 shows a progress bar, 0 none, `"auto"` one for long runs.

    Raises:
        TypeError: If a setting has the wrong type.
        ValueError: If a setting is out of range.

    Reference:
        arXiv 1607.02533.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.attacks.gradient.bim import BIM
        >>> x = np.array([[0.5, 0.75]], "float32")
        >>> BIM(epsilon=0.25)(lambda x: x, x, [1]).round(6).tolist()
        [[0.75, 0.5]]
    """

    steps: int = 10
