"""A training step's inputs, its recorded forward pass, and passes beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_jsigr.attacks.norms import LinfBall
from keras_jsigr.core.inputs import (
    in_structure,
    with_known_sides,
)
from keras_jsigr.core.padding import leave_padding
from keras_jsigr.core.random import ALGORITHM, fold_in, named_seed
from keras_jsigr.core.variables import stateless
from keras_jsigr.penalties.base import Linearization, Penalty, PenaltyBatch
from keras_jsigr.penalties.objective import count_products, penalty_values
from keras_jsigr.training.input_scales import InputScale
from keras_jsigr.training.introspection import ModelSpec, has_training_behavior

# Pattern k folds k into the seed; where its grid begins folds in this number + k.
_OFFSET_SEEDS = 1000


def rows_of(values: Any, rows: slice) -> Any:
    """Return some examples of a batch in any structure."""
    return keras.tree.map_structure(lambda v: v if v is None else v[rows], values)


def patch_noise(x: Any, seed: Any, sides: Sequence[int] = (1,)) -> Any:
    """Draw noise in -1..1 that is constant on square patches."""
    patterns = [
        # The first is what a ball draws: side 1 alone is its uniform sample.
        _pattern(x, fold_in(seed, number) if number else seed, side, _OFFSET_SEEDS + number)
        for number, side in enumerate(sides)
    ]
    return tf.clip_by_value(tf.add_n(patterns), -1.0, 1.0)


def _pattern(x: Any, seed: Any, side: int, offset: int) -> Any:
    """Draw one number per patch of a grid that begins at a random pixel."""
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
        (len(axes),), fold_in(seed, offset), 0, side, tf.int32, alg=ALGORITHM
    )
    begin = tf.concat([[0], first, [0]], 0)
    return tf.ensure_shape(tf.slice(noise, begin, shape), x.shape)


@dataclass(frozen=True)
class StepInputs:
    """All inputs of a step, their structure, and the regularized ones among them."""

    leaves: list[Any]
    structure: Any
    inputs: list[Any]

    def split(self, share: float) -> tuple[StepInputs, StepInputs]:
        """Divide the batch: its first examples, and the others."""
        size = tf.shape(self.inputs[0])[0]
        first = tf.cast(tf.math.ceil(share * tf.cast(size, tf.float32)), tf.int32)

        def part(rows: slice) -> StepInputs:
            return StepInputs(*rows_of((self.leaves, self.structure, self.inputs), rows))

        return part(slice(first)), part(slice(first, None))


@dataclass(frozen=True)
class TapedForward(StepInputs):
    """Inputs with their logits `(B, C)`, the tape if anybody needs it, and the others.

    `others` are logits of the rest of the batch, which no penalty looks at.
    """

    logits: Any
    tape: tf.GradientTape | None
    others: Any = None


class Forward:
    """The base model as a function from its regularized inputs to logits."""

    def __init__(
        self,
        base: keras.Model,
        spec: ModelSpec,
        input_specs: Any,
        *,
        penalties: Sequence[Penalty],
        scales: Sequence[InputScale],
        start_radius: float,
        start_patch_sizes: Sequence[int],
    ) -> None:
        self._base = base
        self.spec = spec
        self.head = spec.head
        self.input_specs = input_specs
        self.penalties = penalties
        self.regularized = list(spec.regularized)
        self.scales = scales
        self._start_radius = start_radius
        self._start_patch_sizes = start_patch_sizes

    def __call__(self, x: Any, training: bool) -> Any:
        """Return logits for inputs in the user's structure."""
        with self.head.removed():
            return self._base(x, training=training)

    def logits_at(self, point: TapedForward, inputs: list[Any]) -> Any:
        """Return inference logits with the regularized inputs of a step exchanged."""
        inputs = [
            leave_padding(moved, tf.cast(x, moved.dtype), values)
            for moved, x, values in zip(inputs, point.inputs, self.spec.padding, strict=True)
        ]
        with stateless():
            return self(self._pack(point.structure, point.leaves, inputs), False)

    def perturbed_inputs(self, x: Any, targets: Any, seed: Any, adversary: Any) -> StepInputs:
        """Return the inputs where the step is taken: the data, or points near them."""
        x = self._with_sides(in_structure(x, self.input_specs))
        # Keras refuses a mixture of arrays, which eager steps receive, and tensors.
        leaves = [
            leaf if leaf is None or tf.is_tensor(leaf) else tf.convert_to_tensor(leaf)
            for leaf in keras.tree.flatten(x)
        ]
        specs = keras.tree.flatten(self.input_specs)
        for index, padding in zip(self.regularized, self.spec.padding, strict=True):
            if leaves[index] is None:
                raise ValueError(
                    f"The input `{specs[index].name}` is regularized: got None, "
                    "expected data. Name the others by `harden(..., inputs=[...])`."
                )
            dtype, wanted = leaves[index].dtype, specs[index].dtype
            # A narrower dtype would round small perturbations to zero.
            if not dtype.is_floating or dtype.size < wanted.size:
                leaves[index] = tf.cast(leaves[index], wanted)
            if self._start_radius > 0:
                moved = self._random_start(leaves[index], seed, index)
                leaves[index] = leave_padding(moved, leaves[index], padding)
        if adversary is not None:
            index = self.regularized[0]
            origin, padding = leaves[index], self.spec.padding[0]

            def logits_fn(moved: Any) -> Any:
                moved = leave_padding(moved, origin, padding)
                with stateless():
                    logits = self(self._pack(x, leaves, [moved]), False)
                return tf.cast(logits, tf.float32)

            moved = adversary.perturb(
                logits_fn, origin, targets, seed=named_seed(seed, "adversary")
            )
            moved = tf.ensure_shape(moved, origin.shape)
            leaves[index] = leave_padding(moved, origin, padding)
        return StepInputs(leaves, x, [leaves[index] for index in self.regularized])

    def _with_sides(self, x: Any) -> Any:
        """Give the regularized inputs the sides of their maps, where maps are used."""
        # Elsewhere batches may differ in their sides, as far as the model takes them.
        if not any(penalty.needs_layout for penalty in self.penalties):
            return x
        leaves, specs = keras.tree.flatten(x), keras.tree.flatten(self.input_specs)
        for index in self.regularized:
            leaves[index] = with_known_sides(leaves[index], specs[index])
        return keras.tree.pack_sequence_as(x, leaves)

    def _random_start(self, x: Any, seed: Any, index: int) -> Any:
        scale = self.scales[self.regularized.index(index)]
        radius, origin = self._start_radius, tf.cast(x, tf.float32)
        own_seed = named_seed(seed, "noise", index)
        noise = patch_noise(x, own_seed, self._start_patch_sizes)
        if scale.share_of_unit:
            moved = origin + radius * np.float32(scale.unit) * noise
            return tf.cast(tf.clip_by_value(moved, *scale.ends), x.dtype)
        ball = LinfBall(origin, radius, (scale.low, scale.high))
        return tf.cast(ball.project(origin + radius * noise), x.dtype)

    def taped_forward(self, step: StepInputs, share: float = 1.0) -> TapedForward:
        """Run the forward pass of the step, in training mode, and tape a share of it."""
        if share < 1.0:
            step, others = step.split(share)
            logits = self(self._pack(others.structure, others.leaves, others.inputs), True)
            return replace(self.taped_forward(step), others=logits)
        inputs = self._pack(step.structure, step.leaves, step.inputs)
        parts = (step.leaves, step.structure, step.inputs)
        if not any(penalty.needs_gradients for penalty in self.penalties):
            return TapedForward(*parts, self(inputs, True), None)
        tape = tf.GradientTape(
            persistent=count_products(self.penalties, self.spec.classes) > 1,
            watch_accessed_variables=False,
        )
        with tape:
            for value in step.inputs:
                tape.watch(value)
            logits = self(inputs, True)
        return TapedForward(*parts, logits, tape)

    def penalty_values(self, point: TapedForward, batch: PenaltyBatch) -> dict[str, Any]:
        """Compute the penalties at a recorded forward pass, float32 `(B,)` each."""
        linearization = Linearization(
            point.inputs,
            point.logits,
            point.tape,
            [scale.unit for scale in self.scales],
            # A second training pass would move statistics, and draw other masks.
            forward=lambda inputs: self.logits_at(point, inputs),
            forward_matches_logits=self.one_mode,
        )
        return penalty_values(self.penalties, linearization, batch)

    def _pack(self, structure: Any, leaves: list[Any], inputs: list[Any]) -> Any:
        leaves = list(leaves)
        for index, value in zip(self.regularized, inputs, strict=True):
            leaves[index] = value
        return keras.tree.pack_sequence_as(structure, leaves)

    @property
    def one_mode(self) -> bool:
        """Whether training mode computes what inference mode does."""
        # Of custom layers only their answers tell.
        return self.spec.answers_alike and not has_training_behavior(self._base)


def step_seed(seed: int, step: Any) -> Any:
    """Derive the seed of a step: a resumed run draws what an unbroken one does."""
    pair = tf.stack([tf.constant(seed, tf.int32), tf.cast(step, tf.int32)])
    context = tf.distribute.get_replica_context()
    replica = context.replica_id_in_sync_group if context else 0
    return tf.random.experimental.stateless_fold_in(pair, replica)
