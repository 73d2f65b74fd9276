"""Copy a model layer by layer, ReLU exchanged for another activation."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import keras

from keras_jsigr.activations.layer_tree import children, is_graph, walk
from keras_jsigr.activations.relu import (
    RELU_OPERATIONS,
    RELUS,
    has_relu,
    relu_attributes,
)
from keras_jsigr.core.not_compiled import not_compiled


class ModelCopy:
    """One copy in the making: what is shared in the original is shared in the copy."""

    def __init__(self, model: keras.Model, function: Callable[[Any], Any]) -> None:
        self.count = 0
        self._function = function
        self._config = keras.activations.serialize(function)
        self._original = {id(layer) for layer in walk(model)}
        self._copies: dict[int, Any] = {}
        used = [getattr(layer, "activation", None) for layer in walk(model)]
        names = {getattr(f, "__name__", ""): f for f in [*used, function]}
        self.custom_objects = {name: f for name, f in names.items() if name}

    def copy(self, operation: Any) -> Any:
        """Copy a layer, a model or an operation of a Functional model, once."""
        key = id(operation)
        if key not in self._copies:
            self._copies[key] = self._copy(operation)
        return self._copies[key]

    def _copy(self, operation: Any) -> Any:
        if is_graph(operation):
            with not_compiled(operation):
                graph = keras.models.clone_model(operation, clone_function=self.copy)
            graph.dtype_policy = operation.dtype_policy
            return graph
        if isinstance(operation, keras.layers.ReLU):
            return self._activation(operation.name, operation.dtype_policy)
        if isinstance(operation, keras.Layer):
            return self._copy_layer(operation)
        if type(operation).__name__ in RELU_OPERATIONS:
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
        inside, copies = children(layer), self._copies
        # What a constructor made again is found by its place.
        pairs = [(c, copies[id(c)]) for c in inside if id(c) in copies] or list(
            zip(inside, children(copy), strict=True)
        )
        for child, twin in pairs:
            yield from self.twins(child, twin, seen)

    def _activation(self, name: str, dtype: Any) -> keras.Layer:
        self.count += 1
        return keras.layers.Activation(self._function, name=name, dtype=dtype)

    def _copy_layer(self, layer: keras.Layer) -> keras.Layer:
        try:
            config = _config_of(layer)
            for key, value in config.items():
                if "activation" not in key:
                    continue
                if _has_own(layer, key):
                    # Handed over below: another function may have the same name.
                    if type(layer).__module__.startswith("keras."):
                        config[key] = "linear"
                # A custom layer may keep the name only to build its parts with it.
                elif value in ("relu", "relu6"):
                    if isinstance(self._config, str):
                        config[key] = self._config
                    self.count += 1
            copy = type(layer).from_config(config)
        except Exception as error:
            raise ValueError(
                f"`{layer.name}` ({type(layer).__name__}) cannot be rebuilt: {error}. "
                "Its `get_config` must return what its constructor needs."
            ) from error
        _hand_over(layer, copy)
        if self._patch(copy):
            self._warn_if_forgotten(copy)
        return copy

    def _patch(self, copy: keras.Layer) -> int:
        """Exchange what the constructor of a layer hard-wired, before it is built."""
        before = self.count
        for layer in walk(copy):
            spots = relu_attributes(layer)
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
        again = type(copy).from_config(_config_of(copy))
        if any(map(has_relu, walk(again))):
            warnings.warn(
                f"`{type(copy).__name__}` builds its ReLU in its constructor: a saved "
                "and loaded copy has it again. Call `with_smooth_activations` on the "
                "loaded model, or make the activation an argument of the class that "
                "`get_config` returns.",
                stacklevel=2,
            )


def _config_of(layer: keras.Layer) -> dict[str, Any]:
    with warnings.catch_warnings():
        # Nothing is written: functions without a name are handed over as they are.
        warnings.filterwarnings("ignore", "The object being serialized includes a")
        config: dict[str, Any] = layer.get_config()
        return config


def _has_own(layer: keras.Layer, name: str) -> bool:
    """Tell whether an activation of a layer is a function that is no ReLU."""
    function = getattr(layer, name, None)
    if not callable(function) or isinstance(function, keras.Layer):
        return False
    return not any(function is relu for relu in RELUS)


def _hand_over(layer: keras.Layer, copy: keras.Layer) -> None:
    """Give a copy the very functions that the original has."""
    for one, twin in zip(walk(layer), walk(copy), strict=False):
        if type(one) is not type(twin):
            return
        for name in vars(one).keys() & vars(twin).keys():
            if "activation" in name and _has_own(one, name):
                setattr(twin, name, getattr(one, name))
