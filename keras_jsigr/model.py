"""The hardened model: Keras' own training loop with the J-SIGR penalties in it."""

from __future__ import annotations

import inspect
import math
import warnings
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_jsigr.core.heads import (
    Head,
    averages_over_weights,
    find_head,
    head_kind,
    ignored_labels,
)
from keras_jsigr.core.inputs import input_specs, probe_batch, probe_size
from keras_jsigr.core.keras_compat import exact_moments, uncompiled
from keras_jsigr.core.scores import (
    class_targets,
    ignore_class_weights,
    valid_label_mask,
)
from keras_jsigr.core.variables import add_scalar_variable, read_scalar
from keras_jsigr.penalties.objective import PenaltyBatch, batch_mean, ramp_factor
from keras_jsigr.penalties.settings import PenaltySettings
from keras_jsigr.training.accuracy_constraint import (
    AccuracyConstraint,
    Validation,
    clearly_trained,
    measure_accuracy,
    next_factor,
    right_answers,
    standard_error,
    validation_of,
)
from keras_jsigr.training.introspection import ModelSpec, inspect_model
from keras_jsigr.training.saliency_targets import SaliencyTargets
from keras_jsigr.training.step import Forward, TapedForward
from keras_jsigr.training.validation import (
    check_adversary,
    check_loss,
    check_training_data,
)

_WEIGHTS = ("jacobian_weight", "selective_weight", "align_weight")


_STEPS = ("delay_steps", "ramp_steps")


_ADJUSTABLE = (*_WEIGHTS, *_STEPS)


class AdjustableModel(keras.Model):
    """A model whose penalty weights and ramp are variables, saved with its weights."""

    settings: PenaltySettings

    def make_adjustable(self) -> None:
        """Create the variables, at the values of the settings."""
        for name in _ADJUSTABLE:
            dtype = "int64" if name in _STEPS else "float32"
            value = getattr(self.settings, name)
            setattr(self, name, add_scalar_variable(self, name, value, dtype=dtype))

    def __setattr__(self, name: str, value: Any) -> None:
        exchanged = vars(self).get(name, value) is not value
        if exchanged and name == "settings":
            raise TypeError(
                "`settings` are those that the training steps were made of: got others "
                "in their place. Harden `unwrap(model)` again with what shall change."
            )
        if exchanged and name in _ADJUSTABLE:
            raise TypeError(
                f"`{name}` is a variable that training steps read: got a plain "
                f"attribute in its place. Use `model.{name}.assign({value!r})`."
            )
        super().__setattr__(name, value)

    def adjusted(self) -> dict[str, float]:
        """Return what the variables hold now, by the names of the settings."""
        values = {name: read_scalar(getattr(self, name)) for name in _ADJUSTABLE}
        # In the few digits of float32: 0.005 and not 0.004999999888.
        return {
            name: int(value) if name in _STEPS else float(str(np.float32(value)))
            for name, value in values.items()
        }

    def load_weights(self, filepath: Any, *args: Any, **kwargs: Any) -> Any:
        """Load weights as Keras does, and tell which settings came with them."""
        before = self.adjusted()
        result = super().load_weights(filepath, *args, **kwargs)
        after = self.adjusted()
        changed = [name for name in _ADJUSTABLE if before[name] != after[name]]
        if changed:
            told = ", ".join(f"{n} {before[n]:g} by {after[n]:g}" for n in changed)
            again = "; ".join(f"model.{n}.assign({before[n]:g})" for n in changed)
            warnings.warn(
                f"The file replaced settings of this model: {told}. They are saved "
                f"with the weights. To keep those of before: `{again}`.",
                stacklevel=2,
            )
        return result


def base_config(model: keras.Model) -> dict[str, Any]:
    """Serialize a model that only its wrapper trains."""
    with uncompiled(model):
        config: dict[str, Any] = without_compile_config(
            keras.saving.serialize_keras_object(model)
        )
    return config


def without_compile_config(config: Any) -> Any:
    """Leave out how models were compiled: files of earlier versions hold it."""
    if isinstance(config, (list, tuple)):
        return type(config)(map(without_compile_config, config))
    if not isinstance(config, dict):
        return config
    drop = {"compile_config"} if "class_name" in config else set()
    return {k: without_compile_config(v) for k, v in config.items() if k not in drop}


class CheckedModel(keras.Model):
    """A classifier whose `fit` refuses what would train something else than meant."""

    base: keras.Model
    settings: PenaltySettings
    classes: int

    @property
    @abstractmethod
    def head(self) -> Head:
        """The softmax, sigmoid or linear head."""

    @property
    @abstractmethod
    def input_specs(self) -> Any:
        """The structure of the inputs, a `tf.TensorSpec` at every leaf."""

    @property
    @abstractmethod
    def regularized(self) -> list[int]:
        """Positions of the regularized inputs among the flattened inputs."""

    @property
    @abstractmethod
    def padding(self) -> tuple[tuple[float, ...], ...]:
        """For each regularized input what is padding in it."""

    @abstractmethod
    def check_samples(self, x: Any) -> None:
        """Refuse inputs the model cannot train on for reasons of its own."""

    def make_train_function(self, force: bool = False) -> Any:
        """Check the compiled loss against the head, then do as Keras does."""
        check_loss(self, self.head)
        return super().make_train_function(force)

    def fit(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Look at the training data, then train as `keras.Model.fit` does."""
        # An uncompiled model is left to Keras' own message.
        if getattr(self, "optimizer", None) is not None:
            check_loss(self, self.head)
            seen = check_training_data(
                x,
                y,
                specs=self.input_specs,
                regularized=self.regularized,
                classes=self.classes,
                input_range=self.settings.input_range,
                ignored=ignored_labels(self),
                padding=self.padding,
                exclusive=self.head.kind == "linear"
                and head_kind(self, self.head, self.classes) == "softmax",
            )
            if seen is not None:
                self.check_samples(seen)
        return super().fit(x, y, *args, **kwargs)


_HOW = (
    "Train the plain model first and harden it then, or pass reference_accuracy= to "
    "`harden`: a number in 0..1, or a plain model that is trained."
)


@dataclass(frozen=True)
class _Twin:
    """The plain model whose accuracy counts. Not a layer, so Keras does not save it."""

    model: keras.Model
    head: Head


class ConstrainedModel(CheckedModel):
    """A classifier that adapts a common factor of its penalty weights in `fit`."""

    penalty_factor: Any = None

    def make_constraint(self, reference: keras.Model | None) -> None:
        """Create the state, if the settings ask for it."""
        self._twin = None
        if self.settings.penalty_weights == "fixed":
            return
        if reference is not None:
            probe = probe_batch(
                self.input_specs, self.settings.input_range, probe_size(reference)
            )
            self._twin = _Twin(reference, find_head(reference, probe))
        known = self.settings.reference_accuracy
        self.penalty_factor = add_scalar_variable(self, "penalty_factor", 1.0)
        self.reference_accuracy = add_scalar_variable(
            self, "reference_accuracy", math.nan if known is None else known
        )
        self.accuracy_slack = add_scalar_variable(self, "accuracy_slack", math.nan)
        self.clean_accuracy = keras.metrics.Mean(name="clean_accuracy")

    def factor(self) -> Any:
        """Return the factor of all penalty weights, 1 with fixed weights."""
        return 1.0 if self.penalty_factor is None else self.penalty_factor.value

    def constraint_state(self) -> dict[str, float | None]:
        """Return what the constraint chose; empty with fixed weights."""
        if self.penalty_factor is None:
            return {}
        names = ("penalty_factor", "reference_accuracy")
        values = {name: read_scalar(getattr(self, name)) for name in names}
        return {n: None if math.isnan(v) else float(v) for n, v in values.items()}

    def fit(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Train as `keras.Model.fit` does, with the constraint watched if there is one."""
        if self.penalty_factor is None:
            return super().fit(x, y, *args, **kwargs)
        bound = inspect.signature(keras.Model.fit).bind(self, x, y, *args, **kwargs)
        given = {k: v for k, v in bound.arguments.items() if k != "self"}
        callbacks = given.pop("callbacks", None)
        if isinstance(callbacks, keras.callbacks.CallbackList):
            raise TypeError(
                "penalty_weights='auto' adds a callback of its own: got a "
                "CallbackList, expected a list of callbacks."
            )
        watch = AccuracyConstraint(validation_of(given))
        return super().fit(
            **given, callbacks=[watch, *keras.tree.flatten(callbacks or [])]
        )

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> dict[str, Any]:
        """Count the right answers, then do as Keras does."""
        if self.penalty_factor is not None:
            right = right_answers(y_pred, y, self._kind, self.head)
            weights = valid_label_mask(y_pred, y, ignored_labels(self))
            self.clean_accuracy.update_state(right, weights)
        results: dict[str, Any] = super().compute_metrics(x, y, y_pred, sample_weight)
        return results

    def get_metrics_result(self) -> dict[str, Any]:
        """Return the user's metrics: the count of right answers is our own."""
        results: dict[str, Any] = super().get_metrics_result()
        results.pop("clean_accuracy", None)
        return results

    def measure_reference(self, validation: Validation) -> None:
        """Measure the reference accuracy unless it is known."""
        if not math.isnan(read_scalar(self.reference_accuracy)):
            return
        if hasattr(validation.x, "__next__"):
            raise ValueError(
                "Measuring the reference would use up the validation data: got a "
                "generator. Pass arrays or a dataset, or reference_accuracy=<number>."
            )
        twin = self._twin or _Twin(self.base, self.head)
        accuracy, examples = measure_accuracy(
            twin.model, validation, self._kind, twin.head, ignored_labels(self)
        )
        # Independent classes are graded one by one: a coin gets half of them right.
        classes = 2 if self._kind == "sigmoid" else self.classes
        if not clearly_trained(accuracy, examples, classes):
            raise ValueError(
                f"`{twin.model.name}` is no reference: got accuracy {accuracy:.3f} on "
                f"{examples:.0f} validation examples, expected clearly more than "
                f"chance. {_HOW}"
            )
        self.reference_accuracy.assign(accuracy)
        if self._twin is None:
            self.accuracy_slack.assign(self.settings.accuracy_drop)

    def follow_accuracy(self, accuracy: float, examples: float) -> float:
        """Choose the next penalty factor from the accuracy of a validation."""
        drop = self.settings.accuracy_drop
        slack = accuracy - (read_scalar(self.reference_accuracy) - drop)
        last = read_scalar(self.accuracy_slack)
        self.accuracy_slack.assign(slack)
        # Before the penalties are there, their price cannot be seen.
        full = read_scalar(self.delay_steps) + read_scalar(self.ramp_steps)
        if read_scalar(self.optimizer.iterations) >= full:
            self.penalty_factor.assign(
                next_factor(
                    read_scalar(self.penalty_factor),
                    slack,
                    None if math.isnan(last) else last,
                    drop=drop,
                    error=standard_error(accuracy, examples),
                )
            )
        return slack

    def check_savable(self) -> None:
        """Refuse to write a model whose reference would be lost."""
        if self._twin is not None and math.isnan(read_scalar(self.reference_accuracy)):
            raise ValueError(
                "The reference model is not saved, and its accuracy is not measured "
                "yet: got a model that was never fitted. Call `fit` first, or pass "
                "reference_accuracy=<number> to `harden`."
            )

    @property
    def _kind(self) -> Any:
        return head_kind(self, self.head, self.classes)


class LossParts(NamedTuple):
    """What the loss of a step is made of."""

    task: Any
    penalties: dict[str, Any]
    y_pred: Any
    hits: Any


_PREFIX = "random_state_"


class ResumableModel(keras.Model):
    """A wrapper whose saved training goes on as if it had not been interrupted."""

    base: keras.Model

    def save_own_variables(self, store: Any) -> None:
        """Save the wrapper's variables and the base's random states."""
        super().save_own_variables(store)
        for index, state in enumerate(self._random_states()):
            store[f"{_PREFIX}{index}"] = keras.ops.convert_to_numpy(state)

    def load_own_variables(self, store: Any) -> None:
        """Load what `save_own_variables` saved; files without states load too."""
        entries = {name: store[name] for name in store.keys()}  # noqa: SIM118
        super().load_own_variables(
            {k: v for k, v in entries.items() if not k.startswith(_PREFIX)}
        )
        for index, state in enumerate(self._random_states()):
            if f"{_PREFIX}{index}" in entries:
                state.assign(entries[f"{_PREFIX}{index}"])

    def _random_states(self) -> list[Any]:
        return [v for v in self.base.variables if v.name == "seed_generator_state"]


def step_seed(seed: int, step: Any) -> Any:
    """Derive the seed of a step: a resumed run draws what an unbroken one does."""
    pair = tf.stack([tf.constant(seed, tf.int32), tf.cast(step, tf.int32)])
    context = tf.distribute.get_replica_context()
    replica = context.replica_id_in_sync_group if context else 0
    return tf.random.experimental.stateless_fold_in(pair, replica)


class TrackedModel(keras.Model):
    """A model that reports the parts of its training loss."""

    def make_trackers(self, names: list[str]) -> None:
        """Create a running mean for every name; Keras resets them every epoch."""
        self._trackers = {name: keras.metrics.Mean(name=name) for name in names}

    def track(self, loss: Any, parts: dict[str, Any], count: Any) -> None:
        """Take the values of a step into the running means."""
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss, sample_weight=count)
        for name, value in parts.items():
            self._trackers[name].update_state(value, sample_weight=count)

    def test_step(self, data: Any) -> dict[str, Any]:
        """Evaluate as the base does; the trackers stay out of it."""
        results = super().test_step(data)
        return {k: v for k, v in results.items() if k not in self._trackers}


@keras.saving.register_keras_serializable(package="keras_jsigr")
class JSIGRModel(AdjustableModel, ResumableModel, ConstrainedModel, TrackedModel):
    """A Keras classifier whose `fit` trains it with J-SIGR.

    `L = task loss + r f (lambda_J R_J + lambda_S R_S + lambda_A R_A)` with the ramp `r`
    and, for `penalty_weights="auto"`, the factor `f` (else 1).
    `call`, `predict` and `evaluate` are the base model's; the weights are shared with
    it. Make one with `keras_jsigr.harden`.

    Attributes:
        base: The very model that was hardened.
        settings: The `PenaltySettings` of the objective.
        jacobian_weight: Scalar variable `lambda_J`; `assign` to it while training. A
            term whose weight was 0 in the settings is not computed, and stays off.
        selective_weight: Scalar variable `lambda_S`.
        align_weight: Scalar variable `lambda_A`.
        delay_steps: Scalar variable: optimizer steps before the penalties start.
        ramp_steps: Scalar variable: optimizer steps over which they grow in.
        steps_taken: Scalar variable: training steps so far.

    Args:
        base: A built Keras classifier with one output `(B, C)`.
        settings: The objective; `None` means `PenaltySettings()`, without a ramp.
        adversary: Optional attack; loss and penalties are taken at its points.
        map_table: Optional `keras_jsigr.saliency.MapTable` with cached maps; without
            one the maps are the live, stochastic ones.
        reference: Optional plain model whose validation accuracy is the reference of
            `penalty_weights="auto"`; measured when `fit` starts, not saved.
        known: What trying the base told before, when it is loaded.
        name: Name of the model.
        **kwargs: Passed to `keras.Model`.

    Reference:
        arXiv 2207.13036.

    Example:
        >>> import keras
        >>> from keras_jsigr import JSIGRModel
        >>> net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> JSIGRModel(net).base is net
        True
    """

    def __init__(
        self,
        base: keras.Model,
        settings: PenaltySettings | None = None,
        *,
        adversary: Any = None,
        map_table: Any = None,
        reference: keras.Model | None = None,
        known: ModelSpec | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("dtype", base.dtype_policy)
        # The base casts what it wants cast: its first layer may ask for float32.
        kwargs.setdefault("autocast", False)
        super().__init__(name=name or f"hardened_{base.name}", **kwargs)
        self.base = base
        self.settings = settings or PenaltySettings()
        self.adversary = adversary
        self.map_table = map_table
        specs = input_specs(base)
        known = known or inspect_model(base, specs, self.settings)
        self.classes = known.classes
        self._forward = Forward(base, known, specs, self.settings)
        if adversary is not None:
            check_adversary(adversary, self.settings, self.regularized)
        self.supports_masking = base.supports_masking
        self._takes_mask = "mask" in inspect.signature(base.call).parameters
        # Built from the start: an unbuilt wrapper loses its optimizer when loaded.
        self.built = True
        self.make_adjustable()
        self.steps_taken = add_scalar_variable(
            self, "steps_taken", 0, dtype="int64", aggregation="only_first_replica"
        )
        typical = add_scalar_variable(self, "typical_change", 1e-3, aggregation="mean")
        self._maps = SaliencyTargets(self._forward, self.settings, map_table, typical)
        self.make_trackers(["task_loss", *self._reported()])
        self.make_constraint(reference)

    def _reported(self) -> list[str]:
        names = [f"{term}_penalty" for term in self._forward.terms]
        return [*names, "map_hits"] if self._maps.reports_hits else names

    def check_samples(self, x: Any) -> None:
        """Refuse inputs of which the cached maps know nothing."""
        self._maps.check_hits(x)

    @property
    def head(self) -> Head:
        """The softmax, sigmoid or linear head of the base."""
        return self._forward.head

    @property
    def epsilon(self) -> float | None:
        """The maximum-norm radius to withstand, in input units; `None`: not named."""
        return getattr(self.settings, "epsilon", None)

    @property
    def input_range(self) -> tuple[float, float]:
        """The range of the inputs that `fit` receives."""
        return self.settings.input_range

    @property
    def input_specs(self) -> Any:
        """The structure of the base's inputs, a `tf.TensorSpec` at every leaf."""
        return self._forward.specs

    @property
    def output_names(self) -> list[str]:
        """The base's names, by which `compile` takes a loss; a subclass has none."""
        names: list[str] = self.base.output_names
        return names

    @property
    def regularized(self) -> list[int]:
        """Positions of the regularized inputs among the flattened inputs."""
        return self._forward.regularized

    @property
    def padding(self) -> tuple[tuple[float, ...], ...]:
        """For each regularized input the values of steps that are padding."""
        return self._forward.probed.padding

    @property
    def connected(self) -> list[int]:
        """Positions of the regularized inputs that the logits have a gradient for."""
        return list(self._forward.probed.connected)

    def build(self, input_shape: Any = None) -> None:
        """Do nothing: the base is built, and so is its wrapper."""

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Return what the base returns."""
        # Keras gives nested inputs a structure of masks, also where none has one.
        masked = any(part is not None for part in keras.tree.flatten(mask))
        kwargs = {"mask": mask} if masked and self._takes_mask else {}
        return self.base(inputs, training=training, **kwargs)

    def compute_mask(self, inputs: Any, previous_mask: Any) -> None:
        """Return nothing: there is one answer per example, whatever was masked."""

    def logits(self, inputs: Any, training: bool = False) -> Any:
        """Return the logits behind the head, `(B, C)`.

        Args:
            inputs: What the model takes.
            training: Whether to run in training mode.

        Returns:
            Logits in the compute dtype of the base.

        Example:
            >>> import keras, numpy as np
            >>> import keras_jsigr as kj
            >>> net = keras.Sequential(
            ...     [keras.Input((2,)), keras.layers.Dense(3, activation="softmax")]
            ... )
            >>> kj.JSIGRModel(net).logits(np.zeros((1, 2))).numpy().tolist()
            [[0.0, 0.0, 0.0]]
        """
        return self._forward(inputs, training=training)

    def train_step(self, data: Any) -> dict[str, Any]:
        """Take one step on the task loss plus the penalties."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        # Not from `optimizer.iterations`: those pause while gradients accumulate.
        seed = step_seed(self.settings.seed, self.steps_taken.value)
        with self.recorded_loss(x, y, sample_weight, seed) as (tape, parts):
            scale = self.factor() * ramp_factor(
                self.optimizer.iterations, self.delay_steps, self.ramp_steps
            )
            penalty = scale * tf.add_n([tf.zeros(()), *self._weighted(parts.penalties)])
            # As Keras does with its own extra losses: the sum over the replicas is
            # the loss, each holds its share of the batch mean.
            replicas = tf.distribute.get_strategy().num_replicas_in_sync
            loss = tf.cast(parts.task, tf.float32) + penalty / replicas
            scaled = self.optimizer.scale_loss(loss)
        self._apply(tape, scaled)
        count = tf.shape(parts.y_pred)[0]
        shown = {f"{name}_penalty": mean for name, mean in parts.penalties.items()}
        if parts.hits is not None:
            shown["map_hits"] = batch_mean(parts.hits, None)
        self.track(
            loss * replicas, {"task_loss": parts.task * replicas, **shown}, count
        )
        results: dict[str, Any] = self.compute_metrics(
            x, y, parts.y_pred, sample_weight=sample_weight
        )
        return results

    @contextmanager
    def recorded_loss(
        self, x: Any, y: Any, sample_weight: Any, seed: Any, persistent: bool = False
    ) -> Iterator[tuple[tf.GradientTape, LossParts]]:
        """Compute the parts of the loss of a training step under an open tape.

        Args:
            x: Inputs as a training step receives them, tensors.
            y: Labels.
            sample_weight: Float `(B,)`, or `None`.
            seed: Int32 `(2,)` of the projections, masks and the adversary.
            persistent: Whether the tape is asked for several gradients.

        Yields:
            The tuple of the tape, which records inside the block, and the parts.
        """
        targets = class_targets(keras.tree.flatten(y)[0], tf.zeros((1, self.classes)))
        place = self._forward.place(x, targets, seed, self.adversary)
        with exact_moments(), tf.GradientTape(persistent=persistent) as tape:
            point = self._forward.record(place, self.classes)
            y_pred = self.head.activate(point.logits)
            # Now: the next pass of the base replaces the losses its layers added.
            task = self.compute_loss(
                x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=True
            )
            with tape.stop_recording():
                batch = self._batch(point, targets, seed)
            penalties = self._forward.penalties(point, batch, self._term_weights())
            share = ignore_class_weights(point.logits, y, ignored_labels(self))
            over_weights = averages_over_weights(self)
            means = {
                k: batch_mean(
                    v if share is None else share * v, sample_weight, over_weights
                )
                for k, v in penalties.items()
            }
            yield tape, LossParts(task, means, y_pred, batch.hits)

    def _apply(self, tape: tf.GradientTape, loss: Any) -> None:
        variables = self.trainable_variables
        if variables:
            gradients = tape.gradient(loss, variables)
            # The gradient of a last bias needs no penalty: without this it may move
            # while the forward passes of the maps have yet to read it.
            with tf.control_dependencies([loss]):
                gradients = [None if g is None else tf.identity(g) for g in gradients]
            self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        else:
            warnings.warn(
                "The model does not have any trainable weights.", stacklevel=2
            )
        self.steps_taken.assign_add(1)

    def _batch(self, point: TapedForward, targets: Any, seed: Any) -> PenaltyBatch:
        """Gather what the penalties need beside the forward pass: no gradient."""
        kind = head_kind(self, self.head, self.classes)
        maps, hits = self._maps(point, targets, seed, kind)
        return PenaltyBatch(self.settings, targets, kind, maps, seed, hits)

    def _term_weights(self) -> dict[str, Any]:
        return {
            "jacobian": self.jacobian_weight.value,
            "selective": self.selective_weight.value,
            "align": self.align_weight.value,
        }

    def _weighted(self, means: dict[str, Any]) -> list[Any]:
        # The directional estimators weigh the fused term themselves.
        weights = {**self._term_weights(), "fused": 1.0}
        return [weights[k] * mean for k, mean in means.items() if k in weights]

    def export(
        self, filepath: Any, format: str = "tf_saved_model", **kwargs: Any
    ) -> Any:
        """Write a SavedModel with prediction, logits and explanation endpoints.

        Args:
            filepath: The folder to write, such as `served/fashion/1`.
            format: `"tf_saved_model"`, or a format of `keras.Model.export`, which
                then exports the base model.
            **kwargs: Passed to `keras_jsigr.serving.export`, or to Keras.

        Returns:
            The path of the model card, or what Keras returns.
        """
        if format != "tf_saved_model":
            return self.base.export(filepath, format=format, **kwargs)
        from keras_jsigr.serving.export import export

        return export(self, filepath, **kwargs)

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs, the base included."""
        self.check_savable()
        serialize = keras.saving.serialize_keras_object
        return {
            "name": self.name,
            "trainable": self.trainable,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
            "base": base_config(self.base),
            "settings": self.settings.get_config(),
            "adversary": self.adversary and serialize(self.adversary),
            "map_table": self.map_table and serialize(self.map_table),
            "known": self._forward.probed.get_config(),
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> JSIGRModel:
        """Make a hardened model from what `get_config` returned."""
        config = {**config, "base": without_compile_config(config["base"])}
        for part in ("base", "adversary", "map_table"):
            if config[part] is not None:
                config[part] = keras.saving.deserialize_keras_object(
                    config[part], custom_objects=custom_objects
                )
        config["settings"] = PenaltySettings.from_config(config["settings"])
        if "known" in config:  # not in files of earlier versions
            config["known"] = ModelSpec.from_config(config["base"], config["known"])
        return cls(**config)
