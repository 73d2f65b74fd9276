"""The networks that the attacks are judged and timed on, trained once and kept."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

import keras_jsigr as kj
from networks.architectures import NETS
from networks.correct import correct
from networks.trades import Trades

CACHE = Path(__file__).parents[1] / "cache"
EPSILON = 0.1  # Linf, inputs in 0..1: the radius of every Fashion-MNIST figure here

# Everything that decides what a trained network is; its hash names the file.
Recipe = dict[str, Any]
_TRAINING: Recipe = {"net": "reference", "batch": 128, "rate": 2e-3, "seed": 0}
_SAMPLE: Recipe = {**_TRAINING, "source": "sample", "activation": "silu", "epochs": 15}
RECIPES: dict[str, Recipe] = {
    "plain": {**_SAMPLE, "defence": None},
    "hardened": {**_SAMPLE, "defence": "harden"},
    "pgd": {**_SAMPLE, "defence": "PGD-7"},
    "resnet20": {**_SAMPLE, "net": "resnet20", "activation": "relu", "epochs": 10}
    | {"defence": None},
}
LEARNT = 0.75  # accuracy below which a network says nothing of attacks or maps


def adversary(name: str, epsilon: float) -> Any:
    """Return the attack that a network is trained against.

    Args:
        name: `"FGSM"` (no random start), `"FGSM-RS"` (a random one, step
            `1.25 epsilon`), or `"PGD-k"` (step `2.5 epsilon / k`).
        epsilon: Linf radius, inputs in 0..1.

    Returns:
        An attack of keras_jsigr.
    """
    if name.startswith("FGSM"):
        return kj.attacks.FGSM(epsilon=epsilon, random_start=name == "FGSM-RS")
    return kj.attacks.PGD(epsilon=epsilon, steps=int(name.removeprefix("PGD-")))


def untrained(recipe: Recipe, maps: Any = None) -> tuple[keras.Model, keras.Model]:
    """Make a network and the model whose `fit` trains it by the recipe.

    Args:
        recipe: See `RECIPES`; `"epsilon"` is that of the adversary, `"settings"` are
            arguments of `harden`, `"images"` is their number where it is not the
            sample's, `"swish"` the beta of an activation in the place of the named one.
        maps: A `PerturbationCache` for the hardened network, or `None`.

    Returns:
        The network, and the model to fit: the same, or one around it.
    """
    swish = recipe.get("swish")
    activation = kj.Swish(swish) if swish else recipe["activation"]
    net = NETS[recipe["net"]](activation, recipe["seed"])
    defence, epsilon = recipe["defence"], recipe.get("epsilon", EPSILON)
    if defence is None:
        return net, net
    if defence == "noise":
        noise = keras.layers.GaussianNoise(recipe["sigma"], seed=recipe["seed"])
        return net, keras.Sequential([keras.Input(net.input_shape[1:]), noise, net])
    if defence.startswith("TRADES"):
        steps = int(defence.removeprefix("TRADES-"))
        return net, Trades(net, epsilon, steps, recipe["beta"], recipe["seed"])
    if defence == "harden":
        steps = recipe["epochs"] * -(-recipe.get("images", 12_000) // recipe["batch"])
        against = recipe.get("adversary")
        settings = {
            **recipe.get("settings", {}),
            "adversary": against and adversary(against, epsilon),
        }
        return net, kj.harden(
            net, ramp_steps=steps // 5, maps=maps, verbose=0, **settings
        )
    # Without penalties a step is the adversary's gradients and the plain step.
    return net, kj.harden(
        net,
        jacobian_weight=0.0,
        selective_weight=0.0,
        adversary=adversary(defence, epsilon),
        probe=False,
        verbose=0,
    )


def train(
    recipe: Recipe,
    data: kj.datasets.Dataset,
    path: Path,
    callbacks: Any = (),
    teacher: Callable[[], keras.Model] | None = None,
) -> keras.Model:
    """Train by the recipe, or load what was trained before.

    A training that was killed goes on at its last finished epoch.

    Args:
        recipe: See `RECIPES`; `"images"` limits those trained on.
        data: The images.
        path: The `.keras` file to keep the network in.
        callbacks: Further Keras callbacks.
        teacher: Makes the network whose perturbation maps a recipe with
            `"maps": "cached"` trains with; not called otherwise.

    Returns:
        The plain Keras network, with logits.
    """
    if path.exists():
        return keras.models.load_model(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    x, y = data.x_train[: recipe.get("images")], data.y_train[: recipe.get("images")]
    maps = None
    if recipe.get("maps") == "cached":
        maps = kj.PerturbationCache.build(teacher(), x, y, verbose=0)
    net, model = untrained(recipe, maps)
    steps = recipe["epochs"] * -(-len(x) // recipe["batch"])
    rate = keras.optimizers.schedules.CosineDecay(recipe["rate"], steps)
    model.compile(
        keras.optimizers.Adam(rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    backup = keras.callbacks.BackupAndRestore(str(path.with_suffix("")) + "-backup")
    start = time.perf_counter()
    model.fit(
        x,
        y,
        epochs=recipe["epochs"],
        batch_size=recipe["batch"],
        verbose=0,
        callbacks=[backup, *callbacks],
    )
    print(f"trained {path.stem} in {time.perf_counter() - start:.0f} s", flush=True)
    # Under a temporary name first, for a network that is there is taken as whole.
    temporary = path.with_name(f"{path.stem}-unfinished.keras")
    net.save(temporary)
    temporary.replace(path)
    return net


def file_of(name: str, recipe: Recipe, cache: Path) -> Path:
    """Name the file of a trained network after what it is.

    Args:
        name: Of the network, for people.
        recipe: Of the network.
        cache: The folder of trained networks.

    Returns:
        Such as `cache/plain-1f2e3d4c.keras`.
    """
    text = json.dumps(recipe, sort_keys=True)
    return cache / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}.keras"


def recipe_of(name: str, quick: bool = False) -> Recipe:
    """Return a recipe; the quick one trains for one epoch on 2,000 images.

    Args:
        name: A key of `RECIPES`.
        quick: Whether the network is for a smoke run.

    Returns:
        The recipe.
    """
    return RECIPES[name] | ({"epochs": 1, "images": 2_000} if quick else {})


def load(
    name: str,
    data: kj.datasets.Dataset,
    cache: Path = CACHE,
    quick: bool = False,
) -> keras.Model:
    """Return a trained network, from the cache if it is there.

    Args:
        name: A key of `RECIPES`.
        data: The embedded sample of Fashion-MNIST.
        cache: The folder of trained networks.
        quick: Whether the network is for a smoke run.

    Returns:
        A plain Keras model with logits.

    Raises:
        RuntimeError: If it has not learnt its task.
    """
    recipe = recipe_of(name, quick)
    net = train(recipe, data, file_of(name, recipe, Path(cache)))
    if quick:
        return net
    right = correct(net, data.x_test[:1000], data.y_test[:1000]).mean()
    if right < LEARNT:
        raise RuntimeError(
            f"The network {name!r} is right on {right:.1%} of 1,000 test images, "
            f"expected at least {LEARNT:.0%}: its figures would mean nothing. Train it "
            "longer."
        )
    return net
