"""What is measured, in numbers, and the Markdown tables that show it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from networks import correct

import keras_jsigr as kj

# Allowed overrun of radius and range: rounding of float32.
_SLACK = 1e-5


def still_correct(
    model: Any,
    x: np.ndarray,
    x_adv: np.ndarray,
    y: np.ndarray,
    epsilon: float,
    norm: str = "linf",
) -> np.ndarray:
    """Tell which images survive an attack within the ball, bool `(N,)`.

    A point outside of the ball or the range 0..1 does not count as a success, nor does
    an attack that turns a wrong decision into the right one as a defence.
    """
    inside = (lengths(x_adv - x, norm) <= epsilon + _SLACK) & _in_range(x_adv)
    fooled = ~correct(model, x_adv, y) & inside
    return correct(model, x, y) & ~fooled


def left_by_apgd(model: Any, x: np.ndarray, y: np.ndarray, epsilon: float) -> np.ndarray:
    """Tell which images survive APGD-CE and APGD-T, Linf, bool `(N,)`."""
    common: dict[str, Any] = {"epsilon": epsilon, "early_stop": True, "verbose": 0}
    attacks = [kj.attacks.APGD(**common), kj.attacks.TargetedAPGD(**common)]
    suite = kj.attacks.AttackSuite(attacks)
    return still_correct(model, x, suite(model, x, y), y, epsilon)


def clean_and_apgd(
    model: Any, data: kj.datasets.Dataset, x: np.ndarray, y: np.ndarray, epsilon: float
) -> dict[str, float]:
    """Return the accuracy on all test images, and on x under APGD, in percent."""
    return {
        "clean": percent(correct(model, data.x_test, data.y_test)),
        "robust": percent(left_by_apgd(model, x, y, epsilon)),
    }


def percent(hits: np.ndarray) -> float:
    """Return the share of hits in percent, two digits."""
    return round(100 * float(np.mean(hits)), 2)


def spread(values: list[float], digits: int) -> str:
    """Say the mean and, of several, the lowest and the highest."""
    if not values:
        return "-"
    text = f"{np.mean(values):.{digits}f}"
    if len(values) > 1:
        text += f" ({min(values):.{digits}f} to {max(values):.{digits}f})"
    return text


def lengths(changes: np.ndarray, norm: str) -> np.ndarray:
    """Measure perturbations, float `(N,)`."""
    order = {"linf": np.inf, "l2": 2, "l1": 1}[norm]
    return np.linalg.norm(changes.reshape(len(changes), -1), order, axis=-1)


def distances(model: Any, x: np.ndarray, x_adv: np.ndarray, y: np.ndarray, norm: str) -> np.ndarray:
    """Measure how far the model was moved to be fooled, float `(N,)`.

    Zero where it errs at `x` already; infinite where it was not fooled within 0..1.
    """
    far = lengths(x_adv - x, norm)
    fooled = ~correct(model, x_adv, y) & _in_range(x_adv)
    return np.where(correct(model, x, y), np.where(fooled, far, np.inf), 0.0)


def _in_range(x: np.ndarray) -> np.ndarray:
    flat = x.reshape(len(x), -1)
    return (flat.min(-1) >= -_SLACK) & (flat.max(-1) <= 1 + _SLACK)


# Examples that a step is compiled with.
TRACING_BATCH = 8


def step_of(model: keras.Model, x: np.ndarray, y: np.ndarray) -> Callable[[], None]:
    """Return what takes one step of `fit` on the batch.

    Args:
        model: Not compiled.
        x: The images of the batch.
        y: Their labels.
    """
    model.compile(
        "adam",
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    # Builds and traces as `fit` does.
    model.fit(x[:TRACING_BATCH], y[:TRACING_BATCH], batch_size=TRACING_BATCH, verbose=0)
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(len(x))
    iterator = iter(batches.cache().repeat())
    return lambda: model.train_function(iterator)


def steps_in_turn(
    steps: dict[str, Callable[[], None]], rounds: int, inner: int
) -> dict[str, dict[str, Any]]:
    """Time steps round by round, and compare each with the first of its round.

    Args:
        steps: By name; the first is what the others are compared with.
        rounds: How many times every step has its turn.
        inner: How often it is taken in a turn.

    Returns:
        For every name the median and the quartiles of the ratios, and the median time.
    """
    for step in steps.values():
        for _ in range(2):
            step()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            start = time.perf_counter()
            for _ in range(inner):
                step()
            seconds[name].append((time.perf_counter() - start) / inner)
    first = np.array(next(iter(seconds.values())))
    cells = {}
    for name, values in seconds.items():
        low, middle, high = np.quantile(np.array(values) / first, [0.25, 0.5, 0.75])
        cells[name] = {
            "ratio": round(float(middle), 2),
            "quartiles": [round(float(low), 2), round(float(high), 2)],
            "milliseconds": round(1e3 * float(np.median(values)), 2),
        }
    return cells


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lay out a Markdown table.

    Args:
        headings: Of the columns.
        rows: A text per column each.

    Returns:
        The lines of the table, without a last newline.

    Raises:
        ValueError: If a row has not one text per column.
    """
    lines = [headings, ["---"] * len(headings), *rows]
    for line in lines:
        if len(line) != len(headings):
            raise ValueError(f"Got a row of {len(line)} columns, expected {len(headings)}: {line}.")
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


Cells = Mapping[str, dict[str, Any]]
# The text of a measured cell, from the cell, the method, the library and the notes, to
# which it may add.
Text = Callable[[dict[str, Any], str, str, list[str]], str]


def comparison_table(
    cells: Cells,
    rows: Mapping[str, Iterable[str]],
    libraries: Iterable[str],
    *,
    says: str,
    method: str,
    figure: str,
    text: Text,
) -> str:
    """Lay out what was measured.

    Args:
        cells: By `net/method/library`; `net/clean` holds the accuracy in percent.
        rows: The methods of each net, in the order to show.
        libraries: The columns; those that begin as the first one does are ours.
        says: What a cell holds, for the headline.
        method: Heading of the first column.
        figure: Key of the speed in a cell.
        text: Writes a measured cell.

    Returns:
        One table per net; notes below say what a library could not do.
    """
    names = list(libraries)
    lines: list[str] = []
    for net, methods in rows.items():
        notes: list[str] = []
        clean = cells.get(f"{net}/clean")
        known = f", {clean['accuracy']:.1f} % clean" if clean else ""
        table = []
        for row in methods:
            found = {name: cells.get(f"{net}/{row}/{name}") for name in names}
            texts = [_text(cell, row, name, notes, text) for name, cell in found.items()]
            table.append([row, *texts, _ratio(found, names[0], figure)])
        headings = [method, *names, "ratio to the fastest peer"]
        lines += [
            f"\n**{net}**{known}: {says}\n",
            markdown_table(headings, table),
        ]
        lines += ["", *(f"{i}. {note}" for i, note in enumerate(notes, 1))]
    return "\n".join(lines)


def _text(
    cell: dict[str, Any] | None, method: str, library: str, notes: list[str], text: Text
) -> str:
    if cell is None:
        return "not run"
    if "missing" in cell or "error" in cell:
        notes.append(f"{library}, {method}: {cell.get('missing') or cell['error']}")
        return f"- ({len(notes)})"
    return text(cell, method, library, notes)


def _ratio(row: Mapping[str, dict[str, Any] | None], ours: str, figure: str) -> str:
    speeds = {name: cell[figure] for name, cell in row.items() if cell and figure in cell}
    own = [speeds.pop(name) for name in list(speeds) if name.startswith(ours)]
    if not own or not speeds:
        return "-"
    return " / ".join(f"{speed / max(speeds.values()):.1f}x" for speed in own)
