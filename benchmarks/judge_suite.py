"""Our standard suite against ART's AutoAttack: the worst case on 1,000 images.

    python benchmarks/judge_suite.py            # what is missing in results/judges.json
    python benchmarks/judge_suite.py --quick    # a smoke run

Three networks (plain, hardened, adversarially trained), Linf 0.1, inputs in 0..1. ART
runs the members of its default list, APGD-CE, APGD-DLR, DeepFool and Square, with as
many steps and queries as ours have, `--targeted` also its targeted ones. Images are
judged in parts, and each part is saved when it is done. Our worst case must not be more
than half a point above theirs.
"""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import networks as nets
import numpy as np
import tensorflow as tf
from figures import markdown_table, still_correct
from judges import art_attacks
from judges.budget import Budget
from networks import correct
from store import Store, complete, parser_of

import keras_jsigr as kj

NETS = ("plain", "hardened", "pgd")
BUDGET = Budget(epsilon=nets.EPSILON, steps=100, random_start=True)
QUERIES = 5000
MARGIN = 0.5  # points


def ours(model: Any, x: np.ndarray, y: np.ndarray, options: Any) -> np.ndarray:
    """Return who survives our standard suite, bool `(N,)`."""
    del options
    suite = kj.attacks.AutoAttack(nets.EPSILON)
    return still_correct(model, x, suite(model, x, y), y, nets.EPSILON)


def theirs(model: Any, x: np.ndarray, y: np.ndarray, options: Any) -> np.ndarray:
    """Return who survives ART's AutoAttack, bool `(N,)`."""
    from art.attacks.evasion import AutoAttack

    steps, queries = (5, 10) if options.quick else (BUDGET.steps, QUERIES)
    budget = Budget(**{**vars(BUDGET), "steps": steps})
    estimator = art_attacks.classifier(model)
    members = art_attacks.auto_attack_members(estimator, budget, queries)
    attack = AutoAttack(
        estimator,
        eps=nets.EPSILON,
        eps_step=2 * nets.EPSILON,
        attacks=[make() for make in members.values()],
        batch_size=budget.batch_size,
        targeted=options.targeted,
    )
    np.random.seed(budget.seed)
    x_adv = attack.generate(x.copy(), y)
    return still_correct(model, x, x_adv, y, nets.EPSILON)


def measure(store: Store, options: argparse.Namespace) -> None:
    """Judge what is not judged yet, part by part."""
    data = kj.datasets.load("fashion_mnist", verbose=False)
    for net in options.nets:
        model = None
        for start in range(0, options.images, options.part):
            for judge in (ours, theirs):
                name = f"{net}/{judge.__name__}/{start}"
                if store.has(name):
                    continue
                if model is None:
                    model = nets.load(net, data, options.cache, options.quick)
                part = slice(start, min(start + options.part, options.images))
                x, y = data.x_test[part], data.y_test[part]
                begin = time.perf_counter()
                left = judge(model, x, y, options)
                cell = {
                    "images": len(x),
                    "clean": int(np.sum(correct(model, x, y))),
                    "survivors": (start + np.flatnonzero(left)).tolist(),
                    "seconds": round(time.perf_counter() - begin, 1),
                }
                store.put(name, cell)
                print(f"{name}: {len(cell['survivors'])} of {len(x)}", flush=True)


def print_table(store: Store) -> bool:
    """Print the worst cases; tell whether ours is nowhere the weaker one."""
    headings = ["net", "images", "clean", "ours", "ART"]
    rows = []
    fine = True
    for net in NETS:
        parts = {
            judge: {
                name.rsplit("/", 1)[1]: cell
                for name, cell in store.cells.items()
                if name.startswith(f"{net}/{judge}/")
            }
            for judge in ("ours", "theirs")
        }
        both = [part for part in parts["ours"] if part in parts["theirs"]]
        images = sum(parts["ours"][part]["images"] for part in both)
        if not images:
            continue
        clean = sum(parts["ours"][part]["clean"] for part in both)
        left = {
            judge: {i for part in both for i in cells[part]["survivors"]}
            for judge, cells in parts.items()
        }
        rates = {judge: 100 * len(rows) / images for judge, rows in left.items()}
        fine &= rates["ours"] <= rates["theirs"] + MARGIN
        shares = (100 * clean / images, rates["ours"], rates["theirs"])
        alone = (left["theirs"] - left["ours"], left["ours"] - left["theirs"])
        rows.append(
            [net, str(images)]
            + [f"{share:.1f}" for share in shares]
            + [str(len(broken)) for broken in alone]
        )
    headings += ["broken by us alone", "by ART alone"]
    print(f"\n{markdown_table(headings, rows)}")
    return fine


def main() -> None:
    options = parse_options()
    settings = {
        "steps": BUDGET.steps,
        "queries": QUERIES,
        "targeted": options.targeted,
        "nets": {name: nets.recipe_of(name, options.quick) for name in NETS},
        "part": options.part,
    }
    store = Store(options.out, settings)
    if not options.table:
        measure(store, options)
    if not print_table(store) and not options.quick:
        raise SystemExit(f"Our suite is weaker than ART's by more than {MARGIN} points.")


def parse_options() -> argparse.Namespace:
    parser = parser_of(__doc__)
    add = parser.add_argument
    add("--nets", nargs="+", choices=NETS, default=list(NETS))
    add("--images", type=int, default=1000)
    add("--part", type=int, default=250, help="images judged at once")
    add("--targeted", action="store_true", help="ART's targeted attacks too: slow")
    options = parser.parse_args()
    complete(options, "judges", images=32, part=32)
    return options


if __name__ == "__main__":
    tf.get_logger().setLevel("ERROR")
    main()
