"""Smooth activations: copy a model with them in place of ReLU; `Swish`."""

from __future__ import annotations

import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from types import FunctionType
from typing import Any

import keras
import tensorflow as tf

from keras_jsigr.core import arguments
from keras_jsigr.core.keras_compat import uncompiled
from keras_jsigr.core.logits import is_hardened

RELUS = (
    keras.activations.relu,
    keras.activations.relu6,
    keras.ops.relu,
    keras.ops.relu6,
    tf.nn.relu,
    tf.nn.relu6,
)
# Functional models record `keras.ops.relu(x)` as operations; Keras exports no classes.
RELU_OPERATIONS = ("Relu", "Relu6", "ReLU")


def is_graph(layer: Any) -> bool:
    """Tell whether `keras.models.clone_model` can copy this layer by layer."""
    functional = isinstance(layer, keras.Model) and hasattr(layer, "operations")
    return functional or isinstance(layer, keras.Sequential)


def children(layer: keras.Layer) -> list[keras.Layer]:
    """List the direct sublayers of a layer, ordered by the names of its attributes."""
    if is_graph(layer):
        return list(layer.layers)
    values = [value for _, value in sorted(vars(layer).items())]
    return [leaf for leaf in _leaves(values) if isinstance(leaf, keras.Layer)]


def _leaves(value: Any) -> Iterator[Any]:
    # Not by `keras.tree`, which sorts keys: those of some layers are layers.
    if isinstance(value, (dict, list, tuple)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _leaves(part)
    else:
        yield value


def walk(layer: keras.Layer, seen: set[int] | None = None) -> Iterator[keras.Layer]:
    """Yield a layer and all its sublayers, each once, parents first."""
    seen = set() if seen is None else seen
    if id(layer) in seen:
        return
    seen.add(id(layer))
    yield layer
    for child in children(layer):
        yield from walk(child, seen)


def _is_relu(function: Any) -> bool:
    return any(function is relu for relu in RELUS)


def relu_attributes(layer: keras.Layer) -> list[str]:
    """List the attributes of a layer that hold a ReLU function."""
    return [name for name, value in vars(layer).items() if _is_relu(value)]


def has_relu(layer: keras.Layer) -> bool:
    """Tell whether a layer applies a ReLU."""
    return isinstance(layer, keras.layers.ReLU) or bool(relu_attributes(layer))


class ModelCopy:
    """A copy of a model in the making; layers that are shared stay shared."""

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
        if id(operation) not in self._copies:
            self._copies[id(operation)] = self._copy(operation)
        return self._copies[id(operation)]

    def _copy(self, operation: Any) -> Any:
        if is_graph(operation):
            view = uncompiled(operation)
            graph = keras.models.clone_model(view, clone_function=self.copy)
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
        """Yield pairs of a layer and its copy, parents first."""
        if id(layer) in seen:
            return
        seen.add(id(layer))
        yield layer, copy
        inside, copies = children(layer), self._copies
        # Sublayers that a constructor made again are paired by their order.
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
                    # `_share_functions` passes the function itself: another one may
                    # have the same name.
                    if type(layer).__module__.startswith("keras."):
                        config[key] = "linear"
                # A custom layer may use the name only to build its sublayers.
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
        _share_functions(layer, copy)
        if self._patch(copy) and any(map(has_relu, walk(type(copy).from_config(_config_of(copy))))):
            warnings.warn(
                f"`{type(copy).__name__}` builds its ReLU in its constructor: a saved and loaded "
                "copy has it again. Call `with_smooth_activations` on the loaded model, or make "
                "the activation an argument of the class that `get_config` returns.",
                stacklevel=2,
            )
        return copy

    def _patch(self, copy: keras.Layer) -> int:
        """Replace the ReLUs that the constructor of a layer made."""
        before = self.count
        for layer in walk(copy):
            if not has_relu(layer):
                continue
            if id(layer) in self._original:
                raise ValueError(
                    f"`{copy.name}` cannot be copied: its `get_config` hands over the "
                    f"layer `{layer.name}` itself. Let it return "
                    "`keras.saving.serialize_keras_object(layer)`."
                )
            spots = relu_attributes(layer)
            if isinstance(layer, keras.layers.ReLU):
                # Attributes, lists and graphs may all refer to this new, stateless
                # object, so it is turned into an Activation in place.
                layer.__class__ = keras.layers.Activation
                spots = ["activation"]
            for name in spots:
                setattr(layer, name, self._function)
            self.count += 1
        return self.count - before


def _config_of(layer: keras.Layer) -> dict[str, Any]:
    config: dict[str, Any] = _without_lambdas(layer, set()).get_config()
    return config


def _without_lambdas(layer: keras.Layer, seen: set[int]) -> keras.Layer:
    """Return a view of a layer in which a lambda, of which Keras warns, is linear."""
    seen.add(id(layer))
    changed: dict[str, Any] = {}
    for name, value in vars(layer).items():
        if isinstance(value, FunctionType) and value.__name__ == "<lambda>":
            if "activation" in name:
                changed[name] = keras.activations.linear
        elif isinstance(value, keras.Layer) and id(value) not in seen:
            inner = value if is_graph(value) else _without_lambdas(value, seen)
            if inner is not value:
                changed[name] = inner
    if not changed:
        return layer
    view: keras.Layer = object.__new__(type(layer))
    view.__dict__.update(vars(layer), **changed)
    return view


def _has_own(layer: keras.Layer, name: str) -> bool:
    """Tell whether an attribute of a layer is an activation function but no ReLU."""
    function = getattr(layer, name, None)
    a_function = callable(function) and not isinstance(function, keras.Layer)
    return a_function and not _is_relu(function)


def _share_functions(layer: keras.Layer, copy: keras.Layer) -> None:
    """Let a copy use the same activation functions as the original."""
    for one, twin in zip(walk(layer), walk(copy), strict=False):
        if type(one) is not type(twin):
            return
        for name in vars(one).keys() & vars(twin).keys():
            if "activation" in name and _has_own(one, name):
                setattr(twin, name, getattr(one, name))


def with_smooth_activations(
    model: keras.Model, activation: str | Callable[[Any], Any] = "silu"
) -> keras.Model:
    """Copy a model with `activation` in the place of every ReLU.

    J-SIGR trains gradients, and a ReLU's gradient jumps: on the embedded Fashion-MNIST
    sample (`benchmarks/settings.py`, Linf epsilon 0.1, mean of three seeds) SiLU has
    81.9 % clean and 56.2 % PGD-20 accuracy, ReLU 79.2 and 52.6. With the recipe
    "balanced" a sharper one is better still, see `keras_jsigr.Swish`. The copied
    weights were learned for ReLU: train the result.

    Replaced are ReLU and ReLU6 as the activation of any layer, `keras.layers.ReLU`
    (with any arguments), `keras.layers.Activation("relu")` and `keras.ops.relu` in
    Functional models, in nested models and custom layers too. LeakyReLU and PReLU
    stay. A ReLU that a custom `call` computes itself is not found. A ReLU6 that is part
    of a hard sigmoid made by hand (as in MobileNetV3) is replaced too.

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
        >>> net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="relu")])
        >>> with_smooth_activations(net).layers[0].activation.__name__
        'silu'
    """
    _check_model(model)
    swap = ModelCopy(model, _smooth(activation))
    with keras.saving.CustomObjectScope(swap.custom_objects):
        copy = swap.copy(model)
        if not copy.built:
            shapes = model.get_build_config() or {}
            try:
                copy.build_from_config(shapes)
            except Exception as error:
                raise ValueError(
                    f"`{model.name}` cannot be rebuilt from its input shapes {shapes}: {error}."
                ) from error
            copy.built = True  # Keras builds the parts of a subclassed model only
    if not swap.count:
        raise ValueError(
            f"`{model.name}` has no ReLU to replace: found {_found(model)}. Use the model as it is."
        )
    _copy_weights(model, copy)
    twins = list(swap.twins(model, copy, set()))
    for layer, twin in twins:  # what layers save beside weights, such as a vocabulary
        if hasattr(layer, "save_assets") and hasattr(twin, "load_assets"):
            with tempfile.TemporaryDirectory() as folder:
                layer.save_assets(folder)
                twin.load_assets(folder)
    # Setting the flag of a layer sets it for its sublayers: parents first, leaves last.
    for layer, twin in sorted(twins, key=lambda pair: not children(pair[0])):
        if twin.trainable != layer.trainable:
            twin.trainable = layer.trainable
    for weight, twin in zip(model.weights, copy.weights, strict=True):
        if twin.trainable != weight.trainable:
            twin.trainable = weight.trainable
    return copy


def _check_model(model: Any) -> None:
    if not isinstance(model, keras.Model):
        raise TypeError(f"Got {type(model).__name__}, expected a Keras 3 model.")
    if is_hardened(model):
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
    advice = (
        f"got {activation!r}, expected a name such as 'silu', 'gelu', 'softplus' or "
        "'elu', or a smooth function of one tensor."
    )
    named = isinstance(activation, str)
    if isinstance(activation, keras.Layer) or not (named or callable(activation)):
        raise TypeError(f"Not an activation: {advice}")
    try:
        function: Callable[[Any], Any] = keras.activations.get(activation)
    except ValueError as error:
        raise ValueError(f"Unknown activation: {advice}") from error
    if _is_relu(function):
        raise ValueError(f"Not a smooth activation: {advice}")
    return function


def _found(model: keras.Model) -> str:
    names = Counter(
        getattr(getattr(layer, "activation", None), "__name__", type(layer).__name__)
        for layer in walk(model)
        if not children(layer) and not isinstance(layer, keras.layers.InputLayer)
    )
    return ", ".join(f"{name} ({count})" for name, count in names.items()) or "nothing"


def _copy_weights(model: keras.Model, copy: keras.Model) -> None:
    old, new = model.weights, copy.weights
    if [(w.name, w.shape) for w in old] != [(w.name, w.shape) for w in new]:
        raise ValueError(
            f"`{model.name}` cannot be rebuilt: its copy has {len(new)} weights of other names or "
            f"shapes, expected the same {len(old)}. Its `get_config` must return what its "
            "constructor needs, and its constructor or `build` must make all weights."
        )
    copy.set_weights(model.get_weights())
    for layer in walk(copy):
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()  # derives the constants that `call` uses


@keras.saving.register_keras_serializable(package="keras_jsigr")
@dataclass(frozen=True)
class Swish:
    """Compute `x * sigmoid(beta * x)`: SiLU at `beta=1`, ReLU in the limit.

    Penalties train gradients, so the activation has to be smooth; to ignore changes
    within a radius, a network needs units whose slope is almost zero. SiLU is smooth,
    but its slope vanishes only far below zero; `beta=5` is smooth and vanishes soon.
    The curvature at zero is `beta / 2`.

    Use it wherever Keras takes an activation, in `with_smooth_activations` too. It is
    saved with the model; import keras_jsigr before you load one, but for an exported
    SavedModel.

    Args:
        beta: Sharpness, > 0, in one over the unit of `x`.

    Raises:
        TypeError: If `beta` is no number.
        ValueError: If `beta` is not positive and finite.

    Reference:
        arXiv 1710.05941, section 5 (there with a trained beta).

    Example:
        >>> import keras
        >>> from keras_jsigr import Swish
        >>> layer = keras.layers.Dense(100, activation=Swish(beta=5.0))
        >>> layer.activation(keras.ops.array([0.0, 8.0])).numpy().tolist()
        [0.0, 8.0]
    """

    beta: float = 5.0

    def __post_init__(self) -> None:
        beta = arguments.number("beta", self.beta, minimum=0.0, above=True)
        object.__setattr__(self, "beta", beta)

    def __call__(self, x: Any) -> Any:
        """Return the activation of `x`, in its dtype and shape."""
        return x * keras.ops.sigmoid(self.beta * x)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        return asdict(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Swish:
        """Make an activation from its `get_config()`."""
        return cls(**config)
