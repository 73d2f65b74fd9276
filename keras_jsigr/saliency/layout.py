"""What the axes of an example mean: the plane that a saliency map lives on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

Layout = Literal["image", "sequence", "features"]
_RANKS: dict[str, tuple[int, ...]] = {
    "image": (2, 3),
    "sequence": (1, 2),
    "features": (1,),
}
_BY_RANK: dict[int, Layout] = {1: "features", 2: "sequence", 3: "image"}


def resolve_layout(
    input_shape: Sequence[int | None], layout: Layout | None = None
) -> Layout:
    """Decide what the axes of an example stand for.

    Without `layout` the rank decides: `(D,)` features, `(T, D)` a sequence, `(H, W, C)`
    an image. Say `layout="image"` for grey images `(H, W)` without a channel axis.

    Args:
        input_shape: Shape of one example, without the batch axis.
        layout: `"image"`, `"sequence"`, `"features"`, or `None` to go by the rank.

    Returns:
        The layout.

    Raises:
        ValueError: If the rank fits no layout, or an axis has no fixed length.

    Example:
        >>> from keras_jsigr.saliency.layout import resolve_layout
        >>> resolve_layout((28, 28, 1)), resolve_layout((13,))
        ('image', 'features')
    """
    shape = tuple(input_shape)
    if not all(isinstance(n, int) and n > 0 for n in shape):
        raise ValueError(
            f"Got input shape {shape}, expected fixed positive lengths without the "
            "batch axis. Give the shape of the data, for example `x.shape[1:]`."
        )
    if layout is None and len(shape) in _BY_RANK:
        return _BY_RANK[len(shape)]
    if layout is not None and len(shape) in _RANKS.get(layout, ()):
        return layout
    raise ValueError(
        f"Got layout {layout!r} for input shape {shape}, expected (D,) 'features', "
        "(T, D) 'sequence' or (H, W[, C]) 'image'. Reshape the data or name the layout."
    )


def map_axes(layout: Layout) -> int:
    """Count the axes of an example that its saliency map keeps.

    Args:
        layout: A layout.

    Returns:
        2 for images, else 1. A further axis of the data is the channel axis.

    Example:
        >>> from keras_jsigr.saliency.layout import map_axes
        >>> map_axes("image")
        2
    """
    return 2 if layout == "image" else 1
