"""A copy of a model in which every ReLU is a smooth activation, weights kept."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf

from keras_jsigr.model import JSIGRModel

_RELUS = (
    keras.activations.relu,
    keras.activations.relu6,
    keras.ops.relu,
    keras.ops.relu6,
    tf.nn.relu,
    tf.nn.relu6,
)
# Functional models record `keras.ops.relu(x)` as operations; Keras exports no classes.
_RELU_OPERATIONS = ("Relu", "Relu6", "ReLU")


def with_smooth_activations(
    model: keras.Model, activation: str | Callable[[Any], Any] = "silu"
) -> keras.Model:
    """Copy a model with `activation` in the place of every ReLU.

    J-SIGR trains gradients, and a ReLU's gradient jumps. Measured on Fashion-MNIST
    (reference net, 15 epochs, L1 form, epsilon 0.1, one seed; clean / PGD-50 / transfer
    accuracy): ReLU 82.5 / 60.4 / 73.5, SiLU 85.8 / 61.4 / 75.7 %. arXiv 2409.20139 sees
    the same. The copied weights were learned for ReLU: train the result.

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
        >>> from keras_jsigr.smooth_activations import with_smooth_activations
        >>> net = keras.Sequential(
        ...     [keras.Input((4,)), keras.layers.Dense(3, activation="relu")]
        ... )
        >>> with_smooth_activations(net).layers[0].activation.__name__
        'silu'
    """
    _check_model(model)
    swap = _Swap(model, _smooth(activation))
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
    _copy_flags(swap.twins(model, copy, set()))
    for weight, twin in zip(model.weights, copy.weights, strict=True):
        if twin.trainable != weight.trainable:
            twin.trainable = weight.trainable
    return copy


class _Swap:
    """One copy in the making: what is shared in the original is shared in the copy."""

    def __init__(self, model: keras.Model, function: Callable[[Any], Any]) -> None:
        self.count = 0
        self._function = function
        self._config = keras.activations.serialize(function)
        self._original = {id(layer) for layer in _walk(model)}
        self._copies: dict[int, Any] = {}
        used = [getattr(layer, "activation", None) for layer in _walk(model)]
        names = {getattr(f, "__name__", ""): f for f in [*used, function]}
        self.custom_objects = {name: f for name, f in names.items() if name}

    def copy(self, operation: Any) -> Any:
        """Copy a layer, a model or an operation of a Functional model, once."""
        key = id(operation)
        if key not in self._copies:
            self._copies[key] = self._copy(operation)
        return self._copies[key]

    def _copy(self, operation: Any) -> Any:
        if _is_graph(operation):
            with _not_compiled(operation):
                graph = keras.models.clone_model(operation, clone_function=self.copy)
            graph.dtype_policy = operation.dtype_policy
            return graph
        if isinstance(operation, keras.layers.ReLU):
            return self._activation(operation.name, operation.dtype_policy)
        if isinstance(operation, keras.Layer):
            return self._copy_layer(operation)
        if type(operation).__name__ in _RELU_OPERATIONS:
            return self._activation(operation.name, operation.output.dtype)
        return type(operation).from_config(operation.get_config())

    def twins(
        self, layer: keras.Layer, copy: keras.Layer, seen: set[int]
    ) -> Iterator[tuple[keras.Layer, keras.Layer]]:
        """Pair every layer with its copy, parents first."""
        if id(layer) in seen:
            return
        seen.add(id(layer))
        yield layer, copy
        children, copies = _children(layer), self._copies
        # What a constructor made again is found by its place.
        pairs = [(c, copies[id(c)]) for c in children if id(c) in copies] or list(
            zip(children, _children(copy), strict=True)
        )
        for child, twin in pairs:
            yield from self.twins(child, twin, seen)

    def _activation(self, name: str, dtype: Any) -> keras.Layer:
        self.count += 1
        return keras.layers.Activation(self._function, name=name, dtype=dtype)

    def _copy_layer(self, layer: keras.Layer) -> keras.Layer:
        try:
            config = layer.get_config()
            for key, value in config.items():
                # A custom layer may keep the name only to build its parts with it.
                if "activation" in key and value in ("relu", "relu6"):
                    if isinstance(self._config, str):
                        config[key] = self._config
                    self.count += 1
            copy = type(layer).from_config(config)
        except Exception as error:
            raise ValueError(
                f"`{layer.name}` ({type(layer).__name__}) cannot be rebuilt: {error}. "
                "Its `get_config` must return what its constructor needs."
            ) from error
        if self._patch(copy):
            self._warn_if_forgotten(copy)
        return copy

    def _patch(self, copy: keras.Layer) -> int:
        """Exchange what the constructor of a layer hard-wired, before it is built."""
        before = self.count
        for layer in _walk(copy):
            spots = _relu_attributes(layer)
            if not spots and not isinstance(layer, keras.layers.ReLU):
                continue
            if id(layer) in self._original:
                raise ValueError(
                    f"`{copy.name}` cannot be copied: its `get_config` hands over the "
                    f"layer `{layer.name}` itself. Let it return "
                    "`keras.saving.serialize_keras_object(layer)`."
                )
            if isinstance(layer, keras.layers.ReLU):
                # Attributes, lists and graphs may all hold this fresh, stateless
                # object, so it becomes an Activation where it is.
                layer.__class__ = keras.layers.Activation
                spots = ["activation"]
            for name in spots:
                setattr(layer, name, self._function)
            self.count += 1
        return self.count - before

    def _warn_if_forgotten(self, copy: keras.Layer) -> None:
        again = type(copy).from_config(copy.get_config())
        if any(map(_has_relu, _walk(again))):
            warnings.warn(
                f"`{type(copy).__name__}` builds its ReLU in its constructor: a saved "
                "and loaded copy has it again. Call `with_smooth_activations` on the "
                "loaded model, or make the activation an argument of the class that "
                "`get_config` returns.",
                stacklevel=2,
            )


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
    if any(function is relu for relu in _RELUS):
        raise ValueError(
            f"Got {activation!r}, expected an activation that is smooth, such as "
            "'silu'."
        )
    return function


def _is_graph(layer: Any) -> bool:
    """Tell whether `clone_model` can copy it layer by layer."""
    functional = isinstance(layer, keras.Model) and hasattr(layer, "operations")
    return functional or isinstance(layer, keras.Sequential)


def _children(layer: keras.Layer) -> list[keras.Layer]:
    if _is_graph(layer):
        return list(layer.layers)
    values = [value for _, value in sorted(vars(layer).items())]
    leaves = [leaf for value in values for leaf in _leaves(value)]
    return [leaf for leaf in leaves if isinstance(leaf, keras.Layer)]


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for part in value:
            yield from _leaves(part)
    else:
        yield value


def _walk(layer: keras.Layer, seen: set[int] | None = None) -> Iterator[keras.Layer]:
    """Visit a layer and all that it holds, each once, parents first."""
    seen = set() if seen is None else seen
    if id(layer) in seen:
        return
    seen.add(id(layer))
    yield layer
    for child in _children(layer):
        yield from _walk(child, seen)


def _relu_attributes(layer: keras.Layer) -> list[str]:
    return [
        name
        for name, value in vars(layer).items()
        if any(value is relu for relu in _RELUS)
    ]


def _has_relu(layer: keras.Layer) -> bool:
    return isinstance(layer, keras.layers.ReLU) or bool(_relu_attributes(layer))


def _found(model: keras.Model) -> str:
    names = Counter(
        getattr(getattr(layer, "activation", None), "__name__", type(layer).__name__)
        for layer in _walk(model)
        if not _children(layer) and not isinstance(layer, keras.layers.InputLayer)
    )
    return ", ".join(f"{name} ({count})" for name, count in names.items()) or "nothing"


@contextmanager
def _not_compiled(model: keras.Model) -> Iterator[None]:
    """Keep `clone_model` from copying the loss, which may not be serializable."""
    before, model.compiled = model.compiled, False
    try:
        yield
    finally:
        model.compiled = before


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


def _copy_flags(twins: Iterator[tuple[keras.Layer, keras.Layer]]) -> None:
    # Setting the flag of a layer sets it for all it holds: parents first, leaves last.
    for layer, twin in sorted(twins, key=lambda pair: not _children(pair[0])):
        if twin.trainable != layer.trainable:
            twin.trainable = layer.trainable
