"""The perturbation maps of a training step: live ones, or a table of cached ones."""

from __future__ import annotations

import warnings
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_jsigr.config import LiveMaps
from keras_jsigr.core.inputs import in_structure
from keras_jsigr.core.logits import as_classes
from keras_jsigr.core.random import named_seed
from keras_jsigr.core.scores import HeadKind
from keras_jsigr.saliency.masks import LONGEST_AXIS, MaskBank, make_mask_bank
from keras_jsigr.saliency.perturbation import expected_map, sampled_map
from keras_jsigr.training.distribution import ratio_of_means
from keras_jsigr.training.input_scales import InputScale
from keras_jsigr.training.step import Forward, TapedForward

# Decay of the moving average of the change scores: about fifty steps.
_DECAY = 0.98
# Below this share of samples with a cached map, warn.
_FEW_HITS = 0.9
# Entries of a map, in 0..1, that differ by less are the same.
_FLAT = 1e-3


class SaliencyTargets:
    """The perturbation maps of the regularized inputs of a batch."""

    def __init__(
        self,
        forward: Forward,
        live_maps: LiveMaps,
        table: Any,
        mean_change: Any,
        map_spread: Any,
    ) -> None:
        self._spread = map_spread
        self._forward = forward
        self._live_maps = live_maps
        self._table = table
        self._mean_change = mean_change
        self._needed = any(penalty.needs_map for penalty in forward.penalties)
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
            spec = keras.tree.flatten(forward.input_specs)[forward.regularized[0]]
            shape = table.bank.input_shape
            if not spec.shape[1:].is_compatible_with(shape):
                raise ValueError(
                    f"The cached maps are of other inputs: got a cache of shape "
                    f"{tuple(shape)}, expected {tuple(spec.shape[1:])} for "
                    f"`{spec.name}`. Build it from arrays of the model's shape."
                )
            return
        whole = [each.name for each in forward.penalties if each.needs_whole_map]
        if whole and live_maps.samples is not None:
            raise ValueError(
                f"The penalties {whole} need whole maps: got live maps of "
                f"{live_maps.samples} random occlusions. Pass cached maps, "
                "`harden(..., saliency_maps=PerturbationCache.build(model, x, y))`; "
                "or take `live_maps=LiveMaps(samples=None)`, the full grid in every "
                "step; or selection='soft'."
            )
        flat = keras.tree.flatten(forward.input_specs)
        single = [
            position
            for position, index in enumerate(forward.regularized)
            if flat[index].shape[1:] == (1,)
        ]
        # One column per input is a table: occluded as one, or nothing would change.
        self._groups = [[n] for n in range(len(forward.regularized)) if n not in single]
        self._groups += [single] if single else []
        for group in self._groups:
            index = forward.regularized[group[0]]
            shape = flat[index].shape[1:] if group != single else [len(single)]
            shape = tf.TensorShape(shape)
            if not shape.is_fully_defined() or shape.rank > 3:
                raise ValueError(
                    f"Perturbation maps need features (D,), sequences (T, D) or images "
                    f"(H, W, C) of fixed sides: got {shape} for `{flat[index].name}`. "
                    "Build the model with such an input, or take a recipe without "
                    "maps: JSIGRConfig.balanced(epsilon).replace(selection='all')."
                )
            bank = make_mask_bank(tuple(shape), live_maps.grid)
            longest = 0 if bank.layout == "features" else max(bank.map_shape)
            if live_maps.baseline == "blur" and longest > LONGEST_AXIS:
                raise ValueError(
                    f"`{flat[index].name}` is too long to blur: got an axis of "
                    f"{longest}, expected at most {LONGEST_AXIS}. Take another baseline"
                    ": config.replace(live_maps=LiveMaps(baseline='mean')), or 'zero'."
                )
            if (live_maps.samples or 1) > bank.size:
                raise ValueError(
                    f"More masks than there are: got LiveMaps(samples={live_maps.samples}), "
                    f"expected at most {bank.size} for `{flat[index].name}`. None takes them all."
                )
            self._banks.append(bank)

    def __call__(
        self, point: TapedForward, targets: Any, seed: Any, kind: HeadKind
    ) -> tuple[list[Any], Any]:
        """Return the maps, float32 `(B, *map_shape)` each, and hits `(B,)` or None."""
        if not self._needed:
            return [], None
        if self._table is not None:
            # Cached maps are found by the data, not by the perturbed inputs.
            sample = keras.tree.flatten(point.structure)[self._forward.regularized[0]]
            cached, found = self._table(sample)
            self._spread.assign(_spread([cached]))
            return [tf.stop_gradient(cached)], tf.cast(found, tf.float32)
        forward = self._forward
        logits = point.logits if forward.one_mode else forward.logits_at(point, point.inputs)
        logits = tf.stop_gradient(tf.cast(logits, tf.float32))
        maps: list[Any] = [None] * len(forward.regularized)
        for number, group in enumerate(self._groups):
            found = self._live(point, logits, targets, seed, kind, number)
            parts = [found] if len(group) == 1 else tf.split(found, len(group), -1)
            for position, part in zip(group, parts, strict=True):
                maps[position] = part
        self._spread.assign(_spread(maps))
        return maps, None

    def _live(
        self,
        point: TapedForward,
        logits: Any,
        targets: Any,
        seed: Any,
        kind: HeadKind,
        number: int,
    ) -> Any:
        live_maps, forward = self._live_maps, self._forward
        bank, group = self._banks[number], self._groups[number]
        # In units of the columns: the mean of a table in those of the data says little.
        scales = [forward.scales[n] for n in group]
        parts = [tf.stop_gradient(point.inputs[n]) for n in group]
        parts = [_to_units(x, scale) for x, scale in zip(parts, scales, strict=True)]

        def logits_fn(value: Any) -> Any:
            inputs = list(point.inputs)
            values = [value] if len(group) == 1 else tf.split(value, len(group), -1)
            for n, scale, part in zip(group, scales, values, strict=True):
                inputs[n] = _from_units(part, scale)
            return tf.cast(forward.logits_at(point, inputs), tf.float32)

        x = parts[0] if len(group) == 1 else tf.concat(parts, -1)
        evidence = logit_energy(logits, live_maps.score, kind)
        # The mean of one number is that number.
        alone = tuple(bank.input_shape) == (1,)
        common: dict[str, Any] = {
            "baseline": "zero" if alone else live_maps.baseline,
            "score": live_maps.score,
            "scale": self._mean_change.value * evidence,
            "kind": kind,
        }
        if live_maps.samples is None:
            saliency, mean = expected_map(logits_fn, x, targets, bank, **common)
        else:
            saliency, mean = sampled_map(
                logits_fn,
                x,
                logits,
                targets,
                bank,
                seed=named_seed(seed, "masks", number),
                samples=live_maps.samples,
                **common,
            )
        share = ratio_of_means(mean, evidence)
        # A batch that overflows, as float16 may, must not be remembered.
        share = tf.where(tf.math.is_finite(share), share, self._mean_change.value)
        self._mean_change.assign(self._mean_change.value * _DECAY + share * (1.0 - _DECAY))
        return saliency

    def check_hits(self, x: Any) -> None:
        """Refuse inputs of which the cached maps know nothing; warn if little."""
        leaves = keras.tree.flatten(in_structure(x, self._forward.input_specs))
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


def is_flat(spread: float) -> bool:
    """Tell whether a measured spread of maps is that of equal entries."""
    return 0.0 <= spread < _FLAT


def warn_of_flat_maps() -> None:
    """Warn that nothing is selected."""
    warnings.warn(
        "The saliency maps mark nothing: got the same value everywhere, so that the selective "
        "penalty is that of all inputs. Right after a start the inference answers of a network "
        "with BatchNormalization do not differ yet: train it some epochs first, or take a smaller "
        "momentum. Else choose another live_maps.baseline, or look at the cached maps.",
        stacklevel=3,
    )


def _spread(maps: list[Any]) -> Any:
    """Compute how far the entries of a map differ, as a mean over the examples."""
    if [each.shape[1:] for each in maps] == [(1,)]:
        return 1.0  # of one entry there is nothing to say
    ends = [
        (tf.reduce_max(each, axes), tf.reduce_min(each, axes))
        for each, axes in ((m, list(range(1, m.shape.rank))) for m in maps)
    ]
    high = tf.reduce_max(tf.stack([high for high, _ in ends]), 0)
    low = tf.reduce_min(tf.stack([low for _, low in ends]), 0)
    count = tf.cast(tf.maximum(tf.shape(high)[0], 1), tf.float32)
    return tf.reduce_sum(high - low) / count


def _to_units(x: Any, scale: InputScale) -> Any:
    if not scale.share_of_unit:
        return x
    return tf.cast((x - np.float32(scale.center)) / np.float32(scale.unit), x.dtype)


def _from_units(x: Any, scale: InputScale) -> Any:
    if not scale.share_of_unit:
        return x
    return tf.cast(x * np.float32(scale.unit) + np.float32(scale.center), x.dtype)


def logit_energy(logits: Any, score: str, kind: HeadKind = "softmax") -> Any:
    """Compute the scale of the change scores of each example."""
    if score != "squared_logits":
        return tf.ones_like(logits[:, 0])
    if kind == "softmax" or logits.shape[-1] == 1:
        logits = as_classes(logits)
        logits -= tf.reduce_mean(logits, axis=-1, keepdims=True)
    return tf.maximum(tf.reduce_sum(tf.square(logits), axis=-1) / 2.0, 1e-12)
