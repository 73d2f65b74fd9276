"""What the largest penalty weights within a given loss of clean accuracy buy.

    python benchmarks/auto_weights.py            # measures what is not there yet

The reference net (SiLU) on the embedded Fashion-MNIST sample: 10,000 images to train
on, 2,000 to validate on, cosine decay of Adam from 2e-3, batches of 128. The plain
network trains for 10 epochs. Then the hardened one, with the weights that 0.1.0 had by
default times a factor that `AccuracyConstraint` finds, trains for 15:

- from the plain network, which is its own reference, for drops of 1, 2 and 5 points;
- from new weights, with the plain network as the reference;
- from the plain network at a constant learning rate of 1e-3;
- with fixed default weights, for comparison.

Clean accuracy on the validation images and on 2,000 test images, PGD-20 (Linf, epsilon
0.1, inputs in 0..1, one random start) on the first 1,000 test images, one seed. Every
cell is saved once it is measured.
"""

from __future__ import annotations

import argparse
import os
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import networks as nets
import numpy as np
from figures import markdown_table
from networks import correct, reference_net
from store import Store

import keras_jsigr as kj

OUT = Path(__file__).parent / "results" / "auto_weights.json"
SETTINGS: dict[str, Any] = {
    "seed": 0,
    "train": 10_000,
    "batch": 128,
    "rate": 2e-3,
    "plain_epochs": 10,
    "epochs": 15,
    "epsilon": nets.EPSILON,
    "attacked": 1_000,
}
CASES: dict[str, dict[str, Any]] = {
    "drop 0.01": {"max_drop": 0.01},
    "drop 0.02": {"max_drop": 0.02},
    "drop 0.05": {"max_drop": 0.05},
    "drop 0.02, new weights": {"max_drop": 0.02, "new": True},
    "drop 0.02, constant rate": {"max_drop": 0.02, "rate": 1e-3},
    "fixed defaults": {},
}

Split = tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def split(data: kj.datasets.Dataset) -> Split:
    """Cut the training images into those to train and those to validate on."""
    cut, x, y = SETTINGS["train"], data.x_train, data.y_train
    return (x[:cut], y[:cut]), (x[cut:], y[cut:])


def fit(
    model: keras.Model,
    images: Split,
    epochs: int,
    rate: float | None = None,
    callbacks: Any = (),
) -> dict[str, list[float]]:
    """Train with a cosine decay, or at a constant rate; return the history."""
    (x, y), validation = images
    steps = epochs * -(-len(x) // SETTINGS["batch"])
    cosine = keras.optimizers.schedules.CosineDecay(SETTINGS["rate"], steps)
    model.compile(
        keras.optimizers.Adam(rate or cosine),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    history = model.fit(
        x,
        y,
        epochs=epochs,
        batch_size=SETTINGS["batch"],
        validation_data=validation,
        callbacks=list(callbacks),
        verbose=0,
    ).history
    return {name: [float(v) for v in values] for name, values in history.items()}


def accuracy(model: keras.Model, x: np.ndarray, y: np.ndarray) -> float:
    return round(float(correct(model, x, y).mean()), 4)


def figures(model: keras.Model, data: kj.datasets.Dataset, images: Split) -> dict[str, Any]:
    """Measure clean accuracy and PGD-20."""
    n = SETTINGS["attacked"]
    x, y = data.x_test[:n], data.y_test[:n]
    pgd = kj.attacks.PGD(epsilon=SETTINGS["epsilon"], steps=20, verbose=0)
    return {
        "validation": accuracy(model, *images[1]),
        "clean": accuracy(model, data.x_test, data.y_test),
        "pgd20": accuracy(model, pgd(model, x, y), y),
    }


def measure(
    case: dict[str, Any], plain: list[np.ndarray], data: Any, images: Split
) -> dict[str, Any]:
    """Harden and train by a case; return its figures and the way of the factor."""
    twin = reference_net("silu", SETTINGS["seed"])
    twin.set_weights(plain)
    new = case.get("new", False)
    model = reference_net("silu", SETTINGS["seed"]) if new else twin
    robust = kj.harden(model, recipe=kj.JSIGRConfig(), warmup=200, verbose=0)
    callbacks = []
    if "max_drop" in case:
        reference = twin if new else None
        constraint = kj.callbacks.AccuracyConstraint(case["max_drop"], reference)
        callbacks.append(constraint)
    history = fit(robust, images, SETTINGS["epochs"], case.get("rate"), callbacks)
    cell = figures(robust, data, images)
    for name in ("penalty_factor", "val_accuracy"):
        cell[name] = [round(v, 4) for v in history.get(name, [])]
    return cell


def table(cells: dict[str, Any]) -> str:
    """Lay the cells out: accuracy in percent, factors of the default weights."""
    plain = cells["plain"]["validation"]
    headings = ["case", "bound", "validation", "test", "PGD-20"]
    rows = []
    for name, cell in cells.items():
        drop = CASES.get(name, {}).get("max_drop")
        bound = "-" if drop is None else f"{100 * (plain - drop):.1f}"
        shares = [f"{100 * cell[k]:.1f}" for k in ("validation", "clean", "pgd20")]
        way = cell.get("penalty_factor", [])
        factors = ", ".join(f"{way[i]:.2f}" for i in (0, 4, 9, 14)) if way else "-"
        rows.append([name, bound, *shares, factors])
    return markdown_table([*headings, "factor in epoch 1, 5, 10, 15"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--table", action="store_true", help="print what is there")
    options = parser.parse_args()
    store = Store(options.out, SETTINGS)
    if not options.table:
        measure_all(store)
    print(table(store.cells))


def measure_all(store: Store) -> None:
    """Train and measure the cases that are missing."""
    data = kj.datasets.load("fashion_mnist", verbose=False)
    images = split(data)
    plain = reference_net("silu", SETTINGS["seed"])
    weights = nets.CACHE / "auto-weights-plain.weights.h5"
    if not weights.exists() or not store.has("plain"):
        fit(plain, images, SETTINGS["plain_epochs"])
        weights.parent.mkdir(parents=True, exist_ok=True)
        plain.save_weights(weights)
        store.put("plain", figures(plain, data, images))
    plain.load_weights(weights)
    for name, case in CASES.items():
        store.measure(name, partial(measure, case, plain.get_weights(), data, images))


if __name__ == "__main__":
    main()
