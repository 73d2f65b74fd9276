"""Swish: a smooth activation, as sharp as one likes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import keras

from keras_jsigr.core import settings


@keras.saving.register_keras_serializable(package="keras_jsigr")
@dataclass(frozen=True)
class Swish:
    """Compute `x * sigmoid(beta * x)`: SiLU at `beta=1`, ReLU in the limit.

    Penalties train gradients, so the activation has to be smooth; to ignore changes
    within a radius, a network needs units that are all but off. SiLU is smooth but off
    only far below zero, `beta=5` is both. The curvature is `beta / 2` at zero.

    Usable wherever Keras takes an activation, in `with_smooth_activations` too; saved
    with the model. To load one, import keras_jsigr; exported SavedModels need nothing.

    Args:
        beta: Sharpness, > 0, in one over the unit of `x`.

    Raises:
        TypeError: If `beta` is no number.
        ValueError: If `beta` is not positive and finite.

    Reference:
        arXiv 1710.05941, section 5 (there with a trained beta).

    Example:
        >>> import keras
        >>> from keras_jsigr import Swish
        >>> layer = keras.layers.Dense(100, activation=Swish(beta=5.0))
        >>> layer.activation(keras.ops.array([0.0, 8.0])).numpy().tolist()
        [0.0, 8.0]
    """

    beta: float = 5.0

    def __post_init__(self) -> None:
        beta = settings.number("beta", self.beta, minimum=0.0, above=True)
        object.__setattr__(self, "beta", beta)

    def __call__(self, x: Any) -> Any:
        """Return what `x` is mapped to, in its dtype and shape."""
        return x * keras.ops.sigmoid(self.beta * x)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        return asdict(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Swish:
        """Make an activation from what `get_config` returned."""
        return cls(**config)
