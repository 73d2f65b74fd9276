"""The ladder of the study: what the methods are compared on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from networks import nets, tiny_imagenet10
from networks.nets import Recipe

import keras_jsigr as kj
from baselines.methods import Method


@dataclass(frozen=True)
class Rung:
    """A network, its data and its threat model.

    Attributes:
        name: Part of the file of results.
        title: For people.
        recipe: Of the plain network, see `networks.nets`.
        epsilon: Linf radius, inputs in 0..1.
        words: How people write the radius.
        surrogates: The rung whose networks the examples of transfer are made on, or
            `None` for this one: large networks are not trained again to attack with.
        images: How many test images are attacked at most.
        whole_suite: Whether the worst case of headline methods is over the whole
            standard suite, or, as that of the others, over its two strongest attacks.
    """

    name: str
    title: str
    recipe: Recipe
    epsilon: float = nets.EPSILON
    words: str = "0.1"
    surrogates: str | None = None
    images: int = 1000
    whole_suite: bool = True


_IDX: Recipe = {"source": "idx", "images": 60_000}
_TINY: Recipe = {"source": "tiny_imagenet10", "images": 5_000, "epsilon": 4 / 255}
# Networks that are slow to attack.
_SLOW: dict[str, Any] = {"images": 500, "whole_suite": False}
RUNGS = {
    rung.name: rung
    for rung in (
        Rung("reference", "conv4x4-s2(16, 32) + fc100, SiLU, Fashion-MNIST", _IDX),
        Rung(
            "relu",
            "conv4x4-s2(16, 32) + fc100, ReLU, Fashion-MNIST",
            {**_IDX, "activation": "relu"},
            surrogates="reference",
        ),
        Rung(
            "swish",
            "conv4x4-s2(16, 32) + fc100, Swish of beta 5, Fashion-MNIST",
            {**_IDX, "swish": 5.0},
        ),
        Rung(
            "madry",
            "conv5x5(32)-pool-conv5x5(64)-pool-fc1024, SiLU, Fashion-MNIST",
            {**_IDX, "net": "madry", "epochs": 5},
            surrogates="reference",
            **_SLOW,
        ),
        Rung(
            "resnet20",
            "ResNet-20 with batch normalization, SiLU, Fashion-MNIST",
            {**_IDX, "net": "resnet20", "epochs": 3},
            surrogates="reference",
            **_SLOW,
        ),
        Rung(
            "tiny",
            "conv3x3-s2(16, 32, 64) + fc100, SiLU, ten classes of Tiny ImageNet",
            {**_TINY, "net": "colour", "epochs": 30},
            4 / 255,
            "4/255",
        ),
        Rung(
            "colour",
            "ResNet-20 (first convolution of stride 2) with batch normalization, SiLU, "
            "ten classes of Tiny ImageNet",
            {**_TINY, "net": "resnet20 colour", "epochs": 10},
            4 / 255,
            "4/255",
            surrogates="tiny",
            **_SLOW,
        ),
    )
}


def epochs_of(rung: Rung, method: Method) -> int:
    """Say how long a method trains on a rung."""
    recipe = nets.RECIPES["plain"] | rung.recipe | method.recipe
    return round(recipe["epochs"] * method.longer)


def load_data(
    rung: Rung, data_dir: str | None, archive: Path | None, quick: bool
) -> tuple[kj.datasets.Dataset, np.ndarray | None]:
    """Read the images of a rung.

    Args:
        rung: Of `RUNGS`.
        data_dir: The folder of Fashion-MNIST's IDX files, or `None` to look for it.
        archive: Of Tiny ImageNet.
        quick: Whether the embedded sample of Fashion-MNIST will do.

    Returns:
        The images, and where the objects of the test images are, if that is known.

    Raises:
        ValueError: If the rung is of Tiny ImageNet and there is no archive.
    """
    if rung.recipe["source"] == "tiny_imagenet10":
        if archive is None:
            raise ValueError(
                f"Got no archive for the rung {rung.name!r}, expected --archive "
                "tiny-imagenet-200.zip."
            )
        return tiny_imagenet10.load(archive)
    source = "sample" if quick else "idx"
    data = kj.datasets.load(
        "fashion_mnist", source=source, data_dir=data_dir, verbose=False
    )
    return data, None
