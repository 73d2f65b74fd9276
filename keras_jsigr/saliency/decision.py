"""What kind of decision a model makes."""

from __future__ import annotations

from typing import Any, NamedTuple

from keras_jsigr.core.logits import output_units
from keras_jsigr.core.scores import HeadKind


class Decision(NamedTuple):
    """Between what a model decides.

    Attributes:
        kind: Whether the logits of `as_logits` exclude each other.
        classes: Their number.
    """

    kind: HeadKind
    classes: int


def decision_of(model: Any, probe: Any, kind: HeadKind) -> Decision:
    """Find out between what a model decides.

    One unit is a no or a yes: its two logits `(0, z)` exclude each other, though its
    head is a sigmoid.

    Args:
        model: A Keras classifier, a hardened model or a callable.
        probe: A batch of inputs.
        kind: `"softmax"` (exclusive classes) or `"sigmoid"` (independent ones).

    Returns:
        The kind and the number of classes.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.saliency.decision import decision_of
        >>> decision_of(lambda x: x, np.ones((1, 1)), "sigmoid")
        Decision(kind='softmax', classes=2)
    """
    units = output_units(model, probe)
    return Decision(kind if units > 1 else "softmax", max(units, 2))
