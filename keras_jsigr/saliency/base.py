"""What all saliency methods share: the decision, its gradient, the method, its run."""

from __future__ import annotations

import functools
import inspect
import math
import re
import types
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, NamedTuple, Self, TypeVar, get_args

import keras
import numpy as np
import tensorflow as tf

from keras_jsigr.core import arguments, batching, scores
from keras_jsigr.core.batching import Core, owner_of
from keras_jsigr.core.heads import Head, head_kind, head_of, ignored_labels
from keras_jsigr.core.inputs import as_float
from keras_jsigr.core.keras_compat import all_layers, layer_calls, leaf_layers
from keras_jsigr.core.logits import (
    LogitsFn,
    base_model,
    known_input_range,
    output_units,
)
from keras_jsigr.core.scores import HeadKind, ScoreName
from keras_jsigr.core.variables import stateless
from keras_jsigr.saliency import masks
from keras_jsigr.saliency.masks import Layout, Replacement

_Name = TypeVar("_Name", bound=str)
# From logits `(B, C)` to the float targets `(B, C)` to explain.
TargetsFn = Callable[[tf.Tensor], tf.Tensor]


class Decision(NamedTuple):
    """The classes that a model decides between, and the units of its output."""

    kind: HeadKind
    classes: int
    units: int

    def score(self, name: _Name) -> _Name | Literal["margin"]:
        """Return the score to take: with one unit `"logit"` means the margin."""
        return "margin" if self.units == 1 and name == "logit" else name


def decision_of(model: Any, probe: Any, kind: HeadKind | None = None) -> Decision:
    """Find out what a model decides between; `kind` overrides what its head says."""
    # The head first: it refuses what is no classifier, such as several outputs.
    head = head_of(model, probe) if isinstance(model, keras.Model) else None
    units = output_units(model, probe)
    if units == 1:
        return Decision("softmax", 2, 1)
    if kind is None and head is not None:
        kind = head_kind(model, head, units)
    return Decision(kind or "softmax", units, units)


def targets_of(y: tf.Tensor | None, kind: HeadKind) -> TargetsFn:
    """Return the targets of labels, or of the model's own decision without labels."""
    if y is None:
        return lambda logits: scores.predicted_targets(logits, kind)
    return lambda logits: scores.class_targets(y, logits)


def input_gradient(
    logits_fn: LogitsFn,
    x: Any,
    targets: Any,
    score: ScoreName = "log_prob",
    kind: HeadKind = "softmax",
) -> tf.Tensor:
    """Compute `d s_b / d x_b` with one forward and one backward pass."""
    x = as_float(x)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x)
        logits = tf.cast(logits_fn(x), tf.float32)
    chosen = tf.stop_gradient(targets(logits) if callable(targets) else targets)
    cotangent = scores.unit_pull(logits, chosen, score, kind)
    gradient = tape.gradient(logits, x, cotangent.rows)
    if gradient is None:
        raise ValueError(
            "Got logits that do not depend on the input through differentiable "
            "operations, expected a differentiable model. Remove casts to integers, "
            "lookups and NumPy code between the input and the logits, or use "
            "'occlusion' or 'rise', which need no gradient (of tokens with baseline=0)."
        )
    return cotangent.scaled(gradient)


def target_probability(logits: Any, targets: Any, kind: HeadKind = "softmax") -> tf.Tensor:
    """Compute `p_y` `(B,)`, the probability of the target class."""
    z, t = tf.cast(logits, tf.float32), tf.cast(targets, tf.float32)
    if kind == "sigmoid" or z.shape[-1] == 1:
        per_class = t * tf.sigmoid(z) + (1.0 - t) * tf.sigmoid(-z)
        return tf.reduce_mean(per_class, axis=-1)
    return tf.reduce_sum(t * tf.nn.softmax(z), axis=-1)


# Programs of explanations, shared by explainers of equal methods as long as the model
# lives and is what it was. Many: TensorFlow keeps most of what is dropped, and every
# length of a sequence has its own.
_PROGRAMS = batching.CompiledCache(256)
# Asked for a part of an explainer by name, and how to make it.
Share = Callable[[Hashable, Callable[[], Any]], Any]


class Explainer(batching.BatchedExplainer):
    """Explain any number of examples, `f(x, y=None) -> maps`, by a compiled method.

    It reads the model's current weights. Made by `keras_jsigr.saliency.explainer`. Its
    `method` has all that was found out about the model filled in, such as the layer
    that Grad-CAM looks at.
    """

    def __init__(
        self,
        method: SaliencyMethod,
        prepare: Callable[[], Core],
        batch_size: int = 128,
        classes: int | None = None,
        ignored: Sequence[int] = (),
        share: Share = lambda _, make: make(),
    ) -> None:
        super().__init__(lambda x, y: self.core(x, y), batch_size, classes, ignored)
        self.method = method
        self._prepare = functools.cache(prepare)
        self._run = _SharedFunction(lambda x, y=None: self.core(x, y), batch_size)
        self._run.share = share

    @property
    def core(self) -> Core:
        """What is compiled; the model is looked at when it is first asked for."""
        with tf.init_scope():
            return self._prepare()

    def __call__(self, x: Any, y: Any = None) -> Any:
        """Return the maps of all examples, NumPy for NumPy and datasets."""
        maps = super().__call__(x, y)
        self.method.check_maps(maps)
        return maps


class _SharedFunction(batching.BatchedFunction):
    """Use a program that another explainer has compiled."""

    share: Share

    def _compile(self, specs: Sequence[tf.TensorSpec]) -> Any:
        made: list[Any] = []

        def make() -> Any:
            made.append(super(_SharedFunction, self)._compile(specs))
            # Of two explanations that draw random numbers each starts anew.
            return None if made[0].ordered else made[0]

        found = self.share(tuple(specs), make)
        return found or (made[0] if made else super()._compile(specs))


def _sharing(method: SaliencyMethod, model: Any, probe: tf.Tensor) -> Share:
    """Return what shares an explainer's parts with those of equal methods."""
    key = tuple(_plain(getattr(method, each.name), object) for each in fields(method))
    owner = owner_of(model)
    try:
        hash(key)
    except TypeError:
        owner = None
    # Of a callable nobody knows whether it is what it was.
    if not isinstance(owner, keras.Model):
        return lambda _, make: make()
    whole = (type(method), key, _state_of(owner))
    return lambda part, make: _PROGRAMS.keep((whole, part), model, probe, make)


def _state_of(model: keras.Model) -> Hashable:
    """Describe what a program has built in: settings of layers, range and losses."""
    head = head_kind(model, Head("linear"), 2)
    span = _plain(getattr(model, "probe_range", None))  # of a hardened model
    state: list[Any] = [span, tuple(ignored_labels(model)), head]
    for layer in all_layers(model):
        names = vars(layer).keys() - _names_of_keras()
        # Others belong to checkpoints, and those of a model to its training.
        whole = isinstance(layer, keras.Model)
        outside = ("_", "stop_", "history") if whole else ("_self_",)
        names = {name for name in names if not name.startswith(outside)}
        held = tuple((name, _plain(vars(layer)[name])) for name in sorted(names))
        policy = layer.dtype_policy.name
        state.append((policy, len(layer.variables), layer.trainable, held))
    return tuple(state)


@functools.cache
def _names_of_keras() -> frozenset[str]:
    """Return the attributes of every layer and model, which are no settings."""
    # Named, so that they leave Keras' numbering of layers alone.
    bare = keras.layers.Identity(name="bare"), keras.Sequential(name="bare")
    return frozenset(("_called", *(name for each in bare for name in vars(each))))


def _plain(value: Any, known: Any = (bool, int, float, str)) -> Hashable:
    """Return a value that can be compared, and `None` for what is no setting."""
    if type(value) in (bool, int, float, str):
        return value  # type: ignore[no-any-return]
    if isinstance(value, list | tuple | dict):
        items = value.items() if isinstance(value, dict) else value
        return tuple(_plain(item, known) for item in items)
    eager = isinstance(value, tf.Tensor) and hasattr(value, "numpy")
    if eager or isinstance(value, np.ndarray):
        array = np.asarray(value)
        return array.shape, str(array.dtype), array.tobytes()
    if isinstance(value, types.FunctionType):
        return id(value)
    return value if isinstance(value, known) else None


def _check_inputs(model: Any, probe: tf.Tensor) -> None:
    """Refuse several inputs, and one example without its batch axis."""
    model = base_model(model)
    tensors = getattr(model, "inputs", None) if isinstance(model, keras.Model) else None
    if tensors and len(tensors) > 1:
        raise ValueError(
            f"Got one array for `{model.name}`, which has {len(tensors)} inputs: "
            "expected a model of one input. Pass a callable of the one to explain, "
            "such as `lambda x: model([x, others])`."
        )
    shape, wanted = tuple(probe.shape), tuple(tensors[0].shape[1:]) if tensors else ()
    fits = [w in (None, n) for w, n in zip(wanted, shape, strict=False)]
    if len(wanted) == len(shape) and all(fits):
        raise ValueError(
            f"Got data of shape {shape}, one example without a batch axis: expected "
            f"(B, {', '.join(map(str, shape))}). Pass `x[None]`."
        )


def layout_of(model: Any, probe: tf.Tensor, layout: Layout | None) -> Layout:
    """Return what the axes of the inputs of a model mean; refuse channels first."""
    shape = tuple(probe.shape[1:])
    found = masks.resolve_layout(shape, layout)
    if isinstance(model, keras.Model):
        first = _reads(model, probe, _takes_channels_first)
        if first and found != "features":
            raise ValueError(
                f"Got `{model.name}`, which reads its inputs {shape} channels first: "
                "expected channels last. Pass such data, and a callable that moves "
                "them: `lambda x: model(tf.transpose(x, (0, 3, 1, 2)))` for images."
            )
    elif layout is None:
        masks.check_channels_last(shape)
    return found


def check_replaceable(model: Any, probe: tf.Tensor, baseline: Replacement, layout: Layout) -> None:
    """Refuse baselines that change nothing, and mixtures of tokens."""
    if baseline not in ("blur", "mean"):
        return
    shape = tuple(probe.shape[1:])
    if math.prod(shape[: masks.map_axes(layout)]) == 1:
        raise ValueError(
            f"Got baseline {baseline!r} for examples of shape {shape}: of one place "
            "it is the value itself: nothing would change. Use baseline='zero', or "
            "explain columns as one table: `lambda x: model(tf.split(x, 3, axis=1))`."
        )
    if isinstance(model, keras.Model) and _reads(
        model, probe, lambda e: isinstance(e, keras.layers.Embedding)
    ):
        raise ValueError(
            f"Got baseline {baseline!r} for tokens: the mean of their numbers is "
            "another token. Use baseline='zero' if 0 is the padding, or method "
            "'occlusion' with the number of a neutral token as `baseline`."
        )


def _takes_channels_first(layer: Any) -> bool:
    moved = getattr(layer, "dims", ()) == (2, 3, 1)  # a Permute of images
    return moved or getattr(layer, "data_format", "") == "channels_first"


def _reads(model: keras.Model, probe: tf.Tensor, chosen: Callable[[Any], bool]) -> bool:
    """Tell whether layers of a kind get the inputs of a model, as far as shapes go."""
    shapes: list[Any] = []

    def see(_: Any, call: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
        shapes.append(getattr(x, "shape", None))
        return call(x, *args, **kwargs)

    layers = [layer for layer in leaf_layers(model) if chosen(layer)]
    if layers:
        try:
            with stateless(), layer_calls(layers, see):
                model(probe, training=False)
        except Exception:  # TensorFlow has no such convolution on a CPU
            return True
    return probe.shape in shapes


# One argument of a Google docstring, with the lines that continue it.
_ARGUMENT = re.compile(r"^    (\w+):.*\n(?:        .*\n)*", re.MULTILINE)


def _with_inherited_args(cls: type) -> str:
    """Add to a docstring the arguments that only the parents' docstrings explain."""
    doc, own = _doc_and_args(cls)
    more: dict[str, str] = {}
    for parent in cls.__bases__:
        more |= _doc_and_args(parent)[1]
    known, before = {*own, *cls.__annotations__}, "".join(own.values())
    text = before + "".join(line for name, line in more.items() if name not in known)
    return doc.replace(before, text, 1) if before else f"{doc}\nArgs:\n{text}"


def _doc_and_args(cls: type) -> tuple[str, dict[str, str]]:
    doc = inspect.cleandoc(cls.__doc__ or "") + "\n"
    section = re.search(r"(?<=^Args:\n)(?:    .*\n)+", doc, re.MULTILINE)
    found = _ARGUMENT.finditer(section[0]) if section else ()
    return doc, {argument[1]: argument[0] for argument in found}


def setting(default: Any, check: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Declare a setting that `check(name, value)` looks at, if it is not omitted."""

    def look(name: str, value: Any) -> None:
        if value is not None or default is not None:
            check(name, value, *args, **kwargs)

    return field(default=default, metadata={"check": look})


@dataclass(frozen=True, kw_only=True)
class SaliencyMethod(ABC):
    """A way to explain a decision: settings, checked when it is made.

    A new method is a frozen dataclass of keyword-only settings with `core`; what the
    docstrings of its parents say of their settings is added to its own.

    Args:
        kind: `"softmax"` (exclusive classes) or `"sigmoid"` (independent ones);
            `None` asks the head and the loss of a Keras model; for a callable it is
            `"softmax"`.
        layout: What the axes mean where the rank would mislead, see `resolve_layout`.

    Raises:
        ValueError: If a setting is out of range.
    """

    kind: HeadKind | None = setting(None, arguments.choice, (None, *get_args(HeadKind)))
    layout: Layout | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.__doc__ = _with_inherited_args(cls)

    def __post_init__(self) -> None:
        for each in fields(self):
            if check := each.metadata.get("check"):
                check(each.name, getattr(self, each.name))

    @property
    def known_kind(self) -> HeadKind:
        """The kind of the decision; exclusive classes until a model was asked."""
        return self.kind or "softmax"

    @abstractmethod
    def core(self, model: Any, probe: Any) -> Core:
        """Return the traceable function of `(x, y)` that computes the maps.

        Args:
            model: A Keras classifier, a hardened model or a callable.
            probe: A batch of float inputs, at least one.
        """

    def explainer(self, model: Any, probe: Any, batch_size: int = 128) -> Explainer:
        """Compile the method for a model, as `keras_jsigr.saliency.explainer` does."""
        probe = as_float(probe)
        made: list[Core] = []

        def fit() -> tuple[SaliencyMethod, int]:
            _check_inputs(model, probe)
            method, classes = self.fitted(model, probe)
            made.append(method.core(model, probe))
            return method, classes

        def prepare() -> Core:
            return made[0] if made else method.core(model, probe)

        share = _sharing(self, model, probe)
        method, classes = share("fitted", fit)
        ignored = ignored_labels(model) if isinstance(model, keras.Model) else ()
        return Explainer(method, prepare, batch_size, classes, ignored, share)

    @property
    def why_zero(self) -> str:
        """Why all maps may be zero, and the way out; empty where that is no wonder."""
        return ""

    def check_maps(self, maps: Any) -> None:
        """Warn if every map is zero, where the method says why that may be."""
        if self.why_zero and len(maps) and not np.any(maps):
            warnings.warn(f"All maps are zero: {self.why_zero}", stacklevel=4)

    def fitted(self, model: Any, probe: Any) -> tuple[Self, int]:
        """Fill in the settings that the model decides; see `core` for the arguments.

        These are the kind of its classes, the input range of a hardened model where
        none is given, and `"margin"` for the `"logit"` of a single unit.

        Returns:
            The method with these settings, and the number of classes.
        """
        decision, score = (
            decision_of(model, probe, self.kind),
            getattr(self, "score", ""),
        )
        found: dict[str, Any] = {"kind": decision.kind}
        if decision.score(score) != score:
            found["score"] = "margin"
        if getattr(self, "input_range", ()) is None:
            found["input_range"] = known_input_range(model) or (0.0, 1.0)
        return replace(self, **found), decision.classes


@dataclass(frozen=True, kw_only=True)
class RangedMethod(SaliencyMethod):
    """A method that asks the model about changed inputs within their range.

    Args:
        input_range: `(low, high)` of the inputs; `None` takes that of a hardened model,
            and (0, 1) for any other.
        chunk: Examples per call of the model; `None` chooses by their size.
    """

    input_range: tuple[float, float] | None = setting(None, arguments.interval)
    chunk: int | None = setting(None, arguments.count)

    @property
    def known_range(self) -> tuple[float, float]:
        """The input range; (0, 1) until a model was asked."""
        return self.input_range or (0.0, 1.0)
