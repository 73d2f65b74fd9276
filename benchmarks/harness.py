"""Whether our training and evaluation give the published figures where they are known.

    python benchmarks/harness.py            # trains and judges what is not there yet

On all of Fashion-MNIST with the reference net conv4x4-s2(16, 32) + fc100 (ReLU):

- PGD training at Linf 0.1 is published with 88.46 % clean and 78.5 % worst-case
  accuracy (arXiv 1810.07481, table 1, first 1,000 test images): the same recipe here
  must reach 87 and 76.
- Plain training is published with 90.50 and 4.0: it must fall to 4 or less.
- FGSM training without a random start at Linf 0.2 is the textbook case of a false
  defence: FGSM must leave 80 % of its right decisions, the worst case 2 % of the
  images or less, and the diagnostics must say so.

Robust accuracy is the per-example worst case over the standard suite on the first 1,000
test images. A training that is killed goes on at its last finished epoch; every report
is saved once it is made. `--quick` is a smoke run on the embedded sample.
"""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import networks as nets
from figures import markdown_table, percent, still_correct
from networks import correct
from store import Store, complete, parser_of

import keras_jsigr as kj

COMMON = {"net": "reference", "activation": "relu", "source": "idx", "seed": 0}

# The recipe, and what its network must show: bounds in percent.
CASES: dict[str, dict[str, Any]] = {
    "plain": {
        "recipe": {"defence": None, "epochs": 10, "rate": 2e-3, "batch": 128},
        "clean": (90.0, 100.0),
        "robust": (0.0, 4.0),
        "published": "90.50 / 4.0",
    },
    "PGD training": {
        "recipe": {"defence": "PGD-7", "epochs": 60, "rate": 3e-3, "batch": 128},
        "clean": (87.0, 100.0),
        "robust": (76.0, 100.0),
        "published": "88.46 / 78.5",
    },
    "FGSM training, no random start": {
        "recipe": {"defence": "FGSM", "epochs": 15, "rate": 2e-3, "batch": 128},
        "epsilon": 0.2,
        "kept": (80.0, 100.0),
        "robust": (0.0, 2.0),
        "finding": True,
        "published": "91.94 / 0 (larger, Linf 0.3)",
    },
}


class Progress(keras.callbacks.Callback):
    """Print clean and PGD-50 accuracy on 1,000 test images now and then."""

    def __init__(self, data: kj.datasets.Dataset, epsilon: float, every: int) -> None:
        super().__init__()
        self.x, self.y = data.x_test[:1000], data.y_test[:1000]
        self.attack = kj.attacks.PGD(epsilon=epsilon, steps=50, verbose=0)
        self.every = every
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Print a line for this epoch."""
        line = f"epoch {epoch + 1}, {time.perf_counter() - self.start:.0f} s"
        line += "".join(f", {name} {value:.4f}" for name, value in (logs or {}).items())
        if (epoch + 1) % self.every == 0:
            hardened = isinstance(self.model, kj.JSIGRModel)
            net = kj.unwrap(self.model) if hardened else self.model
            x, y = self.x, self.y
            left = still_correct(net, x, self.attack(net, x, y), y, self.attack.epsilon)
            line += f", clean {correct(net, x, y).mean():.3f}, PGD-50 {left.mean():.3f}"
        print(line, flush=True)


def recipe_of(case: dict[str, Any], options: argparse.Namespace) -> nets.Recipe:
    epsilon = case.get("epsilon", nets.EPSILON)
    recipe = {**COMMON, **case["recipe"], "epsilon": epsilon}
    if options.epochs is not None:
        recipe["epochs"] = options.epochs
    if options.quick:
        recipe |= {"source": "sample", "epochs": 1, "images": 2_000}
    return recipe


def judge(
    net: keras.Model,
    data: kj.datasets.Dataset,
    epsilon: float,
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Return what the evaluation says of a network."""
    x, y = data.x_test[: options.images], data.y_test[: options.images]
    fast = kj.attacks.FGSM(epsilon=epsilon, verbose=0)
    report = kj.evaluate_robustness(net, x, y, epsilon=epsilon, verbose=0)
    suspects = [f for f in report.findings if f.status == "suspect"]
    survivors = still_correct(net, x, fast(net, x, y), y, epsilon)
    return {
        "clean, all test images": percent(correct(net, data.x_test, data.y_test)),
        "clean": round(100 * report.clean.accuracy, 2),
        "FGSM": percent(survivors),
        "robust": round(100 * report.robust.accuracy, 2),
        "attacks": {
            r.name: round(100 * r.accuracy.accuracy, 2) for r in report.attacks if r.accuracy
        },
        "images": len(x),
        "errors": report.errors,
        "suspect": {finding.rule: finding.says for finding in suspects},
        "seconds": round(report.seconds["total"], 1),
    }


def failures(case: dict[str, Any], cell: dict[str, Any]) -> list[str]:
    """Say which expectations a network does not meet."""
    found = []
    # What FGSM leaves of the right decisions, whatever the clean accuracy is.
    figures = {**cell, "kept": 100.0 * cell["FGSM"] / max(cell["clean"], 1.0)}
    for figure in ("clean", "kept", "robust"):
        low, high = case.get(figure, (0.0, 100.0))
        if not low <= figures[figure] <= high:
            got = f"{figure} {figures[figure]:.1f}"
            found.append(f"{got}, expected {low:g} to {high:g}")
    if case.get("finding") and not cell["suspect"]:
        found.append("the diagnostics found nothing suspect")
    return found + cell["errors"]


def print_table(store: Store) -> bool:
    """Print all cases; tell whether every one that was run is as it must be."""
    headings = ["training", "epsilon", "clean", "FGSM", "worst case", "published"]
    rows = []
    fine = True
    for name, case in CASES.items():
        cell = store.cells.get(name)
        if cell is None:
            rows.append([name, "not run", *[""] * 3, case["published"], ""])
            continue
        wrong = failures(case, cell)
        fine &= not wrong
        figures = [f"{cell[key]:.1f}" for key in ("clean", "FGSM", "robust")]
        epsilon = str(case.get("epsilon", nets.EPSILON))
        verdict = "; ".join(wrong) or "as expected"
        rows.append([name, epsilon, *figures, case["published"], verdict])
    print(f"\n{markdown_table([*headings, 'verdict'], rows)}")
    for name, cell in store.cells.items():
        print(f"\n{name}: {len(cell['suspect'])} suspect findings")
        for rule, says in cell["suspect"].items():
            print(f"- {rule}: {says}")
    return fine


def main() -> None:
    options = parse_options()
    recipes = {name: recipe_of(case, options) for name, case in CASES.items()}
    store = Store(options.out, {"recipes": recipes, "images": options.images})
    if not options.table:
        run_all(store, recipes, options)
    if not print_table(store) and not options.quick:
        raise SystemExit("The harness does not give the published figures.")


def run_all(store: Store, recipes: dict[str, nets.Recipe], options: argparse.Namespace) -> None:
    """Train and judge what is not there yet."""
    source = "sample" if options.quick else "idx"
    data = kj.datasets.load("fashion_mnist", source=source, data_dir=options.data_dir)
    for name in options.cases:
        if store.has(name):
            continue
        print(f"\n{name}", flush=True)
        slug = "harness-" + "".join(c if c.isalnum() else "-" for c in name.lower())
        path = nets.file_of(slug, recipes[name], options.cache)
        progress = Progress(data, recipes[name]["epsilon"], options.every)
        net = nets.train(recipes[name], data, path, [progress])
        if not options.train_only:
            store.put(name, judge(net, data, recipes[name]["epsilon"], options))
            print(store.cells[name], flush=True)


def parse_options() -> argparse.Namespace:
    parser = parser_of(__doc__, data_dir=True)
    add = parser.add_argument
    add("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    add("--epochs", type=int, default=None, help="instead of each recipe's own")
    add("--images", type=int, default=1000, help="test images of the worst case")
    add("--every", type=int, default=5, help="epochs between two progress figures")
    add("--train-only", action="store_true", help="train and keep, judge later")
    options = parser.parse_args()
    complete(options, "harness", images=32)
    return options


if __name__ == "__main__":
    main()
