"""What the loss of a training step is made of."""

from __future__ import annotations

from typing import Any, NamedTuple


class LossParts(NamedTuple):
    """What the loss of a step is made of.

    Attributes:
        task: Scalar, the compiled loss, of this replica's share.
        penalties: Scalars by name: means over the batch, without their weights.
        y_pred: What the base returns.
        hits: Float32 `(B,)`, one where a cached map was found; `None` without.
    """

    task: Any
    penalties: dict[str, Any]
    y_pred: Any
    hits: Any
