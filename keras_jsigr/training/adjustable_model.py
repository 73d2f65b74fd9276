"""The settings that may change while training: scalar variables of the model."""

from __future__ import annotations

import warnings
from typing import Any

import keras
import numpy as np

from keras_jsigr.penalties import PenaltySettings
from keras_jsigr.training.scalar import add_scalar, read_scalar

_WEIGHTS = ("jacobian_weight", "selective_weight", "align_weight")
_STEPS = ("delay_steps", "ramp_steps")
_ADJUSTABLE = (*_WEIGHTS, *_STEPS)


class AdjustableModel(keras.Model):
    """A model whose penalty weights and ramp are variables, saved with its weights.

    Attributes:
        settings: The objective as `harden` made it.
    """

    settings: PenaltySettings

    def make_adjustable(self) -> None:
        """Create the variables, at the values of the settings."""
        for name in _ADJUSTABLE:
            dtype = "int64" if name in _STEPS else "float32"
            value = getattr(self.settings, name)
            setattr(self, name, add_scalar(self, name, value, dtype=dtype))

    def __setattr__(self, name: str, value: Any) -> None:
        exchanged = vars(self).get(name, value) is not value
        if exchanged and name == "settings":
            raise TypeError(
                "`settings` are those that the training steps were made of: got others "
                "in their place. Harden `unwrap(model)` again with what shall change."
            )
        if exchanged and name in _ADJUSTABLE:
            raise TypeError(
                f"`{name}` is a variable that training steps read: got a plain "
                f"attribute in its place. Use `model.{name}.assign({value!r})`."
            )
        super().__setattr__(name, value)

    def adjusted(self) -> dict[str, float]:
        """Return what the variables hold now, by the names of the settings."""
        values = {name: read_scalar(getattr(self, name)) for name in _ADJUSTABLE}
        # In the few digits of float32: 0.005 and not 0.004999999888.
        return {
            name: int(value) if name in _STEPS else float(str(np.float32(value)))
            for name, value in values.items()
        }

    def load_weights(self, filepath: Any, *args: Any, **kwargs: Any) -> Any:
        """Load weights as Keras does, and tell which settings came with them.

        Args:
            filepath: As in `keras.Model.load_weights`.
            *args: As in `keras.Model.load_weights`.
            **kwargs: As in `keras.Model.load_weights`.

        Returns:
            What Keras returns.
        """
        before = self.adjusted()
        result = super().load_weights(filepath, *args, **kwargs)
        after = self.adjusted()
        changed = [name for name in _ADJUSTABLE if before[name] != after[name]]
        if changed:
            told = ", ".join(f"{n} {before[n]:g} by {after[n]:g}" for n in changed)
            again = "; ".join(f"model.{n}.assign({before[n]:g})" for n in changed)
            warnings.warn(
                f"The file replaced settings of this model: {told}. They are saved "
                f"with the weights. To keep those of before: `{again}`.",
                stacklevel=2,
            )
        return result
