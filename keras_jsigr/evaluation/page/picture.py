"""Pictures that a report carries, checked before a page shows them."""

from __future__ import annotations

import base64
import binascii
from typing import NamedTuple

_SIGNATURE = b"\x89PNG\r\n\x1a\n"


class Picture(NamedTuple):
    """Hold a PNG file and its size.

    Attributes:
        data: The file in base64, nothing else.
        width: In pixels.
        height: In pixels.
    """

    data: str
    width: int
    height: int


def picture(data: str) -> Picture | None:
    """Read the size of a PNG file in base64.

    Args:
        data: Of a report, which may have been edited or damaged.

    Returns:
        The picture, or None if it is no PNG file.

    Example:
        >>> from keras_jsigr.evaluation.page.picture import picture
        >>> picture("javascript:alert(1)") is None
        True
    """
    try:
        start = base64.b64decode(data, validate=True)[:24]
    except (binascii.Error, ValueError):
        return None
    if not start.startswith(_SIGNATURE) or len(start) < 24:
        return None
    width, height = (int.from_bytes(start[i : i + 4], "big") for i in (16, 20))
    return Picture(data, width, height)
