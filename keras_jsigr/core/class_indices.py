"""Class indices that have to be those of the model."""

from __future__ import annotations

from typing import Any

import numpy as np


def check_class_indices(labels: np.ndarray[Any, Any], classes: int) -> None:
    """Refuse labels that are no class of the model.

    Args:
        labels: Numbers of any shape.
        classes: Number of classes `C`.

    Raises:
        ValueError: If one of them is not a whole number in `0..C-1`.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.core.class_indices import check_class_indices
        >>> check_class_indices(np.array([0, 2]), 3)
    """
    values = labels.astype("float64")
    bad = ~((values >= 0) & (values < classes) & (values == np.floor(values)))
    if bad.any():
        raise ValueError(
            f"`y` is out of range: got {labels[bad].ravel()[0]}, expected class "
            f"indices 0 to {classes - 1}. Count the classes from zero."
        )
