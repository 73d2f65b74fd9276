"""Methods that need rows and columns: refuse inputs that have none."""

from __future__ import annotations

from collections.abc import Sequence


def image_sides(shape: Sequence[int | None], method: str) -> tuple[int, int]:
    """Return height and width of a batch of images.

    Args:
        shape: Of the batch, `(B, H, W, C)`.
        method: What needs images, for the message.

    Returns:
        `(H, W)` in pixels.

    Raises:
        ValueError: If these are no images of a fixed size.

    Example:
        >>> from keras_jsigr.attacks.calls.images import image_sides
        >>> image_sides((None, 28, 32, 3), "A patch")
        (28, 32)
    """
    if len(shape) != 4 or shape[1] is None or shape[2] is None:
        raise ValueError(
            f"{method} needs images: got inputs of shape {tuple(shape)[1:]}, expected "
            "(height, width, channels) of a fixed size. Add the channel axis to grey "
            "images; for other data use a method without it, such as MIFGSM."
        )
    return int(shape[1]), int(shape[2])
