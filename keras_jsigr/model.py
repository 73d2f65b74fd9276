"""The hardened model: Keras' own training loop with the J-SIGR penalties in it."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf

from keras_jsigr.checks.adversary_check import check_adversary
from keras_jsigr.core.exact_moments import exact_moments
from keras_jsigr.core.head_kind import head_kind
from keras_jsigr.core.heads import Head
from keras_jsigr.core.ignored_labels import ignored_labels
from keras_jsigr.core.inputs import input_specs
from keras_jsigr.core.loss_reduction import averages_over_weights
from keras_jsigr.core.scores import class_targets
from keras_jsigr.penalties import (
    PenaltyBatch,
    PenaltySettings,
    batch_mean,
    ramp_factor,
)
from keras_jsigr.training.adjustable_model import AdjustableModel
from keras_jsigr.training.base_config import base_config, without_compile_config
from keras_jsigr.training.constrained_model import ConstrainedModel
from keras_jsigr.training.counted import loss_share
from keras_jsigr.training.forward import Forward
from keras_jsigr.training.loss_parts import LossParts
from keras_jsigr.training.map_source import MapSource
from keras_jsigr.training.place import Point
from keras_jsigr.training.probed import Probed, probed
from keras_jsigr.training.resumable_model import ResumableModel
from keras_jsigr.training.scalar import add_scalar
from keras_jsigr.training.step_seed import step_seed
from keras_jsigr.training.tracked_model import TrackedModel


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
        known: Probed | None = None,
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
        known = known or probed(base, specs, self.settings)
        self.classes = known.classes
        self._forward = Forward(base, known, specs, self.settings)
        if adversary is not None:
            check_adversary(adversary, self.settings, self.regularized)
        self.supports_masking = base.supports_masking
        self._takes_mask = "mask" in inspect.signature(base.call).parameters
        # Built from the start: an unbuilt wrapper loses its optimizer when loaded.
        self.built = True
        self.make_adjustable()
        self.steps_taken = add_scalar(
            self, "steps_taken", 0, dtype="int64", aggregation="only_first_replica"
        )
        typical = add_scalar(self, "typical_change", 1e-3, aggregation="mean")
        self._maps = MapSource(self._forward, self.settings, map_table, typical)
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
            share = loss_share(point.logits, y, ignored_labels(self))
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

    def _batch(self, point: Point, targets: Any, seed: Any) -> PenaltyBatch:
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
        from keras_jsigr.serving import export

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
            config["known"] = Probed.from_config(config["base"], config["known"])
        return cls(**config)
