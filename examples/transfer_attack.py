"""Does a hardened network resist examples that were made against other networks?

    python examples/transfer_attack.py --out transfer

Trains surrogates of three families (undefended networks of four architectures, an
adversarially trained one, a hardened one) and three targets of other seeds: plain,
PGD-7 adversarially trained, and hardened. Each target is then attacked with MI-FGSM and
its diverse-input form through ensembles of all families but its own, and, for an honest
picture, by the standard suite with full access. Writes `report.html`, which compares
the three, and one report per target. Networks and finished parts are kept in the output
folder: an interrupted run goes on where it was.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras

import keras_jsigr as kj

# Name, architecture, how it is trained, seed.
SURROGATES = [
    ("conv, undefended", "conv", "plain", 1),
    ("VGG, undefended", "vgg", "plain", 1),
    ("ResNet, undefended", "resnet", "plain", 1),
    ("MLP, undefended", "mlp", "plain", 1),
    ("conv, PGD-7 trained", "conv", "PGD-7", 1),
    ("conv, hardened", "conv", "hardened", 1),
]
TARGETS = [("plain", "conv", "plain", 0), ("PGD-7 trained", "conv", "PGD-7", 0),
           ("hardened", "conv", "hardened", 0)]  # fmt: skip


def main() -> None:
    options = parse_options()
    out = Path(options.out)
    data = kj.datasets.load("fashion_mnist", source=options.source)
    x, y = data.x_test[: options.images], data.y_test[: options.images]

    surrogates = {
        name: trained(architecture, training, seed, data, options)
        for name, architecture, training, seed in SURROGATES
    }
    family = {name: training for name, _, training, _ in SURROGATES}

    reports = []
    for name, architecture, training, seed in TARGETS:
        print(f"\nTarget: {name}")
        target = trained(architecture, training, seed, data, options)
        others = {
            source: surrogates[source]
            for source, its_family in family.items()
            if its_family != training
        }
        report = kj.evaluate_robustness(
            target, x, y,
            epsilon=options.epsilon,
            surrogates=others,
            class_names=data.class_names,
            title=name,
            seed=options.seed,
            resume=out / "parts",
        )  # fmt: skip
        report.save(out / f"{name.replace(' ', '-')}.html")
        report.save(out / f"{name.replace(' ', '-')}.json")
        print(report.summary())
        reports.append(report)

    kj.compare(reports).save(out / "report.html")
    print_table(reports, len(x), options)
    print(f"\nOpen {out / 'report.html'} in a browser.")


def build(architecture: str, name: str, seed: int) -> keras.Model:
    """Build an untrained classifier of 28x28 grey images."""
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    x = image = keras.Input((28, 28, 1), name="image")
    if architecture == "conv":
        for filters in (16, 32):
            x = layers.Conv2D(filters, 4, 2, "same", activation="silu")(x)
        x = layers.Dense(100, activation="silu")(layers.Flatten()(x))
    elif architecture == "vgg":
        for filters in (16, 32):
            x = layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
            x = layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
            x = layers.MaxPooling2D()(x)
        x = layers.Dense(100, activation="relu")(layers.Flatten()(x))
    elif architecture == "resnet":
        x = layers.Conv2D(16, 3, 2, "same", activation="relu")(x)
        for _ in range(2):
            inner = layers.Conv2D(16, 3, padding="same", activation="relu")(x)
            inner = layers.Conv2D(16, 3, padding="same")(inner)
            x = layers.Activation("relu")(layers.Add()([x, inner]))
        x = layers.Flatten()(layers.AveragePooling2D(2)(x))
    else:
        x = layers.Dense(200, activation="relu")(layers.Flatten()(x))
        x = layers.Dense(100, activation="relu")(x)
    return keras.Model(image, layers.Dense(10, activation="softmax")(x), name=name)


def trained(
    architecture: str,
    training: str,
    seed: int,
    data: kj.datasets.Dataset,
    options: argparse.Namespace,
) -> keras.Model:
    """Train a network, or load it if an earlier run did."""
    radius = "" if training == "plain" else f"-{options.epsilon:g}"
    parts = (architecture, training + radius, seed, options.epochs, options.source)
    name = f"{'-'.join(map(str, parts))}.keras"
    path = Path(options.out) / "networks" / name
    if path.exists():
        return keras.models.load_model(path)
    print(f"training {architecture}, {training}, seed {seed}")
    model = build(architecture, f"{training}_{architecture}".replace("-", "_"), seed)
    steps = options.epochs * -(-len(data.x_train) // 128)
    if training == "hardened":
        model = kj.harden(model, epsilon=options.epsilon, verbose=0)
    elif training == "PGD-7":
        model = kj.harden(
            model,
            recipe=kj.JSIGRConfig(jacobian_weight=0.0, selective_weight=0.0),
            adversary=kj.attacks.PGD(options.epsilon, steps=7),
            verbose=0,
        )
    rate = keras.optimizers.schedules.CosineDecay(2e-3, steps)
    model.compile(
        keras.optimizers.Adam(rate),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    model.fit(data.x_train, data.y_train, epochs=options.epochs, batch_size=128, verbose=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    model.save(path.with_suffix(".part.keras"))
    path.with_suffix(".part.keras").replace(path)
    return model


def print_table(reports: list, images: int, options: argparse.Namespace) -> None:
    """Print clean accuracy, the worst transfer and the worst case of all."""
    radii = sorted({record.epsilon for record in reports[0].transfer})
    print(
        f"\nAccuracy on {images:,} test images, Linf, inputs in 0..1, "
        f"seed {options.seed}; transfer: the worst source and attack"
    )
    head = "".join(f"{f'transfer {radius:g}':>16}" for radius in radii)
    print(f"{'target':16}{'clean':>8}{head}{f'worst case {options.epsilon:g}':>16}")
    for report in reports:
        worst = [
            min(
                record.accuracy.accuracy
                for record in report.transfer
                if record.epsilon == radius and record.source != record.target
            )
            for radius in radii
        ]
        cells = "".join(f"{value:16.1%}" for value in worst)
        print(f"{report.title:16}{report.clean.accuracy:8.1%}{cells}{report.robust.accuracy:16.1%}")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--source", default="sample", help="sample, or idx for all 60,000 images")
    add("--out", default="transfer", help="folder to write to")
    add("--epochs", type=int, default=15)
    add("--images", type=int, default=1000, help="test images to attack")
    add("--epsilon", type=float, default=0.1, help="Linf radius in input units")
    add("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
