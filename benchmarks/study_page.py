"""The page of the study: a table and two plots for each rung, from its results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from figures import markdown_table, spread
from store import write
from study_networks import RUNGS, Method, Rung, epochs_of

Cells = dict[str, dict[str, Any]]

# Heading, part of the study, where the figure is in the cell.
COLUMNS = (
    ("clean", "robust", ("clean",)),
    ("PGD-40", "pgd", ("pgd",)),
    ("worst case", "robust", ("robust",)),
    ("transfer", "transfer", ("once",)),
    ("twice the radius", "transfer", ("twice",)),
    ("from plain alone", "transfer", ("twice, by source", "plain")),
    ("agreement, own", "maps", ("own",)),
    ("agreement, teacher", "maps", ("teacher",)),
    ("Gini", "maps", ("gini",)),
)

TEXT = """# The study

J-SIGR beside its peers. This page is made by `python benchmarks/study.py --table` from
`benchmarks/results/study.json` and its like. `make study` measures what is missing of
the main methods on the reference network, three seeds each; `benchmarks/study.py` has
options for the others. In a clone all of it is measured: `make study OUT=again.json`
measures from nothing, in two hours and twenty minutes on two cores, beside what is
published; it found the same to 0.3 points. A killed study goes on where it was. It
reads Fashion-MNIST from its four IDX files: Debian's package `dataset-fashion-mnist`,
or `make study DATA_DIR=FOLDER`. Tiny ImageNet is `--archive tiny-imagenet-200.zip`.

Adam with cosine decay from 2e-3, batches of 128; penalties grow in over the first fifth
of the training. Threat model: maximum norm, inputs in
0..1. **Worst case**: per example, over the standard suite (APGD-CE, APGD-T, FAB-T,
Square), or, where a star stands, over APGD-CE and APGD-T alone; the first test images,
as many as said; the standard error of a figure is 1.5 points of 1,000, two of 500. The
recipes, and the weights of the peers without adversarial examples, were chosen on the
first 500 of them, which are up to three points easier under attack than those after
them, for most defences alike: compare rows of a table, not networks judged on other
images. **Held out** are figures on test images that no recipe was chosen on, by
`benchmarks/study.py --held-out` (a fifth of them are among the embedded sample's, on
which the defaults of `JSIGRConfig` were compared). **PGD-40**: 40 steps of the
cross entropy from one random start, on the same images, as in many published
figures. **Transfer**:
MI-FGSM, 10 steps, at the radius and twice the radius; per example the worst of the
surrogates of all other families, each alone, and of their ensembles in logits and in
probabilities; the surrogates are the plain network, the squared Jacobian, J-SIGR,
FGSM-RS and PGD-7 of another seed. So the sources differ with the family of the target;
the figure **from plain alone**, at twice the radius, is of the same examples for all
defences. **Agreement**: rank correlation of the gradient map
of the log odds with the perturbation map of the network itself, and of a plain network
of another seed. **Step**: its time beside that of a plain step, the median over turns
of both in one process, measured with version 0.1.0. Clean accuracy is that of all test
images. Means over the seeds, lowest and highest in brackets.

{sections}
## The methods

{methods}
"""

SECTION = """## {title}

Epsilon {epsilon}, {images} test images{after}. {surrogates}

{table}

{plots}{findings}
"""


@dataclass(frozen=True)
class Judged:
    """What was measured of a rung.

    Attributes:
        rung: The network, its data and its threat model.
        cells: Figures by `part/method/seed`.
        skip: After so many test images those begin that networks are attacked on.
    """

    rung: Rung
    cells: Cells
    skip: int = 0

    @property
    def title(self) -> str:
        """For people."""
        return f"Held out: {self.rung.title}" if self.skip else self.rung.title


def table(rung: Rung, cells: Cells, methods: dict[str, Method]) -> str:
    """Lay out the figures, a row per method that was measured."""
    headings = ["training", "seeds", "epochs", "step", *(name for name, *_ in COLUMNS)]
    rows = []
    for name, method in methods.items():
        seeds = len(cells_of(cells, "robust", name))
        if seeds == 0:
            continue
        ratio = mean_of(cells, "step", name, "ratio")
        step = "-" if ratio is None else f"{ratio:.1f}x"
        columns = []
        for _, part, figure in COLUMNS:
            values = [figure_at(cell, figure) for cell in cells_of(cells, part, name)]
            known = [value for value in values if value is not None]
            text = spread(known, digits=3 if part == "maps" else 1)
            if figure == ("robust",) and not is_of_whole_suite(cells, name):
                text += "*"
            columns.append(text)
        epochs = str(epochs_of(rung, method))
        rows.append([method.title, str(seeds), epochs, step, *columns])
    return markdown_table(headings, rows)


def figure_at(cell: dict[str, Any], keys: tuple[str, ...]) -> float | None:
    """Return the figure of a cell at a path of keys, or `None`."""
    found: Any = cell
    for key in keys:
        found = found.get(key, {})
    return None if found == {} else found


def cells_of(cells: Cells, part: str, name: str) -> list[dict[str, Any]]:
    """Return the cells of all seeds of a method."""
    return [cell for key, cell in cells.items() if key.startswith(f"{part}/{name}/")]


def is_of_whole_suite(cells: Cells, name: str) -> bool:
    """Tell whether the worst case of a method is over the whole standard suite."""
    return all(c["suite"] == "standard" for c in cells_of(cells, "robust", name))


def findings(cells: Cells, methods: dict[str, Method]) -> str:
    """Say which networks were diagnosed for gradient masking, and what was found."""
    lines, diagnosed = [], []
    for name, method in methods.items():
        found = [c for c in cells_of(cells, "robust", name) if "suspect" in c]
        diagnosed += [method.title] if found else []
        for cell in found:
            for rule, says in cell["suspect"].items():
                lines.append(f"- {method.title}: `{rule}`: {says}")
    if not diagnosed:
        return "None of them was diagnosed."
    said = f"Diagnosed: {'; '.join(diagnosed)}."
    if not lines:
        return f"{said} Nothing is suspect."
    return "\n".join([f"{said} Suspect is:", "", *lines])


def write_page(judged: list[Judged], methods: dict[str, Method], docs: Path) -> None:
    """Write the page and its plots.

    Args:
        judged: The figures.
        methods: By name.
        docs: The folder of the documentation.
    """
    described = "\n".join(
        f"- **{method.title}** (`{name}`, {method.family}): {method.source}"
        for name, method in methods.items()
        if any(cells_of(each.cells, "robust", name) for each in judged)
    )
    sections = "\n".join(section(each, methods, docs / "images") for each in judged)
    text = TEXT.format(sections=sections, methods=described)
    write(docs / "results" / "study.md", f"{text.rstrip()}\n")


def section(judged: Judged, methods: dict[str, Method], images: Path) -> str:
    """Say what was found on a rung; plots are of the first test images alone."""
    rung, cells = judged.rung, judged.cells
    plots = "" if judged.skip else draw(rung, cells, methods, images)
    return SECTION.format(
        title=judged.title,
        epsilon=rung.words,
        images=images_of(cells),
        after=f" after the first {judged.skip:,}" if judged.skip else "",
        surrogates=surrogates_of(rung),
        plots=f"{plots}\n\n" if plots else "",
        table=table(rung, cells, methods),
        findings=findings(cells, methods),
    )


def draw(rung: Rung, cells: Cells, methods: dict[str, Method], folder: Path) -> str:
    """Draw the plots of a rung that there are figures for, and return their links."""
    clean = partial(mean_of, cells, "robust", figure="clean")
    times = {name: cost(cells, method) for name, method in methods.items()}
    time = "training time (that of plain training is 1)"
    plots = (
        ("frontier", "Clean accuracy and worst case", clean, "clean accuracy (%)"),
        ("cost", "Training time and worst case", times.get, time),
    )
    links = []
    for name, title, position, across in plots:
        if found := points(cells, methods, position):
            path = folder / f"study-{rung.name}-{name}.svg"
            up = f"worst case, Linf {rung.words} (%)"
            scatter(found, path, (across, up), log=name == "cost")
            links.append(f"![{title}](../images/{path.name})")
    return "\n\n".join(links)


def images_of(cells: Cells) -> str:
    """Say how many test images were attacked."""
    counts = {c["images"] for k, c in cells.items() if k.startswith("robust/")}
    return " or ".join(f"{count:,}" for count in sorted(counts)) or "no"


def surrogates_of(rung: Rung) -> str:
    """Say what the examples of transfer are made on."""
    if rung.surrogates is None:
        return "Surrogates are of this architecture."
    return f"Surrogates are those of {RUNGS[rung.surrogates].title}."


def points(
    cells: Cells,
    methods: dict[str, Method],
    position: Callable[[str], float | None],
) -> list[Point]:
    """Return where each method stands: a figure of it, and its worst case."""
    found = []
    for name, method in methods.items():
        across = position(name)
        up = mean_of(cells, "robust", name, "robust")
        if across is not None and up is not None:
            found.append(Point(method.title, method.family, across, up))
    return found


def mean_of(cells: Cells, part: str, name: str, figure: str) -> float | None:
    """Return the mean of a figure over the seeds, if there is any."""
    values = [cell.get(figure) for cell in cells_of(cells, part, name)]
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def cost(cells: Cells, method: Method) -> float | None:
    """Return the time of a training, that of plain training being 1."""
    step = mean_of(cells, "step", method.name, "ratio")
    return None if step is None else step * method.longer


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


def scatter(points: list[Point], path: Path, labels: tuple[str, str], *, log: bool = False) -> None:
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
