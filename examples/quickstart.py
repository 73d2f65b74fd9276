"""Harden a small classifier, attack it, look at its explanations, export it.

    python examples/quickstart.py --out quickstart

Trains the same network twice on the embedded Fashion-MNIST sample, once plainly and
once through `keras_jsigr.harden`, and compares clean accuracy, PGD-20 and MI-FGSM
transferred from a third, undefended network (all Linf, epsilon 0.1, inputs in 0..1).
Writes `metrics.json`, `maps.png` and the served model to the output folder.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

import keras_jsigr as kj


def main() -> None:
    options = parse_options()
    if importlib.util.find_spec("matplotlib") is None:
        raise SystemExit("Pictures need matplotlib: pip install matplotlib")
    started = time.perf_counter()
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    data = kj.datasets.load(options.dataset, source=options.source, data_dir=options.data_dir)

    print("\n1. The plain network, and an undefended one to transfer attacks from")
    plain = train(network(data, options.seed), data, options)
    surrogate = train(network(data, options.seed + 1), data, options)

    print("\n2. The same network, hardened: one call, then fit as usual")
    robust = kj.harden(network(data, options.seed), epsilon=options.epsilon)
    robust = train(robust, data, options)

    print("\n3. Attacks")
    x, y = data.x_test, data.y_test
    pgd = kj.attacks.PGD(options.epsilon, steps=20)
    mi = kj.attacks.MIFGSM(options.epsilon, steps=10)
    transferred = mi(surrogate, x, y)
    metrics: dict[str, object] = {}
    for name, model in (("plain", plain), ("hardened", robust)):
        metrics[name] = {
            "clean": accuracy(model, x, y),
            "pgd20": accuracy(model, pgd(model, x, y), y),
            "transfer": accuracy(model, transferred, y),
        }

    print("\n4. Explanations, and the model served from a process of its own")
    draw_maps(plain, robust, data, out / "maps.png")
    served = out / "served" / "1"
    robust.export(served, overwrite=True)
    np.save(out / "example.npy", x[:1])
    answer = ask_in_fresh_process(served, out / "example.npy")
    print(
        f"   the served model says '{data.class_names[answer['class']]}' "
        f"(truth: '{data.class_names[y[0]]}'), with a saliency map of shape "
        f"{answer['saliency_shape']}"
    )

    metrics["seconds"] = round(time.perf_counter() - started, 1)
    metrics["settings"] = {
        **vars(options),
        "data": data.source,
        "threat_model": {
            "norm": "linf", "epsilon": options.epsilon, "input_range": [0.0, 1.0],
        },
        "attacks": {"pgd20": pgd.get_config(), "transfer": mi.get_config()},
        "images": len(x),
        "harden": robust.config.get_config(),
    }  # fmt: skip
    write_json(out / "metrics.json", metrics)
    print_table(metrics, options.epsilon, len(x))
    print(f"\nDone in {metrics['seconds']} s. Look at {out / 'maps.png'}.")


def network(data: kj.datasets.Dataset, seed: int) -> keras.Model:
    """Build the reference net conv4x4-s2(16, 32) + fc100, with SiLU."""
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(data.x_train.shape[1:], name="image"),
            layers.Conv2D(16, 4, strides=2, padding="same", activation="silu"),
            layers.Conv2D(32, 4, strides=2, padding="same", activation="silu"),
            layers.Flatten(),
            layers.Dense(100, activation="silu"),
            layers.Dense(len(data.class_names), activation="softmax"),
        ]
    )


def train(
    model: keras.Model, data: kj.datasets.Dataset, options: argparse.Namespace
) -> keras.Model:
    """Train with Adam and a cosine decay: the same for plain and hardened models."""
    steps = options.epochs * -(-len(data.x_train) // options.batch_size)
    rate = keras.optimizers.schedules.CosineDecay(2e-3, steps)
    model.compile(
        keras.optimizers.Adam(rate),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    bar = EpochBar(options.epochs)
    model.fit(
        data.x_train, data.y_train, epochs=options.epochs, verbose=0,
        batch_size=options.batch_size, callbacks=[bar],
    )  # fmt: skip
    return model


class EpochBar(keras.callbacks.Callback):
    """One progress bar over all epochs of a training."""

    def __init__(self, epochs: int) -> None:
        super().__init__()
        self.bar = keras.utils.Progbar(
            epochs, unit_name="epoch", stateful_metrics=["loss", "accuracy"]
        )

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Move on by one epoch."""
        logs = logs or {}
        self.bar.update(epoch + 1, [(k, logs[k]) for k in ("loss", "accuracy")])


def accuracy(model: keras.Model, x: np.ndarray, y: np.ndarray) -> float:
    predicted = model.predict(x, batch_size=500, verbose=0).argmax(-1)
    return round(float(np.mean(predicted == y)), 4)


def draw_maps(plain: keras.Model, robust: keras.Model, data: kj.datasets.Dataset, to: Path) -> None:
    """Draw images beside the gradient maps of both models and the perturbation map."""
    x, y = data.x_test[:6], data.y_test[:6]
    maps = {
        "plain": kj.gradient_map(plain, x),
        "hardened": kj.gradient_map(robust, x),
        "occlusion": kj.perturbation_map(robust, x, grid=7),
    }
    said = robust.predict(x, verbose=0)
    title = "What both networks look at, and what the hardened one says"
    kj.plot_saliency(x, maps, y, said, class_names=data.class_names, title=title).savefig(
        to, dpi=110
    )


FRESH = """
import json, sys
import numpy as np, tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
explain = model.signatures["explain"]
name = list(explain.structured_input_signature[1])[0]
out = explain(**{name: tf.constant(np.load(sys.argv[2]))})
print(json.dumps({"class": int(out["class"][0]), "modules": "keras_jsigr" in
    sys.modules, "saliency_shape": out["saliency"].shape.as_list()}))
"""


def ask_in_fresh_process(served: Path, example: Path) -> dict[str, object]:
    """Load the SavedModel where only TensorFlow is known and ask for an explanation."""
    done = subprocess.run(
        [sys.executable, "-c", FRESH, str(served), str(example)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    answer = json.loads(done.stdout.splitlines()[-1])
    if answer.pop("modules"):
        raise RuntimeError("The served model needed keras_jsigr; it must not.")
    return answer


def print_table(metrics: dict, epsilon: float, images: int) -> None:
    print(f"\nAccuracy on {images:,} test images, Linf epsilon {epsilon}, range 0..1")
    print(f"{'':10}{'clean':>8}{'PGD-20':>9}{'MI-FGSM transfer':>19}")
    for name in ("plain", "hardened"):
        row = metrics[name]
        print(f"{name:10}{row['clean']:8.1%}{row['pgd20']:9.1%}{row['transfer']:19.1%}")


def write_json(path: Path, content: dict) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--dataset", default="fashion_mnist", help="a name for keras_jsigr.datasets")
    add("--source", default="auto", help="auto, sample, idx or tfds")
    add("--data-dir", default=None, help="folder of IDX files or of TFDS")
    add("--out", default="quickstart", help="folder to write to")
    add("--epochs", type=int, default=15)
    add("--batch-size", type=int, default=128)
    add("--epsilon", type=float, default=0.1, help="Linf radius in input units")
    add("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
