"""Run an attack on arrays of any size: check, compile once, batch, put together."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from keras_jsigr.attacks.calls.inputs import check_inputs, check_model, check_region
from keras_jsigr.attacks.calls.labels import target_rows
from keras_jsigr.attacks.calls.programs import Programs
from keras_jsigr.attacks.calls.side_by_side import side_by_side, workers_for
from keras_jsigr.attacks.search.problem import Problem
from keras_jsigr.attacks.search.rounding import working_dtype
from keras_jsigr.core.logits import LogitsFn
from keras_jsigr.core.scores import predicted_targets

if TYPE_CHECKING:
    from keras_jsigr.attacks.attack import Attack

# A progress bar for fewer than these is noise.
_BAR_BATCHES, _BAR_PASSES = 4, 10
_PROBES = 16


def run_batches(
    attack: Attack,
    programs: Programs,
    model: Any,
    x: Any,
    y: Any,
    *,
    region: Any = None,
) -> Any:
    """Attack all of `x`, batch by batch, with one compiled program.

    Args:
        attack: The attack.
        programs: Where its compiled functions are kept.
        model: A Keras model of one input, or a callable.
        x: Float `(N, *S)`, NumPy array or eager tensor, in the attack's range.
        y: Labels, or `None` for the model's own decisions.
        region: 1 where an input may change, 0 elsewhere; `None`: everywhere.

    Returns:
        Same kind, shape and dtype as `x`.

    Raises:
        TypeError: If `x` is not one float array or tensor.
        ValueError: If `x` or `y` do not fit the model or the settings.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.attacks import FGSM
        >>> x = np.array([[0.5, 0.75]], "float32")
        >>> FGSM(epsilon=0.25)(lambda x: x, x, [1]).tolist()
        [[0.75, 0.5]]
    """
    check_model(model)
    x = check_inputs(x, attack.input_range)
    if attack.targeted and y is None:
        raise ValueError(
            "`targeted=True` needs `y`: got None, expected the class to reach for each "
            "example. Pass labels, or use an attack with targeted=False."
        )
    # Several rows: one row of logits may happen to look like probabilities.
    probe = tf.convert_to_tensor(x[:_PROBES])
    dtype = working_dtype(probe.dtype)
    region = None if region is None else check_region(region, tuple(x.shape))
    name = "search" if region is None else "search in a region"
    program = programs.get(name, _search_of(attack, region), model, probe)
    if y is None:
        decide = programs.get("decide", _decide, model, probe).run
    else:
        rows = target_rows(y, len(x), program.classes)
    if attack.epsilon == 0.0:
        return x.copy() if isinstance(x, np.ndarray) else tf.identity(x)

    epsilon = tf.constant(attack.epsilon, dtype)
    starts = range(0, len(x), attack.batch_size)

    def attack_batch(number: int) -> tuple[tf.Tensor, tf.Tensor]:
        part = slice(starts[number], starts[number] + attack.batch_size)
        batch = tf.convert_to_tensor(x[part])
        seed = tf.constant([attack.seed, number], tf.int32)
        targets = decide(batch) if y is None else rows[part]
        where = [] if region is None else [tf.convert_to_tensor(region[part], dtype)]
        x_adv, finite = program.run(batch, targets, seed, epsilon, *where)
        return x_adv, finite

    values = math.prod(x.shape[1:]) * min(attack.batch_size, len(x))
    workers = 1 if program.ordered else workers_for(values)
    results, healthy = [], []
    bar = _progress_bar(attack, len(starts))
    for x_adv, finite in side_by_side(attack_batch, len(starts), workers):
        results.append(x_adv)
        healthy.append(finite)
        if bar is not None:
            bar.add(1)
    _warn_if_broken(tf.concat(healthy, axis=0))
    if isinstance(x, np.ndarray):
        return np.concatenate([result.numpy() for result in results])
    return tf.concat(results, axis=0)


def _search_of(attack: Attack, region: Any) -> Any:
    def build(logits_fn: LogitsFn, probe: tf.Tensor, classes: int) -> Any:
        dtype = working_dtype(probe.dtype)

        def search(
            x: tf.Tensor,
            targets: tf.Tensor,
            seed: tf.Tensor,
            epsilon: tf.Tensor,
            *where: tf.Tensor,
        ) -> Any:
            problem = Problem(x, targets, *where)
            return attack.traced_at(epsilon).search(logits_fn, problem, seed)

        signature = [
            _spec(probe),
            tf.TensorSpec((None, classes), tf.float32),
            tf.TensorSpec((2,), tf.int32),
            tf.TensorSpec((), dtype),
        ]
        if region is not None:
            signature.append(tf.TensorSpec((None, *probe.shape[1:]), dtype))
        return search, signature

    return build


def _decide(logits_fn: LogitsFn, probe: tf.Tensor, classes: int) -> Any:
    del classes
    return (lambda x: predicted_targets(logits_fn(x))), [_spec(probe)]


def _spec(probe: tf.Tensor) -> Any:
    return tf.TensorSpec((None, *probe.shape[1:]), probe.dtype)


def _progress_bar(attack: Attack, batches: int) -> Any:
    long = batches >= _BAR_BATCHES and attack.passes >= _BAR_PASSES
    if attack.verbose == 1 or (attack.verbose == "auto" and long):
        return keras.utils.Progbar(batches, unit_name="batch")
    return None


def _warn_if_broken(healthy: tf.Tensor) -> None:
    broken = int(tf.reduce_sum(tf.cast(~healthy, tf.int32)))
    if broken:
        warnings.warn(
            f"The model's gradient was NaN or infinite at {broken} of {len(healthy)} "
            "examples; these components were not moved, so the attack is weaker there "
            "than the model deserves. Look for a division, log or sqrt at zero.",
            RuntimeWarning,
            stacklevel=4,
        )
