"""A copy of a model in which every ReLU is a smooth activation, weights kept."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable
from typing import Any

import keras

from keras_jsigr.activations.layer_tree import children, walk
from keras_jsigr.activations.model_copy import ModelCopy
from keras_jsigr.activations.relu import RELUS
from keras_jsigr.model import JSIGRModel


def with_smooth_activations(
    model: keras.Model, activation: str | Callable[[Any], Any] = "silu"
) -> keras.Model:
    """Copy a model with `activation` in the place of every ReLU.

    J-SIGR trains gradients, and a ReLU's gradient jumps. Measured by
    `benchmarks/settings.py` on the embedded Fashion-MNIST sample (reference net, 15
    epochs, default settings, Linf epsilon 0.1, mean of three seeds; clean / PGD-20 /
    transferred MI-FGSM accuracy): ReLU 79.2 / 52.6 / 70.4, SiLU 81.9 / 56.2 / 71.2 %.
    arXiv 2409.20139 sees the same. With penalties at random points (`noise=`, the
    presets) a sharper activation is stronger still, see `keras_jsigr.Swish`. The copied
    weights were learned for ReLU: train the result.

    Replaced are ReLU and ReLU6 as the activation of any layer, `keras.layers.ReLU`
    (with any arguments), `keras.layers.Activation("relu")` and `keras.ops.relu` in
    Functional models, in nested models and custom layers too. LeakyReLU and PReLU
    stay. A ReLU written into a custom `call` is out of reach. A ReLU6 that is part of a
    hand-made gate (the hard sigmoids of MobileNetV3) is replaced too.

    Args:
        model: A built Functional, Sequential or subclassed model; left as it is. Custom
            layers and subclassed models need a `get_config` that rebuilds them.
        activation: Name of a Keras activation, or a function of one tensor.

    Returns:
        A new model, not compiled, with copied weights, dtype policies and `trainable`
        flags; Functional and Sequential models stay what they are, subclasses of these
        become the plain kind.

    Raises:
        TypeError: If `model` is no Keras model or `activation` no name or function.
        ValueError: If the model is hardened, not built, cannot be rebuilt, or contains
            no ReLU, or if the activation is unknown or a ReLU itself.

    Reference:
        arXiv 2409.20139.

    Example:
        >>> import keras
        >>> from keras_jsigr import with_smooth_activations
        >>> net = keras.Sequential(
        ...     [keras.Input((4,)), keras.layers.Dense(3, activation="relu")]
        ... )
        >>> with_smooth_activations(net).layers[0].activation.__name__
        'silu'
    """
    _check_model(model)
    swap = ModelCopy(model, _smooth(activation))
    with keras.saving.CustomObjectScope(swap.custom_objects):
        copy = swap.copy(model)
        if not copy.built:
            _build_like(model, copy)
    if not swap.count:
        raise ValueError(
            f"`{model.name}` has no ReLU to replace: found {_found(model)}. Use the "
            "model as it is."
        )
    _copy_weights(model, copy)
    twins = list(swap.twins(model, copy, set()))
    _copy_assets(twins)
    _copy_flags(twins)
    for weight, twin in zip(model.weights, copy.weights, strict=True):
        if twin.trainable != weight.trainable:
            twin.trainable = weight.trainable
    return copy


def _check_model(model: Any) -> None:
    if not isinstance(model, keras.Model):
        raise TypeError(f"Got {type(model).__name__}, expected a Keras 3 model.")
    if isinstance(model, JSIGRModel):
        raise ValueError(
            f"`{model.name}` is hardened already. Replace the activations of "
            "`keras_jsigr.unwrap(model)` and harden the result."
        )
    if not model.built:
        raise ValueError(
            f"`{model.name}` is not built: got a model without weights. Call it once "
            "on a batch, or start it with `keras.Input(shape)`."
        )


def _smooth(activation: Any) -> Callable[[Any], Any]:
    named = isinstance(activation, str)
    if isinstance(activation, keras.Layer) or not (named or callable(activation)):
        raise TypeError(
            f"Got {activation!r} as activation, expected a name such as 'silu', "
            "'gelu', 'softplus' or 'elu', or a function of one tensor."
        )
    try:
        function: Callable[[Any], Any] = keras.activations.get(activation)
    except ValueError as error:
        raise ValueError(
            f"Unknown activation: got {activation!r}, expected a name such as 'silu', "
            "'gelu', 'softplus' or 'elu', or a function of one tensor."
        ) from error
    if any(function is relu for relu in RELUS):
        raise ValueError(
            f"Got {activation!r}, expected an activation that is smooth, such as "
            "'silu'."
        )
    return function


def _found(model: keras.Model) -> str:
    names = Counter(
        getattr(getattr(layer, "activation", None), "__name__", type(layer).__name__)
        for layer in walk(model)
        if not children(layer) and not isinstance(layer, keras.layers.InputLayer)
    )
    return ", ".join(f"{name} ({count})" for name, count in names.items()) or "nothing"


def _build_like(model: keras.Model, copy: keras.Model) -> None:
    config = model.get_build_config() or {}
    try:
        copy.build_from_config(config)
    except Exception as error:
        raise ValueError(
            f"`{model.name}` cannot be rebuilt from its input shapes {config}: {error}."
        ) from error
    copy.built = True  # Keras builds the parts of a subclassed model only


def _copy_weights(model: keras.Model, copy: keras.Model) -> None:
    old, new = model.weights, copy.weights
    if [(w.name, w.shape) for w in old] != [(w.name, w.shape) for w in new]:
        raise ValueError(
            f"`{model.name}` cannot be rebuilt: its copy has {len(new)} weights of "
            f"other names or shapes, expected the same {len(old)}. Its `get_config` "
            "must return what its constructor needs, and its constructor or `build` "
            "must make all weights."
        )
    copy.set_weights(model.get_weights())
    for layer in walk(copy):
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()  # what it computes with is not among its weights


def _copy_assets(twins: list[tuple[keras.Layer, keras.Layer]]) -> None:
    """Copy what layers keep in files beside their weights, as a vocabulary."""
    for layer, twin in twins:
        if hasattr(layer, "save_assets") and hasattr(twin, "load_assets"):
            with tempfile.TemporaryDirectory() as folder:
                layer.save_assets(folder)
                twin.load_assets(folder)


def _copy_flags(twins: list[tuple[keras.Layer, keras.Layer]]) -> None:
    # Setting the flag of a layer sets it for all it holds: parents first, leaves last.
    for layer, twin in sorted(twins, key=lambda pair: not children(pair[0])):
        if twin.trainable != layer.trainable:
            twin.trainable = layer.trainable
