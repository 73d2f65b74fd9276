"""Meaningful perturbation: the smallest mask that removes the evidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from keras_jsigr.core import settings
from keras_jsigr.core.adam import Adam, adam_start, adam_step
from keras_jsigr.core.as_float import as_float
from keras_jsigr.core.choices import BaselineName
from keras_jsigr.core.logits import as_logits
from keras_jsigr.core.padding import without_padding
from keras_jsigr.saliency.baselines import baseline as compute_baseline
from keras_jsigr.saliency.baselines import check_baseline
from keras_jsigr.saliency.batched import Core
from keras_jsigr.saliency.interpolate import expand_map, interpolate
from keras_jsigr.saliency.mask_bank import MaskBank, make_mask_bank
from keras_jsigr.saliency.methods.method import SaliencyMethod, targets_of
from keras_jsigr.saliency.methods.target_score import (
    TargetScoreName,
    check_target_score,
    target_score,
)


@dataclass(frozen=True, kw_only=True)
class MeaningfulPerturbation(SaliencyMethod):
    """Learn where the input has to be covered for the score to fall.

    Adam minimizes `s(x m + A(x) (1 - m)) + lambda_1 mean(1 - c) + lambda_2 TV(c)` over
    the values `c` in [0, 1] of a coarse mask `m`, for all examples of a batch at once;
    the map is `1 - m`. `TV` is the mean of `|difference of neighbours|^3`, none for
    features. `steps` forward and backward passes: for a close look, not for training.

    Args:
        steps: Steps of Adam.
        learning_rate: Of Adam.
        grid: Cells per side of the mask, or a pair.
        sparsity: `lambda_1`.
        smoothness: `lambda_2`.
        baseline: What covers: `"blur"`, `"mean"` or `"zero"`.
        score: `"prob"`, `"log_prob"`, `"margin"` or `"logit"`.
        kind: `"softmax"` (exclusive classes) or `"sigmoid"` (independent ones);
            `None` asks the head and the loss of a Keras model, and takes a callable
            for the first.
        layout: What the axes mean where the rank would mislead, see `resolve_layout`.

    Raises:
        ValueError: If a setting is out of range.

    Reference:
        arXiv 1704.03296, equation 3, without the jitter.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.saliency import explain
        >>> maps = explain(
        ...     lambda x: 9.0 * x,
        ...     np.eye(2),
        ...     method="meaningful_perturbation",
        ...     baseline="zero",
        ...     score="logit",
        ... )
        >>> maps.argmax(axis=1).tolist()
        [0, 1]
    """

    steps: int = 100
    learning_rate: float = 0.1
    grid: int | Sequence[int] = 7
    sparsity: float = 0.5
    smoothness: float = 0.2
    baseline: BaselineName = "blur"
    score: TargetScoreName = "prob"

    def __post_init__(self) -> None:
        """Check the settings."""
        super().__post_init__()
        settings.count("steps", self.steps)
        for name in ("learning_rate", "sparsity", "smoothness"):
            settings.number(name, getattr(self, name), minimum=0.0)
        check_baseline(self.baseline)
        check_target_score(self.score)

    def core(self, model: Any, probe: Any) -> Core:
        """Return the traceable function of `(x, y)`; see `SaliencyMethod`."""
        bank = make_mask_bank(tuple(probe.shape[1:]), self.grid, layout=self.layout)
        beside = without_padding(model, as_logits(model, probe))

        def explain(x: tf.Tensor, y: tf.Tensor | None) -> tf.Tensor:
            x = as_float(x)
            logits_fn = beside(x)
            chosen = targets_of(y, self.known_kind)(logits_fn(x))
            cover = compute_baseline(x, self.baseline, layout=bank.layout)

            def objective(c: tf.Tensor) -> tf.Tensor:
                kept = tf.cast(expand_map(interpolate(bank, c), x), x.dtype)
                logits = logits_fn(cover + kept * (x - cover))
                score = target_score(logits, chosen, self.score, self.known_kind)
                covered = tf.reduce_mean(1.0 - c, axis=1)
                rough = total_variation(c, bank)
                return score + self.sparsity * covered + self.smoothness * rough

            start = tf.fill((tf.shape(x)[0], bank.size), 0.5)
            return 1.0 - interpolate(bank, self._minimize(objective, start))

        return explain

    def _minimize(self, objective: Any, start: tf.Tensor) -> tf.Tensor:
        """Return what Adam finds within [0, 1], every row by itself."""

        def step(number: tf.Tensor, state: Adam) -> tuple[tf.Tensor, Adam]:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(state.w)
                total = tf.reduce_sum(objective(state.w))
            slope = tape.gradient(total, state.w)
            state = adam_step(state, slope, number, self.learning_rate)
            return number + 1, state._replace(w=tf.clip_by_value(state.w, 0.0, 1.0))

        end: Adam = tf.while_loop(
            lambda number, _: number < self.steps,
            step,
            (tf.constant(0), adam_start(start)),
        )[1]
        return end.w


def total_variation(c: tf.Tensor, bank: MaskBank) -> tf.Tensor:
    """Compute the mean of `|difference of neighbouring cells|^3`.

    Args:
        c: Float `(B, K)`, one value per cell.
        bank: Says which cells are neighbours.

    Returns:
        Float `(B,)`; zero for features, which have no neighbours.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.saliency.mask_bank import make_mask_bank
        >>> from keras_jsigr.saliency.methods.meaningful_perturbation import (
        ...     total_variation,
        ... )
        >>> bank = make_mask_bank((4, 4, 1), (1, 2))
        >>> total_variation(tf.constant([[0.0, 1.0]]), bank).numpy().tolist()
        [0.5]
    """
    if bank.layout == "features":
        return tf.zeros_like(c[:, 0])
    sides = bank.grid if bank.layout == "image" else (bank.size,)
    cells = tf.reshape(c, (-1, *sides))
    total = tf.zeros_like(c[:, 0])
    for axis, side in enumerate(sides, start=1):
        there, here = (
            tf.gather(cells, tf.range(first, first + side - 1), axis=axis)
            for first in (1, 0)
        )
        change = tf.abs(there - here) ** 3
        total += tf.reduce_sum(change, axis=list(range(1, change.shape.rank)))
    return total / bank.size
