"""Where grids are kept: pictures, a film, and TensorBoard's event files."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_jsigr.callbacks.grid.animation import Animation
from keras_jsigr.core.write_whole import write_whole

Freq = Literal["epoch", "batch"]
Scalars = Mapping[str, float]
_UNITS: dict[Freq, tuple[str, int]] = {"epoch": ("epoch", 4), "batch": ("step", 7)}


class Record:
    """Write the grids of one training, or of its continuation, to a folder.

    `grid-epoch-0003.png` or `grid-step-0000300.png` for every grid, `grid.gif` of all
    up to the newest, and TensorBoard's events with the same numbers.

    Args:
        folder: Made when the first grid is written.
        freq: `"epoch"` or `"batch"`: what the numbers count.
        png: Whether to write PNG files.
        gif: Whether to write the film; it is made of the PNG files.
        tensorboard: Whether to write events.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from keras_jsigr.callbacks.grid.record import Record
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     record = Record(Path(folder), "epoch", tensorboard=False)
        ...     record.add(1, np.zeros((4, 4, 3), np.uint8), {})
        ...     sorted(path.name for path in Path(folder).iterdir())
        ['grid-epoch-0001.png', 'grid.gif']
    """

    def __init__(
        self,
        folder: Path,
        freq: Freq,
        *,
        png: bool = True,
        gif: bool = True,
        tensorboard: bool = True,
    ) -> None:
        self._folder = folder
        self._unit, self._digits = _UNITS[freq]
        self._png, self._gif, self._tensorboard = png, gif, tensorboard
        self._animation = Animation(folder / "grid.gif")
        self._writer: Any = None

    def add(
        self,
        number: int,
        picture: npt.NDArray[np.uint8],
        scalars: Scalars,
    ) -> None:
        """Write a grid.

        Args:
            number: Of the epoch or step.
            picture: Uint8 `(height, width, 3)`.
            scalars: Figures for TensorBoard, by their tags.
        """
        png = _encoded(picture)
        if self._png:
            name = f"grid-{self._unit}-{number:0{self._digits}d}.png"
            write_whole(self._folder / name, png)
        if self._gif:
            self._animation.write(self._frames(number))
        if self._tensorboard:
            self._write_events(number, png, picture.shape[:2], scalars)

    def close(self) -> None:
        """Close the event file; the next grid opens another."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _frames(self, newest: int) -> list[Path]:
        # Later ones are of an earlier training in this folder, or of epochs that an
        # interrupted training did not finish.
        found = {
            int(match[1]): path
            for path in self._folder.iterdir()
            if (match := re.fullmatch(rf"grid-{self._unit}-(\d+)\.png", path.name))
        }
        return [found[number] for number in sorted(found) if number <= newest]

    def _write_events(
        self, number: int, png: bytes, size: tuple[int, ...], scalars: Scalars
    ) -> None:
        if self._writer is None:
            self._writer = tf.summary.create_file_writer(str(self._folder))
        height, width = size
        picture = tf.constant([str(width).encode(), str(height).encode(), png])
        # Not `tf.summary.image` and `scalar`: those need TensorBoard, the viewer. And
        # `record_if`: a user's own default must not silence this record.
        with self._writer.as_default(step=number), tf.summary.record_if(True):
            tf.summary.write("saliency/grid", picture, metadata=_metadata("images", 3))
            for tag, value in scalars.items():
                value = tf.constant(value, tf.float32)
                tf.summary.write(tag, value, metadata=_metadata("scalars", 1))
        self._writer.flush()


def _metadata(plugin: str, data_class: int) -> Any:
    metadata = tf.compat.v1.SummaryMetadata()
    metadata.plugin_data.plugin_name = plugin
    metadata.data_class = data_class
    return metadata


def _encoded(picture: npt.NDArray[np.uint8]) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()
