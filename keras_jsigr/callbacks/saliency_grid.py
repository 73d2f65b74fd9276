"""Watch what a model looks at while it trains."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_jsigr.attacks.base import check_model
from keras_jsigr.attacks.pgd import PGD
from keras_jsigr.callbacks.penalty_monitor import shares_of_epoch
from keras_jsigr.callbacks.robust_accuracy import with_range_of
from keras_jsigr.callbacks.saliency_figure import (
    Measurement,
    Measurer,
    check_plots,
    check_probe,
    draw_grid,
)
from keras_jsigr.core import arguments
from keras_jsigr.core.files import write_whole
from keras_jsigr.core.scores import SCORES, ScoreName, check_class_names
from keras_jsigr.model import JSIGRModel
from keras_jsigr.penalties.settings import PenaltySettings

if TYPE_CHECKING:
    from PIL.Image import Image


WIDTH, FRAMES, COLORS = 800, 50, 128


_MILLISECONDS, _LAST_MILLISECONDS = 700, 2500


class Animation:
    """Write pictures on disk as one animated GIF, again whenever one is added."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._small: dict[Path, Image] = {}

    def write(self, frames: Sequence[Path]) -> None:
        """Write the film anew, whole or not at all."""
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


Freq = Literal["epoch", "batch"]


Scalars = Mapping[str, float]


_UNITS: dict[Freq, tuple[str, int]] = {"epoch": ("epoch", 4), "batch": ("step", 7)}


class Record:
    """Write the grids of one training, or of its continuation, to a folder."""

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
        """Write a grid."""
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


FOLDER = "saliency"


class SaliencyGrid(keras.callbacks.Callback):
    """Draw the saliency maps of a few fixed images every few epochs or steps.

    A row for every image, with the columns: image, gradient map, perturbation map,
    gradient over image, adversarial image, its gradient map, and figures: `agreement`
    (rank correlation of gradient and perturbation map), `stability` (share of the top
    tenth of pixels that both gradient maps have in common), `sparsity` (Gini index) and
    `||J||` (Frobenius norm of the Jacobian of the logits, per unit of the range).

    Written to `<log_dir>/saliency`: `grid-epoch-0003.png` for every grid, `grid.gif` of
    all of them, and TensorBoard events (`saliency/...` and `penalty_share/...`).
    Number 0 is the model before its first epoch. A resumed training (`initial_epoch`,
    `BackupAndRestore`) goes on with number, file and film; give another training
    another `log_dir`.

    Works with hardened models and any Keras classifier of one image input. Only these
    few images are looked at, with functions compiled once, in inference mode and
    outside of any replica: training takes the same steps with it and without. Under a
    distribution strategy only the chief draws. Without `freq="batch"` Keras' loop over
    the batches does not know of this callback.

    Args:
        x: Images `(N, H, W)` or `(N, H, W, C)`, N up to 32, as `fit` receives them.
        y: Labels `(N,)` or one-hot; `None` explains and attacks the model's own
            decisions.
        log_dir: The folder that TensorBoard is started with.
        every: Epochs, or steps of the optimizer, between grids, >= 1.
        freq: `"epoch"` or `"batch"`. With `steps_per_execution` Keras reports every so
            many steps: the grid is drawn at the first report after it is due.
        epsilon: Radius of the adversarial images in input units, >= 0.
        norm: `"linf"`, `"l2"` or `"l1"`.
        attack_steps: Steps of PGD, >= 1.
        input_range: `(low, high)` of the images; `None`: that of the hardened model, or
            (0, 1).
        class_names: One per class, for the labels of the rows.
        score: What the gradient maps are of: `"margin"`, whose scale is the same for
            sure and unsure decisions, `"log_prob"` or `"logit"`.
        png: Whether to write a PNG file for every grid.
        gif: Whether to write the animated GIF; it is made of the PNG files.
        tensorboard: Whether to write events for TensorBoard.

    Raises:
        ValueError: If a setting is out of range or `x` holds no images; at the start of
            training, if they do not fit the model.
        ImportError: If pillow or matplotlib is not installed.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.callbacks import SaliencyGrid
        >>> SaliencyGrid(np.zeros((8, 28, 28, 1)), log_dir="runs").every
        1
    """

    def __init__(
        self,
        x: Any,
        y: Any = None,
        *,
        log_dir: str | os.PathLike[str] = "runs",
        every: int = 1,
        freq: Freq = "epoch",
        epsilon: float = 0.1,
        norm: str = "linf",
        attack_steps: int = 10,
        input_range: tuple[float, float] | None = None,
        class_names: Sequence[str] | None = None,
        score: ScoreName = "margin",
        png: bool = True,
        gif: bool = True,
        tensorboard: bool = True,
    ) -> None:
        super().__init__()
        arguments.choice("freq", freq, ("epoch", "batch"))
        arguments.choice("score", score, SCORES)
        if gif and not png:
            raise ValueError(
                "The animation is made of the PNG files: got gif=True with png=False. "
                "Use gif=False too, or keep both."
            )
        check_plots()
        self.probe = check_probe(x, y)
        self.folder = Path(log_dir).expanduser() / FOLDER
        self.every = arguments.count("every", every)
        self.freq = freq
        self.attack = PGD(
            epsilon=epsilon,
            norm=norm,
            steps=attack_steps,
            input_range=input_range or (0.0, 1.0),
            verbose=0,
        )
        self._range_given = input_range is not None
        self.class_names = class_names
        self.score = score
        self._record = Record(
            self.folder, freq, png=png, gif=gif, tensorboard=tensorboard
        )
        self._measure: Measurer | None = None
        self._watched: Any = None
        self._last = 0
        if freq == "batch":
            # Not a method of the class: where a callback has one, Keras waits for the
            # results of every batch.
            self.on_train_batch_end = self._after_batch

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Make ready for the model, on the chief."""
        if not self.model.distribute_strategy.extended.should_save_summary:
            self._measure = None
        elif self._watched is not self.model:
            self._measure = self._measurer()
            self._watched = self.model

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Draw the model as it is before the first epoch."""
        self._last = self._steps()
        if epoch == 0 and (self.freq == "epoch" or self._last == 0):
            self._show(0, {})

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Draw the model if its epoch has come."""
        if self.freq == "epoch" and (epoch + 1) % self.every == 0:
            self._show(epoch + 1, logs or {})

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Close the event file."""
        self._record.close()

    def _after_batch(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        before, self._last = self._last, self._steps()
        if self._last // self.every > before // self.every:
            self._show(self._last, logs or {})

    def _steps(self) -> int:
        return int(keras.ops.convert_to_numpy(self.model.optimizer.iterations))

    def _measurer(self) -> Measurer:
        model = self.model
        check_model(model)
        known = model.settings if isinstance(model, JSIGRModel) else PenaltySettings()
        if not self._range_given:
            self.attack = with_range_of(model, self.attack)
        measurer = Measurer(model, self.probe, self.attack, self.score, known)
        if self.class_names is not None:
            check_class_names(self.class_names, measurer.classes)
        return measurer

    def _show(self, number: int, logs: dict[str, Any]) -> None:
        if self._measure is None:
            return
        seen = self._measure()
        self._record.add(number, self._picture(seen, number), self._scalars(seen, logs))

    def _picture(self, seen: Measurement, number: int) -> Any:
        attack = self.attack
        unit = "epoch" if self.freq == "epoch" else "step"
        return draw_grid(
            seen,
            title=f"{unit} {number} of {self.model.name}",
            attack=f"PGD-{attack.steps}, {attack.norm}, epsilon {attack.epsilon:g}",
            input_range=attack.input_range,
            class_names=self.class_names,
        )

    def _scalars(self, seen: Measurement, logs: dict[str, Any]) -> dict[str, float]:
        scalars = {f"saliency/{name}": value for name, value in seen.means().items()}
        if isinstance(self.model, JSIGRModel):
            shares = shares_of_epoch(self.model, logs)
            scalars |= {f"penalty_share/{name}": v for name, v in shares.items()}
        return scalars
