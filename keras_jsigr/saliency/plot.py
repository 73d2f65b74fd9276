"""Draw images beside their saliency maps as one matplotlib figure."""

from __future__ import annotations

import functools
import importlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from keras_jsigr.core import arguments
from keras_jsigr.core.scores import check_class_names
from keras_jsigr.saliency.masks import check_channels_last

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = npt.NDArray[Any]
MAX_IMAGES = 32
# Lengths are in pixels at 100 dots per inch.
DPI = 100
CELL, MIN_CELL_WIDTH, MIN_CELL_HEIGHT = 128, 112, 104
MARGIN, GAP, LABEL_WIDTH, VALUE_WIDTH = 16, 10, 140, 140
TITLE_HEIGHT, HEADING_HEIGHT, VALUE_STEP = 34, 48, 19
MAX_OPACITY = 0.9
# Whatever the user's style says.
_TEXT_STYLE: Any = {"va": "center", "parse_math": False, "usetex": False}
_IMAGE_STYLE: Any = {"origin": "upper", "aspect": "auto"}
_IMAGE_STYLE |= {"interpolation": "antialiased", "interpolation_stage": "rgba"}
FONT = "DejaVu Sans"  # comes with matplotlib
INK, MUTED, ALARM, RULE, GROUND = "#1b2225", "#566267", "#9c3419", "#d8dddd", "#ffffff"


def plot_saliency(
    x: Any,
    maps: Any,
    y: Any = None,
    probabilities: Any = None,
    *,
    class_names: Sequence[str] | None = None,
    input_range: tuple[float, float] = (0.0, 1.0),
    overlay: bool = False,
    shared_scale: bool = False,
    title: str = "",
) -> Figure:
    """Draw images beside their saliency maps: a row per image, a column per map.

    Bright is salient; maps with negative values go from blue (against the class) over
    white to red (for it). A row is labelled with the true class, the predicted class
    and its probability, as far as they are given. pyplot does not know the figure: show
    it as the last line of a notebook cell, or call `figure.savefig("maps.png")`.

    Args:
        x: Images `(N, H, W)` or `(N, H, W, C)`, N up to 32. Other than 3 channels are
            averaged.
        maps: Maps `(N, H, W)` of the images, or several such arrays by the titles of
            their columns.
        y: True classes `(N,)`, or one-hot `(N, C)`.
        probabilities: The model's probabilities `(N, C)`, as `predict` returns them;
            `(N, 1)` of a single sigmoid unit.
        class_names: One name per class, in the order of the outputs.
        input_range: `(low, high)` of the images: black and white.
        overlay: Whether to lay the maps over the images in grey.
        shared_scale: Whether the maps of a column share one scale, so that rows can be
            compared; else each map is scaled by its own 99th percentile.
        title: Written above the figure.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ImportError: If matplotlib is not installed.
        TypeError: If `input_range` is no pair of numbers.
        ValueError: If shapes do not fit each other, the images leave the input range,
            or `probabilities` are none.

    Example:
        >>> import numpy as np
        >>> import keras_jsigr as kj
        >>> x, net = np.random.rand(4, 8, 8, 1), lambda x: x[:, 2:5, 5, 0]
        >>> maps = {"gradient": kj.gradient_map(net, x)}
        >>> figure = kj.plot_saliency(x, maps, y=[0, 1, 2, 0], overlay=True)
        >>> len(figure.axes[0].images)  # two columns, four rows
        8
    """
    check_plots()
    images, labels = check_images(x, y)
    low, high = arguments.interval("input_range", input_range)
    slack = 1e-3 * (high - low)
    if images.min() < low - slack or images.max() > high + slack:
        raise ValueError(
            f"The images leave the input range: got values from {images.min():g} to "
            f"{images.max():g}, expected ({low:g}, {high:g}). Pass their `input_range`."
        )
    by_title = maps if isinstance(maps, Mapping) else {"saliency": maps}
    pictures = to_rgb(images, (low, high))
    columns = [Column("image", "", list(pictures))]
    signs = set()
    for name, values in by_title.items():
        checked = _check_maps(name, values, images)
        signed = bool(checked.min() < 0.0)
        signs.add(signed)
        tops = [color_top(checked if shared_scale else values) for values in checked]
        draw = functools.partial(overlay_map if overlay else to_colors, signed=signed)
        shown = list(map(draw, *([pictures] if overlay else []), checked, tops))
        note = scale_note(tops[0], signed=signed) if shared_scale else ""
        columns.append(Column(str(name), note, shown))
    legend = "Brighter: more salient. " if False in signs else ""
    legend += "Red: speaks for the class, blue: against. " if True in signs else ""
    legend += "One scale per column." if shared_scale else "Each map on its own scale."
    rows = _row_labels(len(images), labels, _check_probabilities(probabilities, images))
    lines = [row.lines(class_names) for row in rows]
    return draw_table(columns, lines, title=title, foot=[Line(legend, 11, MUTED)])


def check_plots() -> None:
    """Check that pictures can be drawn."""
    try:
        for package in ("matplotlib", "PIL.Image"):
            importlib.import_module(package)
    except ImportError as error:
        hint = "pictures need them: pip install matplotlib pillow"
        raise ImportError(f"{error}; {hint}") from error


def check_images(x: Any, y: Any = None) -> tuple[npt.NDArray[np.float32], Array | None]:
    """Check a few images, and a label for each or none."""
    images = np.asarray(x if hasattr(x, "__len__") or hasattr(x, "shape") else None)
    if images.ndim not in (3, 4) or images.dtype.kind not in "fiub":
        raise ValueError(
            f"The figure shows images: got {type(x).__name__} of shape {images.shape} "
            f"and dtype {images.dtype}, expected an array (N, H, W) or (N, H, W, C) of "
            "numbers. Collect a few of a dataset; plot maps of other data yourself."
        )
    if images.ndim == 4 and images.shape[-1] not in (1, 3):
        check_channels_last(images.shape[1:])
    if not 1 <= len(images) <= MAX_IMAGES or 0 in images.shape:
        raise ValueError(
            f"Got {len(images)} images of shape {images.shape[1:]}, expected 1 to "
            f"{MAX_IMAGES}: each is a row of the figure. Pass a slice such as x[:8]."
        )
    images = images.astype(np.float32)
    if not np.isfinite(images).all():
        advice = "Find them with np.isfinite(x)."
        raise ValueError(f"The images contain NaN or infinity, expected none. {advice}")
    labels = None if y is None else np.asarray(y)
    if labels is not None and (labels.ndim == 0 or len(labels) != len(images)):
        raise ValueError(
            f"Got {len(images)} images and labels of shape {labels.shape}, expected "
            "one label per image. Select the same rows of both."
        )
    return images, labels


def _check_maps(name: Any, values: Any, images: Array) -> Array:
    maps = np.asarray(values, float)
    if maps.shape != images.shape[:3]:
        raise ValueError(
            f"The maps '{name}' do not fit the images: got shape {maps.shape}, "
            f"expected {images.shape[:3]}. Use one number per pixel, of the same rows."
        )
    return _finite(maps)


def _finite(maps: Array) -> Array:
    finite: Array = np.nan_to_num(maps.astype(float), posinf=0.0, neginf=0.0)
    return finite


def _check_probabilities(probabilities: Any, images: Array) -> Array | None:
    if probabilities is None:
        return None
    found = np.asarray(probabilities, float)
    if found.ndim != 2 or len(found) != len(images):
        raise ValueError(
            f"`probabilities` do not fit {len(images)} images: got {found.shape}, "
            f"expected ({len(images)}, C). Pass `model.predict(x)` of the same rows."
        )
    if found.min() < 0.0 or found.max() > 1.0 + 1e-3:
        raise ValueError(
            f"`probabilities` leave 0..1: got values from {found.min():g} to "
            f"{found.max():g}. Pass the softmax of logits."
        )
    return np.hstack([1.0 - found, found]) if found.shape[1] == 1 else found


@dataclass(frozen=True)
class Line:
    """One line of text and its style; the size is in pixels."""

    text: str
    size: int = 12
    color: str = INK
    bold: bool = False
    above: int = 0  # extra space


@dataclass(frozen=True)
class Column:
    """A column of pictures, RGB arrays `(H, W, 3)` in 0..1."""

    title: str
    note: str
    pictures: list[Array]


@dataclass(frozen=True)
class RowLabel:
    """The class of an image, and what a model predicts for it and its variants."""

    label: int | None
    predictions: Mapping[str, Array]

    def lines(self, class_names: Sequence[str] | None) -> list[Line]:
        """Write the label as lines of text."""

        def names(index: int) -> str:
            if class_names is None:
                return f"class {index}"
            if not 0 <= index < len(class_names):
                check_class_names(class_names, index + 1)
            return class_names[index]

        lines = [] if self.label is None else [Line(names(self.label), 13, bold=True)]
        for word, probabilities in self.predictions.items():
            said = int(probabilities.argmax())
            share = f"{100.0 * probabilities[said]:.0f} %"
            lines.append(Line(f"{word}: {share}", 11, MUTED, above=6 if lines else 0))
            wrong = self.label not in (None, said)
            mark = "" if self.label is None else "✗ " if wrong else "✓ "
            lines.append(Line(mark + names(said), 12, ALARM if wrong else INK))
        return lines


def _row_labels(count: int, labels: Array | None, probabilities: Array | None) -> list[RowLabel]:
    """Return the labels of the rows, none if nothing is known of the images."""
    if labels is None and probabilities is None:
        return []
    truth: list[int | None] = [None] * count
    if labels is not None:
        labels = labels.reshape(count, -1)
        labels = labels[:, 0] if labels.shape[1] == 1 else labels.argmax(-1)
        truth = [int(label) for label in labels]
    predicted = [] if probabilities is None else [("predicted", probabilities)]
    return [
        RowLabel(label, {word: values[row] for word, values in predicted})
        for row, label in enumerate(truth)
    ]


def to_rgb(x: Array, input_range: tuple[float, float]) -> Array:
    """Turn images into colours in 0..1; other than three channels become grey."""
    low, high = input_range
    x = np.clip((np.nan_to_num(x.astype(float)) - low) / (high - low), 0.0, 1.0)
    x = x[..., None] if x.ndim == 3 else x
    if x.shape[-1] != 3:
        x = x.mean(-1, keepdims=True).repeat(3, axis=-1)
    return x


def color_top(maps: Array) -> float:
    """Return the value of the brightest color: the magnitude's 99th percentile."""
    maps = np.abs(_finite(maps))
    return float(np.quantile(maps, 0.99) or maps.max())


def to_shares(maps: Array, top: float) -> Array:
    """Divide maps by the top of their scale, clipped to -1..1."""
    return (_finite(maps) / top if top > 0.0 else np.zeros(maps.shape)).clip(-1.0, 1.0)


def to_colors(maps: Array, top: float, *, signed: bool = False) -> Array:
    """Color maps: dark to bright, or blue over white to red."""
    from matplotlib import colormaps

    shares, name = to_shares(maps, top), "RdBu_r" if signed else "magma"
    colors: Array = colormaps[name](0.5 + 0.5 * shares if signed else shares.clip(0.0))
    return colors[..., :3]


def overlay_map(image: Array, values: Array, top: float, *, signed: bool = False) -> Array:
    """Lay a colored map over its image in grey; what is not salient stays grey."""
    # Darkened, and without the dark end of the colors, so that all of them stand out.
    grey = 0.6 * image.mean(-1, keepdims=True)
    shares = to_shares(values, top)
    opacity = MAX_OPACITY * np.abs(shares)[..., None]
    colors = to_colors(shares if signed else 0.4 + 0.6 * shares, 1.0, signed=signed)
    mixed: Array = grey * (1.0 - opacity) + colors * opacity
    return mixed


def scale_note(top: float, *, signed: bool = False) -> str:
    """Write the range of the colors of a column."""
    low = f"-{short_number(top)}" if signed else "0"
    return f"{low} to {short_number(top)}"


def short_number(value: float) -> str:
    """Write a number in about five characters."""
    if value != 0 and abs(value) < 0.01:
        return f"{value:.2g}"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.3g}"


def draw_table(
    columns: Sequence[Column],
    labels: Sequence[Sequence[Line]] | None = None,
    values: Sequence[Mapping[str, float]] | None = None,
    *,
    title: str = "",
    note: str = "",
    foot: Sequence[Line] = (),
) -> Figure:
    """Draw columns of pictures, with text at the left and numbers at the right."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    sizes = [_cell_size(picture) for column in columns for picture in column.pictures]
    width = max(MIN_CELL_WIDTH, *(size[0] for size in sizes))
    shortest = MIN_CELL_HEIGHT if labels or values else 0
    height = max(shortest, *(size[1] for size in sizes))
    rows = len(columns[0].pictures)
    first = MARGIN + (LABEL_WIDTH + GAP if labels else 0)
    lefts = [first + k * (width + GAP) for k in range(len(columns))]
    end = lefts[-1] + width
    right = end + 2 * GAP + VALUE_WIDTH if values else end
    head = MARGIN + (TITLE_HEIGHT if title or note else 0)
    top = head + HEADING_HEIGHT - (0 if any(c.note for c in columns) else 16)
    step = height + GAP
    bottom = top + rows * step + GAP
    texts = [title, note, *(c.title + c.note for c in columns)]
    texts += [line.text for lines in (*(labels or ()), foot) for line in lines]
    lettering = _Lettering("".join(texts))
    foot = [part for line in foot for part in lettering.wrap(line, right - MARGIN)]
    full_height = bottom + sum(line.size + 6 for line in foot) + MARGIN

    # The lay-out and the colors are not those of the user's style.
    size = ((right + MARGIN) / DPI, full_height / DPI)
    style: Any = {"facecolor": GROUND, "edgecolor": GROUND, "layout": "none"}
    figure = Figure(figsize=size, dpi=DPI, **style)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_axis_off()
    write = functools.partial(lettering.write, axes)
    half = (right - MARGIN) / (2 if title and note else 1)
    write(Line(title, 16, bold=True), (MARGIN, head - 22), half)
    write(Line(note, 12, MUTED), (right, head - 22), half, align="right")
    for left, column in zip(lefts, columns, strict=True):
        middle = left + width / 2
        write(Line(column.title, 13, bold=True), (middle, head + 10), width, "center")
        write(Line(column.note, 11, MUTED), (middle, head + 28), width, "center")
        for row, picture in enumerate(column.pictures):
            cell_width, cell_height = _cell_size(picture)
            start = left + (width - cell_width) // 2
            upper = top + row * step + (height - cell_height) // 2
            extent = (start, start + cell_width, upper + cell_height, upper)
            axes.imshow(np.clip(picture, 0.0, 1.0), extent=extent, **_IMAGE_STYLE)
    for row in range(rows):
        middle = top + row * step + height / 2
        if row and (labels or values):
            y = top + row * step - GAP / 2
            axes.plot([MARGIN, right], [y, y], color=RULE, lw=0.8, marker="")
        if labels:
            _write_block(write, labels[row], middle)
        numbers = values[row] if values else {}
        for place, (name, value) in enumerate(numbers.items()):
            y = middle + VALUE_STEP * (place - (len(numbers) - 1) / 2)
            write(Line(name, 12, MUTED), (end + 2 * GAP, y), VALUE_WIDTH - 52)
            number = Line(short_number(float(value)), 12)
            write(number, (right, y), 50, align="right")
    y = bottom + GAP / 2
    for line in foot:
        write(line, (MARGIN, y), right - MARGIN)
        y += line.size + 6
    axes.set_xlim(0, right + MARGIN)
    axes.set_ylim(full_height, 0)
    # Notebooks show a figure that pyplot does not know by this method.
    figure._repr_png_ = functools.partial(_png, figure)  # type: ignore[attr-defined]
    return figure


class _Lettering:
    """Measure, shorten, wrap and write lines, in fonts that have their characters."""

    def __init__(self, texts: str) -> None:
        from matplotlib.backends.backend_agg import RendererAgg

        self._renderer: Any = RendererAgg(1, 1, DPI)
        special = frozenset(c for c in texts if c.isprintable() and not c.isascii())
        self._fonts, self._missing = find_fonts(special)

    def write(self, axes: Any, line: Line, place: Any, width: float, align: str = "left") -> None:
        """Write a line beside or around a place, shortened to a width."""
        if text := self.fit(line, width):
            style = {"color": line.color, "fontproperties": self._font(line)}
            axes.text(*place, text, ha=align, **style, **_TEXT_STYLE)

    def fit(self, line: Line, width: float) -> str:
        """Return the text of a line, shortened to a width."""
        words = " ".join(line.text.split())
        text = "".join("?" if c in self._missing else c for c in words)
        if self.width(line, text) <= width:
            return text
        while text and self.width(line, text + "…") > width:
            text = text[:-1]
        return text.rstrip() + "…"

    def wrap(self, line: Line, width: float) -> list[Line]:
        """Break a line between words so that no part is wider than a width."""
        parts: list[str] = []
        for word in line.text.split():
            longer = f"{parts[-1]} {word}" if parts else word
            if parts and self.width(line, longer) <= width:
                parts[-1] = longer
            else:
                parts.append(word)
        return [Line(part, line.size, line.color, line.bold) for part in parts]

    def width(self, line: Line, text: str) -> float:
        """Return the width of a text in the style of a line, in pixels."""
        measure = self._renderer.get_text_width_height_descent
        return float(measure(text or " ", self._font(line), ismath=False)[0])

    def _font(self, line: Line) -> Any:
        from matplotlib.font_manager import FontProperties

        others = {self._fonts[c] for c in line.text if c in self._fonts}
        # The other fonts may have no bold face.
        weight = "bold" if line.bold and not others else "normal"
        size, family = line.size * 72.0 / DPI, [FONT, *sorted(others)]
        return FontProperties(family=family, weight=weight, size=size)


@functools.lru_cache(maxsize=64)
def find_fonts(characters: frozenset[str]) -> tuple[dict[str, str], frozenset[str]]:
    """Return installed fonts by characters that DejaVu Sans lacks, and the others."""
    from matplotlib.font_manager import fontManager, get_font

    fonts: dict[str, str] = {}
    missing = set(characters)
    # The font that comes with matplotlib first; "Last Resort" draws boxes.
    for entry in sorted(fontManager.ttflist, key=lambda e: (e.name != FONT, e.name)):
        if not missing:
            break
        upright = entry.style == "normal" and entry.weight in (400, "normal", "regular")
        if not upright or entry.name.startswith("Last Resort"):
            continue
        try:
            font = get_font(entry.fname)
        except (OSError, RuntimeError):
            continue
        found = {c for c in missing if font.get_char_index(ord(c))}
        # Fonts of emoji are pictures, which cannot be scaled.
        if found and getattr(font, "scalable", True):
            missing -= found
            if entry.name != FONT:
                fonts |= dict.fromkeys(found, entry.name)
    return fonts, frozenset(missing)


def _write_block(write: Any, lines: Sequence[Line], middle: float) -> None:
    """Write lines below each other around a height."""
    y = middle - sum(line.size + 4 + line.above for line in lines) / 2
    for line in lines:
        y += line.above + (line.size + 4) / 2
        write(line, (MARGIN, y), LABEL_WIDTH)
        y += (line.size + 4) / 2


def _cell_size(picture: Array) -> tuple[int, int]:
    """Return width and height of a picture as drawn: about 128 at the longer side."""
    height, width = picture.shape[:2]
    scale = CELL / max(height, width)
    scale = int(scale) if scale >= 2.0 else scale  # whole pixels stay sharp
    return max(1, round(width * scale)), max(1, round(height * scale))


def to_pixels(figure: Figure) -> npt.NDArray[np.uint8]:
    """Render a figure that `draw_table` made."""
    canvas: Any = figure.canvas
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _png(figure: Figure) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(to_pixels(figure)).save(buffer, "PNG")
    return buffer.getvalue()
