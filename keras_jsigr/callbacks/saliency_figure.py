"""Images and maps as the coloured cells of a grid."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_jsigr.attacks.base import target_rows
from keras_jsigr.attacks.pgd import PGD
from keras_jsigr.core.batching import BatchedExplainer, CompiledCache, predict_logits
from keras_jsigr.core.logits import as_logits
from keras_jsigr.core.palette import COLORS
from keras_jsigr.core.scores import ScoreName, predicted_targets
from keras_jsigr.penalties.jacobian import (
    Linearization,
    exact,
    per_example_sum,
    projected,
    safe_sqrt,
)
from keras_jsigr.penalties.settings import PenaltySettings
from keras_jsigr.saliency.base import decision_of
from keras_jsigr.saliency.gradients import gradient_explainer
from keras_jsigr.saliency.masks import make_mask_bank
from keras_jsigr.saliency.metrics.similarity import rank_correlation, top_k_intersection
from keras_jsigr.saliency.metrics.stability import gini
from keras_jsigr.saliency.perturbation import perturbation_explainer

if TYPE_CHECKING:
    from PIL.Image import Image


Array = npt.NDArray[Any]


SIDE = 128


# The share of a colour in the overlay where the map is largest.
_OPACITY = 0.85


def rgb(x: Array, input_range: tuple[float, float]) -> Array:
    """Bring images to colours."""
    low, high = input_range
    x = np.clip((np.nan_to_num(x.astype(float)) - low) / (high - low), 0.0, 1.0)
    x = x[..., None] if x.ndim == 3 else x
    if x.shape[-1] != 3:
        x = x.mean(-1, keepdims=True).repeat(3, axis=-1)
    return x


def heat(shares: Array) -> Array:
    """Colour maps: black is zero, pale yellow one."""
    from matplotlib import colormaps

    colors: Array = colormaps["magma"](np.nan_to_num(shares.astype(float)))[..., :3]
    return colors


def shares(maps: Array, top: float) -> Array:
    """Divide maps by the top of their scale and cut them off there."""
    maps = np.nan_to_num(maps.astype(float), posinf=0.0, neginf=0.0)
    divided: Array = maps / top if top > 0.0 else np.zeros_like(maps)
    return divided.clip(0.0, 1.0)


def column_top(maps: Array) -> float:
    """Choose the top of the scale that all maps of a column share."""
    maps = np.nan_to_num(maps.astype(float), posinf=0.0, neginf=0.0)
    return float(np.quantile(maps, 0.99) or maps.max())


def overlay(images: Array, maps: Array, top: float) -> Array:
    """Lay coloured maps over the images in grey."""
    # Darkened, and without the dark end of the colours, so that all of them stand out.
    grey = 0.6 * images.mean(-1, keepdims=True)
    seen = shares(maps, top)
    opacity = _OPACITY * np.sqrt(seen)[..., None]
    mixed: Array = grey * (1.0 - opacity) + heat(0.35 + 0.65 * seen) * opacity
    return mixed


def cell(colors: Array) -> Image:
    """Enlarge or shrink a picture so that its longer side is about 128 pixels."""
    from PIL import Image

    image = Image.fromarray(np.round(colors * 255.0).astype(np.uint8))
    longest = max(image.size)
    if longest <= SIDE:
        times = SIDE // longest
        size = (image.width * times, image.height * times)
        return image.resize(size, Image.Resampling.NEAREST)
    ratio = SIDE / longest
    size = (max(1, round(image.width * ratio)), max(1, round(image.height * ratio)))
    return image.resize(size, Image.Resampling.BOX)


# Up to so many classes all rows are computed, else so many random projections.
EXACT_CLASSES, PROJECTIONS = 16, 16


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


MOST = 32


@dataclass(frozen=True)
class Probe:
    """Hold the examples of a grid."""

    x: npt.NDArray[np.float32]
    y: npt.NDArray[Any] | None


def check_probe(x: Any, y: Any = None) -> Probe:
    """Check the examples of a grid: a few images, and a label for each or none."""
    images = np.asarray(x)
    if images.ndim not in (3, 4) or images.dtype.kind not in "fiub":
        raise ValueError(
            f"A saliency grid shows images: got shape {images.shape} of dtype "
            f"{images.dtype}, expected (N, H, W) or (N, H, W, C) numbers. For tables "
            "and sequences compute `keras_jsigr.gradient_map` in a callback of yours."
        )
    if not 1 <= len(images) <= MOST or 0 in images.shape:
        raise ValueError(
            f"Got {len(images)} images of shape {images.shape[1:]}, expected 1 to "
            f"{MOST}: each is a row of the grid. Pass a slice such as x[:8]."
        )
    images = images.astype(np.float32)
    if not np.isfinite(images).all():
        raise ValueError(
            "The images of the grid contain NaN or infinity, expected finite values. "
            "Find them with np.isfinite(x)."
        )
    labels = None if y is None else np.asarray(y)
    if labels is not None and (labels.ndim == 0 or len(labels) != len(images)):
        raise ValueError(
            f"Got {len(images)} images and labels of shape {labels.shape}, expected "
            "one label per image. Select the same rows of both."
        )
    return Probe(images, labels)


TOP = 0.1


@dataclass(frozen=True)
class Measurement:
    """Hold one look at a model."""

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
    """Look at a model again and again, with functions that are compiled once."""

    def __init__(
        self,
        model: Any,
        probe: Probe,
        attack: PGD,
        score: ScoreName,
        settings: PenaltySettings,
    ) -> None:
        self._model, self._attack, self._x = model, attack, probe.x
        self._programs = CompiledCache()
        self.classes = int(self._logits(probe.x).shape[-1])
        few = probe.x[:16]
        self._independent = decision_of(model, few).kind == "sigmoid"
        self._rows = None
        if probe.y is not None:
            rows = target_rows(probe.y, len(probe.x), self.classes)
            self._rows = np.asarray(rows)
        low, high = attack.input_range
        self._gradient = gradient_explainer(model, few, score=score, layout="image")
        self._perturbation = perturbation_explainer(
            model,
            few,
            make_mask_bank(probe.x.shape[1:], _cells(settings, probe), layout="image"),
            baseline=settings.baseline,
            score=settings.saliency_score,
        )
        self._jacobian_norm = jacobian_norm_explainer(model, few, unit=high - low)

    def __call__(self) -> Measurement:
        """Return what the model shows with its present weights."""
        x, logits = self._x, self._logits(self._x)
        labels = (logits if self._rows is None else self._rows).argmax(-1)
        x_adv = self._attack(self._model, x, labels)
        targets = labels
        if self._independent:  # the maps are of the decisions on all classes
            targets = self._rows
            if targets is None:
                targets = predicted_targets(tf.constant(logits), "sigmoid").numpy()
        gradient, gradient_adv = (
            self._gradient(x, targets),
            self._gradient(x_adv, targets),
        )
        perturbation = self._perturbation(x, targets)
        figures = {
            "agreement": rank_correlation(gradient, perturbation),
            "stability": top_k_intersection(gradient, gradient_adv, top=TOP),
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


def _cells(settings: PenaltySettings, probe: Probe) -> tuple[int, ...]:
    """Return the grid of the settings, or what small images have room for."""
    sides = np.asarray(probe.x.shape[1:3])
    return tuple(np.minimum(settings.grid, sides).tolist())


HINT = "pictures need the packages pillow and matplotlib: pip install pillow matplotlib"


class Lettering:
    """Write on an image of Pillow in the font that comes with matplotlib."""

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
        """Write one line, shortened to its width."""
        text = self.fitted(text, width, size, bold)
        font = self._font(size, bold)
        self._draw.text(place, text, fill=color, font=font, anchor=anchor)

    def fitted(self, text: str, width: float, size: int, bold: bool = False) -> str:
        """Return the text as it will be written."""
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
    """Check that pictures can be drawn."""
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
    """Write the class of an image, and what the model says without and under attack."""

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
    """Write the figures of an image below each other."""
    left, middle = place
    top = middle - LINE * len(figures) / 2
    for name, value in figures.items():
        write((left, top), WORDS[name], MUTED, width=width - 52, size=12)
        right = (left + width, top)
        write(right, decimal(float(value)), INK, width=50, size=12, anchor="ra")
        top += LINE


def decimal(value: float) -> str:
    """Write a figure in at most five characters or so."""
    if value != 0 and abs(value) < 0.01:
        return f"{value:.2g}"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.3g}"


@dataclass(frozen=True)
class Column:
    """A column of pictures."""

    title: str
    note: str
    images: list[Image]


def make_columns(seen: Measurement, input_range: tuple[float, float]) -> list[Column]:
    """Colour what was seen of a model."""
    image, image_adv = (rgb(x, input_range) for x in (seen.x, seen.x_adv))
    top = column_top(seen.gradient)
    scale = f"0 to {decimal(top)}"
    views = [
        ("image", "", image),
        ("gradient map", scale, heat(shares(seen.gradient, top))),
        ("perturbation", "0 to maximum", heat(seen.perturbation)),
        ("overlay", "gradient map", overlay(image, seen.gradient, top)),
        ("adversarial", "", image_adv),
        ("its gradient", scale, heat(shares(seen.gradient_adv, top))),
    ]
    return [
        Column(title, note, [cell(colors) for colors in pictures])
        for title, note, pictures in views
    ]


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
    """Draw a look at a model; see `make_columns` for the scales of the colours."""
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
