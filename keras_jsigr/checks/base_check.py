"""What a model has that its hardened one would leave out or mistake."""

from __future__ import annotations

import warnings

import keras

from keras_jsigr.core.keras_private import leaf_layers
from keras_jsigr.penalties import PenaltySettings


def check_channels(model: keras.Model, settings: PenaltySettings) -> None:
    """Refuse layers with channels first, where maps or patches take them for last.

    Args:
        model: The model to harden.
        settings: The objective.

    Raises:
        ValueError: If there are such layers.

    Example:
        >>> import keras
        >>> from keras_jsigr.checks.base_check import check_channels
        >>> from keras_jsigr.penalties import PenaltySettings
        >>> net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> check_channels(net, PenaltySettings())
    """
    first = [
        layer.name
        for layer in leaf_layers(model)
        if getattr(layer, "data_format", None) == "channels_first"
    ]
    masks = settings.uses_map or settings.selection == "random"
    if first and (masks or max(settings.noise_patches) > 1):
        raise ValueError(
            f"Maps and patches take the last axis for the channels: got channels first "
            f"in {first}, expected channels last. Build the layers so, and put a "
            "`keras.layers.Permute((2, 3, 1))` before them."
        )


def warn_of_own_steps(model: keras.Model) -> None:
    """Warn of what the class of a model defines and its hardened model does not call.

    Called by `harden` itself, whose caller the warning names.

    Args:
        model: The model to harden.

    Example:
        >>> import keras
        >>> from keras_jsigr.checks.base_check import warn_of_own_steps
        >>> net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> warn_of_own_steps(net)
    """
    own = [
        name
        for name in (
            "train_step",
            "test_step",
            "predict_step",
            "compute_loss",
            "compute_metrics",
        )
        if getattr(type(model), name) is not getattr(keras.Model, name)
    ]
    if own:
        warnings.warn(
            f"`{model.name}` has a `{'` and a `'.join(own)}` of its own, which the "
            "hardened model does not call: its steps are its own, on the loss and "
            "metrics given to `compile`. Move what they add into those, or into a "
            "layer that calls `add_loss`.",
            stacklevel=3,
        )
