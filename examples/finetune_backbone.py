"""Fine-tune a pretrained MobileNet on a folder of pictures so that it withstands attacks.

    python examples/finetune_backbone.py photos/ --weights mobilenet.weights.h5

`photos/` (or a .zip of it) holds a subfolder of pictures per class, or `train` and `test`
folders of such. `--weights` names a file of `keras.applications.MobileNet(alpha=0.25,
include_top=False)`, or "imagenet", which Keras downloads. First a new head is trained on
the frozen backbone, as ever; then all of it is hardened at epsilon 2/255 (maximum norm,
pictures in 0..1) and trained on. Writes both models, a report of 200 test pictures and the
served model to the output folder, and prints accuracies before and after.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import zipfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

import keras_jsigr as kj


def main() -> None:
    options = parse_options()
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    data = read(Path(options.photos), options.size)
    keras.utils.set_random_seed(options.seed)
    model = network(options, len(data.class_names))

    print("\n1. A new head on the frozen backbone")
    backbone = model.get_layer("backbone")
    backbone.trainable = False
    train(model, data, 1e-3, options.head_epochs)
    backbone.trainable = True
    model.save(out / "plain.keras")
    print_accuracy("plain", model, data, options)

    print("\n2. Hardened: all layers, a smaller learning rate")
    robust = kj.harden(model, epsilon=options.epsilon)
    train(robust, data, 5e-4, options.epochs)
    robust.save(out / "robust.keras")
    print_accuracy("hardened", robust, data, options)

    print("\n3. Report and served model")
    report = kj.evaluate_robustness(
        robust,
        data.x_test[: options.images],
        data.y_test[: options.images],
        attacks=["apgd-ce", "apgd-dlr"],
        class_names=data.class_names,
        title="MobileNet, hardened",
    )
    print(report.summary())
    report.save(out / "report.json")
    report.save(out / "report.html")
    robust.export(out / "served" / "1", overwrite=True)
    print(f"\nLook at {out / 'report.html'}; serve {out / 'served'}.")


def read(photos: Path, size: int) -> kj.datasets.Dataset:
    """Read a folder of pictures, or an archive of one, in a random order."""
    if not zipfile.is_zipfile(photos):
        return kj.datasets.from_folder(photos, (size, size))
    with tempfile.TemporaryDirectory() as temporary, zipfile.ZipFile(photos) as archive:
        folder = Path(temporary) / photos.stem
        archive.extractall(folder)
        inside = [path for path in folder.iterdir() if path.is_dir()]
        return kj.datasets.from_folder(inside[0] if len(inside) == 1 else folder, (size, size))


def network(options: argparse.Namespace, classes: int) -> keras.Model:
    """Put MobileNet behind its own scaling: the model takes pictures in 0..1."""
    shape = (options.size, options.size, 3)
    settings = {"alpha": 0.25, "include_top": False, "pooling": "avg", "name": "backbone"}
    online = options.weights == "imagenet"
    backbone = keras.applications.MobileNet(
        input_shape=shape, weights="imagenet" if online else None, **settings
    )
    if not online:
        backbone.load_weights(options.weights)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(shape, name="picture"),
            layers.Rescaling(2.0, offset=-1.0),  # from 0..1 to the -1..1 of MobileNet
            backbone,
            layers.Dense(classes, activation="softmax"),
        ]
    )


def train(model: keras.Model, data: kj.datasets.Dataset, rate: float, epochs: int) -> None:
    """Train with Adam and a cosine decay; rare classes count as much as frequent ones."""
    counts = np.bincount(data.y_train, minlength=len(data.class_names))
    steps = epochs * -(-len(data.x_train) // 32)
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(rate, steps)),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    model.fit(
        data.x_train,
        data.y_train,
        batch_size=32,
        epochs=epochs,
        validation_data=(data.x_test, data.y_test),
        class_weight={k: len(data.y_train) / (len(counts) * n) for k, n in enumerate(counts)},
        verbose=2,
    )


def print_accuracy(
    name: str, model: keras.Model, data: kj.datasets.Dataset, options: argparse.Namespace
) -> None:
    x, y = data.x_test[: options.images], data.y_test[: options.images]
    attack = kj.attacks.PGD(options.epsilon, steps=20)
    clean, pgd = (
        np.mean(model.predict(points, verbose=0).argmax(-1) == y)
        for points in (x, attack(model, x, y))
    )
    print(f"{name}: {clean:.1%} of {len(y)} test pictures right, {pgd:.1%} under PGD-20")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("photos", help="folder of pictures, or .zip")
    add("--weights", default="imagenet", help="file of weights, or imagenet (a download)")
    add("--size", type=int, default=128, help="pictures are resized to size x size pixels")
    add("--epsilon", type=float, default=2 / 255, help="Linf radius, pictures in 0..1")
    add("--head-epochs", type=int, default=3)
    add("--epochs", type=int, default=4)
    add("--images", type=int, default=200, help="how many test pictures to attack")
    add("--seed", type=int, default=0)
    add("--out", default="finetuned", help="folder to write to")
    return parser.parse_args()


if __name__ == "__main__":
    main()
