"""What training does to the explanations of a network, and what the selection adds.

    python benchmarks/interpretability.py            # what is missing in the results
    python benchmarks/interpretability.py --rung tiny --archive tiny-imagenet-200.zip
    python benchmarks/interpretability.py --methods plain j_sigr_balanced --seeds 1
    python benchmarks/interpretability.py --quick    # a smoke run
    python benchmarks/interpretability.py --table    # the tables of what is there

Networks of the study, see study_networks.py and methods.json: by default the
reference net on all of Fashion-MNIST, 15 epochs, Linf 0.1; on the rung `tiny` ten
classes of Tiny ImageNet with boxes, 30 epochs, Linf 4/255; inputs in 0..1, three seeds:
plain, the Jacobian term alone, J-SIGR in several forms, its controls (random and
inverted selection), and PGD-7 adversarial training. Per seed all networks are measured
on the same test images, those that all classify rightly, with gradient maps of the log
odds; the teacher is a plain network of another seed. Beside it stand clean accuracy on
all test images and the worst case over APGD-CE and APGD-T. Maps of the first seed's
networks are drawn into docs/images. Networks and cells are kept: a killed study goes
on.
"""

from __future__ import annotations

import argparse
import os
from functools import cache, partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from explainers import map_grid
from figures import clean_and_apgd, markdown_table, spread
from networks import correct
from store import Store, complete, parser_of
from study_networks import RUNGS, TEACHER_SEED, Bank, Member, add_options

import keras_jsigr as kj

# In the order of the tables.
METHODS = (
    "plain",
    "jacobian_l1",
    "j_sigr",
    "j_sigr_hard",
    "j_sigr_faithful",
    "j_sigr_aligned",
    "random_selection",
    "inverted_selection",
    "pgd_7",
)
IMAGES = Path(__file__).parents[1] / "docs" / "images"
MAPS = kj.saliency.METHODS["gradient"](score="margin")

Columns = tuple[tuple[str, str, str], ...]
# Columns of the tables: heading, metric and condition in the report.
FAITHFULNESS: Columns = (
    ("deletion, zero", "Deletion", "zero, by the map"),
    ("at random", "Deletion", "zero, random order"),
    ("insertion, zero", "Insertion", "zero, by the map"),
    ("deletion, blur", "Deletion", "blur, by the map"),
    ("insertion, blur", "Insertion", "blur, by the map"),
    ("Gini", "Gini index", ""),
)
AGREEMENT: Columns = (
    ("agreement, own", "With the own perturbation map", "rank correlation"),
    ("agreement, teacher", "With the teacher's perturbation map", "rank correlation"),
)
STABILITY: Columns = (
    ("top tenth under noise", "Top-k intersection", "uniform noise"),
    ("under PGD", "Top-k intersection", "PGD, class kept"),
    ("length of PGD", "Length of the perturbation", "PGD, class kept"),
    ("under the saliency attack", "Top-k intersection", "saliency attack"),
)
BOXES: Columns = (
    ("pointing game", "Pointing game", ""),
    ("relevance mass", "Relevance mass", ""),
    ("area of the boxes", "Area of the boxes", "what chance gives both"),
)


def main() -> None:
    options = parse_options()
    bank = Bank(RUNGS[options.rung], options)
    if options.train is not None:
        method, seed = options.train
        bank.net(method, int(seed))
        return
    names = options.methods or list(METHODS)
    store = Store(options.out, bank.chosen)
    if not options.table:
        seeds = range(options.seeds)
        bank.fill([("plain", TEACHER_SEED), *((n, s) for s in seeds for n in names)])
        for seed in seeds:
            run_seed(store, seed, names, bank)
        if options.methods is None:
            draw(names, bank, options)
    cells = store.current(lambda cell: bank.stems_of(members_of(cell, names)))
    print_tables(cells, names, bank)


def run_seed(store: Store, seed: int, names: list[str], bank: Bank) -> None:
    """Measure the networks of a seed, as far as they are not measured yet."""
    net = cache(lambda name: bank.net(name, seed))

    @cache
    def explained() -> np.ndarray:
        right = [correct(net(name), *bank.test_images) for name in names]
        return np.all(right, axis=0)

    def accuracy(name: str) -> dict[str, Any]:
        x, y = bank.test_images
        return clean_and_apgd(net(name), bank.data, x, y, bank.rung.epsilon)

    def maps(name: str) -> dict[str, Any]:
        return explanations(net(name), explained(), seed, bank)

    for part, figures in {"robustness": accuracy, "maps": maps}.items():
        for name in names:
            cell = f"{part}/{name}/{seed}"
            of = bank.stems_of(members_of(cell, names))
            store.measure(cell, partial(figures, name), of=of)


def members_of(cell: str, names: list[str]) -> list[Member]:
    """Say which networks a cell depends on, of those that are shown."""
    part, method, seed = cell.split("/")
    if method not in names:
        return []
    if part == "robustness":
        return [(method, int(seed))]
    # Explained are the images that all of them classify rightly.
    return [*((name, int(seed)) for name in names), ("plain", TEACHER_SEED)]


def explanations(
    model: keras.Model, explained: np.ndarray, seed: int, bank: Bank
) -> dict[str, Any]:
    """Return the figures of the maps of a network."""
    x, y = bank.test_images
    boxes = bank.boxes
    report = kj.evaluate_saliency(
        {"model": model},
        x[explained],
        y[explained],
        epsilon=bank.rung.epsilon,
        method=MAPS,
        teacher=bank.net("plain", TEACHER_SEED),
        boxes=None if boxes is None else boxes[explained],
        seed=seed,
    )["model"]
    columns = FAITHFULNESS + AGREEMENT + STABILITY + (() if boxes is None else BOXES)
    figures = {heading: report.figure(metric, condition) for heading, metric, condition in columns}
    found = {heading: figure.mean for heading, figure in figures.items()}
    return found | {"images": figures["Gini"].images}


def draw(names: list[str], bank: Bank, options: argparse.Namespace) -> None:
    """Draw maps of all networks of the first seed."""
    folder = options.cache if options.quick else IMAGES
    map_grid.draw(
        {bank.methods[name].title: bank.net(name, 0) for name in names},
        *bank.test_images,
        MAPS,
        folder / f"{options.out.stem}.png",
    )


def print_tables(cells: dict[str, Any], names: list[str], bank: Bank) -> None:
    """Print means over the seeds, with their spread in brackets."""
    rows = {name: rows_of(cells, name) for name in names}
    known = {heading for seeds in rows.values() for row in seeds for heading in row}
    for first, columns in (
        (["clean", "robust"], AGREEMENT + BOXES),
        ([], FAITHFULNESS),
        ([], STABILITY),
    ):
        headings = [*first, *(name for name, *_ in columns if name in known)]
        table = [
            [bank.methods[name].title, str(len(rows[name]))]
            + [column(rows[name], heading) for heading in headings]
            for name in names
            if rows[name]
        ]
        print(f"\n{markdown_table(['training', 'seeds', *headings], table)}")


def rows_of(cells: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """Return the figures of a method, a dict per seed."""
    return [
        cells[cell.replace("maps", "robustness", 1)] | figures
        for cell, figures in cells.items()
        if cell.startswith(f"maps/{name}/")
    ]


def column(rows: list[dict[str, Any]], heading: str) -> str:
    """Say a figure of all seeds; what is in percent gets one digit."""
    known = [row[heading] for row in rows if row.get(heading) is not None]
    return spread(known, digits=1 if max(known, default=0) > 2 else 3)


def parse_options() -> argparse.Namespace:
    parser = parser_of(__doc__, data_dir=True)
    add_options(parser, images=500)
    options = parser.parse_args()
    rung = [] if options.rung == "reference" else [options.rung]
    # Maps are of the images that all methods classify rightly: others, other results.
    name = "-".join(["interpretability", *rung, *(options.methods or [])])
    complete(options, name, images=64, seeds=1)
    return options


if __name__ == "__main__":
    main()
