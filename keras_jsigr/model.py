"""The hardened model: Keras' own training loop with the J-SIGR penalties in it."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_jsigr.config import JSIGRConfig
from keras_jsigr.core import arguments
from keras_jsigr.core.heads import (
    Head,
    averages_over_weights,
    head_kind,
    ignored_labels,
    kind_of_losses,
)
from keras_jsigr.core.inputs import input_specs
from keras_jsigr.core.keras_compat import exact_moments, uncompiled
from keras_jsigr.core.scores import HeadKind, class_targets, ignore_class_weights
from keras_jsigr.core.variables import add_scalar_variable, read_scalar
from keras_jsigr.penalties.base import Penalty, PenaltyBatch
from keras_jsigr.penalties.objective import (
    UNRESOLVED,
    batch_mean,
    checked_warmup,
    resolve_warmup,
    warmup_factor,
)
from keras_jsigr.training.data_check import (
    CheckedSteps,
    are_arrays,
    assert_batch,
    check_training_data,
    replica_batches,
)
from keras_jsigr.training.distribution import reducible, symbolic_batch
from keras_jsigr.training.input_scales import config_of, input_scales, probe_range, scales_of
from keras_jsigr.training.introspection import ModelSpec, inspect_model
from keras_jsigr.training.model_files import (
    V0_1_SCALARS,
    read_v0_1_settings,
    refuse_h5,
    without_compile_config,
)
from keras_jsigr.training.saliency_targets import SaliencyTargets, is_flat, warn_of_flat_maps
from keras_jsigr.training.step import Forward, TapedForward, rows_of, step_seed
from keras_jsigr.training.validation import (
    adds_activity_losses,
    check_activity_losses,
    check_adversary,
    check_label_kind,
    check_loss,
    check_precision,
    check_start_radius,
    is_hinge,
)

# In place of an accuracy, or of a difference of two.
UNMEASURED = -2.0
_RANDOM_STATE = "random_state_"


class LossParts(NamedTuple):
    """Compiled loss, mean penalties by name, outputs `(B, C)` and map hits `(B,)`."""

    task: Any
    penalties: dict[str, Any]
    y_pred: Any
    hits: Any


@keras.saving.register_keras_serializable(package="keras_jsigr")
class JSIGRModel(keras.Model):
    """A Keras classifier that `fit` trains with J-SIGR (arXiv 2207.13036), by `harden`.

    `L = task loss + r f sum_k lambda_k R_k` with the penalties `R_k` of the recipe, the
    warm-up `r` in 0..1 and the factor `f`, 1 unless `callbacks.AccuracyConstraint`
    adapts it. Weights, `call`, `predict` and `evaluate` are the base model's.

    Attributes:
        penalties: The penalties, as objects.
        jacobian_weight: Scalar variable, as `<name>_weight` of every penalty: `assign`
            to it while training. A penalty whose weight is 0 in the recipe has none.
        penalty_factor: Scalar variable `f`.
        warmup_steps: Scalar variable: steps of the warm-up; -1: `fit` sets it.
        delay_steps: Scalar variable: training steps before the warm-up starts.
        steps_taken: Scalar variable: training steps so far.

    Args:
        base: A built Keras classifier with one output `(B, C)`.
        config: The objective; `None` means `JSIGRConfig()`.
        input_range, multi_label, inputs, warmup, seed, adversary, name: As in `harden`.
        map_table: Optional `keras_jsigr.saliency.MapTable` with cached maps.
        spec: Result of `inspect_model(base)`, as saved.
        **kwargs: Passed to `keras.Model`.

    Raises:
        ValueError: If the settings do not fit the model or each other.

    Example:
        >>> import keras, keras_jsigr as kj
        >>> net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> kj.JSIGRModel(net).base is net
        True
    """

    def __init__(
        self,
        base: keras.Model,
        config: JSIGRConfig | None = None,
        *,
        input_range: Any = (0.0, 1.0),
        multi_label: bool | None = None,
        inputs: Sequence[str] | None = None,
        warmup: float = 0,
        seed: int = 0,
        adversary: Any = None,
        map_table: Any = None,
        spec: ModelSpec | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("dtype", base.dtype_policy)
        # The base casts what it wants cast: its first layer may ask for float32.
        kwargs.setdefault("autocast", False)
        super().__init__(name=name or f"hardened_{base.name}", **kwargs)
        # Made within a `keras.RematScope`, it is called outside of it too.
        self._remat_mode = None
        config = config or JSIGRConfig()
        self.base = base
        self.config = config
        self.penalties: list[Penalty] = config.build_penalties()
        self.multi_label = multi_label
        self.warmup = checked_warmup(warmup)
        self.seed = arguments.count("seed", seed, minimum=-(2**31))
        self.map_table = map_table
        check_precision(base, config)
        specs = input_specs(base)
        self._scales = input_scales(input_range, base, specs)
        check_start_radius(config, self._scales)
        self._input_names = None if inputs is None else tuple(inputs)
        self._spec = spec or inspect_model(base, specs, self.probe_range, self._input_names)
        check_label_kind(self.head, self._spec.classes, multi_label)
        self.classes = self._spec.classes
        self._forward = Forward(
            base,
            self._spec,
            specs,
            penalties=self.penalties,
            scales=scales_of(
                self._scales,
                [keras.tree.flatten(specs)[i].name for i in self._spec.regularized],
            ),
            start_radius=config.start_radius,
            start_patch_sizes=config.start_patch_sizes,
        )
        if hasattr(adversary, "for_model") and not isinstance(adversary, type):
            # Radius and range where the user named none are those of this model.
            adversary = adversary.for_model(self)
        self.adversary = adversary
        if adversary is not None:
            check_adversary(adversary, self._scales, self.regularized)
        # Keras keeps the losses of activations of the last pass alone.
        whole = not self.penalties or adds_activity_losses(base)
        self._batch_share = 1.0 if whole else config.batch_share
        self.supports_masking = base.supports_masking
        self._takes_mask = "mask" in inspect.signature(base.call).parameters
        # Built from the start: an unbuilt wrapper loses its optimizer when loaded.
        self.built = self._called = True
        # `tf.lite.TFLiteConverter.from_keras_model` reads the shapes of inputs here.
        shapes = keras.tree.map_structure(lambda spec: tuple(spec.shape), specs)
        self._build_shapes_dict = {"input_shape": shapes}
        self._make_scalars()
        self._maps = SaliencyTargets(
            self._forward,
            config.live_maps,
            map_table,
            self.mean_change,
            self.map_spread,
        )
        reported = [f"{penalty.name}_penalty" for penalty in self.penalties]
        hits = ["map_hits"] if self._maps.reports_hits else []
        self._trackers = {
            name: keras.metrics.Mean(name=name) for name in ("task_loss", *reported, *hits)
        }
        self._look_at_first = True
        self._in_checked_steps = False
        self._told_of_weights = self._told_of_maps = False

    def _make_scalars(self) -> None:
        weights: dict[str, float] = {}
        for penalty in self.penalties:
            for name, value in penalty.weights().items():
                if hasattr(self, name) and name not in weights:
                    raise ValueError(
                        f"The weight of the penalty `{penalty.name}` has a name that "
                        f"is taken: got `{name}`. Pass another `name` to it."
                    )
                weights[name] = value
        self._weight_names = tuple(weights)
        for name, value in weights.items():
            setattr(self, name, add_scalar_variable(self, name, value))
        steps = UNRESOLVED
        if isinstance(self.warmup, int) or self.warmup == 0.0:
            steps = int(self.warmup)
        self.delay_steps = add_scalar_variable(self, "delay_steps", 0, dtype="int64")
        self.warmup_steps = add_scalar_variable(self, "warmup_steps", steps, dtype="int64")
        self.steps_taken = add_scalar_variable(
            self, "steps_taken", 0, dtype="int64", aggregation="only_first_replica"
        )
        self.mean_change = add_scalar_variable(self, "mean_change", 1e-3, aggregation="mean")
        self.map_spread = add_scalar_variable(self, "map_spread", UNMEASURED, aggregation="mean")
        self.penalty_factor = add_scalar_variable(self, "penalty_factor", 1.0)
        # Of `callbacks.AccuracyConstraint`, which goes on after a reload.
        for name in ("reference_accuracy", "accuracy_slack"):
            setattr(self, name, add_scalar_variable(self, name, UNMEASURED))

    def __setattr__(self, name: str, value: Any) -> None:
        exchanged = vars(self).get(name, value) is not value
        if exchanged and name == "config":
            raise TypeError(
                "`config` holds the settings that the training steps were made of: got others in "
                "their place. Harden `unwrap(model)` again with what shall change."
            )
        weights = vars(self).get("_weight_names", ())
        if exchanged and name in (*weights, "warmup_steps", "delay_steps"):
            raise TypeError(
                f"`{name}` is a variable that training steps read: got a plain "
                f"attribute in its place. Use `model.{name}.assign({value!r})`."
            )
        super().__setattr__(name, value)

    @property
    def head(self) -> Head:
        """The softmax, sigmoid or linear head of the base."""
        return self._spec.head

    @property
    def epsilon(self) -> float | None:
        """The maximum-norm radius to withstand, in input units; `None`: not named."""
        self._refuse_columns("epsilon")
        return self.config.epsilon

    @property
    def input_range(self) -> tuple[float, float]:
        """Range of the inputs that `fit` receives; an error where columns differ."""
        self._refuse_columns("input_range")
        low, high = self._forward.scales[0].low, self._forward.scales[0].high
        return low, high

    @property
    def probe_range(self) -> Any:
        """Where to draw inputs for `core.inputs.probe_batch`."""
        return probe_range(self._scales)

    def _refuse_columns(self, name: str) -> None:
        if isinstance(self._scales, dict):
            raise ValueError(
                f"The columns of `{self.name}` have ranges of their own: got no single `{name}` "
                "for all, which attacks and evaluations ask for. Pass epsilon= and input_range= "
                "in the units of the data to them; or give them a callable on scaled inputs, "
                "lambda u: model(low + u * width), with the epsilon of `harden`."
            )

    # What people ask of a Functional model, to cut or convert it.
    @property
    def inputs(self) -> Any:
        """The base's inputs."""
        return self.base.inputs

    @property
    def outputs(self) -> Any:
        """The base's outputs."""
        return self.base.outputs

    @property
    def input(self) -> Any:
        """The base's input."""
        one = isinstance(self.base, keras.Sequential)
        return self.inputs[0] if one else self.base.input

    @property
    def output(self) -> Any:
        """The base's output."""
        one = isinstance(self.base, keras.Sequential)
        return self.outputs[0] if one else self.base.output

    input_shape = property(lambda self: self.base.input_shape)
    output_shape = property(lambda self: self.base.output_shape)

    def get_layer(self, name: str | None = None, index: int | None = None) -> Any:
        """Return a layer of the base."""
        if name is not None and name == self.base.name:
            return self.base
        return self.base.get_layer(name, index)

    def summary(self, *args: Any, **kwargs: Any) -> Any:
        """Print the summary of the base."""
        return self.base.summary(*args, **kwargs)

    @property
    def input_specs(self) -> Any:
        """The structure of the base's inputs, a `tf.TensorSpec` at every leaf."""
        return self._forward.input_specs

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
        return self._spec.padding

    @property
    def connected(self) -> list[int]:
        """Positions of the regularized inputs that the logits have a gradient for."""
        return list(self._spec.connected)

    @property
    def penalty_weights(self) -> dict[str, float]:
        """The present weights of the penalties by their names, without warm-up."""
        weights = {name: read_scalar(getattr(self, name)) for name in self._weight_names}
        return {each.name: each.weighted(1.0, weights) for each in self.penalties}

    def warmup_progress(self) -> float:
        """Return how far the penalties have grown in, 0..1, at the next step."""
        return float(self._warmup_factor())

    def training_state(self) -> dict[str, float | int | None]:
        """Return the present values of weights, warm-up and factor, JSON-ready."""
        steps = ("delay_steps", "warmup_steps", "steps_taken")
        counts = {name: int(read_scalar(getattr(self, name))) for name in steps}
        state: dict[str, float | int | None] = {
            name: None if count == UNRESOLVED else count for name, count in counts.items()
        }
        for name in (*self._weight_names, "penalty_factor", "reference_accuracy"):
            value = read_scalar(getattr(self, name))
            # In the few digits of float32: 0.005 and not 0.004999999888.
            state[name] = None if value == UNMEASURED else float(str(np.float32(value)))
        return state

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
        """Return the logits before the head, `(B, C)`.

        Example:
            >>> import keras, keras_jsigr as kj
            >>> head = keras.layers.Dense(3, "softmax")
            >>> net = keras.Sequential([keras.Input((2,)), head])
            >>> kj.JSIGRModel(net).logits(keras.ops.zeros((1, 2))).numpy().tolist()
            [[0.0, 0.0, 0.0]]
        """
        return self._forward(inputs, training=training)

    def make_train_function(self, force: bool = False) -> Any:
        """Check the compiled loss against the head, then do as Keras does."""
        check_loss(self, self.head)
        if force or vars(self).get("train_function") is None:
            super().make_train_function(force)
            steps: Any = vars(self)["train_function"]
            self.train_function: Any = CheckedSteps(self, steps)

    def fit(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Check the training data, then train as `keras.Model.fit` does."""
        bound = inspect.signature(keras.Model.fit).bind(self, x, y, *args, **kwargs)
        given = {k: v for k, v in bound.arguments.items() if k != "self"}
        # An uncompiled model is left to Keras' own message.
        if getattr(self, "optimizer", None) is not None:
            check_loss(self, self.head)
            self._look_at_first = not are_arrays(x)
            if not self._look_at_first:
                self._check_data(x, y)
        callbacks = given.get("callbacks")
        first_epoch = given.get("initial_epoch", 0)
        if isinstance(callbacks, keras.callbacks.CallbackList):
            watchers = list(callbacks.callbacks)
            self._resolve_warmup(getattr(callbacks, "params", None), first_epoch)
        else:
            watchers = keras.tree.flatten(callbacks or [])
            for each in watchers:
                if not getattr(each, "save_weights_only", True):
                    refuse_h5(each.filepath)
            # First those that change the model: others may save it.
            watchers.sort(key=lambda each: not hasattr(each, "read_fit_arguments"))
            given["callbacks"] = [_WarmupResolver(first_epoch), *watchers]
        for each in watchers:
            # Callbacks do not see the validation data otherwise.
            if hasattr(each, "read_fit_arguments"):
                each.read_fit_arguments(given)
        return super().fit(**given)

    def _check_data(self, x: Any, y: Any) -> None:
        self._maps.check_hits(check_training_data(x, y, **self._data_rules()))

    def _data_rules(self) -> dict[str, Any]:
        kind = head_kind(self, self.head, self.classes)
        said = self.head.kind != "linear" or self.multi_label is not None
        known = said or kind_of_losses(self) is not None
        return {
            "specs": self.input_specs,
            "regularized": self.regularized,
            "classes": self.classes,
            "scales": self._forward.scales,
            "ignored": ignored_labels(self),
            "padding": self.padding,
            "exclusive": kind == "softmax" if known else None,
            "signed": is_hinge(self),
        }

    def _check_batch(self, data: Any) -> None:
        for x, y in replica_batches(data):
            # A replica gets nothing of a batch smaller than their number.
            if not any(np.shape(leaf)[:1] == (0,) for leaf in keras.tree.flatten(y)):
                self._check_data(x, y)

    def _resolve_warmup(self, params: Mapping[str, Any] | None, first: int) -> None:
        if read_scalar(self.warmup_steps) < 0:
            self.warmup_steps.assign(resolve_warmup(self.warmup, params or {}, first))

    def _warn_of_flat_maps(self) -> None:
        """Warn once where all entries of the maps are the same: nothing is selected."""
        if self._told_of_maps or not is_flat(read_scalar(self.map_spread)):
            return
        self._told_of_maps = True
        warn_of_flat_maps()

    def _warmup_factor(self) -> Any:
        # Not `optimizer.iterations`, which a new optimizer starts at zero.
        steps = (self.steps_taken, self.delay_steps, self.warmup_steps)
        return warmup_factor(*[variable.value for variable in steps])

    def train_step(self, data: Any) -> dict[str, Any]:
        """Take one step on the task loss plus the penalties."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        if tf.executing_eagerly() and not self._in_checked_steps:  # a loop of the user's own
            self._check_batch(data)
        x = assert_batch(x, y, **self._data_rules())
        # Not from `optimizer.iterations`: those pause while gradients accumulate.
        seed = step_seed(self.seed, self.steps_taken.value)
        # A rematerialized layer runs its forward pass again in the backward pass.
        with exact_moments():
            with self.recorded_loss(x, y, sample_weight, seed) as (tape, parts):
                scale = self.penalty_factor.value * self._warmup_factor()
                weights = self._weights()
                weighted = [
                    each.weighted(parts.penalties[each.name], weights) for each in self.penalties
                ]
                penalty = scale * tf.add_n([tf.zeros(()), *weighted])
                # The loss is the sum over the replicas: each holds its share.
                replicas = tf.distribute.get_strategy().num_replicas_in_sync
                loss = tf.cast(parts.task, tf.float32) + penalty / replicas
                scaled = self.optimizer.scale_loss(loss)
            self._apply(tape, scaled)
        self._track(loss * replicas, parts._replace(task=parts.task * replicas))
        metrics = self.compute_metrics(x, y, parts.y_pred, sample_weight=sample_weight)
        return reducible(metrics)

    @contextmanager
    def recorded_loss(
        self, x: Any, y: Any, sample_weight: Any, seed: Any, persistent: bool = False
    ) -> Iterator[tuple[tf.GradientTape, LossParts]]:
        """Yield an open tape and the parts of the loss of a training step."""
        targets = class_targets(keras.tree.flatten(y)[0], tf.zeros((1, self.classes)))
        targets = tf.maximum(targets, 0.0)  # -1 and 1 of a hinge loss
        step = self._forward.perturbed_inputs(x, targets, seed, self.adversary)
        with exact_moments(), tf.GradientTape(persistent=persistent) as tape:
            point = self._forward.taped_forward(step, self._batch_share)
            logits = point.logits
            if point.others is not None:
                check_activity_losses(self.base)
                logits = tf.concat([logits, point.others], 0)
            y_pred = self.head.activate(logits)
            # Now: the next pass of the base replaces the losses its layers added.
            task = self.compute_loss(
                x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=True
            )
            if point.others is not None:
                rows = slice(tf.shape(point.logits)[0])
                targets, y, sample_weight = rows_of((targets, y, sample_weight), rows)
            with tape.stop_recording():
                batch = self._penalty_batch(point, targets, seed)
            penalties = self._forward.penalty_values(point, batch)
            share = ignore_class_weights(point.logits, y, ignored_labels(self))
            over_weights = averages_over_weights(self)
            means = {
                name: batch_mean(
                    value if share is None else share * value, sample_weight, over_weights
                )
                for name, value in penalties.items()
            }
            yield tape, LossParts(task, means, y_pred, batch.hits)

    def _penalty_batch(self, point: TapedForward, targets: Any, seed: Any) -> PenaltyBatch:
        """Gather what the penalties need beside the forward pass: no gradient."""
        kind: HeadKind = head_kind(self, self.head, self.classes)
        maps, hits = self._maps(point, targets, seed, kind)
        return PenaltyBatch(targets, kind, maps, seed, hits, self._weights())

    def _weights(self) -> dict[str, Any]:
        return {name: getattr(self, name).value for name in self._weight_names}

    def _apply(self, tape: tf.GradientTape, loss: Any) -> None:
        variables = self.trainable_variables
        if variables:
            gradients = tape.gradient(loss, variables)
            # Without this a last bias may move before the passes of the maps read it.
            with tf.control_dependencies([loss]):
                gradients = [None if g is None else tf.identity(g) for g in gradients]
            self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        else:
            warnings.warn("The model does not have any trainable weights.", stacklevel=2)
        self.steps_taken.assign_add(1)

    def _track(self, loss: Any, parts: LossParts) -> None:
        count = tf.shape(parts.y_pred)[0]
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss, sample_weight=count)
        shown = {f"{name}_penalty": mean for name, mean in parts.penalties.items()}
        if parts.hits is not None:
            shown["map_hits"] = batch_mean(parts.hits, None)
        for name, value in {"task_loss": parts.task, **shown}.items():
            self._trackers[name].update_state(value, sample_weight=count)

    def test_step(self, data: Any) -> dict[str, Any]:
        """Evaluate as the base does, without the parts of the training loss."""
        results = super().test_step(data)
        return reducible({k: v for k, v in results.items() if k not in self._trackers})

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        found = symbolic_batch(self.distribute_strategy, iterator, data_batch)
        super()._maybe_symbolic_build(*found)

    def export(self, filepath: Any, format: str = "tf_saved_model", **kwargs: Any) -> Any:
        """Write a SavedModel with prediction, logits and explanation endpoints.

        Args:
            filepath: The folder to write, such as `served/fashion/1`.
            format: `"tf_saved_model"`, or one of `keras.Model.export` for a file with
                the base, such as `"onnx"` and `"litert"`.
            **kwargs: Settings of `keras_jsigr.serving.export`, or of Keras.

        Returns:
            The path of the model card, or of the file.
        """
        from keras_jsigr.serving.export import export_as

        return export_as(self, filepath, format, **kwargs)

    def save(self, filepath: Any, *args: Any, **kwargs: Any) -> Any:
        """Save as Keras does, in its `.keras` format."""
        refuse_h5(filepath)
        return super().save(filepath, *args, **kwargs)

    def save_weights(self, filepath: Any, *args: Any, **kwargs: Any) -> Any:
        """Save weights as Keras does, for hardened models."""
        if not self._told_of_weights:
            self._told_of_weights = True
            arguments.tell(
                "these weights load into hardened models. For the plain network write "
                "unwrap(model).save_weights(...)."
            )
        return super().save_weights(filepath, *args, **kwargs)

    def load_weights(self, filepath: Any, *args: Any, **kwargs: Any) -> Any:
        """Load weights as Keras does, and warn of settings that came with them."""
        names = (*self._weight_names, "delay_steps", "warmup_steps")
        before = {name: read_scalar(getattr(self, name)) for name in names}
        try:
            result = super().load_weights(filepath, *args, **kwargs)
        except ValueError as error:
            raise ValueError(
                f"Keras does not load this file into a hardened model: {error} Weights of the "
                "plain network are loaded by `model.base.load_weights(path)`; those of a "
                "hardened one need the same recipe."
            ) from error
        after = {name: read_scalar(getattr(self, name)) for name in names}
        changed = [n for n in names if before[n] not in (after[n], UNRESOLVED)]
        if changed:
            told = ", ".join(f"{n} {before[n]:g} by {after[n]:g}" for n in changed)
            again = "; ".join(f"model.{n}.assign({before[n]:g})" for n in changed)
            warnings.warn(
                f"The file replaced settings of this model: {told}. They are saved "
                f"with the weights. To keep those of before: `{again}`.",
                stacklevel=2,
            )
        return result

    def save_own_variables(self, store: Any) -> None:
        """Save the scalar variables by name, and the base's random states."""
        for variable in self._scalars():
            store[variable.name] = keras.ops.convert_to_numpy(variable)
        for index, state in enumerate(self._random_states()):
            store[f"{_RANDOM_STATE}{index}"] = keras.ops.convert_to_numpy(state)

    def load_own_variables(self, store: Any) -> None:
        """Load what `save_own_variables` saved, here or in version 0.1.0."""
        found = {name: store[name] for name in store.keys()}  # noqa: SIM118
        for number, name in enumerate(V0_1_SCALARS):
            if str(number) in found:
                found[name] = np.nan_to_num(found.pop(str(number)), nan=UNMEASURED)
        for variable in self._scalars():
            if variable.name in found:
                variable.assign(found[variable.name])
        for index, state in enumerate(self._random_states()):
            if f"{_RANDOM_STATE}{index}" in found:
                state.assign(found[f"{_RANDOM_STATE}{index}"])

    def _scalars(self) -> list[Any]:
        own = ("delay_steps", "warmup_steps", "steps_taken", "mean_change", "map_spread")
        constraint = ("penalty_factor", "reference_accuracy", "accuracy_slack")
        names = (*self._weight_names, *own, *constraint)
        return [getattr(self, name) for name in names]

    def _random_states(self) -> list[Any]:
        return [v for v in self.base.variables if v.name == "seed_generator_state"]

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs, the base included."""
        refuse_h5()
        serialize = keras.saving.serialize_keras_object
        # The base is trained by this model: its own losses may not be loadable.
        base = without_compile_config(serialize(uncompiled(self.base)))
        return {
            "name": self.name,
            "trainable": self.trainable,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
            "base": base,
            "config": self.config.get_config(),
            "input_range": config_of(self._scales, self.input_specs),
            "multi_label": self.multi_label,
            "inputs": None if self._input_names is None else list(self._input_names),
            "warmup": self.warmup,
            "seed": self.seed,
            "adversary": self.adversary and serialize(self.adversary),
            "map_table": self.map_table and serialize(self.map_table),
            "spec": self._spec.get_config(self.base),
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> JSIGRModel:
        """Make a hardened model from what `get_config` returned, here or in 0.1.0."""
        config = {**config, "base": without_compile_config(config["base"])}
        for part in ("base", "adversary", "map_table"):
            if config[part] is not None:
                config[part] = keras.saving.deserialize_keras_object(
                    config[part], custom_objects=custom_objects
                )
        if "settings" in config:
            config |= read_v0_1_settings(config.pop("settings"))
            config["spec"] = config.pop("known", None)
        config["config"] = JSIGRConfig.from_config(config["config"], custom_objects)
        if config.get("spec") is not None:
            config["spec"] = ModelSpec.from_config(config["base"], config["spec"])
        return cls(**config)


class _WarmupResolver(keras.callbacks.Callback):
    """Tell a hardened model the number of steps of `fit` before the first one."""

    def __init__(self, first_epoch: int) -> None:
        super().__init__()
        self._first_epoch = first_epoch

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.model._resolve_warmup(self.params, self._first_epoch)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.model._warn_of_flat_maps()
