"""Cost of one training step, as ratios to a plain step of the same network.

    python benchmarks/step_overhead.py --out benchmarks/results/step_overhead.json

All methods are timed in one process, in turn: every round times a few steps of each,
so that what disturbs the machine disturbs all alike. A ratio is the median over rounds
of (time of the method / time of plain training in the same round).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

import keras_jsigr as kj
from keras_jsigr.core.write_whole import write_whole

# Upper limits the project holds itself to (reference net and max pooling alike).
GOALS = {
    "fused squared, cached": 2.3,
    "fused l1, cached": 2.3,
    "fused l1, live": 2.7,
    "separate l1, cached": 3.6,
}


def reference_net(shape: tuple[int, ...]) -> keras.Model:
    """Build conv4x4-s2(16, 32) + fc100."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(shape),
            layers.Conv2D(16, 4, strides=2, padding="same", activation="silu"),
            layers.Conv2D(32, 4, strides=2, padding="same", activation="silu"),
            layers.Flatten(),
            layers.Dense(100, activation="silu"),
            layers.Dense(10),
        ]
    )


def pooling_net(shape: tuple[int, ...]) -> keras.Model:
    """Build conv5x5(32)-pool-conv5x5(64)-pool-fc1024, the Madry CNN."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(shape),
            layers.Conv2D(32, 5, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 5, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(1024, activation="relu"),
            layers.Dense(10),
        ]
    )


NETS = {"reference": reference_net, "max pooling": pooling_net}


def methods(
    build: Callable[[], keras.Model], cache: kj.PerturbationCache
) -> dict[str, keras.Model]:
    """Make one model for every method."""
    attack = {"epsilon": 0.1}
    settings: dict[str, dict[str, object]] = {
        "jacobian, squared": {"norm": "squared", "selective_weight": 0.0},
        "fused squared, cached": {"norm": "squared", "maps": cache},
        "fused l1, cached": {"maps": cache},
        "fused l1, live": {},
        "separate l1, cached": {"form": "separate", "maps": cache},
        "FGSM-RS training": {
            "jacobian_weight": 0.0,
            "selective_weight": 0.0,
            "adversary": kj.attacks.FGSM(**attack, random_start=True),
        },
        "PGD-7 training": {
            "jacobian_weight": 0.0,
            "selective_weight": 0.0,
            "adversary": kj.attacks.PGD(**attack, steps=7),
        },
    }
    models = {"plain": build()}
    for name, keywords in settings.items():
        models[name] = kj.harden(build(), verbose=0, probe=False, **keywords)
    return models


def step_of(model: keras.Model, x: np.ndarray, y: np.ndarray) -> Callable[[], None]:
    """Return what takes one step of `fit` on the batch."""
    model.compile(
        "adam",
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(x, y, batch_size=len(x), verbose=0)  # builds and traces as `fit` does
    iterator = iter(tf.data.Dataset.from_tensors((x, y)).cache().repeat())

    def step() -> None:
        model.train_function(iterator)

    for _ in range(5):
        step()
    return step


def measure(steps: dict[str, Callable[[], None]], rounds: int, inner: int) -> dict:
    """Time all methods in turn; return medians and quartiles."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            start = time.perf_counter()
            for _ in range(inner):
                step()
            times[name].append((time.perf_counter() - start) / inner)
    plain = np.array(times["plain"])
    rows = {}
    for name, values in times.items():
        ratios = np.array(values) / plain
        low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
        rows[name] = {
            "ratio": round(float(middle), 2),
            "quartiles": [round(float(low), 2), round(float(high), 2)],
            "milliseconds": round(1e3 * float(np.median(values)), 2),
        }
    return rows


def main() -> None:
    options = parse_options()
    keras.utils.set_random_seed(0)
    data = kj.datasets.load("fashion_mnist", verbose=False)
    x, y = data.x_train[: options.batch_size], data.y_train[: options.batch_size]
    results = {}
    for name, build in NETS.items():
        shape = x.shape[1:]
        cache = kj.PerturbationCache.build(build(shape), x, y, verbose=0)
        models = methods(lambda b=build, s=shape: b(s), cache)
        steps = {method: step_of(model, x, y) for method, model in models.items()}
        results[name] = measure(steps, options.rounds, options.inner)
        print(f"\n{name}, batch {options.batch_size}, steps of `fit`, plain = 1")
        for method, row in results[name].items():
            goal = f"  goal {GOALS[method]}" if method in GOALS else ""
            low, high = row["quartiles"]
            print(
                f"  {method:24}{row['ratio']:6.2f}   [{low:.2f}, {high:.2f}]"
                f"{row['milliseconds']:9.2f} ms{goal}"
            )
    save(Path(options.out), results, options)


def save(path: Path, results: dict, options: argparse.Namespace) -> None:
    content = {
        "results": results,
        "settings": {k: v for k, v in vars(options).items() if k != "out"},
        "versions": {
            "keras": keras.__version__, "tensorflow": tf.__version__,
            "python": platform.python_version(), "cpus": os.cpu_count(),
        },
    }  # fmt: skip
    write_whole(path, f"{json.dumps(content, indent=2)}\n".encode())


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--out", default="benchmarks/results/step_overhead.json")
    add("--batch-size", type=int, default=128)
    add("--rounds", type=int, default=40)
    add("--inner", type=int, default=5)
    return parser.parse_args()


if __name__ == "__main__":
    main()
