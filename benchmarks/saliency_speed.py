"""Speed and values of saliency maps beside Xplique, tf-keras-vis and PAIR saliency.

    python benchmarks/saliency_speed.py          # what is missing in the results
    python benchmarks/saliency_speed.py --quick  # a smoke run in a few minutes
    python benchmarks/saliency_speed.py --table  # the table of what is there

All libraries run in one process on the same images and networks with the same settings,
in turn: every round times each of them once. A figure is the median over the rounds.
The first call, which compiles, is timed apart. Every cell is on disk, in
results/saliency_speed.json, once it is measured, with the largest difference to our
maps. The peers come from requirements/explainers.txt; one that is absent or fails is a
cell with the reason.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import asdict, replace
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import networks as nets
import numpy as np
import tensorflow as tf
from attacks import trouble_in
from explainers import table
from explainers.agreement import agreement
from explainers.peers import LIBRARIES, OURS, find
from explainers.settings import Run, Settings
from store import Store, complete, parser_of

import keras_jsigr as kj

SETTINGS = Settings()
METHODS = list(LIBRARIES[OURS].METHODS)
RECIPE_OF = {"reference": "plain", "resnet20": "resnet20"}

# Images of a timed call. Methods of many passes get an eighth of them, and PAIR, which
# explains image by image, a few.
IMAGES = {"reference": 512, "resnet20": 64}
ONE_PASS = ("gradient", "gradient x input", "Grad-CAM")
FEW = {"reference": 8, "resnet20": 2}


def main() -> None:
    options = parse_options()
    store = Store(options.out, settings_of(options))
    if not options.table:
        keras.utils.set_random_seed(0)
        run_all(store, options)
    print(table.maps_table(store.cells, list(RECIPE_OF), METHODS))


def run_all(store: Store, options: argparse.Namespace) -> None:
    """Measure the rows that are not there yet."""
    data = kj.datasets.load("fashion_mnist", verbose=False)
    for net in options.nets:
        model = None
        for method in options.methods:
            names = [f"{net}/{method}/{library}" for library in LIBRARIES]
            if all(store.has(name) for name in names):
                continue
            if model is None:
                trained = nets.load(RECIPE_OF[net], data, options.cache, options.quick)
                # A loaded Sequential was called twice: peers that build a model from
                # its layers would pick the wrong call.
                model = keras.models.clone_model(trained)
                model.set_weights(trained.get_weights())
            measure_row(store, model, net, method, data, options)


def measure_row(
    store: Store,
    model: Any,
    net: str,
    method: str,
    data: kj.datasets.Dataset,
    options: argparse.Namespace,
) -> None:
    """Time one method by all libraries in turn."""
    settings = used_settings(options)
    runs: dict[str, Run] = {}
    cells: dict[str, dict[str, Any]] = {}
    maps: dict[str, np.ndarray] = {}
    for library in LIBRARIES:
        make, reason = find(library, method)
        if make is None:
            store.put(f"{net}/{method}/{library}", {"missing": reason})
            continue
        images = images_of(net, method, library, options)
        cell: dict[str, Any] = {"images": images, "seconds": []}
        cells[library] = cell
        x, y = data.x_test[:images], data.y_test[:images]
        with trouble_in(cell):
            runs[library] = make(model, settings)
            start = time.perf_counter()
            runs[library](x, y)
            cell["first_call"] = time.perf_counter() - start
            # TensorFlow warms up in the second call, too.
            maps[library] = runs[library](x, y)
    for _ in range(options.rounds):
        for library, cell in cells.items():
            if "error" in cell:
                continue
            x, y = data.x_test[: cell["images"]], data.y_test[: cell["images"]]
            with trouble_in(cell):
                cell["seconds"].append(timed(runs[library], x, y, options.at_least))
    for library, cell in cells.items():
        if "error" not in cell:
            finish(cell)
            if library != OURS and OURS in maps:
                theirs = maps[library]
                ours = maps[OURS][: len(theirs)]
                cell |= agreement(method, library, ours, theirs, settings)
        store.put(f"{net}/{method}/{library}", cell)
        print(f"{net}, {method}, {library}: {cell}", flush=True)


def finish(cell: dict[str, Any]) -> None:
    """Turn the times of the rounds into figures."""
    seconds = float(np.median(cell["seconds"]))
    cell["rounds"] = len(cell["seconds"])
    cell["seconds"] = round(seconds, 5)
    cell["first_call"] = round(cell["first_call"], 3)
    cell["maps_per_second"] = round(cell["images"] / seconds, 2)
    cell["load"] = round(os.getloadavg()[0], 2)


def timed(run: Run, x: np.ndarray, y: np.ndarray, at_least: float) -> float:
    """Return the seconds of a call; short ones are repeated for `at_least` seconds."""
    start, calls = time.perf_counter(), 0
    while True:
        run(x, y)
        calls += 1
        passed = time.perf_counter() - start
        if passed >= at_least:
            return passed / calls


def images_of(net: str, method: str, library: str, options: argparse.Namespace) -> int:
    if options.quick:
        return 2 if library == "PAIR saliency" else 4
    if library == "PAIR saliency":
        return FEW[net]
    return IMAGES[net] if method in ONE_PASS else IMAGES[net] // 8


def used_settings(options: argparse.Namespace) -> Settings:
    if not options.quick:
        return SETTINGS
    return replace(SETTINGS, samples=4, steps=5, masks=20)


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "methods": asdict(used_settings(options)),
        "nets": {n: nets.recipe_of(r, options.quick) for n, r in RECIPE_OF.items()},
        "quick": options.quick,
    }


def parse_options() -> argparse.Namespace:
    parser = parser_of(__doc__)
    add = parser.add_argument
    add("--nets", nargs="+", choices=list(RECIPE_OF), default=list(RECIPE_OF))
    add("--methods", nargs="+", choices=METHODS, default=METHODS)
    add("--rounds", type=int, default=5)
    add("--at-least", type=float, default=0.2, help="seconds of one timing")
    options = parser.parse_args()
    complete(options, "saliency_speed", rounds=1, at_least=0.0)
    return options


if __name__ == "__main__":
    tf.get_logger().setLevel("ERROR")
    main()
