"""The grids of a training as a film."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from keras_jsigr.core.write_whole import write_whole

if TYPE_CHECKING:
    from PIL.Image import Image

WIDTH, FRAMES, COLORS = 800, 50, 128
_MILLISECONDS, _LAST_MILLISECONDS = 700, 2500


class Animation:
    """Write pictures on disk as one animated GIF, again whenever one is added.

    Frames are read from their files, so that a resumed training goes on with the film
    of the interrupted one, and kept in memory, so that each is read once. Of more than
    50 an even choice is shown, the first and the last included: what the film costs
    stays bounded.

    Args:
        path: Where to.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> from keras_jsigr.callbacks.grid.animation import Animation
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     files = [Path(folder, f"{i}.png") for i in range(3)]
        ...     for i, file in enumerate(files):
        ...         Image.new("RGB", (4, 4), (90 * i, 0, 0)).save(file)
        ...     Animation(Path(folder, "film.gif")).write(files)
        ...     with Image.open(Path(folder, "film.gif")) as film:
        ...         film.n_frames
        3
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._small: dict[Path, Image] = {}

    def write(self, frames: Sequence[Path]) -> None:
        """Write the film anew, whole or not at all.

        Args:
            frames: PNG files in their order, at least one. The last one is read again:
                it may have been drawn anew.
        """
        count = min(len(frames), FRAMES)
        chosen = np.linspace(0, len(frames) - 1, count).round().astype(int)
        paths = [frames[index] for index in chosen]
        self._small.pop(paths[-1], None)
        self._small = {path: self._small.get(path) or _small(path) for path in paths}
        first, *others = self._small.values()
        buffer = io.BytesIO()
        first.save(
            buffer,
            "GIF",
            save_all=True,
            append_images=others,
            duration=[_MILLISECONDS] * len(others) + [_LAST_MILLISECONDS],
            loop=0,
            optimize=False,
        )
        write_whole(self._path, buffer.getvalue())


def _small(path: Path) -> Image:
    from PIL import Image

    with Image.open(path) as picture:
        width = min(WIDTH, picture.width)
        size = (width, round(picture.height * width / picture.width))
        small = picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    method, dither = Image.Quantize.FASTOCTREE, Image.Dither.NONE
    return small.quantize(COLORS, method=method, dither=dither)
