"""What training does to the explanations of a network, and what the selection adds.

    python benchmarks/interpretability.py            # what is missing in the results
    python benchmarks/interpretability.py --boxes tiny_imagenet10.zip    # with boxes
    python benchmarks/interpretability.py --quick    # a smoke run
    python benchmarks/interpretability.py --table    # the tables of what is there

On all of Fashion-MNIST the reference net conv4x4-s2(16, 32) + fc100 with SiLU, 15
epochs, Linf 0.1; with `--boxes`, on ten classes of Tiny ImageNet, conv3x3-s2(16, 32,
64) + fc100, 30 epochs, Linf 4/255; inputs in 0..1, three seeds: plain, the Jacobian
term alone, J-SIGR, also with the alignment term, its controls (random and inverted
selection), and PGD-7 adversarial training. Per seed all networks are measured on the
same test images, those that all classify rightly, with gradient maps of the log odds;
the teacher is a plain network of another seed. Beside it stand clean accuracy on all
test images and the worst case over APGD-CE and APGD-T. Maps of the first seed's
networks are drawn into docs/images. Networks and cells are kept: a killed study goes
on.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from explainers import map_grid
from judges.figures import left_by_apgd, percent, spread
from judges.markdown import markdown_table
from judges.options import add_training, complete, parser_of
from judges.store import Store
from networks import nets, tiny_imagenet10
from networks.correct import correct
from networks.side_by_side import side_by_side

import keras_jsigr as kj


def methods_of(epsilon: float) -> dict[str, dict[str, Any]]:
    """Say how networks are trained, see `nets.untrained`.

    All penalties but those of the soft selection have the same mean weight on a pixel,
    so that rows differ in where it lies.

    Args:
        epsilon: Linf radius. To first order the loss at the worst point of the ball
            grows with it, so weights do as well: at 0.1 they are the defaults.
    """
    weights = {
        "jacobian_weight": round(0.05 * epsilon, 6),
        "selective_weight": round(0.15 * epsilon, 6),
    }
    # Half of the pixels have M = 1 under the hard selections.
    mean = weights["jacobian_weight"] + 0.5 * weights["selective_weight"]

    def hardened(**settings: Any) -> dict[str, Any]:
        return {"defence": "harden", "settings": {**weights, **settings}}

    # With maps of the plain network of the same seed.
    cached = {"maps": "cached"}
    return {
        "plain": {"defence": None},
        "Jacobian only": hardened(jacobian_weight=round(mean, 6), selective_weight=0.0),
        "J-SIGR, default": hardened(),
        "J-SIGR, hard": hardened(selection="hard") | cached,
        "J-SIGR, hard, at random points": hardened(selection="hard")
        | cached
        | {"random_points": True},
        "J-SIGR, aligned": hardened(align_weight=0.1) | cached,
        "random selection": hardened(selection="random"),
        "inverted selection": hardened(selection="inverted") | cached,
        "PGD-7": {"defence": "PGD-7"},
    }


TEACHER_SEED = 100
IMAGES = Path(__file__).parents[1] / "docs" / "images"


@dataclass(frozen=True)
class Ground:
    """What networks are trained and measured on.

    Attributes:
        data: The images.
        recipe: What all recipes share.
        epsilon: Linf radius, inputs in 0..1.
        methods: How networks are trained, by name.
        boxes: Of the test images, `(M, 4)`, or `None`.
    """

    data: kj.datasets.Dataset
    recipe: nets.Recipe
    epsilon: float
    methods: dict[str, dict[str, Any]]
    boxes: np.ndarray | None = None


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
)


def ground_of(options: argparse.Namespace) -> Ground:
    """Load the images, and say how networks are trained on them."""
    if options.boxes is not None:
        data, boxes = tiny_imagenet10.load(options.boxes)
        epsilon, net, epochs = 4 / 255, "colour", 30
    else:
        source = "sample" if options.quick else "idx"
        data = kj.datasets.load(
            "fashion_mnist", source=source, data_dir=options.data_dir, verbose=False
        )
        boxes, epsilon, net, epochs = None, nets.EPSILON, "reference", 15
    recipe = nets.RECIPES["plain"] | {
        "net": net,
        "source": data.name if boxes is not None else "idx",
        "epsilon": epsilon,
        "epochs": options.epochs or epochs,
        "images": len(data.x_train),
    }
    if options.quick:
        recipe |= {"images": 2_000, "source": f"quick {data.name}", "epochs": 1}
    return Ground(data, recipe, epsilon, methods_of(epsilon), boxes)


def recipe_of(method: str, seed: int, ground: Ground) -> nets.Recipe:
    return ground.recipe | ground.methods[method] | {"seed": seed}


def file_of(
    method: str, seed: int, ground: Ground, options: argparse.Namespace
) -> Path:
    slug = method.lower().replace(",", "").replace(" ", "-")
    recipe = recipe_of(method, seed, ground)
    return nets.file_of(f"maps-{slug}-{seed}", recipe, options.cache)


def trained(
    method: str, seed: int, ground: Ground, options: argparse.Namespace
) -> keras.Model:
    return nets.train(
        recipe_of(method, seed, ground),
        ground.data,
        file_of(method, seed, ground, options),
        teacher=lambda: trained("plain", seed, ground, options),
    )


def train_all(ground: Ground, options: argparse.Namespace) -> None:
    """Train what is not there, the networks that others learn from first."""
    seeds = range(options.seeds)
    teachers = [("plain", seed) for seed in (*seeds, TEACHER_SEED)]
    others = [(method, seed) for seed in seeds for method in ground.methods]
    for tasks in (teachers, others):
        side_by_side(
            tasks, lambda name, seed: file_of(name, seed, ground, options), options.jobs
        )


def first_images(
    ground: Ground, options: argparse.Namespace
) -> tuple[np.ndarray, np.ndarray]:
    """Return the test images that networks are attacked and explained on."""
    return ground.data.x_test[: options.images], ground.data.y_test[: options.images]


def robustness(
    net: keras.Model, ground: Ground, options: argparse.Namespace
) -> dict[str, float]:
    """Return clean and worst-case accuracy in percent."""
    x, y = first_images(ground, options)
    return {
        "clean": percent(correct(net, ground.data.x_test, ground.data.y_test)),
        "robust": percent(left_by_apgd(net, x, y, ground.epsilon)),
    }


def run_seed(
    store: Store, seed: int, ground: Ground, options: argparse.Namespace
) -> None:
    """Train and measure all networks of a seed, as far as they are not there."""
    models = {name: trained(name, seed, ground, options) for name in ground.methods}
    for name, net in models.items():
        cell = f"robustness/{name}/{seed}"
        networks = networks_of(cell, ground, options)
        if not store.has(cell, networks):
            store.put(cell, robustness(net, ground, options), of=networks)
            print(cell, store.cells[cell], flush=True)
    cell = f"maps/{seed}"
    networks = networks_of(cell, ground, options)
    if not store.has(cell, networks):
        figures = explanations(models, seed, ground, options)
        store.put(cell, {"figures": figures}, of=networks)


def networks_of(cell: str, ground: Ground, options: argparse.Namespace) -> list[str]:
    """Name the networks that a cell depends on: figures stay while those do."""
    part, *method, seed = cell.split("/")
    names = method if part == "robustness" else ground.methods
    tasks = [(name, int(seed)) for name in names if name in ground.methods]
    if part == "maps":
        tasks.append(("plain", TEACHER_SEED))
    return [file_of(name, number, ground, options).stem for name, number in tasks]


def explanations(
    models: dict[str, keras.Model],
    seed: int,
    ground: Ground,
    options: argparse.Namespace,
) -> dict[str, dict[str, Any]]:
    """Return the figures of all networks of a seed."""
    boxes = ground.boxes
    report = kj.evaluate_saliency(
        models,
        *first_images(ground, options),
        epsilon=ground.epsilon,
        method=MAPS,
        teacher=trained("plain", TEACHER_SEED, ground, options),
        boxes=None if boxes is None else boxes[: options.images],
        seed=seed,
    )
    report.save(options.cache / f"maps-{ground.data.name}-{seed}.html")
    columns = FAITHFULNESS + AGREEMENT + STABILITY + (() if boxes is None else BOXES)
    found = {}
    for name in models:
        figures = {
            heading: report[name].figure(metric, condition)
            for heading, metric, condition in columns
        }
        found[name] = {heading: figure.mean for heading, figure in figures.items()}
        found[name]["images"] = figures["Gini"].images
    return found


def draw(ground: Ground, options: argparse.Namespace) -> None:
    """Draw maps of all networks of the first seed."""
    folder = options.cache if options.quick else IMAGES
    map_grid.draw(
        {name: trained(name, 0, ground, options) for name in ground.methods},
        *first_images(ground, options),
        MAPS,
        folder / f"{options.out.stem}.png",
    )


def print_tables(cells: dict[str, Any], ground: Ground) -> None:
    """Print means over the seeds, with their spread in brackets."""
    boxes: Columns = () if ground.boxes is None else BOXES
    for first, columns in (
        (["clean", "robust"], AGREEMENT + boxes),
        ([], FAITHFULNESS),
        ([], STABILITY),
    ):
        headings = [*first, *(name for name, *_ in columns)]
        table = []
        for name in ground.methods:
            rows = rows_of(cells, name)
            if rows:
                texts = [column(rows, heading) for heading in headings]
                table.append([name, str(len(rows)), *texts])
        print(f"\n{markdown_table(['training', 'seeds', *headings], table)}")


def rows_of(cells: dict[str, Any], method: str) -> list[dict[str, Any]]:
    """Return the figures of a method, a dict per seed."""
    return [
        cells[f"robustness/{method}/{cell.removeprefix('maps/')}"]
        | maps["figures"][method]
        for cell, maps in cells.items()
        if cell.startswith("maps/")
    ]


def column(rows: list[dict[str, Any]], heading: str) -> str:
    """Say a figure of all seeds; what is in percent gets one digit."""
    known = [row[heading] for row in rows if row.get(heading) is not None]
    return spread(known, digits=1 if max(known, default=0) > 2 else 3)


def main() -> None:
    options = parse_options()
    ground = ground_of(options)
    if options.train is not None:
        method, seed = options.train
        trained(method, int(seed), ground, options)
        return
    store = Store(options.out, {"images": options.images})
    if not options.table:
        train_all(ground, options)
        for seed in range(options.seeds):
            run_seed(store, seed, ground, options)
        draw(ground, options)
    current = store.current(lambda cell: networks_of(cell, ground, options))
    print_tables(current, ground)


def parse_options() -> argparse.Namespace:
    parser = parser_of(__doc__, data_dir=True)
    add_training(parser)
    add = parser.add_argument
    add("--boxes", type=Path, default=None, help="the archive of Tiny ImageNet")
    add("--seeds", type=int, default=3)
    add("--epochs", type=int, default=None, help="instead of 15, or 30 with boxes")
    add("--images", type=int, default=500, help="test images to measure on")
    options = parser.parse_args()
    name = "interpretability" + ("" if options.boxes is None else "_boxes")
    complete(options, name, images=64, seeds=1)
    return options


if __name__ == "__main__":
    main()
