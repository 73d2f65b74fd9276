"""Speed and strength of the attacks beside ART, Foolbox and cleverhans.

    python benchmarks/attacks.py            # what is missing in results/attacks.json
    python benchmarks/attacks.py --quick    # a smoke run in a minute or two
    python benchmarks/attacks.py --table    # the table of what is there

All libraries run in one process on the same images and networks at the same budget, in
turn: every round times each of them once. A figure is the median over the rounds. The
first call, which compiles, is timed apart. Every cell is on disk once it is measured.
The peers come from requirements/judges.txt; one that is absent or fails is a cell with
the reason.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import networks as nets
import numpy as np
import tensorflow as tf
from figures import comparison_table, distances, percent, still_correct
from judges.budget import Budget, Run
from judges.peers import LIBRARIES, OURS, find
from networks import correct
from store import Store, complete, parser_of

import keras_jsigr as kj

LINF = Budget(epsilon=nets.EPSILON)
PGD = replace(LINF, steps=20, step_size=0.125 * nets.EPSILON, random_start=True)
MIFGSM = replace(LINF, steps=10, step_size=0.1 * nets.EPSILON)
CLOSEST = Budget(norm="l2", steps=50)

BUDGETS: dict[str, Budget] = {
    "FGSM": LINF,
    "PGD": PGD,
    "PGD, batch 1": replace(PGD, batch_size=1),
    "PGD, batch 8": replace(PGD, batch_size=8),
    "MI-FGSM": MIFGSM,
    "MI-FGSM, batch 1": replace(MIFGSM, batch_size=1),
    "MI-FGSM, batch 8": replace(MIFGSM, batch_size=8),
    "DeepFool-L2": CLOSEST,
    "CW-L2": replace(CLOSEST, steps=100, searches=5, rate=0.05),
    "Square": replace(LINF, steps=1000),
    "standard": replace(LINF, steps=100, random_start=True),
}
MINIMUM_NORM = ("DeepFool-L2", "CW-L2")

# Images of a timed call. Slow peers get fewer: a call should end in a minute or so.
IMAGES = {"reference": 512, "resnet20": 64}
FEWER: dict[tuple[str, str, str], int] = {
    ("reference", "DeepFool-L2", "ART"): 64,
    ("reference", "DeepFool-L2", "Foolbox"): 128,
    ("reference", "CW-L2", "ART"): 8,
    ("reference", "CW-L2", "Foolbox"): 128,
    ("reference", "Square", "ART"): 128,
    ("reference", "standard", "ART"): 128,
    ("resnet20", "DeepFool-L2", "ART"): 8,
    ("resnet20", "DeepFool-L2", "Foolbox"): 16,
    ("resnet20", "CW-L2", "ART"): 4,
    ("resnet20", "CW-L2", "Foolbox"): 16,
    ("resnet20", "standard", "ART"): 16,
}
# The reference net is the adversarially trained one: there, attacks run to their end.
RECIPE_OF = {"reference": "pgd", "resnet20": "resnet20"}


def main() -> None:
    options = parse_options()
    store = Store(options.out, settings_of(options))
    if not options.table:
        run_all(store, options)
    table = comparison_table(
        store.cells,
        {net: [a for a in BUDGETS if measured(net, a)] for net in RECIPE_OF},
        LIBRARIES,
        says="images per second, then accuracy or median distance",
        method="attack",
        figure="images_per_second",
        text=cell_text,
    )
    print(table)


def run_all(store: Store, options: argparse.Namespace) -> None:
    """Measure the rows that are not there yet."""
    data = kj.datasets.load("fashion_mnist", verbose=False)
    for net in options.nets:
        missing = [
            attack
            for attack in options.attacks
            if measured(net, attack)
            and not all(store.has(f"{net}/{attack}/{name}") for name in LIBRARIES)
        ]
        if not missing and store.has(f"{net}/clean"):
            continue
        model = nets.load(RECIPE_OF[net], data, options.cache, options.quick)
        clean = correct(model, data.x_test, data.y_test)
        store.put(f"{net}/clean", {"accuracy": percent(clean), "images": len(clean)})
        for attack in missing:
            measure_row(store, model, net, attack, data, options)


def measure_row(
    store: Store,
    model: Any,
    net: str,
    attack: str,
    data: kj.datasets.Dataset,
    options: argparse.Namespace,
) -> None:
    """Time one attack by all libraries in turn."""
    budget = budget_of(attack, options)
    runs: dict[str, Run] = {}
    cells: dict[str, dict[str, Any]] = {}
    for library in LIBRARIES:
        make, reason = find(library, attack)
        if make is None:
            store.put(f"{net}/{attack}/{library}", {"missing": reason})
            continue
        cells[library] = {
            "images": images_of(net, attack, library, options),
            "seconds": [],
        }
        # All before the first call: seeding empties TensorFlow's caches.
        with trouble_in(cells[library]):
            runs[library] = make(model, budget)
    for library, run in runs.items():
        cell = cells[library]
        x, y = data.x_test[: cell["images"]], data.y_test[: cell["images"]]
        with trouble_in(cell):
            cell["first_call"], cell["x_adv"] = timed(run, x, y)
            if cell["first_call"] < options.patience:
                timed(run, x, y)  # TensorFlow warms up in the second call, too
    for number in range(options.rounds):
        for library, cell in cells.items():
            # What took a minute at the first call is timed once, not five times.
            slow = cell.get("first_call", 0.0) > options.patience
            if "error" in cell or (slow and number > 0):
                continue
            x, y = data.x_test[: cell["images"]], data.y_test[: cell["images"]]
            with trouble_in(cell):
                seconds, cell["x_adv"] = timed(runs[library], x, y)
                cell["seconds"].append(seconds)
    reached = cells.get(OURS, {}).get("x_adv")
    for library, cell in cells.items():
        finished = finish(cell, model, attack, data, budget, reached)
        store.put(f"{net}/{attack}/{library}", finished)
        print(f"{net}, {attack}, {library}: {finished}", flush=True)


def finish(
    cell: dict[str, Any],
    model: Any,
    attack: str,
    data: kj.datasets.Dataset,
    budget: Budget,
    reached: np.ndarray | None,
) -> dict[str, Any]:
    """Turn times and examples into figures; `reached` are our examples."""
    x_adv = cell.pop("x_adv", None)
    if "error" in cell or x_adv is None:
        return cell
    seconds = cell.pop("seconds")
    cell["seconds"] = round(float(np.median(seconds)), 4)
    cell["first_call"] = round(cell["first_call"], 3)
    cell["rounds"] = len(seconds)
    cell["images_per_second"] = round(cell["images"] / float(np.median(seconds)), 2)
    cell["load"] = round(os.getloadavg()[0], 2)
    x, y = data.x_test[: cell["images"]], data.y_test[: cell["images"]]

    def strength(examples: np.ndarray) -> dict[str, Any]:
        if attack not in MINIMUM_NORM:
            left = still_correct(model, x, examples, y, budget.epsilon)
            return {"accuracy": round(float(np.mean(left)), 4)}
        far = distances(model, x, examples, y, budget.norm)
        middle = float(np.median(far))
        return {
            "median_distance": round(middle, 4) if np.isfinite(middle) else None,
            "failed": round(float(np.mean(np.isinf(far))), 4),
        }

    cell |= strength(x_adv)
    if reached is not None and len(reached) > len(x):
        # On the same images, for a peer that got fewer.
        cell["ours"] = strength(reached[: len(x)])
    return cell


def timed(run: Run, x: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    start = time.perf_counter()
    x_adv = run(x, y)
    return time.perf_counter() - start, np.asarray(x_adv)


def cell_text(cell: dict[str, Any], attack: str, library: str, notes: list[str]) -> str:
    """Say how fast and how strong; a note tells ours where a peer got fewer images."""
    speed = cell["images_per_second"]
    text = f"{speed:.0f}" if speed >= 10 else f"{speed:.1f}"
    text += f", {strength_text(cell)}"
    if "ours" in cell:
        ours = strength_text(cell["ours"])
        notes.append(f"{library}, {attack}: {cell['images']} images; ours there {ours}")
        text += f" ({len(notes)})"
    return text


def strength_text(cell: dict[str, Any]) -> str:
    """Say the accuracy that is left, or the median distance."""
    if "accuracy" in cell:
        return f"{cell['accuracy']:.1%}"
    middle = cell["median_distance"]
    text = "infinite" if middle is None else f"{middle:.3f}"
    return f"{text}, {cell['failed']:.1%} failed" if cell["failed"] else text


@contextlib.contextmanager
def trouble_in(cell: dict[str, Any]) -> Iterator[None]:
    """Write what a library raises into its cell, and keep it from printing."""
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    except Exception as error:  # whatever a peer may do
        cell["error"] = f"{type(error).__name__}: {str(error)[:200]}"


def budget_of(attack: str, options: argparse.Namespace) -> Budget:
    budget = BUDGETS[attack]
    if not options.quick:
        return budget
    return replace(budget, steps=min(budget.steps, 5), searches=2)


def images_of(net: str, attack: str, library: str, options: argparse.Namespace) -> int:
    if options.quick:
        return 16
    batch_size = BUDGETS[attack].batch_size
    most = IMAGES[net] if batch_size == LINF.batch_size else 32 * batch_size
    return min(most, FEWER.get((net, attack, library), IMAGES[net]))


def measured(net: str, attack: str) -> bool:
    """Tell whether a row is measured: small batches only where dispatch decides."""
    return net == "reference" or BUDGETS[attack].batch_size == LINF.batch_size


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "budgets": {name: vars(budget_of(name, options)) for name in BUDGETS},
        "nets": {n: nets.recipe_of(r, options.quick) for n, r in RECIPE_OF.items()},
        "quick": options.quick,
    }


def parse_options() -> argparse.Namespace:
    parser = parser_of(__doc__)
    add = parser.add_argument
    add("--nets", nargs="+", choices=list(RECIPE_OF), default=list(RECIPE_OF))
    add("--attacks", nargs="+", choices=list(BUDGETS), default=list(BUDGETS))
    add("--rounds", type=int, default=5)
    add("--patience", type=float, default=30.0, help="seconds; slower: one round")
    options = parser.parse_args()
    complete(options, "attacks", rounds=1)
    return options


if __name__ == "__main__":
    tf.get_logger().setLevel("ERROR")
    main()
