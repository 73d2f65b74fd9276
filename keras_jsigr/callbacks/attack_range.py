"""The range of valid inputs that an attack inside a callback takes."""

from __future__ import annotations

from typing import Any

from keras_jsigr.attacks import PGD
from keras_jsigr.evaluation.known_range import known_range


def with_range_of(model: Any, attack: PGD) -> PGD:
    """Return the attack for the inputs that a model was declared to take.

    Args:
        model: A hardened model, or any other: (0, 1).
        attack: Any.

    Returns:
        The attack, the same object if it has that range already.

    Example:
        >>> from keras_jsigr.attacks import PGD
        >>> from keras_jsigr.callbacks.attack_range import with_range_of
        >>> with_range_of(None, PGD(epsilon=0.1)).input_range
        (0.0, 1.0)
    """
    known = known_range(None, model)
    if attack.input_range == known:
        return attack
    return PGD.from_config({**attack.get_config(), "input_range": known})
