"""Names of the classes for people."""

from __future__ import annotations

from typing import Any


def check_class_names(names: Any, classes: int) -> tuple[str, ...]:
    """Check the names of the classes; numbers stand in for them.

    Args:
        names: As many strings as classes, or `None`.
        classes: Number of classes.

    Returns:
        The names.

    Raises:
        ValueError: If their number or kind is wrong.

    Example:
        >>> from keras_jsigr.core.class_names import check_class_names
        >>> check_class_names(None, 2)
        ('0', '1')
    """
    if names is None:
        return tuple(str(number) for number in range(classes))
    found = () if isinstance(names, str) else tuple(names)
    if len(found) != classes or not all(isinstance(name, str) for name in found):
        raise ValueError(
            f"`class_names` does not fit the model: got {names!r}, expected {classes} "
            "strings, one per class in the order of the outputs."
        )
    return found
