"""J-SIGR beside its peers: accuracy, robustness, transfer, explanations, cost.

    python benchmarks/study.py                  # what is missing in results/study.json
    python benchmarks/study.py --rung resnet20  # another network, see baselines/rungs
    python benchmarks/study.py --seeds 1 --methods plain j_sigr pgd_7
    python benchmarks/study.py --quick          # a smoke run
    python benchmarks/study.py --table          # docs/study.md from what is there

15 epochs (Tiny ImageNet: 30), Adam, cosine decay from 2e-3, batches of 128; inputs in
0..1. The methods are the files of settings in baselines/methods. Per network: clean
accuracy on all test images; the worst case on the first 1,000, over the standard suite
with diagnostics for the headline methods and over APGD-CE and APGD-T for the others;
MI-FGSM transferred from the ensemble of the other families' surrogates at the radius
and twice the radius; agreement of the gradient map with perturbation maps; seconds per
epoch while as many networks train as there are cores. Networks and figures are kept as
they arrive: a killed study goes on.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from baselines import page
from baselines.methods import Method, load
from baselines.rungs import RUNGS, Rung, load_data
from judges.figures import left_by_apgd, percent
from judges.options import add_training, complete, parser_of
from judges.store import Store
from networks import nets
from networks.correct import correct
from networks.side_by_side import side_by_side

import keras_jsigr as kj

DOCS = Path(__file__).parents[1] / "docs"
# Seeds of networks that are attacked with, or that explain: never those measured.
SURROGATE_SEED, TEACHER_SEED = 1000, 100
# One network each of what an attacker may have trained.
SURROGATES = ("plain", "jacobian", "j_sigr", "fgsm_rs", "pgd_7")
MAPS = kj.saliency.METHODS["gradient"](score="margin")


@dataclass(frozen=True)
class Ground:
    """What all networks of a run share."""

    rung: Rung
    data: kj.datasets.Dataset
    methods: dict[str, Method]
    options: argparse.Namespace


def main() -> None:
    options = parse_options()
    methods = load()
    stores = {name: store_of(rung, options) for name, rung in RUNGS.items()}
    rung = RUNGS[options.rung]
    if not options.table:
        data = load_data(rung, options.data_dir, options.boxes, options.quick)
        ground = Ground(rung, data, methods, options)
        if options.train is not None:
            method, seed = options.train
            trained(methods[method], int(seed), ground)
            return
        run(stores[rung.name], ground)
    results = []
    for name, store in stores.items():
        networks = partial(
            networks_of, rung=RUNGS[name], methods=methods, options=options
        )
        if cells := store.current(networks):
            results.append((RUNGS[name], cells))
    if results and not options.quick:
        page.write(results, methods, DOCS)
    for rung, cells in results:
        print(f"\n{rung.title}\n\n{page.table(cells, methods)}")


def store_of(rung: Rung, options: argparse.Namespace) -> Store:
    """Open the results of a rung."""
    out = options.out
    if rung.name != "reference":
        out = out.with_stem(f"{out.stem}-{rung.name}")
    return Store(out, {"images": options.images})


def run(store: Store, ground: Ground) -> None:
    """Train and measure what is missing."""
    train_all(ground)
    for seed in range(ground.options.seeds):
        for name in ground.options.methods or ground.methods:
            measure(store, name, seed, ground)


def train_all(ground: Ground) -> None:
    """Train what is not there, the networks that others learn from first."""
    seeds = range(ground.options.seeds)
    teachers = [("plain", seed) for seed in (*seeds, TEACHER_SEED, SURROGATE_SEED)]
    others = [(name, SURROGATE_SEED) for name in SURROGATES]
    others += [(m, s) for s in seeds for m in ground.options.methods or ground.methods]
    for tasks in (teachers, others):
        side_by_side(
            tasks,
            lambda name, seed: file_of(
                ground.methods[name], seed, ground.rung, ground.options
            ),
            ground.options.jobs,
        )


def measure(store: Store, name: str, seed: int, ground: Ground) -> None:
    """Measure of a network what is not measured yet."""
    method = ground.methods[name]
    parts: dict[str, Any] = {
        "cost": lambda net: cost(method, seed, ground),
        "robust": lambda net: robustness(net, method.headline, ground),
        "transfer": lambda net: transfer(net, method.family, ground),
        "maps": lambda net: explanations(net, ground),
    }
    net = None
    for part, figures in parts.items():
        cell = f"{part}/{name}/{seed}"
        networks = networks_of(cell, ground.rung, ground.methods, ground.options)
        if store.has(cell, networks):
            continue
        net = net or trained(method, seed, ground)
        store.put(cell, figures(net), of=networks)
        print(cell, store.cells[cell], flush=True)


def networks_of(
    cell: str, rung: Rung, methods: dict[str, Method], options: argparse.Namespace
) -> list[str] | None:
    """Name the networks that a cell depends on, or `None` if its method is gone."""
    part, name, seed = cell.split("/")
    if name not in methods:
        return None
    networks = [(methods[name], int(seed))]
    if part == "transfer":
        sources = sources_against(methods[name].family, methods)
        networks += [(source, SURROGATE_SEED) for source in sources]
    if part == "maps":
        networks.append((methods["plain"], TEACHER_SEED))
    return [file_of(method, s, rung, options).stem for method, s in networks]


def sources_against(family: str, methods: dict[str, Method]) -> list[Method]:
    """Return what an attacker of a family transfers from: the other families."""
    surrogates = [methods[name] for name in SURROGATES]
    return [source for source in surrogates if source.family != family]


def recipe_of(
    method: Method, seed: int, rung: Rung, options: argparse.Namespace
) -> nets.Recipe:
    recipe = nets.RECIPES["plain"] | rung.recipe | method.recipe | {"seed": seed}
    recipe["epochs"] = round(recipe["epochs"] * method.longer)
    if options.quick:
        recipe |= {"source": "sample", "images": 1_000, "epochs": 1}
    return recipe


def file_of(method: Method, seed: int, rung: Rung, options: argparse.Namespace) -> Path:
    recipe = recipe_of(method, seed, rung, options)
    return nets.file_of(f"study-{method.name}-{seed}", recipe, options.cache)


def trained(method: Method, seed: int, ground: Ground) -> keras.Model:
    """Train a network, or load it; maps that it needs are those of a plain one."""
    return nets.train(
        recipe_of(method, seed, ground.rung, ground.options),
        ground.data,
        file_of(method, seed, ground.rung, ground.options),
        teacher=lambda: trained(ground.methods["plain"], seed, ground),
    )


def cost(method: Method, seed: int, ground: Ground) -> dict[str, Any]:
    """Return how long the training took."""
    path = file_of(method, seed, ground.rung, ground.options).with_suffix(".json")
    return dict(json.loads(path.read_text(encoding="utf-8")))


def first_images(ground: Ground) -> tuple[np.ndarray, np.ndarray]:
    """Return the test images that networks are attacked and explained on."""
    count = ground.options.images
    return ground.data.x_test[:count], ground.data.y_test[:count]


def robustness(net: keras.Model, headline: bool, ground: Ground) -> dict[str, Any]:
    """Return clean and worst-case accuracy in percent."""
    x, y = first_images(ground)
    epsilon = ground.rung.epsilon
    clean = percent(correct(net, ground.data.x_test, ground.data.y_test))
    if headline:
        report = kj.evaluate(net, x, y, epsilon=epsilon, verbose=0)
        found = {f.rule: f.says for f in report.findings if f.status == "suspect"}
        return {
            "clean": clean,
            "robust": round(100 * report.robust.accuracy, 2),
            "suite": "standard",
            "images": len(x),
            "suspect": found,
            "errors": report.errors,
        }
    return {
        "clean": clean,
        "robust": percent(left_by_apgd(net, x, y, epsilon)),
        "suite": "APGD-CE, APGD-T",
        "images": len(x),
    }


def transfer(net: keras.Model, family: str, ground: Ground) -> dict[str, Any]:
    """Return the accuracy on examples of the other families' ensemble, in percent."""
    sources = sources_against(family, ground.methods)
    ensemble = kj.attacks.LogitsEnsemble(
        [trained(source, SURROGATE_SEED, ground) for source in sources]
    )
    x, y = first_images(ground)
    radii = {"once": ground.rung.epsilon, "twice": 2 * ground.rung.epsilon}
    records = kj.evaluation.transfer_matrix(
        {"ensemble": ensemble, "target": net},
        x,
        y,
        attacks=["mi-fgsm"],
        epsilons=list(radii.values()),
        targets=["target"],
    )
    figures = {
        name: round(100 * record.accuracy.accuracy, 2)
        for record in records
        for name, radius in radii.items()
        if record.source == "ensemble" and math.isclose(record.epsilon, radius)
    }
    return {**figures, "sources": [source.title for source in sources]}


def explanations(net: keras.Model, ground: Ground) -> dict[str, Any]:
    """Return how well gradient maps agree with perturbation maps."""
    report = kj.evaluate_saliency(
        {"net": net},
        *first_images(ground),
        epsilon=ground.rung.epsilon,
        method=MAPS,
        teacher=trained(ground.methods["plain"], TEACHER_SEED, ground),
        parts=["agreement", "sparsity"],
    )
    columns = {
        "own": ("With the own perturbation map", "rank correlation"),
        "teacher": ("With the teacher's perturbation map", "rank correlation"),
        "gini": ("Gini index", ""),
    }
    figures = {k: report["net"].figure(*where) for k, where in columns.items()}
    return {k: figure.mean for k, figure in figures.items()} | {
        "images": figures["gini"].images
    }


def parse_options() -> argparse.Namespace:
    parser = parser_of(__doc__, data_dir=True)
    add_training(parser)
    add = parser.add_argument
    add("--rung", choices=list(RUNGS), default="reference")
    add("--boxes", type=Path, default=None, help="the archive of Tiny ImageNet")
    add("--methods", nargs="+", choices=list(load()), default=None)
    add("--seeds", type=int, default=3)
    add("--images", type=int, default=1000, help="test images of the worst case")
    options = parser.parse_args()
    complete(options, "study", images=32, seeds=1)
    return options


if __name__ == "__main__":
    main()
