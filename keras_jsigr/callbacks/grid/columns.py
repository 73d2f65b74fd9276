"""The columns of pictures in a grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from keras_jsigr.callbacks.grid import cells
from keras_jsigr.callbacks.grid.measurement import Measurement
from keras_jsigr.callbacks.grid.row_text import decimal

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Column:
    """A column of pictures.

    Attributes:
        title: Its heading.
        note: What its colours mean.
        images: One for every row.
    """

    title: str
    note: str
    images: list[Image]


def make_columns(seen: Measurement, input_range: tuple[float, float]) -> list[Column]:
    """Colour what was seen of a model.

    Both columns of gradient maps, and the overlay, share one scale: from zero to the
    number in their headings, the top of the maps at the images. So rows can be compared
    by brightness, and images with their adversarial twins. Perturbation maps go from
    zero to the maximum of each map.

    Args:
        seen: What was seen.
        input_range: `(low, high)` of the images.

    Returns:
        Six columns.

    Example:
        See `keras_jsigr.callbacks.SaliencyGrid`.
    """
    image, image_adv = (cells.rgb(x, input_range) for x in (seen.x, seen.x_adv))
    top = cells.column_top(seen.gradient)
    scale = f"0 to {decimal(top)}"
    views = [
        ("image", "", image),
        ("gradient map", scale, cells.heat(cells.shares(seen.gradient, top))),
        ("perturbation", "0 to maximum", cells.heat(seen.perturbation)),
        ("overlay", "gradient map", cells.overlay(image, seen.gradient, top)),
        ("adversarial", "", image_adv),
        ("its gradient", scale, cells.heat(cells.shares(seen.gradient_adv, top))),
    ]
    return [
        Column(title, note, [cells.cell(colors) for colors in pictures])
        for title, note, pictures in views
    ]
