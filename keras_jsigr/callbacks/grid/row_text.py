"""What is written beside the pictures of a row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras_jsigr.callbacks.grid.lettering import Lettering
from keras_jsigr.callbacks.grid.measurement import Measurement
from keras_jsigr.core.palette import COLORS

INK, MUTED, ALARM = (COLORS["light"][name] for name in ("ink", "muted", "alarm"))
WORDS = {
    "agreement": "agreement",
    "stability": "stability",
    "sparsity": "sparsity",
    "jacobian_norm": "Jacobian norm",
}
LINE = 19


def write_labels(
    write: Lettering,
    seen: Measurement,
    row: int,
    place: tuple[float, float],
    width: float,
    class_names: Sequence[str] | None,
) -> None:
    """Write the class of an image, and what the model says without and under attack.

    A mark tells right from wrong for those who see no colours.

    Args:
        write: On the picture.
        seen: What was seen of the model.
        row: Number of the image.
        place: Left edge and middle of the text.
        width: Most pixels of a line.
        class_names: One per class; `None` numbers them.

    Example:
        See `keras_jsigr.callbacks.SaliencyGrid`.
    """

    def name(index: int) -> str:
        return f"class {index}" if class_names is None else class_names[index]

    left, middle = place
    label = int(seen.labels[row])
    top = middle - 48
    write((left, top), name(label), INK, width=width, bold=True)
    for word, probabilities in (
        ("image", seen.probabilities[row]),
        ("adversarial", seen.probabilities_adv[row]),
    ):
        said = int(probabilities.argmax())
        color, mark = (INK, "✓") if said == label else (ALARM, "✗")
        share = f"{word}: {100.0 * probabilities[said]:.0f} %"
        write((left, top + 24), share, MUTED, width=width, size=11)
        top += 15
        write((left, top + 24), f"{mark} {name(said)}", color, width=width, size=12)
        top += 22


def write_figures(
    write: Lettering,
    figures: dict[str, Any],
    place: tuple[float, float],
    width: float,
) -> None:
    """Write the figures of an image below each other.

    Args:
        write: On the picture.
        figures: Numbers by name.
        place: Left edge and middle of the text.
        width: Most pixels of a line.

    Example:
        See `keras_jsigr.callbacks.SaliencyGrid`.
    """
    left, middle = place
    top = middle - LINE * len(figures) / 2
    for name, value in figures.items():
        write((left, top), WORDS[name], MUTED, width=width - 52, size=12)
        right = (left + width, top)
        write(right, decimal(float(value)), INK, width=50, size=12, anchor="ra")
        top += LINE


def decimal(value: float) -> str:
    """Write a figure in at most five characters or so.

    Args:
        value: Any.

    Returns:
        The text: two digits after the point, or two or three significant ones.

    Example:
        >>> from keras_jsigr.callbacks.grid.row_text import decimal
        >>> decimal(0.4), decimal(123.4), decimal(0.00012)
        ('0.40', '123', '0.00012')
    """
    if value != 0 and abs(value) < 0.01:
        return f"{value:.2g}"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.3g}"
