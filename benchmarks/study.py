"""J-SIGR beside its peers: accuracy, robustness, transfer, explanations, cost.

    python benchmarks/study.py                  # what is missing in results/study.json
    python benchmarks/study.py --seeds 1 --methods plain j_sigr pgd_7
    python benchmarks/study.py --quick          # a smoke run
    python benchmarks/study.py --table          # docs/study.md from what is there

The reference net conv4x4-s2(16, 32) + fc100 with SiLU on all of Fashion-MNIST, 15
epochs, Adam, cosine decay from 2e-3, Linf 0.1, inputs in 0..1. The methods are the
files of settings in baselines/methods. Per network: clean accuracy on all test images;
the worst case on the first 1,000, over the standard suite with diagnostics for the
headline methods and over APGD-CE and APGD-T for the others; MI-FGSM transferred from
the ensemble of the other families' surrogates at the radius and twice the radius;
agreement of the gradient map with perturbation maps; seconds per epoch. Networks and
figures are kept as they arrive: a killed study goes on.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
from baselines import page
from baselines.methods import Method, load
from judges.figures import left_by_apgd, percent
from judges.options import complete, parser_of
from judges.store import Store
from networks import nets
from networks.correct import correct

import keras_jsigr as kj

DOCS = Path(__file__).parents[1] / "docs"
# Seeds of networks that are attacked with, or that explain: never those measured.
SURROGATE_SEED, TEACHER_SEED = 1000, 100
# One network each of what an attacker may have trained.
SURROGATES = ("plain", "jacobian", "j_sigr", "fgsm_rs", "pgd_7")
MAPS = kj.saliency.METHODS["gradient"](score="margin")


def main() -> None:
    options = parse_options()
    methods = load()
    recipes = {name: recipe_of(m, 0, options) for name, m in methods.items()}
    store = Store(options.out, {"recipes": recipes, "images": options.images})
    if not options.table:
        source = "sample" if options.quick else "idx"
        data = kj.datasets.load(
            "fashion_mnist", source=source, data_dir=options.data_dir, verbose=False
        )
        for seed in range(options.seeds):
            for name in options.methods or methods:
                measure(store, methods, name, seed, data, options)
    if store.cells and not options.quick:
        page.write(store.cells, methods, DOCS)
    print(page.table(store.cells, methods))


def measure(
    store: Store,
    methods: dict[str, Method],
    name: str,
    seed: int,
    data: kj.datasets.Dataset,
    options: argparse.Namespace,
) -> None:
    """Train a network and measure what is not measured yet."""
    method = methods[name]
    parts: dict[str, Any] = {
        "cost": lambda: cost(method, seed, options),
        "robust": lambda: robustness(
            trained(method, seed, data, options), method.headline, data, options
        ),
        "transfer": lambda: transfer(
            trained(method, seed, data, options), method.family, methods, data, options
        ),
        "maps": lambda: explanations(
            trained(method, seed, data, options), methods, data, options
        ),
    }
    if not all(store.has(f"{part}/{name}/{seed}") for part in parts):
        trained(method, seed, data, options)
    for part, work in parts.items():
        cell = f"{part}/{name}/{seed}"
        if not store.has(cell):
            store.put(cell, work())
            print(cell, store.cells[cell], flush=True)


def recipe_of(method: Method, seed: int, options: argparse.Namespace) -> nets.Recipe:
    recipe = nets.RECIPES["plain"] | {"source": "idx", "images": 60_000}
    recipe |= method.recipe | {"seed": seed}
    if options.quick:
        recipe |= {"source": "sample", "images": 1_000, "epochs": 1}
    return recipe


def file_of(method: Method, seed: int, options: argparse.Namespace) -> Path:
    recipe = recipe_of(method, seed, options)
    return nets.file_of(f"study-{method.name}-{seed}", recipe, options.cache)


def trained(
    method: Method, seed: int, data: kj.datasets.Dataset, options: argparse.Namespace
) -> keras.Model:
    """Train a network, or load it; maps that it needs are those of a plain one."""
    return nets.train(
        recipe_of(method, seed, options),
        data,
        file_of(method, seed, options),
        teacher=lambda: trained(load()["plain"], seed, data, options),
    )


def cost(method: Method, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return how long the training took."""
    path = file_of(method, seed, options).with_suffix(".json")
    return dict(json.loads(path.read_text(encoding="utf-8")))


def robustness(
    net: keras.Model,
    headline: bool,
    data: kj.datasets.Dataset,
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Return clean and worst-case accuracy in percent."""
    x, y = data.x_test[: options.images], data.y_test[: options.images]
    clean = percent(correct(net, data.x_test, data.y_test))
    if headline:
        report = kj.evaluate(net, x, y, epsilon=nets.EPSILON, verbose=0)
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
        "robust": percent(left_by_apgd(net, x, y, nets.EPSILON)),
        "suite": "APGD-CE, APGD-T",
        "images": len(x),
    }


def transfer(
    net: keras.Model,
    family: str,
    methods: dict[str, Method],
    data: kj.datasets.Dataset,
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Return the accuracy on examples of the other families' ensemble, in percent."""
    sources = [methods[name] for name in SURROGATES if methods[name].family != family]
    ensemble = kj.attacks.LogitsEnsemble(
        [trained(source, SURROGATE_SEED, data, options) for source in sources]
    )
    x, y = data.x_test[: options.images], data.y_test[: options.images]
    radii = [nets.EPSILON, 2 * nets.EPSILON]
    records = kj.evaluation.transfer_matrix(
        {"ensemble": ensemble, "target": net},
        x,
        y,
        attacks=["mi-fgsm"],
        epsilons=radii,
        targets=["target"],
    )
    figures = {
        f"{record.epsilon:g}": round(100 * record.accuracy.accuracy, 2)
        for record in records
        if record.source == "ensemble"
    }
    return {**figures, "sources": [source.title for source in sources]}


def explanations(
    net: keras.Model,
    methods: dict[str, Method],
    data: kj.datasets.Dataset,
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Return how well gradient maps agree with perturbation maps."""
    report = kj.evaluate_saliency(
        {"net": net},
        data.x_test[: options.images],
        data.y_test[: options.images],
        epsilon=nets.EPSILON,
        method=MAPS,
        teacher=trained(methods["plain"], TEACHER_SEED, data, options),
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
    add = parser.add_argument
    add("--methods", nargs="+", choices=list(load()), default=None)
    add("--seeds", type=int, default=3)
    add("--images", type=int, default=1000, help="test images of the worst case")
    options = parser.parse_args()
    complete(options, "study", images=32, seeds=1)
    return options


if __name__ == "__main__":
    main()
