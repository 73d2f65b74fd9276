"""What kind of decision a model makes."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypeVar

import keras

from keras_jsigr.core.head_kind import head_kind
from keras_jsigr.core.heads import head_of
from keras_jsigr.core.logits import output_units
from keras_jsigr.core.scores import HeadKind

_Name = TypeVar("_Name", bound=str)


class Decision(NamedTuple):
    """Between what a model decides.

    Attributes:
        kind: Whether the logits of `as_logits` exclude each other.
        classes: Their number.
        units: The number of outputs: one for two classes, or one for each.
    """

    kind: HeadKind
    classes: int
    units: int

    def score(self, name: _Name) -> _Name | Literal["margin"]:
        """Say which score of the logits of `as_logits` is meant by a name.

        The logit of one unit `z` is `z` for its yes and `-z` for its no, as in
        `class_score`: the margin of the logits `(0, z)`, of which the first is
        constant.

        Args:
            name: Of a score.

        Returns:
            `"margin"` for the `"logit"` of one unit, else the name.
        """
        return "margin" if self.units == 1 and name == "logit" else name


def decision_of(model: Any, probe: Any, kind: HeadKind | None = None) -> Decision:
    """Find out between what a model decides.

    One unit is a no or a yes: its two logits `(0, z)` exclude each other, though its
    head is a sigmoid.

    Args:
        model: A Keras classifier, a hardened model or a callable.
        probe: A batch of inputs.
        kind: `"softmax"` (exclusive classes) or `"sigmoid"` (independent ones);
            `None` asks the head and the loss of a Keras model, and takes a callable
            for the first.

    Returns:
        The kind, the number of classes and that of outputs.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.saliency.decision import decision_of
        >>> decision_of(lambda x: x, np.ones((1, 1)), "sigmoid")
        Decision(kind='softmax', classes=2, units=1)
    """
    units = output_units(model, probe)
    if units == 1:
        return Decision("softmax", 2, 1)
    if kind is None and isinstance(model, keras.Model):
        kind = head_kind(model, head_of(model, probe), units)
    return Decision(kind or "softmax", units, units)
