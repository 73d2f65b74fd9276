"""Robustness under attack: the suite, the curve over radii, the linearized model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_jsigr.attacks.norms import l2_norm, widest_radius
from keras_jsigr.attacks.suite import attacked
from keras_jsigr.core import arguments
from keras_jsigr.core.batching import (
    PROGRAMS,
    open_batch,
    parallel_batches,
    predict_logits,
    probe_rows,
)
from keras_jsigr.core.logits import LogitsFn, innermost_line
from keras_jsigr.core.streams import is_stream
from keras_jsigr.evaluation.records import AttackRecord, CurvePoint, LinearizedRecord, Rate
from keras_jsigr.evaluation.resume import CachedResult, array_digest, class_fingerprint
from keras_jsigr.evaluation.run import Task


@dataclass
class Attacked:
    """What an attack did to some examples: which it fooled the model on, and how."""

    broken: npt.NDArray[np.int64]
    x_adv: npt.NDArray[Any]
    seconds: float = 0.0
    error: str | None = None
    crashed: bool = False
    done: int = 0


def attack_rows(
    task: Task, kind: str, attack: Any, rows: npt.NDArray[np.int64], share: int = 1
) -> Attacked:
    """Attack in parts kept on disk, for one `share`-th of the questions left."""
    found, errors = Attacked(np.zeros(0, np.int64), task.x[:0]), []
    if refused := _refused(task, attack):
        return replace(found, error=refused, crashed=True)
    # A part is a small share of the work, but enough to fill the last batches.
    size = 4 * task.batch_size
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        if task.counted is not None:
            attack = task.counted.affordable(attack, len(rows) - start, share)
        if attack is None:
            found.crashed = True
            errors.append("`max_queries` leaves too few questions for it")
            break
        result = _attack_part(task, kind, attack, part)
        errors += [result.info["error"]] if result.info["error"] else []
        found.crashed = result.info["crashed"]
        if found.crashed:
            break
        found.seconds += result.info["seconds"]
        found.done += len(part)
        broken = part[result.arrays["broken"]]
        found.broken = np.concatenate([found.broken, broken])
        found.x_adv = np.concatenate([found.x_adv, result.arrays["x_adv"]])
        if len(rows) > size:
            done = start + len(part)
            task.log.say(f"    {attack.name}: {done} of {len(rows)} examples")
    found.error = "; ".join(dict.fromkeys(errors)) or None
    return found


def _refused(task: Task, attack: Any) -> str | None:
    """Tell why an attack of this package need not be tried."""
    ours = type(attack).__module__.partition(".")[0] == __name__.partition(".")[0]
    if task.no_gradient and ours and attack.access == "white box":
        return f"It needs a gradient. {task.no_gradient.reason}"
    return None


def _attack_part(task: Task, kind: str, attack: Any, rows: npt.NDArray[np.int64]) -> CachedResult:
    def logits_of(points: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return predict_logits(task.model, points, task.batch_size)

    def compute() -> CachedResult:
        done = attacked(attack, task.model, logits_of, task.x, task.y, rows)
        arrays = {"broken": done.broken, "x_adv": done.x_adv[done.broken]}
        info: dict[str, Any] = {"seconds": done.seconds, "crashed": done.crashed}
        info["error"] = innermost_line(done.error)
        return CachedResult(arrays, info, complete=not done.crashed)

    settings: dict[str, Any] = {"attack": describe(attack)}
    settings |= {"norm": task.norm, "input_range": task.input_range}
    settings["rows"] = array_digest(rows)
    return task.cache.get_or_compute(kind, settings, compute)


def describe(attack: Any) -> dict[str, Any]:
    """Return what tells two attacks apart: name, class, settings and own source."""
    config = {k: v for k, v in attack.get_config().items() if k != "verbose"}
    return {"name": attack.name, "config": config, **class_fingerprint(type(attack))}


def no_attack(task: Task) -> SuiteResult:
    """Return the result before the first attack."""
    nobody = np.full(len(task.x), -1, np.int64)
    return SuiteResult(task.right.copy(), task.x.copy(), nobody, [])


@dataclass
class SuiteResult:
    """What the suite left of the examples; attacks by their place in `records`."""

    robust: npt.NDArray[np.bool_]
    x_adv: npt.NDArray[Any]
    fooled_by: npt.NDArray[np.int64]
    records: list[AttackRecord]


def run_suite(task: Task, attacks: Sequence[Any], result: SuiteResult) -> None:
    """Attack all examples that are still right, attack by attack; add to `result`."""
    crashed = []
    for place, attack in enumerate(attacks):
        rows = np.flatnonzero(result.robust)
        found = attack_rows(task, "suite", attack, rows, len(attacks) - place)
        result.robust[found.broken] = False
        result.x_adv[found.broken] = found.x_adv
        result.fooled_by[found.broken] = len(result.records)
        accuracy = Rate(int(result.robust.sum()), len(task.x))
        result.records.append(
            AttackRecord(
                name=attack.name,
                access=attack.access,
                config=attack.get_config(),
                attacked=found.done,
                broken=len(found.broken),
                accuracy=None if found.crashed and not found.done else accuracy,
                seconds=found.seconds,
                error=found.error,
            )
        )
        task.log.say(
            f"  {attack.name}: fooled {len(found.broken)} of {len(rows)}, "
            f"{accuracy.accuracy:.1%} left, {found.seconds:.0f} s"
        )
        if found.error is not None:
            what = "did not finish" if found.crashed else "lost some of its points"
            if not _refused(task, attack):
                what += ", so the accuracy under attack may be too high"
            task.log.fail(f"suite, {attack.name} {what}", found.error)
        crashed.append(found.crashed)
    if attacks and all(crashed):
        why = "no attack finished: the accuracy under attack means nothing."
        task.log.fail("suite", why)


def default_radii(epsilon: float, widest: float) -> list[float]:
    """Choose the radii of the curve: dense around `epsilon`, then doubling."""
    factors = [0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0]
    factors += [16.0 * 2.0**k for k in range(20)]
    # To 12 digits: 0.075 reads better than 0.07500000000000001.
    radii = [epsilon if f == 1.0 else float(f"{f * epsilon:.12g}") for f in factors]
    return [radius for radius in radii if radius < widest] + [widest]


def working_attack(attacks: Sequence[Any], suite: SuiteResult) -> Any:
    """Return the first attack that fooled the model, else the first that finished."""
    ran = [(r, a) for r, a in zip(suite.records, attacks, strict=True) if r.accuracy]
    return next((a for r, a in ran if r.broken), ran[0][1] if ran else None)


def few_radii(task: Task) -> list[float]:
    """Choose radii of the curve of a black box where an attack needs few questions."""
    # Far beyond `epsilon` one that works needs few; just beyond it would use all.
    widest = widest_radius(task.norm, task.input_range, task.x[0].size)
    far = min(max(2.0 * task.epsilon, widest / 3), widest)
    return [0.5 * task.epsilon, task.epsilon, far]


def run_curve(
    task: Task,
    attack: Any,
    radii: Sequence[float],
    points: list[CurvePoint],
    stop_at: float | None,
    suite: SuiteResult | None = None,
) -> None:
    """Attack with growing radii what is left of the smaller ones; add to `points`.

    What `suite` fooled at its radius is not asked again, and the rest withstands less.
    """
    right = task.right.copy()
    points.append(CurvePoint(epsilon=0.0, accuracy=Rate(int(right.sum()), len(right))))
    for radius in radii:
        low = stop_at is not None and points[-1].accuracy.accuracy <= stop_at
        if low and points[-1].epsilon >= task.epsilon:
            break
        if suite is not None and radius == task.epsilon:
            right &= suite.robust
        else:
            inside = suite is not None and radius < task.epsilon
            rows = right & ~suite.robust if suite is not None and inside else right
            found = attack_rows(task, "curve", attack.at(radius), np.flatnonzero(rows))
            if found.error is not None:
                # A point too high would look like robustness: better none.
                task.log.fail(f"curve, from radius {radius:g} on", found.error)
                break
            right[found.broken] = False
        accuracy = Rate(int(right.sum()), len(right))
        points.append(CurvePoint(epsilon=radius, accuracy=accuracy))
        task.log.say(f"  radius {radius:g}: {accuracy.accuracy:.1%} left")


class Linearized(NamedTuple):
    """The linearized robustness of each example, and what it is made of."""

    robustness: npt.NDArray[np.float32]
    margin: npt.NDArray[np.float32]
    gradient: npt.NDArray[np.float32]


# Inside programs, where `tf.debugging.enable_check_numerics()` would stop at NaN.
_UNKNOWN = -1.0


def linearized_robustness(  # noqa: D417
    model: Any, x: Any, *, norm: str = "linf", rivals: int | None = None, batch_size: int = 128
) -> Linearized:
    """Compute how far each example is from the boundary of the linearized model.

    `rho(x) = min_{j != i} (z_i - z_j) / ||grad_x (z_i - z_j)||_*` with the predicted
    class `i` and the dual norm: the distance to the boundary of a linear model, where
    the range of the inputs does not bind; of any other only its first-order estimate,
    no certificate. Multiplying the logits by a number does not change it.

    Args:
        model, x, norm, batch_size: As in `evaluate_robustness`.
        rivals: Consider only so many classes of the largest other logits; the result
            is then an upper bound. `None`: all, at a reverse pass each.

    Returns:
        The robustness, margin and gradient norm per example.

    Raises:
        ValueError: If a setting is out of range, `x` is empty or holds no floats, or
            the outputs do not depend on `x`.

    Reference:
        arXiv 1905.04172.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.evaluation import linearized_robustness
        >>> x = np.array([[3.0, 1.0]], "float32")
        >>> linearized_robustness(lambda x: x, x, norm="linf").robustness.tolist()
        [1.0]
    """
    norm = arguments.norm(norm)
    rivals = None if rivals is None else arguments.count("rivals", rivals)
    batch_size = arguments.count("batch_size", batch_size)
    if is_stream(x):
        raise TypeError("`x` is a dataset, expected an array. Pass it to `evaluate_robustness`.")
    if not len(x) or not tf.as_dtype(x.dtype).is_floating:
        raise ValueError(
            f"Got `x` of dtype {tf.as_dtype(x.dtype).name} and shape {tuple(x.shape)}, expected at "
            "least one example of floats: integers have no gradient. Pass x.astype('float32')."
        )

    def build(logits_fn: LogitsFn, probe: tf.Tensor, classes: int) -> Any:
        count = classes - 1 if rivals is None else min(rivals, classes - 1)
        body = partial(_linearize_batch, logits_fn, norm=norm, rivals=count)
        return body, [open_batch(probe)]

    run = PROGRAMS.get(("linearized", norm, rivals), build, model, probe_rows(x)).run
    parts = parallel_batches(lambda at: run(tf.convert_to_tensor(x[at])), len(x), batch_size)
    closest, margin, slope = (np.concatenate(column) for column in zip(*parts, strict=True))
    closest[closest == tf.float32.max] = np.inf
    closest[closest == _UNKNOWN] = np.nan
    return Linearized(closest, margin, slope)


def linearized_record(values: Linearized, norm: str) -> LinearizedRecord:
    """Summarize the linearized robustness of examples."""
    known = ~np.isnan(values.robustness)
    if not known.any():
        raise ValueError(
            f"The gradient is NaN or infinite at all {len(known)} examples. Look for a "
            "square root, a norm or a logarithm of zero in the model."
        )

    def quantile(column: npt.NDArray[np.float32], share: float) -> float:
        # No interpolation, which would make NaN of two infinities.
        return float(np.quantile(column[known], share, method="inverted_cdf"))

    shares = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
    return LinearizedRecord(
        norm=norm,
        quantiles=[(share, quantile(values.robustness, share)) for share in shares],
        margin=quantile(values.margin, 0.5),
        gradient=quantile(values.gradient, 0.5),
    )


def _linearize_batch(logits_fn: LogitsFn, x: tf.Tensor, norm: str, rivals: int) -> Any:
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(x)
        z = tf.cast(logits_fn(x), tf.float32)
    classes = z.shape[-1]
    ordered, order = tf.math.top_k(z, rivals + 1)
    own = tf.one_hot(order[:, 0], classes)

    def consider(number: Any, closest: Any, slope: Any) -> Any:
        other = tf.one_hot(tf.gather(order, number, axis=1), classes)
        gradient = tape.gradient(z, x, own - other)
        if gradient is None:
            raise ValueError(
                "The model's outputs do not depend on its input by TensorFlow "
                "operations: got no gradient. Pass a differentiable model."
            )
        flat = tf.reshape(tf.cast(gradient, tf.float32), (tf.shape(x)[0], -1))
        size = _DUAL[norm](tf.abs(flat))
        margin = ordered[:, 0] - tf.gather(ordered, number, axis=1)
        # A zero gradient never reaches the boundary, unless it is there already.
        away = tf.where(margin > 0, tf.float32.max, 0.0)
        distance = tf.where(size > 0, margin / tf.where(size > 0, size, 1.0), away)
        # Without a gradient the class may be anywhere, so nothing is known of the
        # closest: it stays below all distances.
        distance = tf.where(tf.math.is_finite(size), distance, _UNKNOWN)
        nearer = distance < closest
        slope = tf.where(nearer, size, slope)
        return number + 1, tf.where(nearer, distance, closest), slope

    number, *start = consider(1, tf.fill(tf.shape(z)[:1], tf.float32.max), 0.0)
    if rivals > 1:
        _, *start = tf.while_loop(lambda number, *_: number <= rivals, consider, (number, *start))
    closest, slope = start
    return closest, ordered[:, 0] - ordered[:, 1], slope


_DUAL = {
    "linf": lambda flat: tf.reduce_sum(flat, axis=-1),
    "l2": lambda flat: l2_norm(flat)[:, 0],
    "l1": lambda flat: tf.reduce_max(flat, axis=-1),
}
# A reverse pass each: with many classes, only the likely ones are considered.
RIVALS = 9


def linearize(task: Task) -> Linearized | None:
    """Compute the linearized robustness of the rightly classified examples."""
    if task.no_gradient or not task.right.any():
        return None

    about: Any = {"norm": task.norm, "rivals": RIVALS}

    def compute() -> CachedResult:
        some = (task.model, task.x[task.right])
        values = linearized_robustness(*some, batch_size=task.batch_size, **about)
        return CachedResult(values._asdict(), {})

    settings = {**about, "rows": array_digest(task.right), "values": True}
    return Linearized(**task.cache.get_or_compute("linearized", settings, compute).arrays)


def summarize_linearized(task: Task, values: Linearized | None) -> LinearizedRecord | None:
    """Summarize the linearized robustness of examples, and say where it is not known."""
    if values is None:
        return None
    if lost := int(np.isnan(values.robustness).sum()):
        of = f"{lost} of {len(values.robustness)} examples, which are left out."
        task.log.fail("linearized", f"the gradient is NaN or infinite at {of}")
    return linearized_record(values, task.norm)
