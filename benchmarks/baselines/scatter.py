"""A plot of the worst case of methods over something else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

COLOURS = {"undefended": "#566267", "regularized": "#0b6570", "adversarial": "#b0431e"}
MARKS = {"undefended": "s", "regularized": "o", "adversarial": "^"}
# Percent. What attacks leave nothing of is listed and not drawn, or the rest is a line.
FLOOR = 20.0


@dataclass(frozen=True)
class Point:
    """Where a method stands.

    Attributes:
        title: Of the method.
        family: Of the method.
        across: What it is drawn over.
        up: Its worst case in percent.
    """

    title: str
    family: str
    across: float
    up: float


def scatter(
    points: list[Point], path: Path, labels: tuple[str, str], *, log: bool = False
) -> None:
    """Draw points with numbers, and what the numbers stand for beside them.

    Args:
        points: In the order of their numbers.
        path: The SVG file to write.
        labels: Of the axes.
        log: Whether the axis across is logarithmic.
    """
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    # Text stays text, and the file is the same for the same figures.
    plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "study"})
    figure, axes = plt.subplots(figsize=(9.0, 4.8), layout="constrained")
    for number, point in enumerate(points, start=1):
        drawn = point.up >= FLOOR
        text = f"{number}  {point.title}"
        if not drawn:
            text += f": {point.up:.1f} at {point.across:.3g}, not drawn"
        axes.plot(
            [point.across] if drawn else [],
            [point.up] if drawn else [],
            MARKS[point.family],
            color=COLOURS[point.family],
            label=text,
        )
        if drawn:
            axes.annotate(
                str(number),
                (point.across, point.up),
                (0, 5),
                textcoords="offset points",
                ha="center",
                fontsize=8,
            )
    axes.set(xlabel=labels[0], ylabel=labels[1])
    axes.margins(0.08, 0.1)
    if log:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.3)
    if points:
        figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
