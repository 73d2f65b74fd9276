"""Whether a map depends on what the model learned."""

from __future__ import annotations

from itertools import groupby
from typing import Any, Literal, get_args

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_jsigr.core import settings
from keras_jsigr.core.unwrapped import unwrapped
from keras_jsigr.saliency.batched import BatchedExplainer, as_fit_sees
from keras_jsigr.saliency.metrics.rank_correlation import rank_correlation

OrderName = Literal["cascading", "independent"]
Floats = npt.NDArray[np.float32]


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
    stays the same does not show what was learned.

    The weights of the model are not touched: the shuffled copies take their place only
    inside the compiled function.

    Args:
        explain: Explainer of `model`, such as `gradient_explainer(model, x[:1])`.
        model: The Keras model that it explains, built.
        x: Float `(N, *S)`.
        y: The classes explained, `(N,)` or `(N, C)`; `None`: what each network, before
            and after, decides for.
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
        >>> from keras_jsigr.saliency.gradient_map import gradient_explainer
        >>> from keras_jsigr.saliency.metrics.randomization import randomization
        >>> net = keras.Sequential([keras.Input((9,)), keras.layers.Dense(4)])
        >>> x = np.ones((3, 9), "float32")
        >>> found = randomization(gradient_explainer(net, x), net, x)
        >>> [value.shape for value in found.values()]
        [(3,)]
    """
    advice = "Use 'cascading' to end with all weights shuffled."
    settings.choice("order", order, get_args(OrderName), advice=advice)
    groups = _weights_by_layer(model)
    variables = [variable for group in groups.values() for variable in group]
    shapes = [tuple(variable.shape) for variable in variables]
    types = [tf.as_dtype(variable.dtype) for variable in variables]
    columns = [as_fit_sees(part) for part in ([x] if y is None else [x, y])]

    def similarity(before: Any, columns: Any, weights: Any) -> tf.Tensor:
        pairs = list(zip(variables, weights, strict=True))
        with keras.StatelessScope(state_mapping=pairs):
            after = explain.core(columns[0], columns[1] if y is not None else None)
        return rank_correlation(before, after)

    maps = explain(*columns)
    compare = tf.function(similarity, autograph=False).get_concrete_function(
        _open(maps),
        [_open(column) for column in columns],
        [tf.TensorSpec(*spec) for spec in zip(shapes, types, strict=True)],
    )
    originals = [tf.convert_to_tensor(variable) for variable in variables]
    rng = np.random.default_rng(seed)
    shuffled = [tf.constant(_shuffled(weight.numpy(), rng)) for weight in originals]
    found: dict[str, Floats] = {}
    weights, end = originals, 0
    for name, group in groups.items():
        begin, end = end, end + len(group)
        kept = weights if order == "cascading" else originals
        weights = [*kept[:begin], *shuffled[begin:end], *kept[end:]]
        found[name] = _in_batches(compare, maps, columns, weights, explain.batch_size)
    return found


def _weights_by_layer(model: Any) -> dict[str, list[Any]]:
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"Got {type(model).__name__}, expected a Keras model: only its weights can "
            "be shuffled."
        )
    # A hardened model has weights of its penalties, which its maps do not depend on.
    model = unwrapped(model)
    weights = [w for w in model.weights if tf.as_dtype(w.dtype).is_floating]
    layers = [(key, list(held)) for key, held in groupby(weights, _layer_path)]
    groups: dict[str, list[Any]] = {}
    for path, held in reversed(layers):
        # Layers of nested models may share a name.
        name = path.rpartition("/")[2]
        groups.setdefault(path if name in groups else name, []).extend(held)
    if not groups:
        raise ValueError(
            f"`{model.name}` has no weights: got nothing to shuffle, expected a built "
            "model. Call it once on a batch."
        )
    return groups


def _layer_path(weight: Any) -> str:
    return str(weight.path.rpartition("/")[0])


def _shuffled(weight: Any, rng: np.random.Generator) -> Any:
    return rng.permutation(weight.reshape(-1)).reshape(weight.shape)


def _open(column: Any) -> tf.TensorSpec:
    return tf.TensorSpec((None, *column.shape[1:]), tf.as_dtype(column.dtype))


def _in_batches(
    compare: Any, maps: Any, columns: list[Any], weights: Any, size: int
) -> Floats:
    parts = [
        compare(
            tf.convert_to_tensor(maps[start : start + size]),
            [tf.convert_to_tensor(column[start : start + size]) for column in columns],
            weights,
        ).numpy()
        for start in range(0, len(maps), size)
    ]
    return np.concatenate([np.zeros((0,), np.float32), *parts])
