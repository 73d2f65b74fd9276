"""The trained networks that the studies share."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

import keras
import numpy as np
from networks import nets
from networks.side_by_side import side_by_side

import keras_jsigr as kj
from baselines.methods import at_radius, load
from baselines.rungs import RUNGS, Rung, epochs_of, load_data

# Seeds of networks that are attacked with, or that explain: never those measured.
SURROGATE_SEED, TEACHER_SEED = 1000, 100

# A method and a seed.
Member = tuple[str, int]


def add_options(parser: argparse.ArgumentParser, images: int) -> None:
    """Let a benchmark say which networks it wants.

    Args:
        parser: Of `judges.options.parser_of`, added to; `--train` is how the benchmark
            calls itself to train several networks side by side.
        images: How many test images the figures are of.
    """
    add = parser.add_argument
    add("--rung", choices=list(RUNGS), default="reference")
    add(
        "--archive",
        type=Path,
        default=None,
        help="tiny-imagenet-200.zip",
    )
    add("--methods", nargs="+", choices=list(load()), default=None)
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
        self.methods = load()
        self._options = options

    @cached_property
    def _loaded(self) -> tuple[kj.datasets.Dataset, np.ndarray | None]:
        options = self._options
        return load_data(self.rung, options.data_dir, options.archive, options.quick)

    @cached_property
    def surrogates(self) -> Bank:
        """The networks that the examples of transfer are made on."""
        name = self.rung.surrogates
        return self if name is None else Bank(RUNGS[name], self._options)

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
        if self._options.quick:
            few = {"source": f"quick {recipe['source']}", "images": 2_000, "epochs": 1}
            recipe |= few
        return recipe

    def file_of(self, name: str, seed: int) -> Path:
        """Name the file of a network after what it is."""
        recipe = self.recipe_of(name, seed)
        return nets.file_of(
            f"{self.rung.name}-{name}-{seed}", recipe, self._options.cache
        )

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
        )

    def fill(self, members: Iterable[Member]) -> None:
        """Train what is missing side by side: teachers before those who need them.

        The long ones first: nothing waits at the end for one that started last.
        """
        members = list(members)
        pupils = [m for m in members if self.recipe_of(*m).get("maps") == "cached"]
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
        """Run this program for every network, see `networks.side_by_side`.

        Args:
            option: Takes a method and a seed.
            members: The networks.
        """
        own = ["--rung", self.rung.name, option]
        parts = [[*own, method, str(seed)] for method, seed in members]
        side_by_side(parts, self._options.jobs)
