"""Search the penalty weights with KerasTuner: robust as can be, accurate enough.

    pip install keras-tuner
    python examples/search_weights.py --trials 6

Trains a plain network on a part of the embedded Fashion-MNIST sample, then hardens it
with other weights in every trial. A trial is worth its PGD-10 accuracy (Linf, epsilon
0.1, inputs in 0..1, 500 validation images) if its clean accuracy stays within `--drop`
of the plain network's, and less than nothing if not.

`kj.callbacks.AccuracyConstraint` finds a common factor of the weights in one training;
this searches their ratio too, at the price of a training per trial.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

import keras_jsigr as kj

try:
    import keras_tuner
except ImportError as error:
    raise SystemExit("This example needs KerasTuner: pip install keras-tuner") from error

EPSILON = 0.1
Images = tuple[np.ndarray, np.ndarray]


class HardenedModel(keras_tuner.HyperModel):
    """A plain model, hardened with the weights of a trial.

    Args:
        plain: The trained plain model; every trial starts from a copy.
        validation: Images and labels that decide what a trial is worth.
        drop: Clean accuracy that may be given up, 0..1.
    """

    def __init__(self, plain: keras.Model, validation: Images, drop: float) -> None:
        super().__init__()
        self.plain = plain
        self.validation = validation
        self.bound = accuracy(plain, *validation) - drop
        self.attack = kj.attacks.PGD(EPSILON, steps=10, verbose=0)

    def build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        """Harden a copy of the plain model with weights on a log scale."""
        model = keras.models.clone_model(self.plain)
        model.set_weights(self.plain.get_weights())
        config = kj.JSIGRConfig.balanced(EPSILON).replace(
            jacobian_weight=hp.Float("jacobian_weight", 3e-3, 0.3, sampling="log"),
            selective_weight=hp.Float("selective_weight", 0.012, 1.2, sampling="log"),
        )
        return compiled(kj.harden(model, recipe=config, verbose=0))

    def fit(
        self, hp: keras_tuner.HyperParameters, model: keras.Model, *args, **kwargs
    ) -> dict[str, float]:
        """Train, and return the value of the trial beside both accuracies."""
        kwargs.pop("callbacks", None)  # checkpoints and logs of no use here
        model.fit(*args, **kwargs)
        x, y = self.validation
        clean = accuracy(model, x, y)
        robust = accuracy(model, self.attack(model, x, y), y)
        # Any trial within the bound beats any beyond it; those lead back to it.
        value = robust if clean >= self.bound else clean - self.bound
        return {"value": value, "clean": clean, "robust": robust}


def main() -> None:
    options = parse_options()
    data = kj.datasets.load("fashion_mnist", verbose=False)
    train = data.x_train[: options.images], data.y_train[: options.images]
    validation = data.x_train[-500:], data.y_train[-500:]

    plain = compiled(network(options.seed))
    plain.fit(*train, epochs=options.epochs, batch_size=128, verbose=0)
    model = HardenedModel(plain, validation, options.drop)
    print(f"The clean accuracy has to stay above {model.bound:.1%}")

    tuner = keras_tuner.RandomSearch(
        model,
        objective=keras_tuner.Objective("value", "max"),
        max_trials=options.trials,
        seed=options.seed,
        directory=options.out,
        project_name="weights",
    )
    tuner.search(*train, epochs=options.epochs, batch_size=128, verbose=0)
    print(f"\n{'lambda_J':>10}{'lambda_S':>10}{'clean':>8}{'PGD-10':>8}{'value':>8}")
    for trial in tuner.oracle.get_best_trials(options.trials):
        weights = trial.hyperparameters.values
        shares = [trial.metrics.get_best_value(k) for k in ("clean", "robust", "value")]
        print(
            f"{weights['jacobian_weight']:10.4f}{weights['selective_weight']:10.4f}"
            + "".join(f"{share:8.3f}" for share in shares)
        )


def network(seed: int) -> keras.Model:
    """Build the reference net conv4x4-s2(16, 32) + fc100, with SiLU."""
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((28, 28, 1), name="image"),
            layers.Conv2D(16, 4, strides=2, padding="same", activation="silu"),
            layers.Conv2D(32, 4, strides=2, padding="same", activation="silu"),
            layers.Flatten(),
            layers.Dense(100, activation="silu"),
            layers.Dense(10),
        ]
    )


def compiled(model: keras.Model) -> keras.Model:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(2e-3), loss)
    return model


def accuracy(model: keras.Model, x: np.ndarray, y: np.ndarray) -> float:
    predicted = model.predict(x, batch_size=500, verbose=0).argmax(-1)
    return round(float(np.mean(predicted == y)), 4)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--trials", type=int, default=6)
    add("--epochs", type=int, default=3, help="of the plain network and of a trial")
    add("--images", type=int, default=4000, help="training images")
    add("--drop", type=float, default=0.02, help="clean accuracy to give up, 0..1")
    add("--out", type=Path, default=Path("search"), help="a search goes on from here")
    add("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
