"""The loop of all gradient attacks, and work on some examples of a batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, TypeVar

import tensorflow as tf

from keras_jsigr.attacks.base import Attack, AttackContext
from keras_jsigr.attacks.losses import ascent_loss, misclassified
from keras_jsigr.attacks.norms import Ball
from keras_jsigr.core import arguments
from keras_jsigr.core.logits import LogitsFn
from keras_jsigr.core.random import fold_in

# A tensor, or a tuple of tensors, with one row per example.
Rows = TypeVar("Rows")


def expand_dims_like(values: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """Reshape one value per example so that it broadcasts over `x`."""
    return tf.reshape(values, [-1] + [1] * (x.shape.rank - 1))


def where_rows(take: tf.Tensor, a: Rows, b: Rows) -> Rows:
    """Take the examples of `a` where `take` is true, else those of `b`."""

    def one(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
        # tf.where forgets static dimensions of one, which a loop would not accept.
        return tf.ensure_shape(tf.where(expand_dims_like(take, b), a, b), b.shape)

    result: Rows = tf.nest.map_structure(one, a, b)
    return result


def nonzero_rows(which: tf.Tensor) -> tf.Tensor:
    """Return the numbers of the true rows."""
    return tf.cast(tf.where(which)[:, 0], tf.int32)


def take_rows(whole: Rows, rows: tf.Tensor) -> Rows:
    """Return what belongs to the examples with these numbers."""
    result: Rows = tf.nest.map_structure(lambda t: None if t is None else tf.gather(t, rows), whole)
    return result


def scatter_rows(part: Rows, rows: tf.Tensor, whole: Rows) -> Rows:
    """Put what belongs to some examples among what belongs to all."""
    result: Rows = tf.nest.map_structure(
        lambda old, new: tf.tensor_scatter_nd_update(old, rows[:, None], new), whole, part
    )
    return result


def any_number_of_rows(state: Any) -> Any:
    """Return the shapes of a loop's state whose number of examples changes."""

    def free(t: tf.Tensor) -> tf.TensorShape:
        return t.shape if t.shape.rank == 0 else tf.TensorShape([None, *t.shape[1:]])

    return tf.nest.map_structure(free, state)


class BestPoint(NamedTuple):
    """Hold one point per example and how strong it is."""

    x: tf.Tensor
    success: tf.Tensor
    value: tf.Tensor

    @classmethod
    def none(cls, x: tf.Tensor) -> BestPoint:
        """Return the state before the search: `x`, no success, the least value."""
        examples = tf.shape(x)[:1]
        return cls(x, tf.zeros(examples, tf.bool), tf.fill(examples, tf.float32.min))


def keep_stronger(new: BestPoint, old: BestPoint) -> BestPoint:
    """Keep the stronger point: success first, then the larger value."""
    better = (new.success == old.success) & (new.value > old.value)
    return where_rows((new.success & ~old.success) | better, new, old)


class StepState(NamedTuple):
    """What is known in one step of the loop.

    Attributes:
        x: Float `(B, *S)`, where the step starts.
        gradient: Like `x`; of the loss to drive up, finite.
        logits: Float32 `(B, C)` at `x`; `None` if the model was asked elsewhere.
        state: What `start_state` or the last `update` returned; each leaf `(B, ...)`.
        step: Int32 scalar, from zero.
        ball: The points that are allowed.
    """

    x: tf.Tensor
    gradient: tf.Tensor
    logits: tf.Tensor | None
    state: Any
    step: tf.Tensor
    ball: Ball


def score_points(
    attack: Attack, context: AttackContext, x: tf.Tensor, logits: Any = None
) -> BestPoint:
    """Tell which points fool the model, and how strong they are."""
    if logits is None:
        logits = context.logits(x)
    wrong = misclassified(logits, context.targets)
    success = ~wrong if attack.targeted else wrong
    value = attack.strength(logits, context)
    # Nothing would be larger than NaN.
    value = tf.where(tf.math.is_nan(value), value.dtype.min, value)
    return BestPoint(x, success, value)


def zero_nonfinite(gradient: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Put zeros where a gradient is NaN or infinite: nothing moves there."""
    usable = tf.math.is_finite(gradient)
    healthy = tf.reduce_all(usable, axis=list(range(1, gradient.shape.rank)))
    return tf.where(usable, gradient, tf.zeros_like(gradient)), healthy


Start = Callable[[AttackContext, tf.Tensor], tf.Tensor]


class StepLoop(NamedTuple):
    """All steps of a gradient attack from one start.

    `remember` keeps iterates that fool the model. `only_points`: the rest may be stale.
    """

    attack: GradientAttack
    start: Start
    remember: bool
    only_points: bool

    def __call__(
        self, context: AttackContext, known: BestPoint, seed: tf.Tensor
    ) -> tuple[BestPoint, tf.Tensor]:
        """Start anew and take all steps; `known` is what was found before."""
        x = self.start(context, fold_in(seed, 0))
        if self.remember and self.attack.early_stop and self.attack.steps > 1:
            return self._shrinking(context, x, known, seed)
        return self._steady(context, x, known, seed)

    def _steady(
        self, context: AttackContext, x: tf.Tensor, best: BestPoint, seed: tf.Tensor
    ) -> tuple[BestPoint, tf.Tensor]:
        """Take all steps with all examples."""
        attack, ball = self.attack, context.ball

        def one_step(
            step: tf.Tensor, x: tf.Tensor, state: Any, best: BestPoint, finite: Any
        ) -> Any:
            gradient, logits, healthy = self._gradient(context, x, state, step, seed)
            if self.remember and logits is not None:
                best = self._noted(score_points(attack, context, x, logits), best)
            now = StepState(x, gradient, logits, state, step, ball)
            x, state = attack.update(context, now)
            return step + 1, x, state, best, finite & healthy

        finite = tf.ones_like(best.success)
        start = (tf.constant(0), x, attack.start_state(context, x), best, finite)
        # A loop is as fast as unrolled steps and traces in 0.2 s instead of 1.4 s.
        end = (
            one_step(*start)
            if attack.steps == 1
            else tf.while_loop(
                lambda step, *_: step < attack.steps,
                one_step,
                start,
                maximum_iterations=attack.steps,
            )
        )
        _, x, _, best, finite = end
        if not self.remember:
            return best._replace(x=x), finite
        if self.only_points and not attack.keep_best:
            # Judged only where an earlier success may be the better one.
            rows = nonzero_rows(best.success)
            last = score_points(attack, context.take(rows), tf.gather(x, rows))
            kept = self._last(last, take_rows(best, rows))
            return scatter_rows(kept, rows, best._replace(x=x)), finite
        return self._last(score_points(attack, context, x), best), finite

    def _noted(self, now: BestPoint, best: BestPoint) -> BestPoint:
        if self.attack.keep_best:
            return keep_stronger(now, best)
        better = now.success & (~best.success | (now.value > best.value))
        return where_rows(better, now, best)

    def _last(self, last: BestPoint, best: BestPoint) -> BestPoint:
        if self.attack.keep_best:
            return keep_stronger(last, best)
        return where_rows(last.success | ~best.success, last, best)

    def _shrinking(
        self, context: AttackContext, x: tf.Tensor, best: BestPoint, seed: tf.Tensor
    ) -> tuple[BestPoint, tf.Tensor]:
        """Take steps only with the examples that no point was found for yet."""
        attack = self.attack

        def one_step(
            step: tf.Tensor, rows: tf.Tensor, x: Any, state: Any, best: Any, finite: Any
        ) -> Any:
            part = context.take(rows)
            gradient, logits, healthy = self._gradient(part, x, state, step, seed)
            healthy &= tf.gather(finite, rows)
            finite = scatter_rows(healthy, rows, finite)
            # Without logits the model was asked elsewhere: it is asked here too.
            now = score_points(attack, part, x, logits)
            best = scatter_rows(self._noted(now, take_rows(best, rows)), rows, best)
            left = nonzero_rows(~now.success)
            rows, x, gradient, logits, state = take_rows((rows, x, gradient, logits, state), left)
            part = part.take(left)
            x, state = attack.update(part, StepState(x, gradient, logits, state, step, part.ball))
            return step + 1, rows, x, state, best, finite

        rows = nonzero_rows(~best.success)
        x, state = take_rows((x, attack.start_state(context, x)), rows)
        start = (tf.constant(0), rows, x, state, best, tf.ones_like(best.success))
        _, rows, x, _, best, finite = tf.while_loop(
            lambda step, rows, *_: (step < attack.steps) & (tf.size(rows) > 0),
            one_step,
            start,
            shape_invariants=any_number_of_rows(start),
            maximum_iterations=attack.steps,
        )
        last = score_points(attack, context.take(rows), x)
        last = self._last(last, take_rows(best, rows))
        return scatter_rows(last, rows, best), finite

    def _gradient(
        self, context: AttackContext, x: tf.Tensor, state: Any, step: tf.Tensor, seed: Any
    ) -> tuple[tf.Tensor, tf.Tensor | None, tf.Tensor]:
        """Return the gradient, zero for NaN, the logits, and where it was finite."""
        gradient, logits = self.attack.gradient(
            context, x, state=state, seed=fold_in(seed, step + 1)
        )
        gradient, healthy = zero_nonfinite(tf.ensure_shape(gradient, x.shape))
        return gradient, logits, healthy


def run_restarts(
    attack: GradientAttack,
    context: AttackContext,
    *,
    remember: bool = True,
    only_points: bool = False,
    start: Start | None = None,
) -> tuple[BestPoint, tf.Tensor]:
    """Run a gradient attack on one batch from all starts; keep the strongest."""
    loop = StepLoop(
        attack,
        attack.start_point if start is None else start,
        remember,
        only_points and attack.restarts == 1,
    )
    origin = context.origin
    known = BestPoint.none(origin)
    if remember and attack.random_start:
        # The iterates begin elsewhere: `x` itself may be misclassified.
        known = score_points(attack, context, origin)
    if attack.restarts == 1:
        return loop(context, known, fold_in(context.seed, 0))

    def again(number: tf.Tensor, best: BestPoint, finite: tf.Tensor) -> Any:
        seed = fold_in(context.seed, number)
        if not attack.early_stop:
            new, healthy = loop(context, known, seed)
            return number + 1, keep_stronger(new, best), finite & healthy
        rows = nonzero_rows(~best.success)
        part = context.take(rows)
        new, healthy = loop(part, BestPoint.none(part.origin), seed)
        new = keep_stronger(new, take_rows(best, rows))
        healthy &= tf.gather(finite, rows)
        best, finite = scatter_rows((new, healthy), rows, (best, finite))
        return number + 1, best, finite

    best = known if attack.early_stop else BestPoint.none(origin)
    _, found, finite = tf.while_loop(
        lambda number, best, _: (
            (number < attack.restarts) & tf.reduce_any(~(best.success & attack.early_stop))
        ),
        again,
        (tf.constant(0), best, tf.ones_like(best.success)),
        maximum_iterations=attack.restarts,
    )
    return found, finite


# Input gradients of a float16 model underflow below 6e-8; a power of two is exact.
_SCALE = 256.0
_CALLS = ("PartitionedCall", "While", "If", "Case")


def scaled_gradient(
    tape: tf.GradientTape, values: tf.Tensor, x: tf.Tensor, weights: tf.Tensor
) -> tf.Tensor:
    """Compute `d sum(weights * values) / dx`, in float16 by way of 256 times as much."""

    def gradient(scale: float) -> Any:
        return tape.gradient(values, x, output_gradients=scale * weights)

    if not _float16_inside():
        return with_gradient(gradient(1.0))
    scaled = with_gradient(gradient(_SCALE))
    axes = list(range(1, x.shape.rank))
    finite = tf.reduce_all(tf.math.is_finite(scaled), axes)
    scaled /= _SCALE
    plain = tf.cond(
        tf.reduce_all(finite), lambda: scaled, lambda: tf.ensure_shape(gradient(1.0), scaled.shape)
    )
    return where_rows(finite, scaled, plain)


def with_gradient(gradient: tf.Tensor | None) -> tf.Tensor:
    """Refuse a model through which no gradient reaches the input."""
    if gradient is None:
        raise ValueError(
            "The model's outputs do not depend on its input by TensorFlow operations: "
            "got no gradient, expected one. Attack it with a method that needs none, "
            "or attack a surrogate."
        )
    return gradient


def _float16_inside() -> bool:
    """Tell whether the graph under construction may compute in float16."""
    if tf.executing_eagerly():
        return True
    graph = tf.compat.v1.get_default_graph()
    operations = graph.get_operations()
    if any(t.dtype == tf.float16 for op in operations for t in op.outputs):
        return True
    # Functions, as of a loaded SavedModel, and loops keep their operations elsewhere.
    if not any(op.type.endswith(_CALLS) for op in operations):
        return False
    library = graph.as_graph_def().library.function
    half = tf.float16.as_datatype_enum
    return any(
        half in (kind.type, *kind.list.type)
        for function in library
        for node in function.node_def
        for kind in node.attr.values()
    )


@dataclass(frozen=True, kw_only=True)
class GradientAttack(Attack):
    """Follow the input gradient: `x <- project(x + step_size * steepest(direction))`.

    A new method overrides one or two hooks: `transform` (what the model sees),
    `gradient`, `objective` (the loss), `direction` (momentum, smoothing), `update` (the
    whole step), `start_point`, `start_state`. All are pure functions of tensors in a
    `tf.while_loop`; every tensor of the state has one row per example.

    Calling keeps, per example, an iterate that was misclassified where the last one is not, and the
    strongest restart: misclassified first, then the larger loss. Of a method that asks the model
    elsewhere (a `transform`, a look ahead), the iterates before the last one are judged with
    `early_stop=True` alone. Other arguments are those of `Attack`.

    Args:
        step_size: Length of a step in input units, > 0; `None`: the method's default.
        random_start: Whether to start anywhere in the ball instead of at `x`.
        restarts: Number of tries, >= 1; more than one needs `random_start`.
        steps: Number of gradient steps, >= 1; a setting of the iterative methods.
        early_stop: Whether to leave an example alone once it is misclassified: much
            faster where the attack succeeds, but no strongest point for transfer. A
            method that asks the model elsewhere takes one more forward pass per step.

    Example:
        >>> import numpy as np, tensorflow as tf
        >>> from keras_jsigr.attacks import PGD
        >>> class NoisyPGD(PGD):
        ...     stochastic = True
        ...
        ...     def transform(self, x, state, seed):
        ...         return x + tf.random.stateless_normal(tf.shape(x), seed, 0.0, 0.1)
        >>> NoisyPGD(0.25)(lambda x: x, np.float32([[0.5, 0.75]]), [1]).tolist()
        [[0.75, 0.5]]
    """

    # Whether two runs from the same start differ, as under random transforms.
    stochastic: ClassVar[bool] = False
    # Whether the strongest iterate counts where none succeeds, instead of the last.
    keep_best: ClassVar[bool] = False

    step_size: float | None = None
    random_start: bool = False
    restarts: int = 1
    steps: int = 1
    early_stop: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._normalize(arguments.number, "step_size", minimum=0.0, above=True)
        self._normalize(arguments.count, "restarts", "steps")
        for name in ("random_start", "early_stop"):
            arguments.choice(name, getattr(self, name), (False, True))
        if self.restarts > 1 and not (self.random_start or self.stochastic):
            raise ValueError(
                f"`restarts={self.restarts}` would repeat the same attack: expected "
                "random_start=True or restarts=1. Set `random_start=True`."
            )

    def default_step_size(self, epsilon: Any) -> Any:
        """Return the step length in input units used for `step_size=None`."""
        return epsilon / self.steps

    def start_point(self, context: AttackContext, seed: tf.Tensor) -> tf.Tensor:
        """Return where the search starts; a random point of the ball if asked."""
        return context.ball.sample(seed) if self.random_start else context.origin

    def start_state(self, context: AttackContext, x: tf.Tensor) -> Any:
        """Return what a method carries from step to step; nothing by default."""
        return ()

    def transform(self, x: tf.Tensor, state: Any, seed: tf.Tensor) -> tf.Tensor:
        """Return what the model sees in place of `x`; `x` itself by default."""
        return x

    def objective(self, logits: tf.Tensor, context: AttackContext) -> tf.Tensor:
        """Return the loss to climb, float32 `(B,)`; only its direction counts."""
        return self.sign * ascent_loss(logits, context.targets, self.loss)

    def gradient(
        self, context: AttackContext, x: tf.Tensor, *, state: Any, seed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Return the objective's direction of ascent, and any logits known at `x`."""
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            tape.watch(x)
            point = tf.cast(context.to_model_input(x), x.dtype)
            seen = self.transform(point, state, seed)
            inputs = tf.cast(seen, context.x.dtype)
            logits = tf.cast(context.logits_fn(inputs), tf.float32)
            value = self.objective(logits, context)
        gradient = scaled_gradient(tape, value, x, tf.ones_like(value))
        return gradient, logits if seen is point else None

    def direction(self, gradient: tf.Tensor, state: Any) -> tuple[tf.Tensor, Any]:
        """Return the direction to go and the new state; the gradient by default."""
        return gradient, state

    def update(self, context: AttackContext, now: StepState) -> tuple[tf.Tensor, Any]:
        """Return the next point and state."""
        direction, state = self.direction(now.gradient, now.state)
        length = self.step_length(context.epsilon)
        return now.ball.project(now.x + length * now.ball.steepest(direction)), state

    @property
    def passes(self) -> int:
        """Number of gradients per example."""
        return self.steps * self.restarts

    def step_length(self, epsilon: Any) -> Any:
        """Return the step length in input units that is used at a radius."""
        if self.step_size is not None:
            return self.step_size
        return self.default_step_size(epsilon)

    def search(self, context: AttackContext) -> tuple[tf.Tensor, tf.Tensor]:
        """Attack one batch and keep the strongest point; see `Attack.search`."""
        found, finite = run_restarts(self, context, only_points=True)
        return context.to_model_input(found.x), finite

    def perturb(
        self, logits_fn: LogitsFn, x: tf.Tensor, targets: tf.Tensor, *, seed: tf.Tensor
    ) -> tf.Tensor:
        """Return adversarial examples inside another function.

        For adversarial training (arXiv 1706.06083). Pure and traceable: eager, in a
        `tf.function`, under XLA, in a replica. No checks and, with one restart, no pass
        beyond the gradients: the result is the last iterate, without gradient. Call it
        before opening the tape that trains the weights.

        Args:
            logits_fn: Maps inputs to float logits `(B, C)`; `C = 1` is one sigmoid unit.
            x: Float `(B, *S)` in `input_range`.
            targets: Float `(B, C)` from `class_targets`.
            seed: Int32 `(2,)`; another one at every training step.

        Returns:
            Like `x`, in the ball and the range; the attack needs a radius, see `for_model`.

        Example:
            >>> import tensorflow as tf
            >>> from keras_jsigr.attacks import FGSM
            >>> x, targets = tf.constant([[0.5, 0.75]]), tf.constant([[0.0, 1.0]])
            >>> FGSM(0.25).perturb(lambda x: x, x, targets, seed=[0, 0]).numpy()
            array([[0.75, 0.5 ]], dtype=float32)
        """
        known = self.for_model()
        x, targets = tf.stop_gradient(x), tf.stop_gradient(targets)
        if known.epsilon == 0.0:
            return x
        limits: Any = (known.epsilon, seed, known.norm, known.input_range)
        context = AttackContext(logits_fn, x, targets, *limits)
        found, _ = run_restarts(known, context, remember=known.restarts > 1)
        return tf.stop_gradient(context.to_model_input(found.x))
