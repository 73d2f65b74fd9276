"""Does the selection know the image? Networks trained with maps of less and less of it.

    python benchmarks/selection.py              # what is missing in results/selection.json
    python benchmarks/selection.py --seeds 1    # one seed instead of three
    python benchmarks/selection.py --quick      # a smoke run
    python benchmarks/selection.py --table      # the table of what is there

The recipe `balanced` with maps of a plain network, with those of other images, of other
images of the class, the mean map of all images, and edges of the image itself; beside
them the penalty on all pixels. Reference network, Fashion-MNIST, 15 epochs, Linf 0.1.
Judged where a selection ought to matter, on the first test images: APGD-CE on the half
of the pixels that a teacher of another seed finds the least salient, and on the other
half, at one, two and three radii; mosaics of four images, on which the gradient map of a
class should lie in the quarter of that class; the likeness of the maps of two classes;
and the accuracy of networks trained where a patch tells the label (rung `decoy`). A
judge finds a difference where it is beyond two standard deviations of the seeds'
difference.
"""

from __future__ import annotations

import argparse
import os
from functools import partial
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import networks as nets
import numpy as np
from figures import markdown_table
from networks import correct
from store import Store, complete, parser_of
from study_networks import RUNGS, TEACHER_SEED, Bank, add_options

import keras_jsigr as kj

METHODS = (
    "balanced_teacher",
    "balanced_shuffled_in_class",
    "balanced_shuffled",
    "balanced_mean",
    "balanced_edges",
    "balanced_all",
)
RADII = (1, 2, 3)
MARGIN = {"score": "margin"}
# Heading, name of the figure, and whether more is better.
JUDGES = (
    ("clean", "clean", True),
    *((f"background, {r} r", f"background {r}", True) for r in RADII),
    *((f"object, {r} r", f"object {r}", True) for r in RADII),
    ("mosaic", "mosaic", True),
    ("two classes", "two classes", False),
    ("decoy", "decoy", True),
)


def main() -> None:
    options = parse_options()
    if options.train is not None:
        name, seed = options.train
        Bank(RUNGS[options.rung], options).net(name, int(seed))
        return
    bank, decoys = (Bank(RUNGS[name], options) for name in ("reference", "decoy"))
    store = Store(options.out, bank.chosen)
    names, seeds = options.methods or METHODS, range(options.seeds)
    if not options.table:
        members = [(name, seed) for seed in seeds for name in names]
        for each in (bank, decoys):
            each.fill([("plain", TEACHER_SEED), *members])
        for name, seed in members:
            nets_of = [*bank.stems_of([(name, seed)]), *decoys.stems_of([(name, seed)])]
            judged = partial(judge, name, seed, bank, decoys)
            store.measure(f"{name}/{seed}", judged, of=nets_of)
    print(table(store.cells, bank.methods, names))


def judge(name: str, seed: int, bank: Bank, decoys: Bank) -> dict[str, float]:
    """Measure one network, and its twin that was trained with decoys."""
    net, (x, y) = bank.net(name, seed), bank.test_images
    found = {"clean": float(correct(net, bank.data.x_test, bank.data.y_test).mean())}
    teacher = bank.net("plain", TEACHER_SEED)
    maps = np.asarray(kj.perturbation_map(teacher, x))
    for radius in RADII:
        attack = kj.attacks.APGD(radius * nets.EPSILON, steps=50, early_stop=True, verbose=0)
        for part, salient in (("background", False), ("object", True)):
            region = kj.attacks.salient_region(maps, 0.5, salient=salient)
            moved = attack(net, x, y, region=region)
            found[f"{part} {radius}"] = float(correct(net, moved, y).mean())
    found["mosaic"] = mosaics(net, x, y)
    right = correct(net, x, y)
    others = (y[right] + 1) % len(bank.data.class_names)
    one, other = (
        np.asarray(kj.gradient_map(net, x[right], labels, **MARGIN))
        for labels in (y[right], others)
    )
    likeness = kj.saliency.metrics.rank_correlation(one, other)
    found["two classes"] = float(np.nanmean(likeness))
    twin = decoys.net(name, seed)
    found["decoy"] = float(correct(twin, decoys.data.x_test, decoys.data.y_test).mean())
    return found


def mosaics(net: keras.Model, x: np.ndarray, y: np.ndarray, count: int = 200) -> float:
    """Return the share of a class's gradient map in its quarter; a quarter is chance."""
    small = x.reshape(len(x), 14, 2, 14, 2, 1).mean((2, 4))
    rng, shares = np.random.default_rng(0), []
    pictures, classes, quarters = [], [], []
    while len(pictures) < count:
        rows = rng.permutation(len(x))[:4]
        if len(set(y[rows])) < 4:
            continue
        top, bottom = (np.concatenate(small[rows[i : i + 2]], axis=1) for i in (0, 2))
        pictures.append(np.concatenate([top, bottom]))
        quarter = int(rng.integers(4))
        quarters.append(quarter)
        classes.append(y[rows[quarter]])
    maps = np.asarray(kj.gradient_map(net, np.stack(pictures), np.array(classes), **MARGIN))
    for mass, quarter in zip(np.abs(maps), quarters, strict=True):
        row, column = divmod(quarter, 2)
        part = mass[14 * row : 14 * row + 14, 14 * column : 14 * column + 14]
        shares.append(part.sum() / mass.sum())
    return float(np.mean(shares))


def table(cells: dict[str, Any], methods: Any, names: Any) -> str:
    """Write means over seeds, and mark what true maps have beyond the seeds' spread."""
    by_seed = {
        name: {key.split("/")[1]: cell for key, cell in cells.items() if key.startswith(f"{name}/")}
        for name in names
    }
    shuffled, true = by_seed.get("balanced_shuffled", {}), by_seed.get("balanced_teacher", {})
    rows = []
    for name, found in by_seed.items():
        if found:
            figures = [
                f"{np.mean([cell[figure] for cell in found.values()]):.3f}"
                for _, figure, _ in JUDGES
            ]
            rows.append([methods[name].title, str(len(found)), *figures])
    seeds = sorted(set(true) & set(shuffled))
    verdicts = []
    for _, figure, more in JUDGES:
        gains = [(true[s][figure] - shuffled[s][figure]) * (1 if more else -1) for s in seeds]
        clear = len(gains) > 1 and abs(np.mean(gains)) > 2 * np.std(gains, ddof=1)
        mark = "" if not gains else f"{np.mean(gains):+.3f}" + (" clear" if clear else "")
        verdicts.append(mark)
    rows.append(["true maps beside shuffled ones, more is better", str(len(seeds)), *verdicts])
    header = ["maps", "seeds", *(heading for heading, _, _ in JUDGES)]
    return markdown_table(header, rows)


def parse_options() -> argparse.Namespace:
    parser = parser_of(__doc__, data_dir=True)
    add_options(parser, images=500)
    options = parser.parse_args()
    complete(options, "selection")
    return options


if __name__ == "__main__":
    main()
