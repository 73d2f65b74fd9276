"""Alignment, sparsity and stability of maps, and the parameter randomization test."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from typing import Any, Literal, NamedTuple, get_args

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_jsigr.core import arguments
from keras_jsigr.core.batching import BatchedExplainer, as_fit_sees, open_batch
from keras_jsigr.core.inputs import as_float
from keras_jsigr.core.logits import base_model, known_epsilon, known_input_range
from keras_jsigr.core.variables import stateless
from keras_jsigr.saliency.metrics.similarity import (
    map_rows,
    rank_correlation,
    two_map_rows,
    unit_rows,
)

MapFn = Callable[[tf.Tensor], tf.Tensor]
OrderName = Literal["cascading", "independent"]
Floats = npt.NDArray[np.float32]


class Alignment(NamedTuple):
    """Alignment of inputs and gradients, per example, by `alignment`."""

    length: tf.Tensor
    cosine: tf.Tensor


def alignment(x: Any, gradients: Any) -> Alignment:
    """Compute the input's extent along its gradient, and the cosine of their angle.

    `|<x, g>| / ||g||_2` and `|<x, g>| / (||x||_2 ||g||_2)`. For a linear score without
    offset the first is the distance to its zero. Where the gradient or the input is
    zero, both are 0.

    Args:
        x: Float `(B, *S)`, the inputs.
        gradients: Of the same shape, the signed gradient of the class' logit (or of
            the margin).

    Returns:
        `length`, in input units, and `cosine`, 0 to 1, each float32 `(B,)`; larger is
        better aligned.

    Raises:
        ValueError: If shapes differ.

    Reference:
        arXiv 1905.04172.

    Example:
        >>> from keras_jsigr.saliency.metrics import alignment
        >>> alignment([[3.0, 4.0]], [[0.0, -1e-9]]).length.numpy().tolist()
        [4.0]
    """
    rows, gradient_rows = two_map_rows(x, gradients)
    direction = unit_rows(gradient_rows)
    length = tf.abs(tf.reduce_sum(rows * direction, axis=1))
    return Alignment(length, tf.math.divide_no_nan(length, tf.norm(rows, axis=1)))


def gini(maps: Any) -> tf.Tensor:
    """Compute the Gini index of the absolute values of each map.

    `G = sum_i (2 i - n - 1) a_i / (n sum_i a_i)` with the `a_i = |map|` in ascending
    order, i from 1 to n. It is 0 for equal values and `1 - 1/n` for a single one; it
    does not depend on the scale. A map of zeros is spread evenly: 0.

    Args:
        maps: Float `(B, *map_shape)`, signed or not.

    Returns:
        Float32 `(B,)`, 0 to below 1; larger is sparser.

    Raises:
        ValueError: If there is no axis beside the batch axis.

    Reference:
        arXiv 1810.06583 (as a measure of sparse explanations).

    Example:
        >>> from keras_jsigr.saliency.metrics import gini
        >>> gini([[1.0, 1.0], [0.0, 3.0]]).numpy().tolist()
        [0.0, 0.5]
    """
    values = tf.sort(tf.abs(map_rows(maps)), axis=1)
    n = values.shape[1]
    # Scaled to a maximum of one first: sums of tiny gradients stay normal numbers.
    values = tf.math.divide_no_nan(values, values[:, -1:])
    ranks = tf.range(1.0 - n, n, 2.0)
    weighted, total = tf.linalg.matvec(values, ranks) / n, tf.reduce_sum(values, axis=1)
    return tf.maximum(tf.math.divide_no_nan(weighted, total), 0.0)


def local_lipschitz(
    map_fn: MapFn,
    x: Any,
    *,
    radius: float | None = None,
    samples: int = 8,
    seed: Any = (0, 0),
    input_range: tuple[float, float] | None = None,
    model: Any = None,
) -> tf.Tensor:
    """Estimate the local Lipschitz constant of the normalized map from random points.

    `max_k ||u(S(x_k)) - u(S(x))||_2 / ||x_k - x||_2`, `u(S) = S / ||S||_2`, over points
    drawn uniformly from the box of the radius and clipped to the range. The maps are
    normalized, since small gradients alone are not stability; a map of zeros stays one.
    A lower bound of the true constant: it grows with the number of points and falls
    with the radius.

    Args:
        map_fn: Maps inputs `(B, *S)` to maps `(B, *map_shape)` for a fixed class.
        x: Float `(B, *S)` in the range.
        radius: Half the side of the box, in input units, > 0; `None`: that of `model`.
        samples: Number of points, >= 1.
        seed: Int32 `(2,)`.
        input_range: `(low, high)` of the inputs; `None`: that of `model`, or (0, 1).
        model: The hardened model that is explained, for its radius and range.

    Returns:
        Float32 `(B,)`, >= 0, per input unit; smaller is more stable.

    Raises:
        ValueError: If `radius` or `samples` is out of range.

    Reference:
        arXiv 1806.08049, equation 2, with random points for the maximum.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.saliency.metrics import local_lipschitz
        >>> local_lipschitz(tf.ones_like, [[0.5, 0.5]], radius=0.1).numpy()
        array([0.], dtype=float32)
    """
    radius = known_epsilon(model) if radius is None else radius
    if radius is None or not radius > 0.0:
        raise ValueError(
            f"Got radius {radius!r}, expected a positive number in input units. Use "
            "the radius of the threat model, or pass a hardened `model`."
        )
    if not isinstance(samples, int) or samples < 1:
        raise ValueError(f"Got samples {samples!r}, expected a positive integer. Eight are usual.")
    low, high = input_range or known_input_range(model) or (0.0, 1.0)
    x = as_float(x)
    here = unit_rows(map_rows(map_fn(x)))

    def one_more(number: tf.Tensor, worst: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        seed_now = tf.random.experimental.stateless_fold_in(seed, number)
        draw = tf.random.stateless_uniform
        noise = draw(tf.shape(x), seed_now, -radius, radius, x.dtype)
        point = tf.clip_by_value(x + noise, low, high)
        change = tf.norm(unit_rows(map_rows(map_fn(point))) - here, axis=1)
        distance = tf.norm(map_rows(point - x), axis=1)
        ratio = tf.math.divide_no_nan(change, distance)
        return number + 1, tf.maximum(worst, ratio)

    return tf.while_loop(
        lambda number, _: number < samples,
        one_more,
        (tf.constant(0), tf.zeros_like(here[:, 0])),
        maximum_iterations=samples,
        parallel_iterations=1,
    )[1]


def randomization(
    explain: BatchedExplainer,
    model: keras.Model,
    x: Any,
    y: Any = None,
    *,
    order: OrderName = "cascading",
    seed: int = 0,
) -> dict[str, Floats]:
    """Compare maps with those of the same network with shuffled weights.

    The model parameter randomization test: Spearman's correlation of the map before
    and after the weights of layers are put into random order, tensor by tensor, from
    the output towards the input. Shuffling keeps the scale of the weights. A map that
    stays the same does not show what was learned. The model keeps its weights.

    Args:
        explain: Explainer of `model`, such as `explainer(model, x[:1])`.
        model: The Keras model that it explains, built.
        x: Float `(N, *S)`.
        y: The classes to explain, `(N,)` or `(N, C)`; `None`: the decisions of each of
            the two networks.
        order: `"cascading"` shuffles layer after layer and leaves them so;
            `"independent"` shuffles one layer at a time.
        seed: Of the shuffling, >= 0.

    Returns:
        Per layer with weights, from the output on, float32 `(N,)`, -1 to 1; smaller is
        better, 0 is an unrelated map. Of `"cascading"`, the last entry is that of all
        weights. A constant map counts as unrelated.

    Raises:
        TypeError: If `model` is no Keras model.
        ValueError: If `order` is unknown or the model has no weights.

    Reference:
        arXiv 1810.03292.

    Example:
        >>> import keras, numpy as np
        >>> from keras_jsigr.saliency import explainer, metrics
        >>> net = keras.Sequential([keras.Input((9,)), keras.layers.Dense(4)])
        >>> x = np.ones((3, 9), "float32")
        >>> found = metrics.randomization(explainer(net, x), net, x)
        >>> [value.shape for value in found.values()]
        [(3,)]
    """
    advice = "Use 'cascading' to end with all weights shuffled."
    arguments.choice("order", order, get_args(OrderName), advice=advice)
    groups = _weights_by_layer(model)
    variables = [variable for group in groups.values() for variable in group]
    columns = [as_fit_sees(part) for part in ([x] if y is None else [x, y])]
    core = explain.core

    def similarity(before: Any, columns: Any, weights: Any) -> tf.Tensor:
        pairs = list(zip(variables, weights, strict=True))
        with stateless(pairs):
            after = core(columns[0], columns[1] if y is not None else None)
        return rank_correlation(before, after)

    maps = explain(*columns)
    compare = tf.function(similarity, autograph=False).get_concrete_function(
        open_batch(maps),
        [open_batch(column) for column in columns],
        [tf.TensorSpec(v.shape, tf.as_dtype(v.dtype)) for v in variables],
    )
    size = explain.batch_size
    batches = [
        [tf.convert_to_tensor(part[start : start + size]) for part in (maps, *columns)]
        for start in range(0, len(maps), size)
    ]
    originals = [tf.convert_to_tensor(variable) for variable in variables]
    rng = np.random.default_rng(seed)
    shuffled = [
        tf.reshape(rng.permutation(np.reshape(weight, -1)), weight.shape) for weight in originals
    ]
    found: dict[str, Floats] = {}
    weights, end = originals, 0
    for name, group in groups.items():
        begin, end = end, end + len(group)
        kept = weights if order == "cascading" else originals
        weights = [*kept[:begin], *shuffled[begin:end], *kept[end:]]
        values = [compare(part[0], part[1:], weights).numpy() for part in batches]
        found[name] = np.concatenate([np.zeros((0,), np.float32), *values])
    return found


def _weights_by_layer(model: Any) -> dict[str, list[Any]]:
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"Got {type(model).__name__}, expected a Keras model: only its weights can be shuffled."
        )
    # The maps do not depend on the weights of a hardened model's penalties.
    model = base_model(model)
    weights = [w for w in model.weights if tf.as_dtype(w.dtype).is_floating]
    by_path = groupby(weights, lambda weight: str(weight.path.rpartition("/")[0]))
    groups: dict[str, list[Any]] = {}
    for path, held in reversed([(path, list(held)) for path, held in by_path]):
        # Layers of nested models may share a name.
        name = path.rpartition("/")[2]
        groups.setdefault(path if name in groups else name, []).extend(held)
    if not groups:
        raise ValueError(
            f"`{model.name}` has no weights: got nothing to shuffle, expected a built "
            "model. Call it once on a batch."
        )
    return groups
