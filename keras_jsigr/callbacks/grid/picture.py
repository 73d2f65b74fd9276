"""The picture of a grid: a row for every image, a column for every view of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_jsigr.callbacks.grid.columns import make_columns
from keras_jsigr.callbacks.grid.lettering import Lettering, check_plots
from keras_jsigr.callbacks.grid.measurement import Measurement
from keras_jsigr.callbacks.grid.row_text import (
    INK,
    MUTED,
    WORDS,
    decimal,
    write_figures,
    write_labels,
)
from keras_jsigr.core.palette import COLORS

GROUND, RULE = COLORS["light"]["surface"], COLORS["light"]["rule"]
# In pixels: the margin, the gap between cells, the columns of text, the least width and
# height of a cell so that heading and labels fit, and the text above and below.
MARGIN, GAP, LABELS, FIGURES = 16, 10, 140, 140
NARROWEST, SHORTEST, HEAD, FOOT = 112, 104, 84, 64
LEGEND = (
    "agreement: rank correlation of gradient and perturbation map.  stability: share "
    "of the top tenth of pixels that both gradient maps have in common.",
    "sparsity: Gini index of the gradient map.  Jacobian norm: Frobenius, of the "
    "logits, per unit of the input range.  Brighter: more salient.",
)


def draw_grid(
    seen: Measurement,
    *,
    title: str,
    attack: str,
    input_range: tuple[float, float],
    class_names: Sequence[str] | None = None,
) -> npt.NDArray[np.uint8]:
    """Draw a look at a model; see `make_columns` for the scales of the colours.

    Args:
        seen: What was seen.
        title: The first line.
        attack: What made the adversarial images, in words.
        input_range: `(low, high)` of the images.
        class_names: One per class; `None` numbers them.

    Returns:
        Uint8 `(height, width, 3)`.

    Raises:
        ImportError: If pillow or matplotlib is not installed.

    Example:
        See `keras_jsigr.callbacks.SaliencyGrid`.
    """
    check_plots()
    from PIL import Image, ImageDraw

    columns = make_columns(seen, input_range)
    width = max(NARROWEST, *(image.width for c in columns for image in c.images))
    height = max(SHORTEST, *(image.height for c in columns for image in c.images))
    step = height + GAP
    lefts = [MARGIN + LABELS + GAP + k * (width + GAP) for k in range(len(columns) + 1)]
    right = lefts[-1] + GAP + FIGURES
    size = (right + MARGIN, HEAD + len(seen.x) * step + FOOT)
    canvas = Image.new("RGB", size, GROUND)
    draw = ImageDraw.Draw(canvas)
    write = Lettering(draw)
    _write_head(write, title, f"adversarial images: {attack}", right)
    for left, column in zip(lefts, columns, strict=False):
        middle = left + width / 2
        write((middle, 46), column.title, INK, width=width, bold=True, anchor="ma")
        write((middle, 64), column.note, MUTED, width=width, size=11, anchor="ma")
        for row, image in enumerate(column.images):
            top = HEAD + row * step + (height - image.height) // 2
            canvas.paste(image, (left + (width - image.width) // 2, top))
    for row in range(len(seen.x)):
        middle = HEAD + row * step + height / 2
        if row:
            y = HEAD + row * step - GAP // 2
            draw.line([(MARGIN, y), (right, y)], fill=RULE)
        write_labels(write, seen, row, (MARGIN, middle), LABELS, class_names)
        figures = {name: values[row] for name, values in seen.figures.items()}
        write_figures(write, figures, (lefts[-1] + GAP, middle), FIGURES)
    _write_foot(write, seen.means(), size[1] - FOOT + 6, right - MARGIN)
    return np.asarray(canvas)


def _write_head(write: Lettering, title: str, note: str, right: float) -> None:
    half = (right - MARGIN) / 2
    write((MARGIN, 12), title, INK, width=half, size=16, bold=True)
    write((right, 15), note, MUTED, width=half, size=12, anchor="ra")


def _write_foot(
    write: Lettering, means: dict[str, Any], top: float, width: float
) -> None:
    text = ",  ".join(f"{WORDS[name]} {decimal(v)}" for name, v in means.items())
    write((MARGIN, top), f"Mean: {text}", INK, width=width, size=12, bold=True)
    for line, text in enumerate(LEGEND, 1):
        write((MARGIN, top + 4 + 16 * line), text, MUTED, width=width, size=11)
