"""What attacks share: checks of a call, the context of a search, batches, settings."""

from __future__ import annotations

import copy
import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal, NamedTuple, Self, get_args

import keras
import numpy as np
import tensorflow as tf

from keras_jsigr.attacks.losses import LossName, attack_loss, margin_loss
from keras_jsigr.attacks.norms import (
    BALLS,
    RELATIVE_SLACK,
    SPACING,
    Ball,
    level_candidates,
    range_slack,
    round_towards,
    widest_radius,
    working_dtype,
)
from keras_jsigr.core import arguments
from keras_jsigr.core.batching import (
    PROGRAMS,
    join_batches,
    open_batch,
    owner_of,
    parallel_batches,
    probe_rows,
    runs_python,
    workers_for,
)
from keras_jsigr.core.logits import (
    LogitsFn,
    as_logits,
    base_model,
    known_epsilon,
    known_input_range,
)
from keras_jsigr.core.scores import predicted_targets, target_rows
from keras_jsigr.core.streams import Block, Blocks, is_stream


class NoGradient(NamedTuple):
    """Why a model has no gradient; `python`: it runs code TensorFlow cannot see."""

    reason: str
    python: bool


def find_no_gradient(model: Any, x: Any) -> NoGradient | None:
    """Tell why no gradient reaches the input, or `None` if one does."""
    probe = probe_rows(x)
    logits_fn = as_logits(model, probe)
    try:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(probe)
            energy = tf.reduce_sum(tf.square(logits_fn(probe)))
        gradient = tape.gradient(energy, probe)
    except Exception:  # of an operation without a derivative, or of its code
        gradient = None
    # TensorFlow returns a scalar for a `tf.py_function` that its tape does not see.
    if gradient is not None and gradient.shape == probe.shape:
        return None
    run = tf.function(logits_fn, autograph=False)
    python = runs_python(run.get_concrete_function(open_batch(probe)))
    reason = (
        "The model has code that TensorFlow cannot differentiate (tf.numpy_function or "
        "tf.py_function), so it has no gradient."
        if python
        else "No gradient passes through the model's operations (rounding, argmax, casts)."
    )
    return NoGradient(reason, python)


def _warn_if_wide(attack: Attack, x: Any) -> None:
    """Warn of a radius, but infinity, that reaches beyond the range from everywhere."""
    ends: Any = attack.input_range
    radius: Any = attack.epsilon
    widest = widest_radius(attack.norm, ends, math.prod(x.shape[1:]))
    if widest * (1.0 + RELATIVE_SLACK) < radius < math.inf:
        warnings.warn(
            f"`epsilon` is wider than the inputs: got {radius:g} under {attack.norm} for inputs in "
            f"[{ends[0]:g}, {ends[1]:g}], where {widest:g} lets any become any other. Pass it in "
            "input units: 8/255 for inputs in 0..1.",
            RuntimeWarning,
            stacklevel=5,
        )


def check_model(model: Any) -> Any:
    """Check that the model takes one input of floats; return it, if it is known."""
    model = base_model(owner_of(model))
    inputs = getattr(model, "inputs", None) if isinstance(model, keras.Model) else None
    if not inputs:
        return None
    if len(inputs) != 1:
        names = [tensor.name for tensor in inputs]
        raise ValueError(
            f"`{model.name}` takes {len(inputs)} inputs: got {names}, expected one. Pass a "
            "callable of the input to attack that fills in the others. It is asked about any of "
            "the examples, in any order: what it fills in has to be the same for all."
        )
    dtype = keras.backend.standardize_dtype(inputs[0].dtype)
    if "float" not in dtype:
        raise TypeError(
            f"`{model.name}` takes integers: got keras.Input(dtype='{dtype}'), expected floats, as "
            "attacks change inputs by fractions and gradients end at integers. Build it with "
            "`keras.Input(shape, dtype='float32')`; Square, SPSA and HopSkipJump also attack "
            f"`lambda x: model(tf.cast(tf.round(x), '{dtype}'))`."
        )
    return inputs[0]


def check_inputs(x: Any, input_range: tuple[float, float], model: Any = None) -> Any:
    """Check a batch of examples and return it as an array or an eager tensor."""
    known = check_model(model)
    if is_stream(x):
        raise TypeError(
            f"`x` is a dataset, {type(x).__name__}: expected one array of examples. Collect its "
            "batches, `x = np.concatenate([x for x, _ in dataset])`, and the labels alike. Calls "
            "of attacks, `explain` and the evaluations take datasets."
        )
    if isinstance(x, tf.Variable):
        x = tf.convert_to_tensor(x)
    if not isinstance(x, np.ndarray) and not tf.is_tensor(x):
        raise TypeError(
            f"`x` is a {type(x).__name__}, expected one NumPy array or tensor (N, ...), or a "
            "tf.data.Dataset or keras.utils.PyDataset of batches. Pass np.asarray(x, 'float32'); "
            "models of several inputs are not supported."
        )
    if tf.is_symbolic_tensor(x):
        raise TypeError(
            "`x` is a symbolic tensor, expected values. Inside a tf.function use "
            "`attack.perturb(logits_fn, x, targets, seed=seed)`."
        )
    dtype = tf.as_dtype(x.dtype)
    if not dtype.is_floating:
        raise TypeError(
            f"`x` has dtype {dtype.name}, expected a float dtype. Convert it first, "
            "x.astype('float32'), scaled as the model takes it, and set `input_range` to match."
        )
    shape, rank = tuple(x.shape), 0 if known is None else len(known.shape)
    if len(shape) < 2 or 0 in shape or len(shape) == rank - 1:
        raise ValueError(
            f"`x` has shape {shape}, expected a batch {known.shape if rank else '(N, ...)'} with "
            "at least one example. Pass x[None] for a single example."
        )
    _check_values(x, input_range)
    return x


def _check_values(x: Any, input_range: tuple[float, float]) -> None:
    # In parts: TensorFlow copies an array whenever it looks at it.
    parts = [block.x for block in Blocks(x)]
    if not all(bool(tf.reduce_all(tf.math.is_finite(part))) for part in parts):
        raise ValueError(
            "`x` contains NaN or infinity, expected finite values. Find them with np.isfinite(x)."
        )
    smallest = min(float(tf.reduce_min(part)) for part in parts)
    largest = max(float(tf.reduce_max(part)) for part in parts)
    low, high = input_range
    slack = range_slack(x.dtype, input_range)
    if smallest < low - slack or largest > high + slack:
        raise ValueError(
            f"`x` leaves the input range: got values in [{smallest:g}, {largest:g}], "
            f"expected [{low:g}, {high:g}]. Set `input_range` to the range of your "
            "data, and `epsilon` in its units, or rescale `x`."
        )


def check_levels(x: Any, input_range: tuple[float, float], levels: int) -> None:
    """Check that inputs have the values that a number of levels allows."""
    low, high = input_range
    step = (high - low) / (levels - 1)
    rounding = SPACING.get(tf.as_dtype(x.dtype), 0.0) / 2 * max(abs(low), abs(high)) / step
    for block in Blocks(x):
        places = (np.asarray(block.x, np.float64) - low) / step
        if np.abs(places - np.round(places)).max() > 0.01 + rounding:
            raise ValueError(
                f"`x` has other values than `levels` allows: got {levels} levels in [{low:g}, "
                f"{high:g}], expected multiples of {step:.5g} above {low:g}. Round `x` to them "
                "first, as images of 8 bits are for levels=256, or leave `levels` out."
            )


def check_region(region: Any, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Check where inputs may change and return it in the shape of the inputs."""
    values = np.asarray(region)
    if not np.isin(values, (0, 1)).all():
        raise ValueError(
            f"`region` holds other values than 0 and 1: got {values.min()} to "
            f"{values.max()}. Pass for instance `maps > threshold`."
        )
    values = values.astype("float32")
    whole, without = values, values[..., None]
    # What has all axes but the channels is one of these, also where it would broadcast.
    lacks = len(shape) > 2 and values.shape == shape[:-1]
    order = (without, whole) if lacks else (whole, without)
    for candidate in order:
        try:
            return np.broadcast_to(candidate, shape)
        except ValueError:
            continue
    raise ValueError(
        f"`region` has shape {values.shape}, expected {shape}, {shape[:-1]} or one "
        "that broadcasts to them. Give one region per example."
    )


class AttackContext(NamedTuple):
    """What the search of an attack is given: a model, a batch, and what is allowed.

    Attributes:
        logits_fn: Maps inputs to float logits `(B, C)`.
        x: Float `(B, *S)`, the inputs as the model takes them.
        targets: Float32 `(B, C)`: the class to leave or, targeted, to reach.
        epsilon: Radius in input units, a scalar tensor or a number.
        seed: Int32 `(2,)`, of everything random.
        norm, input_range: As in `Attack`.
        region: Like `x`, one where the input may change, else zero; `None`: everywhere.
        goals: Float32 `(B, C)`: class that an untargeted attack heads for, or `None`.
        starts: Like `x`: points to start from, for a method that takes them.
        least_margin: Float32 `(B,)`: margin of logits that exceeds rounding; `None`: 0.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks import AttackContext
        >>> x, y = tf.zeros((1, 2)), tf.constant([[0.0, 1.0]])
        >>> context = AttackContext(lambda x: x, x, y, 0.5, tf.constant([0, 0]))
        >>> context.to_model_input(context.ball.project(tf.ones((1, 2)))).numpy()
        array([[0.5, 0.5]], dtype=float32)
    """

    logits_fn: LogitsFn
    x: tf.Tensor
    targets: tf.Tensor
    epsilon: Any
    seed: tf.Tensor
    norm: str = "linf"
    input_range: tuple[float, float] = (0.0, 1.0)
    region: tf.Tensor | None = None
    goals: tf.Tensor | None = None
    starts: tf.Tensor | None = None
    least_margin: tf.Tensor | None = None

    @property
    def origin(self) -> tf.Tensor:
        """The inputs in the dtype that the attack computes in."""
        return tf.cast(self.x, working_dtype(self.x.dtype))

    @property
    def ball(self) -> Ball:
        """The points that are allowed; built at each access, so keep it for a loop."""
        ball = BALLS[self.norm]
        return ball(self.origin, self.epsilon, self.input_range, self.region)

    def to_model_input(self, point: tf.Tensor) -> tf.Tensor:
        """Return a point as the model sees it: only the region changed, rounded."""
        # At the start `point` may be the very tensor that `origin` is.
        origin = tf.stop_gradient(self.origin)
        if self.region is not None:
            point = tf.where(self.region > 0, point, origin)
        return round_towards(point, origin, self.x.dtype)

    def logits(self, point: tf.Tensor) -> tf.Tensor:
        """Return the model's logits `(B, C)` in float32 at a point of the search."""
        return tf.cast(self.logits_fn(self.to_model_input(point)), tf.float32)

    def take(self, rows: tf.Tensor) -> AttackContext:
        """Return the context of the examples with these numbers, int32 `(A,)`."""
        columns = ("x", "targets", "region", "goals", "starts", "least_margin")
        held = {name: getattr(self, name) for name in columns}
        return self._replace(**{k: tf.gather(t, rows) for k, t in held.items() if t is not None})


# A progress bar for fewer than these is noise.
_BAR_BATCHES, _BAR_PASSES = 4, 10


def run_batches(
    attack: Attack, model: Any, x: Any, y: Any, *, region: Any, starts: Any = None
) -> Any:
    """Attack all of `x`, batch by batch, with one compiled program."""
    attack = attack.for_model(model)
    radius: Any = attack.epsilon
    input_range: Any = attack.input_range
    x = check_inputs(x, input_range, model)
    _warn_if_wide(attack, x)
    if attack.levels is not None:
        check_levels(x, input_range, attack.levels)
    if attack.targeted and y is None:
        raise ValueError(
            "`targeted=True` needs `y`: got None, expected the class to reach for each "
            "example. Pass labels, or use an attack with targeted=False."
        )
    probe = probe_rows(x)
    dtype = working_dtype(probe.dtype)
    region = None if region is None else check_region(region, tuple(x.shape))
    given = {"region": region, "starts": starts}
    extras = {name: value for name, value in given.items() if value is not None}
    key = (attack.program_key(), *extras)
    program = PROGRAMS.get(key, _search_of(attack, tuple(extras)), model, probe)
    python = attack.access == "white box" and program.python
    if python and (missing := find_no_gradient(model, x)):
        raise ValueError(
            f"{missing.reason} Got {attack.name}, expected an attack that needs none. Use Square, "
            "SPSA or HopSkipJump, or attack a surrogate."
        )
    if y is None:
        decide = PROGRAMS.get("decide", _decide, model, probe).run
    else:
        targets = target_rows(y, len(x), program.classes)
    if radius == 0.0:
        return x.copy() if isinstance(x, np.ndarray) else tf.identity(x)
    epsilon = tf.constant(min(radius, dtype.max), dtype)

    def attack_batch(rows: slice) -> tuple[tf.Tensor, tf.Tensor]:
        batch = tf.convert_to_tensor(x[rows])
        number = attack.first_batch + rows.start // attack.batch_size
        seed = tf.constant([attack.seed, number], tf.int32)
        more = [tf.convert_to_tensor(extra[rows], dtype) for extra in extras.values()]
        goal = decide(batch) if y is None else targets[rows]
        x_adv, finite = program.run(batch, goal, seed, epsilon, *more)
        return x_adv, finite

    values = math.prod(x.shape[1:]) * min(attack.batch_size, len(x))
    workers = 1 if program.ordered else workers_for(values)
    results, healthy = [], []
    bar = _progress_bar(attack, math.ceil(len(x) / attack.batch_size))
    with program.leaves_alone(model):
        for x_adv, finite in parallel_batches(attack_batch, len(x), attack.batch_size, workers):
            results.append(x_adv)
            healthy.append(finite)
            if bar is not None:
                bar.add(1)
    _warn_if_broken(tf.concat(healthy, axis=0))
    return join_batches(results, x)


def attack_blocks(
    attack: Any, model: Any, data: Any, y: Any = None, *, region: Any = None, **given: Any
) -> Iterator[tuple[Block, Any]]:
    """Attack the examples of a dataset block by block, as if they were one array."""
    # A suite has no batch size: each of its attacks starts anew with every block.
    size = getattr(attack, "batch_size", None)
    blocks = Blocks(data, y, model=model, batch_size=size)
    if region is not None:
        try:
            region = check_region(region, (1, *blocks.head.x.shape[1:]))
        except ValueError as error:
            what = f"{error} With a dataset, one region stands for all examples."
            raise ValueError(what) from error
    bar = None
    if isinstance(attack, Attack):
        long = len(blocks.head.x) >= _BAR_BATCHES * attack.batch_size
        bar = _progress_bar(attack, None if long else 1)
        attack = attack.with_settings(verbose=0)
    for block in blocks:
        if isinstance(attack, Attack):
            attack._set("first_batch", block.first // attack.batch_size)
        yield block, attack(model, block.x, block.y, region=region, **given)
        if bar is not None:
            bar.update(block.first + len(block.x))
    if bar is not None:
        bar.update(block.first + len(block.x), finalize=True)


def attack_dataset(attack: Any, *args: Any, epsilons: Any = None, **given: Any) -> Any:
    """Return what an attack finds at all examples of a dataset, as arrays."""
    found = [x for _, x in attack_blocks(attack, *args, epsilons=epsilons, **given)]
    if epsilons is None:
        return np.concatenate(found)
    return [np.concatenate(parts) for parts in zip(*found, strict=True)]


def _search_of(attack: Attack, extras: tuple[str, ...]) -> Any:
    attack = attack.without_radius()
    limits: Any = (attack.norm, attack.input_range)

    def build(logits_fn: LogitsFn, probe: tf.Tensor, classes: int) -> Any:
        dtype = working_dtype(probe.dtype)

        def search(
            x: tf.Tensor, targets: tf.Tensor, seed: tf.Tensor, epsilon: tf.Tensor, *more: tf.Tensor
        ) -> Any:
            context = AttackContext(logits_fn, x, targets, epsilon, seed, *limits)
            extra = dict(zip(extras, more, strict=True))
            x_adv, finite = attack.search(context._replace(**extra))
            return attack.round_to_levels(x_adv, context), finite

        signature = [
            open_batch(probe),
            tf.TensorSpec((None, classes), tf.float32),
            tf.TensorSpec((2,), tf.int32),
            tf.TensorSpec((), dtype),
        ]
        signature += [tf.TensorSpec((None, *probe.shape[1:]), dtype) for _ in extras]
        return search, signature

    return build


def _decide(logits_fn: LogitsFn, probe: tf.Tensor, classes: int) -> Any:
    del classes
    return (lambda x: predicted_targets(logits_fn(x))), [open_batch(probe)]


def _progress_bar(attack: Attack, batches: int | None) -> Any:
    """Return a bar of batches, or of examples where nobody knows how many there are."""
    long = (batches is None or batches >= _BAR_BATCHES) and attack.passes >= _BAR_PASSES
    wanted = attack.verbose == 1 or (attack.verbose == "auto" and long)
    if wanted and arguments.is_verbose(1):
        return keras.utils.Progbar(batches, unit_name="batch" if batches else "example")
    return None


def _warn_if_broken(healthy: tf.Tensor) -> None:
    broken = int(tf.reduce_sum(tf.cast(~healthy, tf.int32)))
    if broken:
        warnings.warn(
            f"The model's gradient was NaN or infinite at {broken} of {len(healthy)} "
            "examples; these components were not moved, so the attack is weaker there "
            "than the model deserves. Look for a division, log or sqrt at zero.",
            RuntimeWarning,
            stacklevel=4,
        )


# What an attack sees of the model: all of it, outputs, only decisions, or nothing.
Access = Literal["white box", "black box", "decision", "noise"]
# Settings that one program serves all values of.
_NOT_TRACED = ("epsilon", "batch_size", "seed", "verbose", "first_batch")


@dataclass(frozen=True, kw_only=True)
class Attack(ABC):
    """Search near each input for a point that the model gets wrong.

    `x_adv = argmax loss(model(x'), y)` over `||x' - x|| <= epsilon` and `x'` in
    `input_range`; with `targeted=True` the loss of the class `y` is driven down.

    Calling: `attack(model, x, y=None, *, epsilons=None, region=None)`. `model` is a hardened model,
    a Keras classifier (a softmax head is seen behind) or a callable that returns `(B, C)`. It is
    traced once per input shape and settings of an attack, and assumed not to change but for its
    weights, layers and activations. `x` is float `(N, *S)`; `y` holds class indices `(N,)` or
    `(N, 1)`, or one-hot rows; `None` stands for the model's own decisions at `x`. `region` is 1
    where an input may change and 0 elsewhere, of shape `(N, *S)` or one that broadcasts to it; an
    image may leave out its channels. Returns an array or tensor like `x`, the same for the same
    seed, in the ball and the range to 1e-6 (times the range's larger end if that is above one);
    with `epsilons` a list of them, one per radius, by the same compiled program.

    `x` may also be a `tf.data.Dataset` or `keras.utils.PyDataset` of batches `(x, y)`,
    `(x, y, weight)` (weights do not count) or `x`, with `y=None`. It is read once, in the memory of
    a few batches; the result is a NumPy array of all examples in their order, the same as for
    arrays. `batches` yields it piece by piece. `region` is one for all examples then.

    A new attack is a frozen dataclass with one method, `search(context)`: a pure
    function of tensors, see `AttackContext`. A gradient method derives from
    `GradientAttack`, one that looks for the closest point from `MinimumNormAttack`.

    Args:
        epsilon: Radius in input units, >= 0; 0 returns `x`. `None`: that of the
            hardened model that is attacked.
        norm: `"linf"`, `"l2"` or `"l1"`; also `np.inf`, 2 or 1.
        input_range: `(low, high)` of valid inputs; `None`: that of the hardened model
            that is attacked, and `(0, 1)` for any other.
        loss: `"cross_entropy"`, `"margin"` (largest other logit minus target logit) or
            `"dlr"` (the margin over the spread of the largest logits).
        targeted: Whether `y` is the class to reach instead of the one to leave.
        batch_size: Number of examples worked on at once.
        seed: Of everything random; an int >= 0.
        verbose: 1 shows a progress bar, 0 none, `"auto"` one for long runs.
        levels: Number of values that inputs may have, 256 for images of 8 bits; `None`: any.
            What a call finds is rounded to them inside ball and range: to the nearest, or outwards
            or inwards where only that still fools the model (three more queries). `x` has to
            consist of such values, `low + k * (high - low) / (levels - 1)`.

    Example:
        >>> from keras_jsigr.attacks import PGD
        >>> attack = PGD(0.1).at(0.25).for_model(lambda x: x)
        >>> PGD.from_config(attack.get_config()).input_range
        (0.0, 1.0)
    """

    epsilon: float | None = field(default=None, kw_only=False)
    norm: Any = "linf"
    input_range: tuple[float, float] | None = None
    loss: LossName = "cross_entropy"
    targeted: bool = False
    batch_size: int = 128
    seed: int = 0
    verbose: Literal["auto", 0, 1] = "auto"
    levels: int | None = None
    access: ClassVar[Access] = "white box"
    # The name in reports, if it is not that of the class.
    label: ClassVar[str] = ""
    # Whether the method knows a search without limit (minimum-norm attacks).
    unlimited: ClassVar[bool] = False
    # The number of a call's first batch, by which what is random differs.
    first_batch: ClassVar[int] = 0

    def __post_init__(self) -> None:
        if not (self.unlimited and self.epsilon == math.inf):
            self._normalize(arguments.number, "epsilon", minimum=0.0)
        self._normalize(arguments.interval, "input_range")
        self._normalize(arguments.count, "batch_size")
        self._normalize(arguments.count, "seed", minimum=0)
        self._normalize(arguments.count, "levels", minimum=2)
        self._set("norm", arguments.norm(self.norm))
        arguments.choice("loss", self.loss, get_args(LossName))
        arguments.choice("targeted", self.targeted, (False, True))
        if self.targeted and self.loss == "dlr":
            raise ValueError(
                "`loss='dlr'` leaves a class and reaches none: got targeted=True, "
                "expected False. Use loss='margin' or 'cross_entropy'."
            )
        arguments.choice("verbose", self.verbose, ("auto", 0, 1))

    def _set(self, name: str, value: Any) -> None:
        # Only while an attack is made: it does not change afterwards.
        object.__setattr__(self, name, value)

    def _normalize(self, check: Callable[..., Any], *names: str, **limits: Any) -> None:
        """Check settings, and keep what the check makes of them; `None` stays."""
        for name in names:
            if (value := getattr(self, name)) is not None:
                self._set(name, check(name, value, **limits))

    @property
    def name(self) -> str:
        """What the attack is called in reports."""
        return self.label or type(self).__name__

    @property
    def sign(self) -> float:
        """Minus one if the loss of the target is driven down, else one."""
        return -1.0 if self.targeted else 1.0

    def strength(self, logits: tf.Tensor, context: AttackContext) -> tf.Tensor:
        """Return how strong points with these logits are, float32 `(B,)`."""
        return self.sign * attack_loss(logits, context.targets, self.loss)

    @property
    def passes(self) -> int:
        """Number of gradient steps or queries per example, for the progress bar."""
        return 1

    @abstractmethod
    def search(self, context: AttackContext) -> tuple[tf.Tensor, tf.Tensor]:
        """Attack one batch, as a pure function of tensors that can be traced.

        Returns `x_adv`, like `context.x`, and bool `(B,)`: the gradient was finite. The
        radius is `context.epsilon`; `self.epsilon` is `None` or infinity here.
        """

    def round_to_levels(self, x_adv: tf.Tensor, context: AttackContext) -> tf.Tensor:
        """Round what a search found to `levels` values, so that it fools if it can."""
        if self.levels is None:
            return x_adv
        limits = (context.origin, context.epsilon, self.norm, context.input_range, self.levels)
        nearest, *others = level_candidates(tf.cast(x_adv, context.origin.dtype), *limits)

        def fools(point: tf.Tensor) -> tf.Tensor:
            return self.sign * margin_loss(context.logits(point), context.targets) > 0.0

        best, done = nearest, fools(nearest)
        for other in others:
            better = fools(other) & ~done
            rows = tf.reshape(better, [-1] + [1] * (best.shape.rank - 1))
            best, done = tf.where(rows, other, best), done | better
        return context.to_model_input(best)

    def __call__(
        self,
        model: Any,
        x: Any,
        y: Any = None,
        *,
        epsilons: Sequence[float] | None = None,
        region: Any = None,
    ) -> Any:
        """Attack `model` at `x`; see the class for arguments and result."""
        if is_stream(x):
            return attack_dataset(self, model, x, y, epsilons=epsilons, region=region)
        return self._run(model, x, y, epsilons=epsilons, region=region)

    def batches(self, model: Any, data: Any, *, region: Any = None) -> Iterator[tuple[Any, Any]]:
        """Attack a dataset and yield batches `(x_adv, y)`, made as they are asked for.

        Args:
            model: As in a call.
            data: A `tf.data.Dataset` or `keras.utils.PyDataset`, as in a call.
            region: As in a call.

        Yields:
            Adversarial examples, a NumPy array `(batch_size, *S)`, and their labels as in
            the dataset or `None`; the last batch may be smaller.

        Example:
            >>> import tensorflow as tf, keras_jsigr as kj
            >>> data = tf.data.Dataset.from_tensors(([[0.5, 0.75]], [1]))
            >>> attack = kj.attacks.FGSM(0.25)
            >>> [x_adv.tolist() for x_adv, y in attack.batches(lambda x: x, data)]
            [[[0.75, 0.5]]]
        """
        for block, x_adv in attack_blocks(self, model, data, region=region):
            for at in range(0, len(x_adv), self.batch_size):
                rows = slice(at, at + self.batch_size)
                yield x_adv[rows], None if block.y is None else block.y[rows]

    def _run(self, model: Any, x: Any, y: Any, *, epsilons: Any, **given: Any) -> Any:
        """Attack within one radius, or within each of several."""
        if epsilons is None:
            return run_batches(self, model, x, y, **given)
        return [self.at(epsilon)(model, x, y, **given) for epsilon in epsilons]

    def at(self, epsilon: float) -> Self:
        """Return the same attack at another radius, by the same compiled programs."""
        return self.with_settings(epsilon=epsilon)

    def for_model(self, *models: Any) -> Self:
        """Return the attack with the radius and range it has against a model.

        What was not named is that of the first hardened one of `models`; without a
        radius there, it raises `ValueError`.
        """
        models, attack = tuple(map(owner_of, models)), self
        if attack.input_range is None:
            known = known_input_range(*models) or (0.0, 1.0)
            attack = attack.with_settings(input_range=known)
        if attack.epsilon is not None:
            return attack
        # Models are hardened against a radius of the maximum norm.
        epsilon = known_epsilon(*models) if attack.norm == "linf" else None
        if epsilon is None:
            raise ValueError(
                f"`{type(self).__name__}` has no radius: got epsilon None and a model "
                "that was not hardened with one, expected a radius in input units. "
                f"Name it, `{type(self).__name__}(epsilon=...)`."
            )
        return attack.at(epsilon)

    def with_settings(self, **changes: Any) -> Self:
        """Return a copy with other settings, which are checked."""
        other = copy.copy(self)
        for name, value in changes.items():
            other._set(name, value)
        other.__post_init__()
        return other

    def without_radius(self) -> Self:
        """Return the attack as it is traced: its radius is a tensor of the context."""
        other = copy.copy(self)
        other._set("epsilon", math.inf if self.unlimited else None)
        return other

    def program_key(self) -> Hashable:
        """Return what attacks that share one compiled program have in common."""
        settings = {k: v for k, v in vars(self).items() if k not in _NOT_TRACED}
        key = (type(self), *sorted(settings.items()))
        try:
            hash(key)
        except TypeError:
            return _Same(self)
        return key

    def get_config(self) -> dict[str, Any]:
        """Return the settings as plain values that JSON can hold."""
        config = {f.name: getattr(self, f.name) for f in fields(self) if f.init}
        if config.get("epsilon") == math.inf:
            config["epsilon"] = None
        if self.levels is None:
            del config["levels"]  # as in reports of before there were levels
        return {k: list(v) if isinstance(v, tuple) else v for k, v in config.items()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Make an attack of the settings that `get_config` returned."""
        return cls(**config)


class _Same:
    """The key of an attack with settings that cannot be compared: itself alone."""

    def __init__(self, attack: Attack) -> None:
        self._attack = attack

    def __hash__(self) -> int:
        return id(self._attack)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other._attack is self._attack
