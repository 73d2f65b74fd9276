"""J-SIGR beside its peers: accuracy, robustness, transfer, explanations, cost.

    python benchmarks/study.py                  # what is missing in results/study.json
    python benchmarks/study.py --rung resnet20  # another network, data set or radius
    python benchmarks/study.py --seeds 1 --methods plain j_sigr pgd_7
    python benchmarks/study.py --parts step robust maps     # no surrogates to train
    python benchmarks/study.py --out again.json # from nothing, beside what is published
    python benchmarks/study.py --held-out   # on test images that nothing was chosen on
    python benchmarks/study.py --skip 1000 --out other.json # on others
    python benchmarks/study.py --quick          # a smoke run
    python benchmarks/study.py --table          # docs/results/study.md from what is there

15 epochs, or as many as the rung says, Adam, cosine decay from 2e-3, batches of 128;
inputs in 0..1. The methods are those of methods.json. Per network:
clean accuracy on all test images; the worst case on the first 1,000, over the standard
suite with diagnostics for the headline methods and over APGD-CE and APGD-T for the
others, beside PGD-40, of which published figures often are; MI-FGSM transferred from
the other families' surrogates at the radius and twice the radius, the worst of each and
two ensembles; agreement of the gradient map with perturbation maps. Per method: the
time of a step, in turn with one of plain training. Networks and figures are kept as
they arrive: a killed study goes on.
"""

from __future__ import annotations

import argparse
import os
from functools import cache, partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import networks as nets
import numpy as np
import study_page as page
from figures import clean_and_apgd, percent, step_of, steps_in_turn, still_correct
from networks import correct
from store import RESULTS, Store, complete, parser_of
from study_networks import (
    RUNGS,
    SURROGATE_SEED,
    TEACHER_SEED,
    Bank,
    Member,
    add_options,
    transfer_examples,
)

import keras_jsigr as kj

DOCS = Path(__file__).parents[1] / "docs"
# Test images after so many were never looked at to choose a setting: see the log.
HELD_OUT = 3000
# The files that the page is made of, and the test images before those they are of.
PUBLISHED = {RESULTS / "study.json": 0, RESULTS / "held_out.json": HELD_OUT}
# One network each of what an attacker may have trained.
SURROGATES = ("plain", "jacobian", "j_sigr", "fgsm_rs", "pgd_7")
PARTS = ("step", "robust", "pgd", "transfer", "maps")
# The time of a step is that of the network of one seed, in so many turns of steps.
TIMED_SEED, ROUNDS, INNER = 0, 30, 5
# The suite of a cell that is not of the whole one.
APGD = "APGD-CE, APGD-T"
MAPS = kj.saliency.METHODS["gradient"](score="margin")


def main() -> None:
    options = parse_options()
    bank = Bank(RUNGS[options.rung], options)
    if options.train is not None:
        method, seed = options.train
        bank.net(method, int(seed))
        return
    if options.measure is not None:
        method, seed = options.measure
        measure(store_of(bank, options), method, int(seed), bank, options)
        return
    if not options.table:
        run(bank, options)
    judged = judged_of(options)
    # Figures in a file of their own, as those of a smoke run, are not of the page.
    if judged and options.out in PUBLISHED:
        page.write_page(judged, bank.methods, DOCS)
    for each in judged:
        print(f"\n{each.title}\n\n{page.table(each.rung, each.cells, bank.methods)}")


def judged_of(options: argparse.Namespace) -> list[page.Judged]:
    """Read the figures of all rungs: of all that is published, or of the own file."""
    own = {options.out: options.skip}
    judged = []
    for rung in RUNGS.values():
        steps: page.Cells = {}
        for out, skip in (PUBLISHED if options.out in PUBLISHED else own).items():
            part = argparse.Namespace(**{**vars(options), "out": out, "skip": skip})
            bank = Bank(rung, part)
            cells = store_of(bank, part).current(partial(networks_of, bank=bank))
            if cells:
                # The time of a step is not of images.
                judged.append(page.Judged(rung, {**steps, **cells}, skip))
            steps = {k: cell for k, cell in cells.items() if k.startswith("step/")}
    return judged


def store_of(bank: Bank, options: argparse.Namespace) -> Store:
    """Open the results of a rung."""
    out = options.out
    if bank.rung.name != "reference":
        out = out.with_stem(f"{out.stem}-{bank.rung.name}")
    return Store(out, bank.chosen)


def run(bank: Bank, options: argparse.Namespace) -> None:
    """Train and measure what is missing: networks side by side, then steps alone."""
    seeds, names = range(options.seeds), options.methods or list(bank.methods)
    store = store_of(bank, options)
    if parts := set(options.parts) - {"step"}:
        members = [(name, seed) for seed in seeds for name in names]

        def is_measured(member: Member) -> bool:
            name, seed = member
            cells = (f"{part}/{name}/{seed}" for part in parts)
            return all(store.has(cell, networks_of(cell, bank)) for cell in cells)

        if left := [m for m in members if not is_measured(m)]:
            train(left, bank, transfer="transfer" in parts)
            bank.side_by_side("--measure", left)
    for name in names if "step" in options.parts else ():
        cell = f"step/{name}/{TIMED_SEED}"
        timed = partial(step, name, bank, options.quick)
        store.measure(cell, timed, of=networks_of(cell, bank))


def train(members: list[Member], bank: Bank, transfer: bool) -> None:
    """Train what is to be measured, the teacher, and what examples transfer from."""
    trained = [("plain", TEACHER_SEED), *members]
    surrogates = [(name, SURROGATE_SEED) for name in SURROGATES]
    if transfer and bank.surrogates is bank:
        trained += surrogates
    elif transfer:
        bank.surrogates.fill(surrogates)
    bank.fill(trained)


def measure(store: Store, name: str, seed: int, bank: Bank, options: argparse.Namespace) -> None:
    """Measure of a network what is not measured yet."""
    method = bank.methods[name]
    net = cache(lambda: bank.net(name, seed))
    parts: dict[str, Any] = {
        "robust": lambda: robustness(net(), method.headline, bank),
        "pgd": lambda: pgd(net(), bank),
        "transfer": lambda: transfer(net(), method.family, bank),
        "maps": lambda: explanations(net(), bank),
    }
    for part, figures in parts.items():
        if part in options.parts:
            cell = f"{part}/{name}/{seed}"
            store.measure(cell, figures, of=networks_of(cell, bank))


def networks_of(cell: str, bank: Bank) -> list[str] | None:
    """Name the networks that a cell depends on, or `None` if its method is gone."""
    part, name, seed = cell.split("/")
    if name not in bank.methods:
        return None
    members: list[Member] = [(name, int(seed))]
    others: list[Member] = []
    if part == "transfer":
        sources = sources_against(bank.methods[name].family, bank)
        others = [(source, SURROGATE_SEED) for source in sources]
    if part == "maps":
        members.append(("plain", TEACHER_SEED))
    return bank.stems_of(members) + bank.surrogates.stems_of(others)


def sources_against(family: str, bank: Bank) -> list[str]:
    """Return what an attacker of a family transfers from: the other families."""
    return [name for name in SURROGATES if bank.methods[name].family != family]


def step(name: str, bank: Bank, quick: bool) -> dict[str, float]:
    """Time steps of a method in turn with plain ones."""
    recipes = [bank.recipe_of(each, TIMED_SEED) for each in ("plain", name)]
    batch = recipes[0]["batch"]
    x, y = bank.data.x_train[:batch], bank.data.y_train[:batch]
    steps = {}
    for role, recipe in zip(("plain", "own"), recipes, strict=True):
        maps = None
        if recipe.get("maps") == "cached":
            teacher, _ = nets.untrained(recipes[0], None, bank.weights)
            maps = kj.PerturbationCache.build(teacher, x, y, verbose=0)
        steps[role] = step_of(nets.untrained(recipe, maps, bank.weights)[1], x, y)
    rounds, inner = (1, 1) if quick else (ROUNDS, INNER)
    timed = steps_in_turn(steps, rounds, inner)
    return timed["own"]


def robustness(net: keras.Model, headline: bool, bank: Bank) -> dict[str, Any]:
    """Return clean and worst-case accuracy in percent."""
    x, y = bank.test_images
    epsilon, whole = bank.rung.epsilon, bank.rung.whole_suite
    if headline:
        attacks = "standard" if whole else ["apgd-ce", "apgd-t"]
        report = kj.evaluate_robustness(net, x, y, epsilon=epsilon, attacks=attacks, verbose=0)
        found = {f.rule: f.says for f in report.findings if f.status == "suspect"}
        return {
            "clean": percent(correct(net, bank.data.x_test, bank.data.y_test)),
            "robust": round(100 * report.robust.accuracy, 2),
            "suite": "standard" if whole else APGD,
            "images": len(x),
            "suspect": found,
            "errors": report.errors,
        }
    found = clean_and_apgd(net, bank.data, x, y, epsilon)
    return {**found, "suite": APGD, "images": len(x)}


def pgd(net: keras.Model, bank: Bank) -> dict[str, float]:
    """Return the accuracy under PGD with 40 steps and one random start, in percent."""
    x, y = bank.test_images
    epsilon = bank.rung.epsilon
    x_adv = kj.attacks.PGD(epsilon=epsilon, steps=40, verbose=0)(net, x, y)
    return {"pgd": percent(still_correct(net, x, np.asarray(x_adv), y, epsilon))}


def transfer(net: keras.Model, family: str, bank: Bank) -> dict[str, Any]:
    """Return the accuracy on examples of the other families' networks, in percent.

    Per example the worst of each of them and two ensembles. The mean of the logits
    alone will not do: those of an undefended network are so large that no other counts.
    """
    x, y = bank.test_images
    names = sources_against(family, bank)
    figures: dict[str, Any] = {}
    for name, times in (("once", 1), ("twice", 2)):
        radius = times * bank.rung.epsilon
        left = {
            source: still_correct(net, x, x_adv, y, radius)
            for source, x_adv in transfer_examples(bank, names, radius).items()
        }
        figures[name] = percent(np.all(list(left.values()), axis=0))
        figures[f"{name}, by source"] = {k: percent(v) for k, v in left.items()}
    return figures


def explanations(net: keras.Model, bank: Bank) -> dict[str, Any]:
    """Return how well gradient maps agree with perturbation maps."""
    report = kj.evaluate_saliency(
        {"net": net},
        *bank.test_images,
        epsilon=bank.rung.epsilon,
        method=MAPS,
        teacher=bank.net("plain", TEACHER_SEED),
        parts=["agreement", "sparsity"],
    )
    columns = {
        "own": ("With the own perturbation map", "rank correlation"),
        "teacher": ("With the teacher's perturbation map", "rank correlation"),
        "gini": ("Gini index", ""),
    }
    figures = {k: report["net"].figure(*where) for k, where in columns.items()}
    return {k: figure.mean for k, figure in figures.items()} | {"images": figures["gini"].images}


def parse_options() -> argparse.Namespace:
    parser = parser_of(__doc__, data_dir=True)
    add_options(parser, images=1000)
    add = parser.add_argument
    add("--measure", nargs=2, metavar=("METHOD", "SEED"), help="one network, no more")
    add("--parts", nargs="+", choices=PARTS, default=PARTS, help="what to measure")
    add("--held-out", action="store_true", help=f"--skip {HELD_OUT}, in its own file")
    options = parser.parse_args()
    # The sample that a smoke run is of has no images to hold out.
    if options.held_out and not options.quick:
        options.skip = HELD_OUT
    name = "held_out" if options.held_out else "study"
    name = "validation" if options.validation else name
    complete(options, name, images=32, seeds=1)
    return options


if __name__ == "__main__":
    main()
