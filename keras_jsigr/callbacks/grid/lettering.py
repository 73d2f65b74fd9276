"""Text on a picture: one font, nothing beyond its width, nothing it cannot draw."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

HINT = "pictures need the packages pillow and matplotlib: pip install pillow matplotlib"


class Lettering:
    """Write on an image of Pillow in the font that comes with matplotlib.

    Args:
        draw: A `PIL.ImageDraw.ImageDraw`.

    Raises:
        ImportError: If pillow or matplotlib is not installed.

    Example:
        >>> from PIL import Image, ImageDraw
        >>> from keras_jsigr.callbacks.grid.lettering import Lettering
        >>> image = Image.new("RGB", (200, 20), "white")
        >>> write = Lettering(ImageDraw.Draw(image))
        >>> write.fitted("a name that is much too long", 60, 12)
        'a name…'
    """

    def __init__(self, draw: Any) -> None:
        check_plots()
        self._draw = draw
        self._fonts: dict[tuple[int, bool], Any] = {}

    def __call__(
        self,
        place: tuple[float, float],
        text: str,
        color: str,
        *,
        width: float,
        size: int = 13,
        bold: bool = False,
        anchor: str = "la",
    ) -> None:
        """Write one line, shortened to its width.

        Args:
            place: Where its anchor is, in pixels.
            text: Any; what the font lacks becomes a question mark.
            color: As `#rrggbb`.
            width: Most pixels it may take.
            size: Of the font, in pixels.
            bold: Whether to write in bold.
            anchor: As in Pillow: `"la"` begins at the place, `"ma"` is centred.
        """
        text = self.fitted(text, width, size, bold)
        font = self._font(size, bold)
        self._draw.text(place, text, fill=color, font=font, anchor=anchor)

    def fitted(self, text: str, width: float, size: int, bold: bool = False) -> str:
        """Return the text as it will be written.

        Args:
            text: Any.
            width: Most pixels it may take.
            size: Of the font, in pixels.
            bold: Whether it is bold.

        Returns:
            One line; an ellipsis where it was cut.
        """
        font = self._font(size, bold)
        text = " ".join(text.split())
        missing = _missing(bold)
        text = "".join("?" if missing(c) else c for c in text)
        if font.getlength(text) <= width:
            return text
        while text and font.getlength(text + "…") > width:
            text = text[:-1]
        return text.rstrip() + "…"

    def _font(self, size: int, bold: bool) -> Any:
        from PIL import ImageFont

        if (size, bold) not in self._fonts:
            font = ImageFont.truetype(str(_font_file(bold)), size)
            self._fonts[size, bold] = font
        return self._fonts[size, bold]


def check_plots() -> None:
    """Check that pictures can be drawn.

    Raises:
        ImportError: If pillow or matplotlib is not installed.

    Example:
        >>> from keras_jsigr.callbacks.grid.lettering import check_plots
        >>> check_plots()
    """
    try:
        for package in ("matplotlib", "PIL.Image"):
            importlib.import_module(package)
    except ImportError as error:
        raise ImportError(f"{error}; {HINT}") from error


def _font_file(bold: bool) -> Path:
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return Path(matplotlib.get_data_path(), "fonts", "ttf", name)


def _missing(bold: bool) -> Any:
    from matplotlib.font_manager import get_font

    font = get_font(str(_font_file(bold)))
    return lambda character: not font.get_char_index(ord(character))
