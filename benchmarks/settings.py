"""What the settings of `JSIGRConfig` buy: accuracy, clean and under attack.

    python benchmarks/settings.py

Trains the reference net on the embedded Fashion-MNIST sample (15 epochs) for every
variant and seed below and attacks it as the quickstart does: PGD-20, one random start,
and MI-FGSM-10 from an undefended network of another seed; Linf, epsilon 0.1, inputs in
0..1, 2,000 test images. Every finished run is saved; a killed study goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from figures import markdown_table
from networks import Activation, correct
from store import write

import keras_jsigr as kj

EPOCHS, BATCH, EPSILON = 15, 128, 0.1
OUT = Path(__file__).parent / "results" / "settings.json"

# Fields of `JSIGRConfig`, whose defaults are those of `harden` in version 0.1.0;
# "activation"; "maps" ("cached": those of the plain network of the same seed);
# "adversary". `None` is plain training.
VARIANTS: dict[str, dict | None] = {
    "plain": None,
    "0.1.0 default": {},
    "ReLU": {"activation": "relu"},
    "Swish(5)": {"activation": kj.Swish(5.0)},
    "cached maps": {"maps": "cached"},
    "no selection (all)": {"selection": "all"},
    "weights 0.01, 0.03": {"jacobian_weight": 0.01, "selective_weight": 0.03},
    "squared, weights 0.05, 0.1": {
        "norm": "squared",
        "jacobian_weight": 0.05,
        "selective_weight": 0.1,
    },
    "score target, weights 0.03, 0.1": {
        "selective_target": "score",
        "jacobian_weight": 0.03,
        "selective_weight": 0.1,
    },
    "at FGSM-RS points": {"adversary": "FGSM-RS"},
    # The peers' weights: which of them says most for the peer?
    **{
        f"input gradients, squared {weight:g}": {
            "selective_target": "score",
            "norm": "squared",
            "selection": "all",
            "jacobian_weight": 0.0,
            "selective_weight": weight,
        }
        for weight in (0.3, 3.0, 30.0, 300.0)
    },
    **{
        f"Jacobian, squared {weight:g}": {
            "norm": "squared",
            "jacobian_weight": weight,
            "selective_weight": 0.0,
        }
        for weight in (0.1, 0.3, 1.0)
    },
    **{
        f"alignment {weight:g}": {
            "jacobian_weight": 0.0,
            "selective_weight": 0.0,
            "alignment_weight": weight,
            "maps": "cached",
        }
        for weight in (1.0, 10.0, 100.0)
    },
}
MANY_SEEDS = ("plain", "0.1.0 default", "ReLU", "Swish(5)")


def network(activation: Activation, seed: int) -> keras.Model:
    """Build conv4x4-s2(16, 32) + fc100."""
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(16, 4, strides=2, padding="same", activation=activation),
            layers.Conv2D(32, 4, strides=2, padding="same", activation=activation),
            layers.Flatten(),
            layers.Dense(100, activation=activation),
            layers.Dense(10, activation="softmax"),
        ]
    )


def train(model: keras.Model, data: kj.datasets.Dataset) -> float:
    """Train and return the seconds it took."""
    steps = EPOCHS * -(-len(data.x_train) // BATCH)
    rate = keras.optimizers.schedules.CosineDecay(2e-3, steps)
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy")
    start = time.perf_counter()
    model.fit(data.x_train, data.y_train, epochs=EPOCHS, batch_size=BATCH, verbose=0)
    return time.perf_counter() - start


def make(
    variant: dict | None, plain: keras.Model, data: kj.datasets.Dataset, seed: int
) -> keras.Model:
    """Make the untrained model of a variant."""
    settings = dict(variant or {})
    model = network(settings.pop("activation", "silu"), seed)
    if variant is None:
        return model
    maps = attack = None
    if settings.pop("maps", None) == "cached":
        maps = kj.PerturbationCache.build(plain, data.x_train, data.y_train, verbose=0)
    if settings.pop("adversary", None) == "FGSM-RS":
        attack = kj.attacks.FGSM(epsilon=EPSILON, random_start=True)
    return kj.harden(
        model,
        recipe=kj.JSIGRConfig(**settings),
        saliency_maps=maps,
        adversary=attack,
        warmup=0.2,
        verbose=0,
    )


def accuracy(model: keras.Model, x: np.ndarray, y: np.ndarray) -> float:
    return round(float(correct(model, x, y).mean()), 4)


def run_seed(names: list[str], data: kj.datasets.Dataset, seed: int, out: Path) -> None:
    """Run the variants of one seed that are not done yet."""
    results = load(out)
    open_names = [name for name in names if f"{name}/{seed}" not in results]
    if not open_names:
        return
    x, y = data.x_test, data.y_test
    surrogate, plain = network("silu", 1000 + seed), network("silu", seed)
    train(surrogate, data)
    if any((VARIANTS[name] or {}).get("maps") for name in open_names):
        train(plain, data)
    pgd = kj.attacks.PGD(epsilon=EPSILON, steps=20, verbose=0)
    transferred = kj.attacks.MIFGSM(epsilon=EPSILON, steps=10, verbose=0)(surrogate, x, y)
    for name in open_names:
        model = make(VARIANTS[name], plain, data, seed)
        seconds = train(model, data)
        results[f"{name}/{seed}"] = {
            "clean": accuracy(model, x, y),
            "pgd20": accuracy(model, pgd(model, x, y), y),
            "transfer": accuracy(model, transferred, y),
            "seconds": round(seconds, 1),
        }
        save(out, results)
        print(f"{name}, seed {seed}: {results[f'{name}/{seed}']}", flush=True)


def load(path: Path) -> dict:
    return json.loads(path.read_text()) if path.exists() else {}


def save(path: Path, results: dict) -> None:
    write(path, f"{json.dumps(results, indent=2)}\n")


def print_table(results: dict) -> None:
    """Print means over the seeds, and the smallest value where there are several."""
    table = []
    for name in VARIANTS:
        rows = [row for key, row in results.items() if key.rsplit("/", 1)[0] == name]
        if not rows:
            continue
        cells = []
        for key in ("clean", "pgd20", "transfer"):
            values = [100 * row[key] for row in rows]
            least = f" (min {min(values):.1f})" if len(values) > 1 else ""
            cells.append(f"{np.mean(values):.1f}{least}")
        table.append([name, str(len(rows)), *cells])
    headings = ["variant", "seeds", "clean", "PGD-20", "transfer"]
    print(f"\n{markdown_table(headings, table)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default=str(OUT))
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    out = Path(options.out)
    data = kj.datasets.load("fashion_mnist", verbose=False)
    for seed in range(options.seeds):
        run_seed(list(VARIANTS if seed == 0 else MANY_SEEDS), data, seed, out)
    print_table(load(out))


if __name__ == "__main__":
    main()
