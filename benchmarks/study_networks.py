"""What the study trains: rungs (network, data, threat), methods, their networks."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import networks as nets
import numpy as np
import numpy.typing as npt
from networks import Recipe
from study_data import ARCHIVES, load_data

import keras_jsigr as kj
from keras_jsigr.core.files import atomic_write

FILE = Path(__file__).parent / "methods.json"

# Of recipes that are made of a config with a name; spelt out by `at_radius`.
CONFIG_KEYS = ("config", "times", "wider")


@dataclass(frozen=True)
class Method:
    """A way of training.

    Attributes:
        name: Its key in `methods.json`.
        title: For tables.
        family: `"undefended"`, `"regularized"` or `"adversarial"`.
        source: Where it is from, or what it is for.
        recipe: How its networks differ from the plain ones, see `at_radius`.
        headline: Whether it gets the whole standard suite and the diagnostics.
        longer: Times as many epochs as the others.
    """

    name: str
    title: str
    family: str
    source: str
    recipe: Recipe
    headline: bool = False
    longer: float = 1.0


def load_methods(path: Path = FILE) -> dict[str, Method]:
    """Read all methods, by name, in the order of the tables."""
    methods = json.loads(path.read_text(encoding="utf-8"))
    return {name: Method(name, **method) for name, method in methods.items()}


def first_order(epsilon: float) -> kj.JSIGRConfig:
    """Make what the recipe `balanced` was before the linearized loss."""
    return kj.JSIGRConfig(
        epsilon=epsilon,
        jacobian_weight=3.0 * epsilon**2,
        selective_weight=1.2 * epsilon,
        selective_target="score",
        start_radius=epsilon,
        start_patch_sizes=(2, 4, 7),
    )


def fast_first_order(epsilon: float) -> kj.JSIGRConfig:
    """Make what the recipe `fast` was then."""
    return kj.JSIGRConfig(
        epsilon=epsilon,
        jacobian_weight=0.2 * epsilon,
        selective_weight=0.8 * epsilon,
        selective_target="mixed",
        start_radius=epsilon,
    )


# By the names that methods.json uses beside those of the recipes; inputs in 0..1.
CONFIGS = {"first_order": first_order, "fast_first_order": fast_first_order}


def at_radius(recipe: Recipe, epsilon: float) -> Recipe:
    """Spell out the settings that a method has at a radius.

    Args:
        recipe: Of a method. `"config"` names a recipe of `JSIGRConfig`, made for
            `"wider"` times the radius; its weights are multiplied by `"times"`, and
            `"settings"` replace some of its fields.
        epsilon: Linf radius, inputs in 0..1.

    Returns:
        The recipe with `"settings"`: the fields of a `JSIGRConfig` that differ from its
        defaults. Without `"config"`, weights grow as the loss in a ball does: by
        `epsilon / networks.EPSILON` where the penalty is a norm of gradients, by its
        square where it is a square.
    """
    if recipe["defence"] != "harden":
        return recipe
    own = {k: v for k, v in recipe.items() if k not in CONFIG_KEYS}
    if "config" in recipe:
        make = CONFIGS.get(recipe["config"]) or getattr(kj.JSIGRConfig, recipe["config"])
        config = make(epsilon * recipe.get("wider", 1.0))
        scale = dict.fromkeys(nets.WEIGHTS, recipe.get("times", 1.0))
        config = scaled(config, scale).replace(**recipe.get("settings", {}))
    else:
        config = kj.JSIGRConfig(**recipe.get("settings", {}))
        ratio = epsilon / nets.EPSILON
        squared = config.norm == "squared"
        scale = {
            "jacobian_weight": squared or config.selective_target == "score",
            "selective_weight": squared,
        }
        scale = {name: ratio ** (2 if square else 1) for name, square in scale.items()}
        config = scaled(config, scale)
    return own | {"settings": nets.changed_fields(config)}


def scaled(config: kj.JSIGRConfig, scale: dict[str, float]) -> kj.JSIGRConfig:
    """Multiply weights of a config."""
    return config.replace(**{k: getattr(config, k) * v for k, v in scale.items()})


@dataclass(frozen=True)
class Rung:
    """A network, its data and its threat model.

    Attributes:
        name: Part of the file of results.
        title: For people.
        recipe: Of the plain network, see `networks.RECIPES`.
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
_GTSRB: Recipe = {"source": "gtsrb", "images": 39_209, "epsilon": 4 / 255}
_CLOTHES: Recipe = {"source": "clothing", "images": 3_409, "batch": 32, "rate": 5e-4}
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
        Rung(
            "decoy",
            "the reference network where a patch tells the label, in training only",
            {**_IDX, "source": "decoy"},
        ),
        Rung(
            "gtsrb",
            "conv4x4-s2(16, 32) + fc100, SiLU, German traffic signs",
            {**_GTSRB, "net": "reference gtsrb", "epochs": 12},
            4 / 255,
            "4/255",
        ),
        Rung(
            "gtsrb-resnet20",
            "ResNet-20 with batch normalization, SiLU, German traffic signs",
            {**_GTSRB, "net": "resnet20 gtsrb", "epochs": 4},
            4 / 255,
            "4/255",
            surrogates="gtsrb",
            **_SLOW,
        ),
        Rung(
            "clothing",
            "MobileNet of width 0.25, pretrained, ReLU, photographs of clothes",
            {**_CLOTHES, "net": "mobilenet", "activation": "relu", "epochs": 10}
            | {"pretrained": "mobilenet_025.weights.h5", "epsilon": 2 / 255},
            2 / 255,
            "2/255",
            images=372,
            whole_suite=False,
        ),
        Rung(
            "transformer",
            "vision transformer of two blocks, GELU, Fashion-MNIST",
            {**_IDX, "net": "transformer", "activation": "gelu", "epochs": 8},
            surrogates="reference",
            **_SLOW,
        ),
    )
}


def epochs_of(rung: Rung, method: Method) -> int:
    """Say how long a method trains on a rung."""
    recipe = nets.RECIPES["plain"] | rung.recipe | method.recipe
    return round(recipe["epochs"] * method.longer)


# Seeds of networks that are attacked with, or that explain: never those measured.
SURROGATE_SEED, TEACHER_SEED = 1000, 100

# A method and a seed.
Member = tuple[str, int]


def add_options(parser: argparse.ArgumentParser, images: int) -> None:
    """Let a benchmark say which networks it wants.

    Args:
        parser: Of `store.parser_of`, added to; `--train` is how the benchmark
            calls itself to train several networks side by side.
        images: How many test images the figures are of.
    """
    add = parser.add_argument
    add("--rung", choices=list(RUNGS), default="reference")
    add(
        "--archive",
        type=Path,
        default=None,
        help=f"the data that are not Fashion-MNIST: {', '.join(ARCHIVES.values())}",
    )
    add("--weights", type=Path, default=None, help="mobilenet_025.weights.h5")
    add("--validation", action="store_true", help="choose settings on training images held back")
    add("--methods", nargs="+", choices=list(load_methods()), default=None)
    add("--seeds", type=int, default=3)
    add("--images", type=int, default=images, help="test images that are attacked")
    add("--skip", type=int, default=0, help="as many test images before them")
    add("--jobs", type=int, default=os.cpu_count(), help="networks trained at a time")
    add("--train", nargs=2, metavar=("METHOD", "SEED"), help="one network, no more")


class Bank:
    """Networks of a rung by method and seed: trained once, kept, loaded.

    Args:
        rung: What they are trained and measured on.
        options: Of the command line, see `add_options`.
    """

    def __init__(self, rung: Rung, options: argparse.Namespace) -> None:
        self.rung = rung
        self.methods = load_methods()
        self._options = options

    @cached_property
    def _loaded(self) -> tuple[kj.datasets.Dataset, np.ndarray | None]:
        options = self._options
        return load_data(
            self.rung.recipe["source"],
            options.data_dir,
            options.archive,
            options.quick,
            options.validation,
        )

    @cached_property
    def surrogates(self) -> Bank:
        """The networks that the examples of transfer are made on."""
        name = self.rung.surrogates
        return self if name is None else Bank(RUNGS[name], self._options)

    @property
    def weights(self) -> Path | None:
        """The file of pretrained weights."""
        weights: Path | None = self._options.weights
        return weights

    @property
    def data(self) -> kj.datasets.Dataset:
        """The images."""
        return self._loaded[0]

    @cached_property
    def chosen(self) -> dict[str, int]:
        """Which test images networks are attacked and explained on, at most."""
        images = min(self._options.images, self.rung.images)
        skip = self._options.skip
        return {"images": images} | ({"skip": skip} if skip else {})

    @property
    def test_images(self) -> tuple[np.ndarray, np.ndarray]:
        """The test images that networks are attacked and explained on.

        Raises:
            ValueError: If all there are are skipped.
        """
        x, y = self.data.x_test[self._part], self.data.y_test[self._part]
        if len(x) == 0:
            raise ValueError(
                f"Got --skip {self._options.skip}, expected less than the "
                f"{len(self.data.x_test)} test images of the rung {self.rung.name!r}."
            )
        return x, y

    @property
    def boxes(self) -> np.ndarray | None:
        """Where the objects of these images are, if that is known."""
        boxes = self._loaded[1]
        return None if boxes is None else boxes[self._part]

    @property
    def _part(self) -> slice:
        chosen = self.chosen
        skip = chosen.get("skip", 0)
        return slice(skip, skip + chosen["images"])

    def recipe_of(self, name: str, seed: int) -> nets.Recipe:
        """Say how a network is trained."""
        method = self.methods[name]
        own = at_radius(method.recipe, self.rung.epsilon)
        recipe = nets.RECIPES["plain"] | self.rung.recipe | own | {"seed": seed}
        recipe["epochs"] = epochs_of(self.rung, method)
        if self._options.validation:
            recipe["source"] = f"validation of {recipe['source']}"
        if self._options.quick:
            few = {"source": f"quick {recipe['source']}", "images": 2_000, "epochs": 1}
            recipe |= few
        return recipe

    def file_of(self, name: str, seed: int) -> Path:
        """Name the file of a network after what it is."""
        recipe = self.recipe_of(name, seed)
        return nets.file_of(f"{self.rung.name}-{name}-{seed}", recipe, self._options.cache)

    def stems_of(self, members: Iterable[Member]) -> list[str]:
        """Return the names of files: figures of networks stay while these do."""
        return [self.file_of(*member).stem for member in members]

    def net(self, name: str, seed: int) -> keras.Model:
        """Train a network, or load it; maps that it needs are those of a plain one."""
        return nets.train(
            self.recipe_of(name, seed),
            self.data,
            self.file_of(name, seed),
            teacher=lambda: self.net("plain", seed),
            weights=self.weights,
        )

    def fill(self, members: Iterable[Member]) -> None:
        """Train what is missing side by side: teachers before those who need them.

        The long ones first: nothing waits at the end for one that started last.
        """
        members = list(members)
        pupils = [m for m in members if "maps" in self.recipe_of(*m)]
        teachers = [("plain", seed) for _, seed in pupils]
        others = [m for m in members if m not in pupils]
        for stage in ([*teachers, *others], pupils):
            missing = [m for m in dict.fromkeys(stage) if not self.file_of(*m).exists()]
            missing.sort(key=self._passes, reverse=True)
            self.side_by_side("--train", missing)

    def _passes(self, member: Member) -> int:
        """Count about how often a method passes through a network per step."""
        recipe = self.recipe_of(*member)
        attack = f"{recipe['defence']} {recipe.get('adversary', '')}".strip()
        steps = re.search(r"-(\d+)$", attack)
        own = 0 if recipe["defence"] is None else 1
        return recipe["epochs"] * (own + (int(steps[1]) if steps else 0))

    def side_by_side(self, option: str, members: Iterable[Member]) -> None:
        """Run this program for every network, see `side_by_side`.

        Args:
            option: Takes a method and a seed.
            members: The networks.
        """
        own = ["--rung", self.rung.name, option]
        parts = [[*own, method, str(seed)] for method, seed in members]
        side_by_side(parts, self._options.jobs)


Examples = dict[str, npt.NDArray[np.float32]]


def transfer_examples(bank: Bank, names: list[str], radius: float) -> Examples:
    """Make the examples of every source, or load them: many networks meet the same.

    Args:
        bank: Of the networks that are attacked.
        names: The methods of the surrogates.
        radius: Linf.

    Returns:
        MI-FGSM of each surrogate, and of two ensembles of them all, by the name of the
        source: on the test images of the bank.
    """
    made_on = bank.surrogates
    members = [(name, SURROGATE_SEED) for name in names]
    what = repr((made_on.stems_of(members), *bank.chosen.values(), radius))
    key = hashlib.sha256(what.encode()).hexdigest()[:8]
    file = made_on.file_of(*members[0]).with_name(f"transfer-{key}.npz")
    if not file.exists():
        made = _attacked(bank, names, radius)
        with atomic_write(file) as opened:
            np.savez(opened, **made)
    with np.load(file) as kept:
        return {name: kept[name] for name in kept.files}


def _attacked(bank: Bank, names: list[str], radius: float) -> Examples:
    sources: dict[str, Any] = {name: bank.surrogates.net(name, SURROGATE_SEED) for name in names}
    members = list(sources.values())
    for fuse in ("logits", "probabilities"):
        sources[fuse] = kj.attacks.LogitsEnsemble(members, fuse=fuse)
    attack = kj.attacks.MIFGSM(epsilon=radius, verbose=0)
    x, y = bank.test_images
    return {name: np.asarray(attack(model, x, y)) for name, model in sources.items()}


def side_by_side(parts: Iterable[list[str]], jobs: int) -> None:
    """Run this program with further arguments, several times at once.

    A step of a small network keeps one core busy and most of the others waiting: two
    trainings of one core each take little longer than one that has both.

    Args:
        parts: The arguments that come after the program's own, in this order.
        jobs: How many at a time.

    Raises:
        subprocess.CalledProcessError: If one of them fails; those that run are waited
            for, and further ones do not start.
    """
    alone = {"TF_NUM_INTRAOP_THREADS": "1"}

    def run(part: list[str]) -> None:
        command = [sys.executable, *sys.argv, *part]
        subprocess.run(command, env=os.environ | alone, check=True)

    with ThreadPoolExecutor(jobs) as pool:
        running = [pool.submit(run, part) for part in parts]
        try:
            for one in running:
                one.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
