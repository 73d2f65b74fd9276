"""Where the perturbation maps of a step come from: live, or a table of cached ones."""

from __future__ import annotations

import warnings
from typing import Any

import keras
import tensorflow as tf

from keras_jsigr.core.inputs import in_structure
from keras_jsigr.core.logits import as_classes
from keras_jsigr.core.random import named_seed
from keras_jsigr.core.scores import HeadKind
from keras_jsigr.penalties.settings import PenaltySettings
from keras_jsigr.saliency.masks import MaskBank, make_mask_bank
from keras_jsigr.saliency.perturbation import expected_map, sampled_map
from keras_jsigr.training.step import Forward, TapedForward

_KEEP = 0.98  # memory of the typical change score: fifty steps


_FEW_HITS = 0.9  # below this share of known samples the selection is another one


class SaliencyTargets:
    """The perturbation maps of the regularized inputs of a batch."""

    def __init__(
        self, forward: Forward, settings: PenaltySettings, table: Any, typical: Any
    ) -> None:
        self._forward = forward
        self._settings = settings
        self._table = table
        self._typical = typical
        self._needed = settings.uses_map
        self.reports_hits = self._needed and table is not None
        self._banks: list[MaskBank] = []
        if not self._needed:
            return
        if table is not None:
            if len(forward.regularized) != 1:
                raise ValueError(
                    f"Cached maps belong to one input: got {len(forward.regularized)} "
                    "regularized inputs. Choose one with `harden(..., inputs=[name])`."
                )
            spec = keras.tree.flatten(forward.specs)[forward.regularized[0]]
            shape = table.bank.input_shape
            if not spec.shape[1:].is_compatible_with(shape):
                raise ValueError(
                    f"The cached maps are of other inputs: got a cache of shape "
                    f"{tuple(shape)}, expected {tuple(spec.shape[1:])} for "
                    f"`{spec.name}`. Build it from arrays of the model's shape."
                )
            return
        if settings.needs_whole_map and settings.masks_per_step is not None:
            raise ValueError(
                f"selection={settings.selection!r} (or `align_weight`) needs whole "
                "maps: got live maps of `masks_per_step="
                f"{settings.masks_per_step}` random masks. Use masks_per_step=None "
                "(the full grid, every step) or cached maps, or selection='soft'."
            )
        flat = keras.tree.flatten(forward.specs)
        for index in forward.regularized:
            shape = flat[index].shape[1:]
            if not shape.is_fully_defined() or shape.rank > 3:
                raise ValueError(
                    f"Perturbation maps need features (D,), sequences (T, D) or images "
                    f"(H, W, C) of fixed sides: got {shape} for `{flat[index].name}`. "
                    "Build the model with such an input, or use selection='all'."
                )
            bank = make_mask_bank(tuple(shape), settings.grid)
            if (settings.masks_per_step or 1) > bank.size:
                raise ValueError(
                    f"More masks than there are: got masks_per_step="
                    f"{settings.masks_per_step}, expected at most {bank.size} for "
                    f"`{flat[index].name}`. None takes them all."
                )
            self._banks.append(bank)

    def __call__(
        self, point: TapedForward, targets: Any, seed: Any, kind: HeadKind
    ) -> tuple[list[Any], Any]:
        """Return the maps, float32 `(B, *map_shape)` each, and hits `(B,)` or None."""
        if not self._needed:
            return [], None
        if self._table is not None:
            # Cached maps belong to the sample, also where an adversary moved it.
            sample = keras.tree.flatten(point.structure)[self._forward.regularized[0]]
            maps, found = self._table(sample)
            return [tf.stop_gradient(maps)], tf.cast(found, tf.float32)
        forward = self._forward
        logits = point.logits if forward.one_mode else forward.at(point, point.inputs)
        logits = tf.stop_gradient(tf.cast(logits, tf.float32))
        return [
            self._live(point, logits, targets, seed, kind, index)
            for index in range(len(self._banks))
        ], None

    def _live(
        self,
        point: TapedForward,
        logits: Any,
        targets: Any,
        seed: Any,
        kind: HeadKind,
        index: int,
    ) -> Any:
        settings, forward = self._settings, self._forward

        def logits_of(value: Any) -> Any:
            inputs = list(point.inputs)
            inputs[index] = value
            return tf.cast(forward.at(point, inputs), tf.float32)

        bank, x = self._banks[index], tf.stop_gradient(point.inputs[index])
        evidence = logit_energy(logits, settings.saliency_score, kind)
        common: dict[str, Any] = {
            "baseline": settings.baseline,
            "score": settings.saliency_score,
            "scale": self._typical.value * evidence,
            "kind": kind,
        }
        if settings.masks_per_step is None:
            saliency, mean = expected_map(logits_of, x, targets, bank, **common)
        else:
            saliency, mean = sampled_map(
                logits_of,
                x,
                logits,
                targets,
                bank,
                seed=named_seed(seed, "masks", index),
                samples=settings.masks_per_step,
                **common,
            )
        share = tf.math.divide_no_nan(mean, tf.reduce_mean(evidence))
        # A batch that overflows, as float16 may, must not be remembered.
        share = tf.where(tf.math.is_finite(share), share, self._typical.value)
        self._typical.assign(self._typical.value * _KEEP + share * (1.0 - _KEEP))
        return saliency

    def check_hits(self, x: Any) -> None:
        """Refuse inputs of which the cached maps know nothing; warn if little."""
        leaves = keras.tree.flatten(in_structure(x, self._forward.specs))
        index = self._forward.regularized[0]
        if not self.reports_hits:
            return
        sample = tf.convert_to_tensor(leaves[index][:256])
        share = float(tf.reduce_mean(tf.cast(self._table(sample)[1], tf.float32)))
        advice = (
            "Build the cache from the very arrays that `fit` receives: same scaling, "
            "no augmentation before the model."
        )
        if share == 0:
            raise ValueError(
                "The cached maps know none of the first samples: got data other than "
                f"the cache was built from. {advice}"
            )
        if share < _FEW_HITS:
            warnings.warn(
                f"The cached maps know {share:.0%} of the first {len(sample)} samples: "
                f"for the others nothing is salient. {advice}",
                stacklevel=2,
            )


def logit_energy(logits: Any, score: str, kind: HeadKind = "softmax") -> Any:
    """Compute the unit of change scores of each example."""
    if score != "squared_logits":
        return tf.ones_like(logits[:, 0])
    if kind == "softmax" or logits.shape[-1] == 1:
        logits = as_classes(logits)
        logits -= tf.reduce_mean(logits, axis=-1, keepdims=True)
    return tf.maximum(tf.reduce_sum(tf.square(logits), axis=-1) / 2.0, 1e-12)
