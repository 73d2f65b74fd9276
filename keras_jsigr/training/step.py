"""Noise that neighbouring entries share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from keras_jsigr.attacks.norms import LinfBall
from keras_jsigr.core.inputs import (
    in_structure,
    restore_after,
    rnn_state_variables,
    with_known_sides,
)
from keras_jsigr.core.padding import leave_padding
from keras_jsigr.core.random import ALGORITHM, fold_in, named_seed
from keras_jsigr.penalties.jacobian import Linearization
from keras_jsigr.penalties.objective import (
    PenaltyBatch,
    directional_penalties,
    products,
    reverse_mode_penalties,
)
from keras_jsigr.penalties.settings import REVERSE_MODE, PenaltySettings
from keras_jsigr.training.introspection import ModelSpec, acts_in_training

# Patterns take the streams 0, 1, ... of the seed, their places those from here on.
_PLACES = 1000


def patch_noise(x: Any, seed: Any, sides: Sequence[int] = (1,)) -> Any:
    """Draw noise in -1..1 that is constant on square patches."""
    patterns = [
        # The first is what a ball draws: side 1 alone is its uniform sample.
        _pattern(x, fold_in(seed, number) if number else seed, side, _PLACES + number)
        for number, side in enumerate(sides)
    ]
    return tf.clip_by_value(tf.add_n(patterns), -1.0, 1.0)


def _pattern(x: Any, seed: Any, side: int, place: int) -> Any:
    """Draw one number per patch, and with the stream `place` where the grid begins."""
    shape = tf.shape(x)
    axes = range(1, x.shape.rank - 1) if side > 1 else ()
    # As many patches as cover the example wherever the grid begins.
    cells = [(shape[axis] + 2 * side - 2) // side for axis in axes]
    drawn = tf.concat([shape[:1], cells, shape[-1:]], 0) if axes else shape
    noise = tf.random.stateless_uniform(drawn, seed, -1.0, 1.0, alg=ALGORITHM)
    if not axes:
        return tf.ensure_shape(noise, x.shape)
    for axis in axes:
        noise = tf.repeat(noise, side, axis)
    first = tf.random.stateless_uniform(
        (len(axes),), fold_in(seed, place), 0, side, tf.int32, alg=ALGORITHM
    )
    begin = tf.concat([[0], first, [0]], 0)
    return tf.ensure_shape(tf.slice(noise, begin, shape), x.shape)


@dataclass(frozen=True)
class StepInputs:
    """Where a step is taken."""

    leaves: list[Any]
    structure: Any
    inputs: list[Any]


@dataclass(frozen=True)
class TapedForward(StepInputs):
    """A place and the recorded forward pass there."""

    logits: Any
    tape: tf.GradientTape | None


class Forward:
    """The base model as a function of its regularized inputs."""

    def __init__(
        self,
        base: keras.Model,
        probed: ModelSpec,
        specs: Any,
        settings: PenaltySettings,
    ) -> None:
        self._base = base
        self.probed = probed
        self.head = probed.head
        self.specs = specs
        self.settings = settings
        self.regularized = list(probed.regularized)
        half = base.compute_dtype in ("float16", "bfloat16")
        if settings.estimator == "finite_difference" and half:
            raise ValueError(
                "Differences between logits in half precision measure their rounding: "
                f"got estimator='finite_difference' and a model that computes in "
                f"{base.compute_dtype}, expected float32. Use estimator='jvp'."
            )
        self.unit = settings.input_range[1] - settings.input_range[0]
        self._states = rnn_state_variables(base)

    def __call__(self, x: Any, training: bool) -> Any:
        """Return logits for inputs in the user's structure."""
        with self.head.removed():
            return self._base(x, training=training)

    def at(self, point: TapedForward, inputs: list[Any]) -> Any:
        """Return inference logits with the regularized inputs of a point exchanged."""
        inputs = [
            leave_padding(moved, tf.cast(x, moved.dtype), values)
            for moved, x, values in zip(
                inputs, point.inputs, self.probed.padding, strict=True
            )
        ]
        with restore_after(self._states):
            return self(self._pack(point.structure, point.leaves, inputs), False)

    def place(self, x: Any, targets: Any, seed: Any, adversary: Any) -> StepInputs:
        """Find where the step is taken: at the inputs, or at points near them."""
        x = self._with_sides(in_structure(x, self.specs))
        # Keras refuses a mixture of arrays, which eager steps receive, and tensors.
        leaves = [
            leaf if leaf is None or tf.is_tensor(leaf) else tf.convert_to_tensor(leaf)
            for leaf in keras.tree.flatten(x)
        ]
        specs = keras.tree.flatten(self.specs)
        for index, padding in zip(self.regularized, self.probed.padding, strict=True):
            if leaves[index] is None:
                raise ValueError(
                    f"The input `{specs[index].name}` is regularized: got None, "
                    "expected data. Name the others by `harden(..., inputs=[...])`."
                )
            dtype, wanted = leaves[index].dtype, specs[index].dtype
            # In fewer bits than the model has a small move of the inputs is none.
            if not dtype.is_floating or dtype.size < wanted.size:
                leaves[index] = tf.cast(leaves[index], wanted)
            if self.settings.noise > 0:
                moved = self._beside(leaves[index], seed, index)
                leaves[index] = leave_padding(moved, leaves[index], padding)
        if adversary is not None:
            index = self.regularized[0]
            origin, padding = leaves[index], self.probed.padding[0]

            def logits_of(moved: Any) -> Any:
                moved = leave_padding(moved, origin, padding)
                with restore_after(self._states):
                    logits = self(self._pack(x, leaves, [moved]), False)
                return tf.cast(logits, tf.float32)

            moved = adversary.perturb(
                logits_of, origin, targets, seed=named_seed(seed, "adversary")
            )
            moved = tf.ensure_shape(moved, origin.shape)
            leaves[index] = leave_padding(moved, origin, padding)
        return StepInputs(leaves, x, [leaves[index] for index in self.regularized])

    def _with_sides(self, x: Any) -> Any:
        """Give the regularized inputs the sides of their maps, where maps are used."""
        # Elsewhere batches may differ in their sides, as far as the model takes them.
        if not (self.settings.uses_map or self.settings.selection == "random"):
            return x
        leaves, specs = keras.tree.flatten(x), keras.tree.flatten(self.specs)
        for index in self.regularized:
            leaves[index] = with_known_sides(leaves[index], specs[index])
        return keras.tree.pack_sequence_as(x, leaves)

    def _beside(self, x: Any, seed: Any, index: int) -> Any:
        """Draw points of the maximum-norm balls around the inputs."""
        settings, origin = self.settings, tf.cast(x, tf.float32)
        ball = LinfBall(origin, settings.noise, settings.input_range)
        noise = patch_noise(x, named_seed(seed, "noise", index), settings.noise_patches)
        return tf.cast(ball.project(origin + settings.noise * noise), x.dtype)

    def record(self, place: StepInputs, classes: int) -> TapedForward:
        """Run the forward pass of the step, in training mode."""
        inputs = self._pack(place.structure, place.leaves, place.inputs)
        if not (self.terms and self.settings.estimator in REVERSE_MODE):
            logits = self(inputs, True)
            return TapedForward(
                place.leaves, place.structure, place.inputs, logits, None
            )
        tape = tf.GradientTape(
            persistent=products(self.settings, classes) > 1,
            watch_accessed_variables=False,
        )
        with tape:
            for value in place.inputs:
                tape.watch(value)
            logits = self(inputs, True)
        return TapedForward(place.leaves, place.structure, place.inputs, logits, tape)

    def penalties(
        self, point: TapedForward, batch: PenaltyBatch, weights: dict[str, Any]
    ) -> dict[str, Any]:
        """Compute the penalties of a point, float32 `(B,)` each."""
        if not self.terms:
            return {}
        if point.tape is not None:
            return reverse_mode_penalties(
                batch,
                Linearization(point.inputs, point.logits, point.tape, self.unit),
            )
        # A second pass in training mode would move BatchNormalization's statistics
        # again and draw other dropout masks: differences are taken in inference mode.
        logits = point.logits if self.one_mode else self.at(point, point.inputs)
        return directional_penalties(
            batch,
            lambda inputs: self.at(point, inputs),
            point.inputs,
            logits,
            weights=weights,
            unit=self.unit,
        )

    @property
    def terms(self) -> list[str]:
        """Names of the penalties the settings ask for."""
        settings = self.settings
        present = {
            "jacobian": settings.jacobian_weight > 0,
            "selective": settings.selects,
            "align": settings.align_weight > 0,
        }
        names = [name for name, on in present.items() if on]
        fused = settings.form == "fused" and settings.estimator not in REVERSE_MODE
        return ["fused"] if fused and names else names

    def _pack(self, structure: Any, leaves: list[Any], inputs: list[Any]) -> Any:
        leaves = list(leaves)
        for index, value in zip(self.regularized, inputs, strict=True):
            leaves[index] = value
        return keras.tree.pack_sequence_as(structure, leaves)

    @property
    def one_mode(self) -> bool:
        """Whether training mode computes what inference mode does."""
        # What a layer of the user's does itself, only its answers tell.
        return self.probed.answers_alike and not acts_in_training(self._base)
