"""Several classifiers as one: ensembles of surrogates for transfer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import keras
import tensorflow as tf

from keras_jsigr.attacks.base import check_model
from keras_jsigr.core import arguments
from keras_jsigr.core.logits import LogitsFn, as_logits


class LazyLogits:
    """Map inputs to the logits of a model whose head is found at the first call."""

    def __init__(self, model: Any) -> None:
        if not callable(model):
            raise TypeError(
                f"Got {type(model).__name__} for a model, expected a Keras model or a "
                "callable that returns logits. Pass the model itself, not its path."
            )
        self.model = model
        self._logits: LogitsFn | None = None

    def __call__(self, x: Any) -> tf.Tensor:
        """Return float32 logits `(B, C)`, `C >= 2`."""
        x = tf.convert_to_tensor(x)
        if self._logits is None:
            # A head is found by numbers, which a graph in the making does not have.
            with tf.init_scope():
                self._logits = as_logits(self.model, _probe(x))
        return self._logits(x)


def _probe(x: tf.Tensor) -> tf.Tensor:
    if not tf.is_symbolic_tensor(x):
        return x
    if None in x.shape[1:]:
        raise ValueError(
            f"Got inputs of the open shape {tuple(x.shape)} inside a tf.function, "
            "expected a fixed one. Call the model once on a batch first."
        )
    shape = (2, *x.shape[1:])
    return tf.random.stateless_uniform(shape, (0, 0), dtype=x.dtype)


FuseName = Literal["logits", "probabilities"]


class LogitsEnsemble:
    """Compute `sum_k w_k z_k(x)` of several classifiers; usable wherever a model is.

    What fools many models fools another one more likely: attack this, then show the result to the
    model in question (arXiv 1710.06081). Among models of one kind the mean of the logits is the
    strongest source. Where logits differ in size, as of an undefended network among hardened ones,
    `fuse="probabilities"` follows the members that are not fooled yet.

    Args:
        models: Keras models (a softmax head is seen behind), hardened models or
            callables; all of the same inputs and classes.
        weights: One number >= 0 per model, not all zero; scaled to sum one. `None`
            weighs all equally.
        fuse: `"logits"`, or `"probabilities"` for the log of the mean probability.

    Example:
        >>> from keras_jsigr.attacks import LogitsEnsemble
        >>> both = LogitsEnsemble([lambda x: x, lambda x: 4.0 * x], weights=[2, 1])
        >>> both([[1.0, 2.0]]).numpy().tolist()
        [[2.0, 4.0]]
    """

    def __init__(
        self,
        models: Sequence[Any],
        weights: Sequence[float] | None = None,
        *,
        fuse: FuseName = "logits",
    ) -> None:
        if not isinstance(models, list | tuple) or not models:
            raise TypeError(
                f"`models` is {models!r}, expected a list of one or more models. Pass "
                "for instance [surrogate_a, surrogate_b]."
            )
        arguments.choice("fuse", fuse, get_args(FuseName))
        self._members = [LazyLogits(model) for model in models]
        self.weights = _normalized(weights, len(models))
        self.fuse = fuse
        _check_input_shapes(models)

    @property
    def models(self) -> tuple[Any, ...]:
        """The members."""
        return tuple(member.model for member in self._members)

    @property
    def name(self) -> str:
        """The names of the members, joined by plus signs."""
        return " + ".join(map(_name, self.models))

    def __call__(self, x: Any) -> tf.Tensor:
        """Return the fused logits, float32 `(B, C)`."""
        logits = [member(x) for member in self._members]
        classes = [z.shape[-1] for z in logits]
        if len(set(classes)) > 1:
            pairs = zip(map(_name, self.models), classes, strict=True)
            found = ", ".join(f"{name} {count}" for name, count in pairs)
            raise ValueError(
                f"The members differ in their number of classes: got {found}, expected "
                "one number for all. Leave out those of another task."
            )
        # Zero times minus infinity, a class ruled out, would be NaN.
        weighted = zip(self.weights, logits, strict=True)
        counted = [(w, z) for w, z in weighted if w > 0.0]
        if self.fuse == "probabilities":
            weighed = [tf.nn.log_softmax(z) + math.log(w) for w, z in counted]
            return tf.reduce_logsumexp(tf.stack(weighed), axis=0)
        return tf.add_n([w * z for w, z in counted])


def _normalized(weights: Sequence[float] | None, members: int) -> tuple[float, ...]:
    if weights is None:
        return (1.0 / members,) * members
    values = [arguments.number("weights", w, minimum=0.0) for w in weights]
    if len(values) != members or sum(values) == 0.0:
        raise ValueError(
            f"`weights` do not fit: got {values} for {members} models, expected one "
            "number per model, not all zero. Leave them out for equal weights."
        )
    return tuple(value / sum(values) for value in values)


def _check_input_shapes(models: Sequence[Any]) -> None:
    first: tuple[str, tuple[int | None, ...]] | None = None
    for model in models:
        check_model(model)
        tensors = getattr(model, "inputs", None)
        if not isinstance(model, keras.Model) or not tensors:
            continue
        shape = tuple(tensors[0].shape[1:])
        first = first or (model.name, shape)
        if not tf.TensorShape(shape).is_compatible_with(first[1]):
            raise ValueError(
                f"The members take different inputs: got {first[1]} for `{first[0]}` "
                f"and {shape} for `{model.name}`, expected one shape. Resize inside a "
                "callable, such as lambda x: model(tf.image.resize(x, (32, 32)))."
            )


def _name(model: Any) -> str:
    return str(getattr(model, "name", None) or getattr(model, "__name__", "model"))


def leave_one_family_out(
    models: Mapping[str, Any], families: Mapping[str, str], *, fuse: FuseName = "probabilities"
) -> dict[str, LogitsEnsemble]:
    """Make, for every family, the ensemble of all models of the other families.

    How well a defence withstands strangers is measured with its relatives left out
    (arXiv 1611.02770).

    Args:
        models: Models by name.
        families: The family of each of them by name, such as `"cnn"`; at least two.
        fuse: See `LogitsEnsemble`; families differ in how large their logits are.

    Returns:
        The ensembles by the family that is left out.

    Example:
        >>> from keras_jsigr.attacks.ensemble import leave_one_family_out
        >>> models = {"a": lambda x: x, "b": lambda x: 3 * x}
        >>> list(leave_one_family_out(models, {"a": "cnn", "b": "mlp"}))
        ['cnn', 'mlp']
    """
    differing = sorted(set(models) ^ set(families))
    if differing:
        raise ValueError(
            f"`models` and `families` do not match: got {differing} in only one of "
            "them, expected the same names. Name the family of every model."
        )
    kinds = list(dict.fromkeys(families[name] for name in models))
    if len(kinds) < 2:
        raise ValueError(
            f"Nothing is left: got the families {kinds}, expected at least two. Add "
            "models of another architecture or training."
        )
    return {
        kind: LogitsEnsemble([m for name, m in models.items() if families[name] != kind], fuse=fuse)
        for kind in kinds
    }
