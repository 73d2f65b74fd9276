"""Draw what a model looks at while it trains: PNG files, a film, TensorBoard."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_jsigr.attacks.base import check_model
from keras_jsigr.attacks.pgd import PGD
from keras_jsigr.callbacks.penalty_monitor import shares_of_epoch
from keras_jsigr.callbacks.robust_accuracy import check_one_input
from keras_jsigr.config import LiveMaps
from keras_jsigr.core import arguments
from keras_jsigr.core.batching import BatchedExplainer, CompiledCache, predict_logits
from keras_jsigr.core.files import local_path, write_whole
from keras_jsigr.core.logits import (
    as_logits,
    is_hardened,
    known_epsilon,
    known_input_range,
)
from keras_jsigr.core.scores import (
    SCORES,
    ScoreName,
    check_class_names,
    predicted_targets,
    target_rows,
)
from keras_jsigr.penalties.base import Linearization, per_example_sum, safe_sqrt
from keras_jsigr.penalties.jacobian import exact, projected
from keras_jsigr.saliency.base import decision_of
from keras_jsigr.saliency.gradients import gradient_explainer
from keras_jsigr.saliency.masks import make_mask_bank
from keras_jsigr.saliency.metrics.similarity import rank_correlation, top_k_intersection
from keras_jsigr.saliency.metrics.stability import gini
from keras_jsigr.saliency.perturbation import perturbation_explainer
from keras_jsigr.saliency.plot import (
    MUTED,
    Column,
    Line,
    RowLabel,
    check_images,
    check_plots,
    color_top,
    draw_table,
    overlay_map,
    scale_note,
    short_number,
    to_colors,
    to_pixels,
    to_rgb,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

Array = npt.NDArray[Any]
Freq = Literal["epoch", "batch"]
FOLDER = "saliency"
UNITS: dict[Freq, tuple[str, int]] = {"epoch": ("epoch", 4), "batch": ("step", 7)}
TOP_PIXELS = 0.1
# The Jacobian norm is computed exactly up to so many classes, else estimated.
EXACT_CLASSES, PROJECTIONS = 16, 16
FILM_WIDTH, FILM_FRAMES, FILM_COLORS = 800, 50, 128
FRAME_MILLISECONDS, LAST_FRAME_MILLISECONDS = 700, 2500
LEGEND = (
    "agreement: rank correlation of gradient and perturbation map.  stability: share "
    "of the top tenth of pixels that both gradient maps have in common.",
    "sparsity: Gini index of the gradient map.  Jacobian norm: Frobenius norm, of the "
    "logits, per unit of the input range.  Brighter: more salient.",
)


class SaliencyGrid(keras.callbacks.Callback):
    """Draw the saliency maps of a few fixed images every few epochs or steps.

    A row for every image, with the columns: image, gradient map, perturbation map,
    gradient over image, adversarial image, its gradient map, and figures: `agreement`
    (rank correlation of gradient and perturbation map), `stability` (share of the top
    tenth of pixels that both gradient maps share), `sparsity` (Gini index) and `||J||`
    (Frobenius norm of the Jacobian of the logits, per unit of the range).

    Written to `<log_dir>/saliency`: `grid-epoch-0003.png` for every grid, `grid.gif` of
    all of them, and TensorBoard events (`saliency/...` and `penalty_share/...`).
    Number 0 is the model before its first epoch. A resumed training (`initial_epoch`,
    `BackupAndRestore`) goes on with number, file and film; give another training
    another `log_dir`.

    Works with hardened models and any Keras classifier of one image input. It runs the
    model on these few images only, in inference mode, with functions compiled once:
    training takes the same steps with it and without. Under a distribution strategy
    only the chief draws.

    Args:
        x: Images `(N, H, W)` or `(N, H, W, C)`, N up to 32, as `fit` receives them.
        y: Labels `(N,)` or one-hot; `None` explains and attacks the model's own
            decisions.
        log_dir: The folder that TensorBoard is started with.
        every: Epochs, or steps of the optimizer, between grids, >= 1.
        freq: `"epoch"` or `"batch"`. With `steps_per_execution` Keras reports every so
            many steps: the grid is drawn at the first report after it is due.
        epsilon: As `RobustAccuracy`, of the adversarial images; for a model that is not
            hardened `None` is 8/255 of the range's width, for `"linf"`.
        norm: As `RobustAccuracy`.
        attack_steps: Steps of PGD, >= 1.
        input_range: As `RobustAccuracy`.
        class_names: One per class, for the labels of the rows.
        score: What the gradient maps are of: `"margin"` (same scale for sure and unsure
            decisions), `"log_prob"` or `"logit"`.
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
        epsilon: float | None = None,
        norm: Any = "linf",
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
        check_one_input("SaliencyGrid", x, y)
        self.x, self.y = check_images(x, y)
        self.folder = local_path(log_dir) / FOLDER
        self.every = arguments.count("every", every)
        self.freq = freq
        self.attack = PGD(
            epsilon, norm=norm, steps=attack_steps, input_range=input_range, verbose=0
        )
        self._given = self.attack
        self.class_names = class_names
        self.score = score
        written = {"png": png, "gif": gif, "tensorboard": tensorboard}
        self._record = Record(self.folder, freq, **written)
        self._measure: Measurer | None = None
        self._watched: Any = None
        self._last = 0
        if freq == "batch":
            # Set on the object: a method of the class would make Keras wait for the
            # results of every batch, with freq="epoch" too.
            self.on_train_batch_end = self._after_batch

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Compile the functions that look at the model, on the chief only."""
        if not self.model.distribute_strategy.extended.should_save_summary:
            self._measure = None
        elif self._watched is not self.model:
            self._measure, self._watched = self._measurer(), self.model

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Draw the model as it is before the first epoch."""
        self._last = self._steps()
        if epoch == 0 and (self.freq == "epoch" or self._last == 0):
            self._show(0, {})

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Draw the model every `every` epochs."""
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
        model, attack = self.model, self._given
        check_model(model)
        self._range = attack.input_range or known_input_range(model) or (0.0, 1.0)
        known = attack.norm != "linf" or known_epsilon(model) is not None
        if attack.epsilon is None and not known:
            attack = attack.at(8 / 255 * (self._range[1] - self._range[0]))
        self.attack = attack.for_model(model)
        measurer = Measurer(model, self.x, self.y, self.attack, self.score, self._range)
        if self.class_names is not None:
            check_class_names(self.class_names, measurer.classes)
        return measurer

    def _show(self, number: int, logs: dict[str, Any]) -> None:
        if self._measure is None:
            return
        seen = self._measure()
        figure = draw_measurement(
            seen,
            title=f"{UNITS[self.freq][0]} {number} of {self.model.name}",
            note=f"adversarial images: PGD-{self.attack.steps}, {self.attack.norm}, "
            f"epsilon {self.attack.epsilon:.3g}",
            input_range=self._range,
            class_names=self.class_names,
        )
        scalars = {f"saliency/{name}": value for name, value in seen.means().items()}
        if is_hardened(self.model):
            shares = shares_of_epoch(self.model, logs)
            scalars |= {f"penalty_share/{name}": v for name, v in shares.items()}
        self._record.add(number, to_pixels(figure), scalars)


@dataclass(frozen=True)
class Measurement:
    """What a model shows on the images, a row for each."""

    x: Array
    x_adv: Array
    labels: Array
    probabilities: Array
    probabilities_adv: Array
    gradient: Array
    gradient_adv: Array
    perturbation: Array
    figures: dict[str, Array]

    def means(self) -> dict[str, float]:
        """Return the mean of every figure over the images."""
        return {name: float(np.mean(values)) for name, values in self.figures.items()}


class Measurer:
    """Measure a model on fixed images, with functions that are compiled once."""

    def __init__(
        self,
        model: Any,
        x: Array,
        y: Array | None,
        attack: PGD,
        score: ScoreName,
        input_range: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        self._model, self._attack, self._x = model, attack, x
        self._programs = CompiledCache()
        self.classes = int(self._logits(x).shape[-1])
        few = x[:16]
        self._independent = decision_of(model, few).kind == "sigmoid"
        rows = None if y is None else target_rows(y, len(x), self.classes)
        self._rows = None if rows is None else np.asarray(rows)
        low, high = input_range
        self._gradient = gradient_explainer(model, few, score=score, layout="image")
        maps = model.config.live_maps if is_hardened(model) else LiveMaps()
        cells = tuple(np.minimum(maps.grid, x.shape[1:3]).tolist())
        self._perturbation = perturbation_explainer(
            model,
            few,
            make_mask_bank(x.shape[1:], cells, layout="image"),
            baseline=maps.baseline,
            score=maps.score,
        )
        self._jacobian_norm = jacobian_norm_explainer(model, few, unit=high - low)

    def __call__(self) -> Measurement:
        """Measure the model with its present weights."""
        x, logits = self._x, self._logits(self._x)
        labels = (logits if self._rows is None else self._rows).argmax(-1)
        x_adv = self._attack(self._model, x, labels)
        # With independent classes the maps are of the decisions on all of them.
        targets = self._rows if self._independent else labels
        if targets is None:
            targets = predicted_targets(tf.constant(logits), "sigmoid").numpy()
        gradient, gradient_adv = (self._gradient(z, targets) for z in (x, x_adv))
        perturbation = self._perturbation(x, targets)
        figures = {
            "agreement": rank_correlation(gradient, perturbation),
            "stability": top_k_intersection(gradient, gradient_adv, top=TOP_PIXELS),
            "sparsity": gini(gradient),
            "jacobian_norm": self._jacobian_norm(x),
        }
        return Measurement(
            x=x,
            x_adv=x_adv,
            labels=labels,
            probabilities=self._probabilities(logits),
            probabilities_adv=self._probabilities(self._logits(x_adv)),
            gradient=gradient,
            gradient_adv=gradient_adv,
            perturbation=perturbation,
            figures={name: np.asarray(values) for name, values in figures.items()},
        )

    def _probabilities(self, logits: Array) -> Array:
        activate = tf.sigmoid if self._independent else tf.nn.softmax
        return np.asarray(activate(logits))

    def _logits(self, x: Array) -> Array:
        return predict_logits(self._model, x, programs=self._programs)


def draw_measurement(
    seen: Measurement,
    *,
    title: str,
    note: str,
    input_range: tuple[float, float],
    class_names: Sequence[str] | None = None,
) -> Figure:
    """Draw a measurement as a figure, with one scale for all gradient maps."""
    images, images_adv = (to_rgb(x, input_range) for x in (seen.x, seen.x_adv))
    top = color_top(seen.gradient)
    scale = scale_note(top)
    overlays = [
        overlay_map(image, values, top) for image, values in zip(images, seen.gradient, strict=True)
    ]
    columns = [
        Column("image", "", list(images)),
        Column("gradient map", scale, list(to_colors(seen.gradient, top))),
        Column("perturbation", "0 to maximum", list(to_colors(seen.perturbation, 1.0))),
        Column("overlay", "gradient map", overlays),
        Column("adversarial", "", list(images_adv)),
        Column("its gradient", scale, list(to_colors(seen.gradient_adv, top))),
    ]
    rows = range(len(seen.x))
    predictions = {"image": seen.probabilities, "adversarial": seen.probabilities_adv}
    labels = [
        RowLabel(int(seen.labels[row]), {word: p[row] for word, p in predictions.items()}).lines(
            class_names
        )
        for row in rows
    ]
    names = {name: name.replace("jacobian_", "Jacobian ") for name in seen.figures}
    values = [{names[k]: found[row] for k, found in seen.figures.items()} for row in rows]
    means = [f"{names[k]} {short_number(mean)}" for k, mean in seen.means().items()]
    foot = [Line(f"Mean: {',  '.join(means)}", 12, bold=True)]
    foot += [Line(text, 11, MUTED) for text in LEGEND]
    return draw_table(columns, labels, values, title=title, note=note, foot=foot)


def jacobian_norm_explainer(
    model: Any, probe: Any, *, unit: float = 1.0, seed: int = 0, batch_size: int = 128
) -> BatchedExplainer:
    """Compile `||J||_F`, to call it again and again as `f(x)`."""
    logits_fn = as_logits(model, probe)

    def norm(x: tf.Tensor, y: tf.Tensor | None) -> tf.Tensor:
        del y
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            tape.watch(x)
            logits = logits_fn(x)
        linearization = Linearization([x], logits, tape, unit)
        if logits.shape[-1] <= EXACT_CLASSES:
            return safe_sqrt(per_example_sum(exact(linearization)))
        draws = [
            per_example_sum(projected(linearization, tf.constant([seed, k])))
            for k in range(PROJECTIONS)
        ]
        return safe_sqrt(tf.add_n(draws) / PROJECTIONS)

    return BatchedExplainer(norm, batch_size)


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
        self._unit, self._digits = UNITS[freq]
        self._png, self._gif, self._tensorboard = png, gif, tensorboard
        self._film = Film(folder / "grid.gif")
        self._writer: Any = None

    def add(
        self,
        number: int,
        picture: npt.NDArray[np.uint8],
        scalars: Mapping[str, float],
    ) -> None:
        """Write a grid."""
        from PIL import Image

        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "PNG")
        png = buffer.getvalue()
        if self._png:
            name = f"grid-{self._unit}-{number:0{self._digits}d}.png"
            write_whole(self._folder / name, png)
        if self._gif:
            self._film.write(self._frames(number))
        if not self._tensorboard:
            return
        if self._writer is None:
            self._writer = tf.summary.create_file_writer(str(self._folder))
        height, width = (str(side).encode() for side in picture.shape[:2])
        values = {tag: tf.constant(x, tf.float32) for tag, x in scalars.items()}
        # `tf.summary.image` and `scalar` would need the package tensorboard, and the
        # user may have switched recording off for summaries of their own.
        with self._writer.as_default(step=number), tf.summary.record_if(True):
            image, kind = tf.constant([width, height, png]), _metadata("images", 3)
            tf.summary.write("saliency/grid", image, metadata=kind)
            for tag, value in values.items():
                tf.summary.write(tag, value, metadata=_metadata("scalars", 1))
        self._writer.flush()

    def close(self) -> None:
        """Close the event file; a later grid opens a new one."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _frames(self, newest: int) -> list[Path]:
        # Files with higher numbers were left by an earlier or interrupted training.
        found = {
            int(match[1]): path
            for path in self._folder.iterdir()
            if (match := re.fullmatch(rf"grid-{self._unit}-(\d+)\.png", path.name))
        }
        return [found[number] for number in sorted(found) if number <= newest]


def _metadata(plugin: str, data_class: int) -> Any:
    return tf.compat.v1.SummaryMetadata(plugin_data={"plugin_name": plugin}, data_class=data_class)


class Film:
    """Write PNG files as one animated GIF, anew whenever one is added."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._small: dict[Path, Image] = {}

    def write(self, frames: Sequence[Path]) -> None:
        """Write the film, whole or not at all; long ones are thinned out."""
        count = min(len(frames), FILM_FRAMES)
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
            duration=[FRAME_MILLISECONDS] * len(others) + [LAST_FRAME_MILLISECONDS],
            loop=0,
            optimize=False,
        )
        write_whole(self._path, buffer.getvalue())


def _small(path: Path) -> Image:
    from PIL import Image

    with Image.open(path) as picture:
        width = min(FILM_WIDTH, picture.width)
        size = (width, round(picture.height * width / picture.width))
        small = picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    method, dither = Image.Quantize.FASTOCTREE, Image.Dither.NONE
    return small.quantize(FILM_COLORS, method=method, dither=dither)
