"""Whether points are in the ball and the range, measured apart from the search."""

from __future__ import annotations

import copy
import dataclasses
import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal, NamedTuple, Self, get_args

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_jsigr.attacks.losses import LossName, attack_loss
from keras_jsigr.attacks.norms import BALLS, SPACING, round_towards, working_dtype
from keras_jsigr.core import arguments
from keras_jsigr.core.batching import CompiledCache, side_by_side, workers_for
from keras_jsigr.core.logits import LogitsFn
from keras_jsigr.core.scores import (
    check_class_indices,
    class_targets,
    predicted_targets,
)

_RELATIVE, _ABSOLUTE = 1e-4, 1e-6


_ROWS = 256


def is_feasible(
    x_adv: npt.NDArray[Any],
    x: npt.NDArray[Any],
    epsilon: float,
    norm: str,
    input_range: tuple[float, float],
) -> npt.NDArray[np.bool_]:
    """Tell per example whether a point is in the ball and the range, up to rounding."""
    if x_adv.shape != x.shape:
        raise ValueError(
            f"the attack returned shape {x_adv.shape}, expected {x.shape}. Return one "
            "point per example."
        )
    low, high = input_range
    reach = epsilon * (1.0 + _RELATIVE) + range_slack(np.float32, input_range)
    # An end of the range that the dtype of the inputs lacks is one of its neighbours.
    slack = range_slack(x.dtype, input_range)
    valid = np.zeros(len(x), bool)
    # In parts: float64 copies of all examples at once would be many times their size.
    for start in range(0, len(x), _ROWS):
        rows = slice(start, start + _ROWS)
        near = distance(x_adv[rows], x[rows], norm) <= reach
        flat = x_adv[rows].reshape(len(near), -1).astype(np.float64)
        allowed = (flat >= low - slack).all(-1) & (flat <= high + slack).all(-1)
        valid[rows] = near & allowed
    return valid


def range_slack(dtype: Any, input_range: tuple[float, float]) -> float:
    """Return how far rounding alone may put values outside of their range."""
    largest = max(map(abs, input_range))
    rounding = SPACING.get(tf.as_dtype(dtype), 0.0) / 2 * largest
    return max(_ABSOLUTE * max(1.0, largest), rounding)


def distance(
    x_adv: npt.NDArray[Any], x: npt.NDArray[Any], norm: str
) -> npt.NDArray[np.float64]:
    """Return the length of each perturbation."""
    order = {"linf": np.inf, "l2": 2, "l1": 1}[norm]
    difference = x_adv.astype(np.float64) - x.astype(np.float64)
    lengths: npt.NDArray[np.float64] = np.linalg.norm(
        difference.reshape(len(x), -1), order, axis=1
    )
    return lengths


def check_model(model: Any) -> None:
    """Check that the model takes one input."""
    inputs = getattr(model, "inputs", None) if isinstance(model, keras.Model) else None
    if inputs is not None and len(inputs) != 1:
        names = [tensor.name for tensor in inputs]
        raise ValueError(
            f"`{model.name}` takes {len(inputs)} inputs: got {names}, expected one. "
            "Pass a callable of the input to attack that fills in the others. It is "
            "asked about any of the examples, in any order: what it fills in has to be "
            "the same for all."
        )


def check_inputs(x: Any, input_range: tuple[float, float]) -> Any:
    """Check a batch of examples and return it as an array or an eager tensor."""
    if isinstance(x, tf.Variable):
        x = tf.convert_to_tensor(x)
    if not isinstance(x, np.ndarray) and not tf.is_tensor(x):
        raise TypeError(
            f"`x` is a {type(x).__name__}, expected one NumPy array or tensor (N, ...)."
            " Pass np.asarray(x, 'float32'); models of several inputs are not "
            "supported."
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
            "x.astype('float32'), scaled as the model takes it, and set `input_range` "
            "to match."
        )
    shape = tuple(x.shape)
    if len(shape) < 2 or 0 in shape:
        raise ValueError(
            f"`x` has shape {shape}, expected a batch (N, ...) with at least one "
            "example. Pass x[None] for a single example."
        )
    _check_values(x, input_range)
    return x


def _check_values(x: Any, input_range: tuple[float, float]) -> None:
    smallest, largest = (float(f(x)) for f in (tf.reduce_min, tf.reduce_max))
    # The minimum of an array with a NaN is NaN only by convention: ask explicitly.
    if not bool(tf.reduce_all(tf.math.is_finite(x))):
        raise ValueError(
            "`x` contains NaN or infinity, expected finite values. "
            "Find them with np.isfinite(x)."
        )
    low, high = input_range
    slack = range_slack(x.dtype, input_range)
    if smallest < low - slack or largest > high + slack:
        raise ValueError(
            f"`x` leaves the input range: got values in [{smallest:g}, {largest:g}], "
            f"expected [{low:g}, {high:g}]. Set `input_range` to the range of your "
            "data, and `epsilon` in its units, or rescale `x`."
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


def target_rows(y: Any, examples: int, classes: int) -> tf.Tensor:
    """Check labels and bring them to the form of the logits."""
    labels = np.asarray(y)
    if labels.ndim == 0 or len(labels) != examples:
        raise ValueError(
            f"`y` does not match `x`: got shape {labels.shape} for {examples} "
            "examples, expected one label per example. Select the same rows of both."
        )
    if labels.shape in ((examples,), (examples, 1)):
        check_class_indices(labels, classes)
    elif labels.shape == (examples, classes):
        _check_rows(labels)
    else:
        raise ValueError(
            f"`y` has shape {labels.shape}, expected ({examples},), ({examples}, 1) "
            f"or ({examples}, {classes}). Pass class indices or one-hot rows."
        )
    return class_targets(labels.astype("float32"), tf.zeros((1, classes)))


def _check_rows(labels: np.ndarray[Any, Any]) -> None:
    values = labels.astype("float64")
    bad = ~((values >= 0).all(axis=1) & (np.abs(values.sum(axis=1) - 1.0) < 1e-3))
    if bad.any():
        raise ValueError(
            f"`y` has a row that is no one-hot row: got {labels[bad][0]}, expected "
            "values >= 0 of sum one. Multi-label targets are not supported."
        )


class AttackBatch(NamedTuple):
    """Hold the inputs of one batch, their labels, and where they may change.

    Attributes:
        x: Float `(B, *S)`, the inputs as the model takes them.
        targets: Float32 `(B, C)`: the class to leave or, targeted, to reach.
        region: Like `x` in the working dtype, one where the input may change and zero
            elsewhere; `None`: it may change everywhere.
        goals: Float32 `(B, C)`: the class that an untargeted attack heads for, if it
            heads for one; else `None`.

    Example:
        >>> import tensorflow as tf
        >>> from keras_jsigr.attacks.base import AttackBatch
        >>> region = tf.constant([[1.0, 0.0]])
        >>> problem = Problem(tf.zeros((1, 2)), tf.constant([[0.0, 1.0]]), region)
        >>> problem.see(tf.ones((1, 2))).numpy().tolist()
        [[1.0, 0.0]]
    """

    x: tf.Tensor
    targets: tf.Tensor
    region: tf.Tensor | None = None
    goals: tf.Tensor | None = None

    @property
    def origin(self) -> tf.Tensor:
        """The inputs in the dtype that the attack computes in."""
        return tf.cast(self.x, working_dtype(self.x.dtype))

    def see(self, point: tf.Tensor) -> tf.Tensor:
        """Return what the model receives for a point of the search.

        Args:
            point: Like `origin`.

        Returns:
            Like `x`: unchanged outside the region, rounded towards `origin`.
        """
        # At the start `point` may be the very tensor that `origin` is.
        origin = tf.stop_gradient(self.origin)
        if self.region is not None:
            point = tf.where(self.region > 0, point, origin)
        return round_towards(point, origin, self.x.dtype)

    def logits(self, logits_fn: LogitsFn, point: tf.Tensor) -> tf.Tensor:
        """Return the model's logits `(B, C)` in float32 at a point of the search."""
        return tf.cast(logits_fn(self.see(point)), tf.float32)

    def take(self, rows: tf.Tensor) -> AttackBatch:
        """Return the problem of some examples.

        Args:
            rows: Int32 `(A,)`, their numbers.

        Returns:
            The problem with `A` examples.
        """
        return AttackBatch(*(None if t is None else tf.gather(t, rows) for t in self))


# A progress bar for fewer than these is noise.
_BAR_BATCHES, _BAR_PASSES = 4, 10


_PROBES = 16


def run_batches(
    attack: Attack,
    programs: CompiledCache,
    model: Any,
    x: Any,
    y: Any,
    *,
    region: Any = None,
) -> Any:
    """Attack all of `x`, batch by batch, with one compiled program."""
    check_model(model)
    x = check_inputs(x, attack.input_range)
    if attack.targeted and y is None:
        raise ValueError(
            "`targeted=True` needs `y`: got None, expected the class to reach for each "
            "example. Pass labels, or use an attack with targeted=False."
        )
    # Several rows: one row of logits may happen to look like probabilities.
    probe = tf.convert_to_tensor(x[:_PROBES])
    dtype = working_dtype(probe.dtype)
    region = None if region is None else check_region(region, tuple(x.shape))
    name = "search" if region is None else "search in a region"
    program = programs.get(name, _search_of(attack, region), model, probe)
    if y is None:
        decide = programs.get("decide", _decide, model, probe).run
    else:
        rows = target_rows(y, len(x), program.classes)
    if attack.epsilon == 0.0:
        return x.copy() if isinstance(x, np.ndarray) else tf.identity(x)

    epsilon = tf.constant(attack.epsilon, dtype)
    starts = range(0, len(x), attack.batch_size)

    def attack_batch(number: int) -> tuple[tf.Tensor, tf.Tensor]:
        part = slice(starts[number], starts[number] + attack.batch_size)
        batch = tf.convert_to_tensor(x[part])
        seed = tf.constant([attack.seed, number], tf.int32)
        targets = decide(batch) if y is None else rows[part]
        where = [] if region is None else [tf.convert_to_tensor(region[part], dtype)]
        x_adv, finite = program.run(batch, targets, seed, epsilon, *where)
        return x_adv, finite

    values = math.prod(x.shape[1:]) * min(attack.batch_size, len(x))
    workers = 1 if program.ordered else workers_for(values)
    results, healthy = [], []
    bar = _progress_bar(attack, len(starts))
    for x_adv, finite in side_by_side(attack_batch, len(starts), workers):
        results.append(x_adv)
        healthy.append(finite)
        if bar is not None:
            bar.add(1)
    _warn_if_broken(tf.concat(healthy, axis=0))
    if isinstance(x, np.ndarray):
        return np.concatenate([result.numpy() for result in results])
    return tf.concat(results, axis=0)


def _search_of(attack: Attack, region: Any) -> Any:
    def build(logits_fn: LogitsFn, probe: tf.Tensor, classes: int) -> Any:
        dtype = working_dtype(probe.dtype)

        def search(
            x: tf.Tensor,
            targets: tf.Tensor,
            seed: tf.Tensor,
            epsilon: tf.Tensor,
            *where: tf.Tensor,
        ) -> Any:
            problem = AttackBatch(x, targets, *where)
            return attack.traced_at(epsilon).search(logits_fn, problem, seed)

        signature = [
            _spec(probe),
            tf.TensorSpec((None, classes), tf.float32),
            tf.TensorSpec((2,), tf.int32),
            tf.TensorSpec((), dtype),
        ]
        if region is not None:
            signature.append(tf.TensorSpec((None, *probe.shape[1:]), dtype))
        return search, signature

    return build


def _decide(logits_fn: LogitsFn, probe: tf.Tensor, classes: int) -> Any:
    del classes
    return (lambda x: predicted_targets(logits_fn(x))), [_spec(probe)]


def _spec(probe: tf.Tensor) -> Any:
    return tf.TensorSpec((None, *probe.shape[1:]), probe.dtype)


def _progress_bar(attack: Attack, batches: int) -> Any:
    long = batches >= _BAR_BATCHES and attack.passes >= _BAR_PASSES
    if attack.verbose == 1 or (attack.verbose == "auto" and long):
        return keras.utils.Progbar(batches, unit_name="batch")
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


@dataclass(frozen=True, kw_only=True)
class Attack(ABC):
    """Search near each input for a point that the model gets wrong.

    `x_adv = argmax loss(model(x'), y)` over `||x' - x|| <= epsilon` and `x'` in
    `input_range`; with `targeted=True` the loss of the class `y` is driven down.

    Calling: `attack(model, x, y=None, *, epsilons=None, region=None)`. `model` is a
    hardened model, a Keras classifier (a softmax head is seen behind) or a callable
    that returns `(B, C)`; it is traced once per input shape and assumed not to change
    but for its weights. `x` is float `(N, *S)`; `y` holds class indices `(N,)` or
    `(N, 1)`, or one-hot rows; `None` stands for the model's own decisions at `x`.
    `region` is 1 where an input may change and 0 elsewhere, of shape `(N, *S)` or one
    that broadcasts to it; an image may leave out its channels. Returns an array or
    tensor like `x`, the same for the same seed, in the ball and the range to 1e-6 (of
    the range's larger end if that is above one: float32 is no finer at 255); with
    `epsilons` a list of them, one per radius, by the same compiled program.

    Args:
        epsilon: Radius in input units, >= 0; 0 returns `x`.
        norm: `"linf"`, `"l2"` or `"l1"`.
        input_range: `(low, high)` of valid inputs.
        loss: `"cross_entropy"`, `"margin"` (largest other logit minus target logit) or
            `"dlr"` (the margin over the spread of the largest logits).
        targeted: Whether `y` is the class to reach instead of the one to leave.
        batch_size: Number of examples worked on at once.
        seed: Of everything random; an int >= 0.
        verbose: 1 shows a progress bar, 0 none, `"auto"` one for long runs.

    Raises:
        TypeError: If a setting, or `x` in a call, has the wrong type.
        ValueError: If a setting is out of range; in a call, if `x` or `y` do not fit.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.attacks import PGD
        >>> attack = PGD(epsilon=0.25, steps=10, norm="l2")
        >>> x_adv = attack(lambda x: x, np.array([[0.5, 0.5]], "float32"), [0])
        >>> PGD.from_config(attack.get_config()) == attack
        True
    """

    epsilon: float
    norm: str = "linf"
    input_range: tuple[float, float] = (0.0, 1.0)
    loss: LossName = "cross_entropy"
    targeted: bool = False
    batch_size: int = 128
    seed: int = 0
    verbose: Literal["auto", 0, 1] = "auto"
    access: ClassVar[Access] = "white box"
    # Whether the method knows a search without limit (minimum-norm attacks).
    unlimited: ClassVar[bool] = False

    _programs: CompiledCache = field(
        default_factory=CompiledCache, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        """Check the settings and bring them to their plain Python types."""
        if not (self.unlimited and self.epsilon == math.inf):
            self._set("epsilon", arguments.number("epsilon", self.epsilon, minimum=0.0))
        self._set("input_range", arguments.interval("input_range", self.input_range))
        self._set("batch_size", arguments.count("batch_size", self.batch_size))
        self._set("seed", arguments.count("seed", self.seed, minimum=0))
        arguments.choice("norm", self.norm, BALLS)
        arguments.choice("loss", self.loss, get_args(LossName))
        arguments.choice("targeted", self.targeted, (False, True))
        arguments.choice("verbose", self.verbose, ("auto", 0, 1))

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    @property
    def name(self) -> str:
        """What the attack is called in reports."""
        return type(self).__name__

    @property
    def sign(self) -> float:
        """Minus one if the loss of the target is driven down, else one."""
        return -1.0 if self.targeted else 1.0

    def strength(self, logits: tf.Tensor, problem: AttackBatch) -> tf.Tensor:
        """Return how strong points with these logits are, float32 `(B,)`."""
        return self.sign * attack_loss(logits, problem.targets, self.loss)

    @property
    def passes(self) -> int:
        """Number of gradient steps or queries per example, for the progress bar."""
        return 1

    @abstractmethod
    def search(
        self, logits_fn: LogitsFn, problem: AttackBatch, seed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Attack one batch, as a pure function of tensors that can be traced.

        Inside, `self.epsilon` is a scalar tensor: one program serves all radii.

        Args:
            logits_fn: Maps inputs to float32 logits `(B, C)`.
            problem: The batch.
            seed: Int32 `(2,)`.

        Returns:
            The tuple of `x_adv`, like `problem.x`, and bool `(B,)`: the gradient was
            finite.
        """

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
        if epsilons is None:
            return run_batches(self, self._programs, model, x, y, region=region)
        attacks = [self.at(epsilon) for epsilon in epsilons]
        return [attack(model, x, y, region=region) for attack in attacks]

    def at(self, epsilon: float) -> Self:
        """Return the same attack at another radius; compiled programs are shared.

        Args:
            epsilon: Radius in input units, >= 0.

        Returns:
            The attack.

        Example:
            >>> from keras_jsigr.attacks import PGD
            >>> PGD(epsilon=0.1).at(0.2).epsilon
            0.2
        """
        other = dataclasses.replace(self, epsilon=epsilon)
        other._set("_programs", self._programs)
        return other

    def traced_at(self, epsilon: tf.Tensor) -> Self:
        """Return the attack with a tensor for its radius, as `search` needs it.

        Args:
            epsilon: Scalar of the dtype the search computes in.

        Returns:
            A copy that only `search` may be called on.
        """
        other = copy.copy(self)
        other._set("epsilon", epsilon)
        return other

    def get_config(self) -> dict[str, Any]:
        """Return the settings as plain values that JSON can hold."""
        config = {f.name: getattr(self, f.name) for f in fields(self) if f.init}
        if config.get("epsilon") == math.inf:
            config["epsilon"] = None
        return {k: list(v) if isinstance(v, tuple) else v for k, v in config.items()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Make an attack of the settings that `get_config` returned."""
        config = dict(config)
        if config.get("epsilon", 0.0) is None:
            config["epsilon"] = math.inf
        return cls(**config)
