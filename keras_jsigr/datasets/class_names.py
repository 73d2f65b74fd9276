"""Names of the classes of well-known data whose files carry numbers only."""

from __future__ import annotations

FASHION_MNIST = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def class_names_of(name: str, classes: int) -> tuple[str, ...]:
    """Return the names of the classes of a data set, numbers where none are known.

    Args:
        name: Name of the data set.
        classes: Number of classes seen in its labels, at least 1.

    Returns:
        One name per class.

    Example:
        >>> class_names_of("fashion_mnist", 10)[9]
        'Ankle boot'
        >>> class_names_of("mnist", 10)[:3]
        ('0', '1', '2')
    """
    if name == "fashion_mnist" and classes <= len(FASHION_MNIST):
        return FASHION_MNIST
    return tuple(str(number) for number in range(classes))
