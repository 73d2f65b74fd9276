"""PGD and its relatives of one and of many plain steps: FGSM and BIM."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import keras

from keras_jsigr.attacks.gradient_attack import GradientAttack


@keras.saving.register_keras_serializable(package="keras_jsigr")
@dataclass(frozen=True, kw_only=True)
class FGSM(GradientAttack):
    """Take one step of the full radius along the gradient (arXiv 1412.6572).

    `x_adv = clip(x + epsilon * sign(dL/dx))` under `norm="linf"`, `x + epsilon * g / ||g||_2` under
    `"l2"`. With a random start the result is projected (FGSM-RS, arXiv 2001.03994): as cheap, and
    enough for adversarial training.

    Args: those of `GradientAttack`, without `steps`; `step_size` is `epsilon` by
    default, with a random start `1.25 * epsilon`.

    Example:
        >>> import numpy as np, keras_jsigr as kj
        >>> kj.attacks.FGSM(0.25)(lambda x: x, np.array([[0.5, 0.75]]), [1]).tolist()
        [[0.75, 0.5]]
    """

    steps: int = field(default=1, init=False, repr=False)

    def default_step_size(self, epsilon: Any) -> Any:
        """Return `epsilon`, with a random start `1.25 * epsilon`."""
        return epsilon * (1.25 if self.random_start else 1.0)


@keras.saving.register_keras_serializable(package="keras_jsigr")
@dataclass(frozen=True, kw_only=True)
class BIM(GradientAttack):
    """Take small steps of FGSM, without a random start (arXiv 1607.02533).

    Args: those of `PGD`; `step_size` is `epsilon / steps` by default.

    Example:
        >>> from keras_jsigr.attacks import BIM
        >>> BIM(0.25, steps=10).step_length(0.25)
        0.025
    """

    steps: int = 10


@keras.saving.register_keras_serializable(package="keras_jsigr")
@dataclass(frozen=True, kw_only=True)
class PGD(GradientAttack):
    """Take many small steps along the gradient, each projected (arXiv 1706.06083).

    `x_{t+1} = project(x_t + step_size * sign(dL/dx))` under `norm="linf"`, with
    `g / ||g||_2` for the sign under `"l2"`, from a random point of the ball. Other
    arguments are those of `GradientAttack`.

    Args:
        step_size: In input units; default `2.5 * epsilon / steps`, so that the whole
            ball can be crossed.

    Example:
        >>> import numpy as np, keras_jsigr as kj
        >>> kj.attacks.PGD(0.25)(lambda x: x, np.array([[0.5, 0.75]]), [1]).tolist()
        [[0.75, 0.5]]
    """

    steps: int = 20
    random_start: bool = True

    def default_step_size(self, epsilon: Any) -> Any:
        """Return `2.5 * epsilon / steps`."""
        return 2.5 * epsilon / self.steps
