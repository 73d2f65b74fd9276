"""What a rule answers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_jsigr.attacks.apgd import APGD
from keras_jsigr.attacks.base import target_rows
from keras_jsigr.attacks.gradient_attack import usable_part
from keras_jsigr.attacks.losses import LossName, ascent_loss, attack_loss, misclassified
from keras_jsigr.attacks.norms import BALLS, safe_normalize, working_dtype
from keras_jsigr.attacks.pgd import FGSM, PGD
from keras_jsigr.attacks.square import Square
from keras_jsigr.attacks.transfer import MIFGSM
from keras_jsigr.core.batching import CompiledCache, classified_rightly, predict_logits
from keras_jsigr.core.heads import head_of, saturates
from keras_jsigr.core.logits import LogitsFn, as_logits, one_output
from keras_jsigr.core.random import fold_in
from keras_jsigr.evaluation.run import widest_radius


class Verdict(NamedTuple):
    """Hold what one rule found; it becomes a `Finding` with the rule's name and title."""

    suspect: bool
    says: str
    figures: dict[str, float]
    advice: str = ""


class NotApplicableError(Exception):
    """Say that a rule has nothing to judge; its finding is "skipped"."""


def percent(share: float) -> str:
    """Write a share, 0..1, as the text does."""
    return f"{100 * share:.1f} %"


Bools = npt.NDArray[np.bool_]


Rows = npt.NDArray[np.int64]


# The usual strength of a first white-box attack; rule more_steps asks whether it is
# enough.
PGD_STEPS = 50


_PROBES = 16


@dataclass(kw_only=True)
class Subject:
    """Hold a checked call of `diagnostics` and every attack that several rules need."""

    model: Any
    x: npt.NDArray[Any]
    y: npt.NDArray[np.int64]
    classes: int
    epsilon: float
    norm: str
    input_range: tuple[float, float]
    surrogates: dict[str, Any] = field(default_factory=dict)
    results: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    batch_size: int = 128
    seed: int = 0
    _programs: CompiledCache = field(
        default_factory=CompiledCache, init=False, repr=False
    )

    @cached_property
    def attackable(self) -> LogitsFn:
        """The logits with a gradient, be it zero, even where the model has none."""
        logits_fn = as_logits(self.model, self.x[:_PROBES])

        def logits(x: tf.Tensor) -> tf.Tensor:
            flat = tf.cast(tf.reshape(x, (tf.shape(x)[0], -1)), tf.float32)
            return logits_fn(x) + 0.0 * tf.reduce_sum(flat, axis=-1, keepdims=True)

        return logits

    @property
    def settings(self) -> dict[str, Any]:
        """What all attacks have in common."""
        return {
            "epsilon": self.epsilon,
            "norm": self.norm,
            "input_range": self.input_range,
            "batch_size": self.batch_size,
            "seed": self.seed,
            "verbose": 0,
        }

    # ---- who is still right

    @cached_property
    def right(self) -> Bools:
        """Per example: right without attack."""
        return self.judge(self.x, np.arange(len(self.x)))

    @property
    def rows(self) -> Rows:
        """The examples that are right without attack, at least one."""
        rows = np.flatnonzero(self.right)
        if not len(rows):
            raise NotApplicableError("No example is classified rightly without attack.")
        return rows

    @cached_property
    def pgd(self) -> PGD:
        """PGD-50 with one random start; compiled once for all radii."""
        return PGD(steps=PGD_STEPS, early_stop=True, **self.settings)

    @cached_property
    def under_fgsm(self) -> Bools:
        """Per example: right without attack and under one step from `x`."""
        return self.under(FGSM(**self.settings))

    @cached_property
    def under_pgd(self) -> Bools:
        """Per example: right without attack and under PGD-50."""
        return self.under(self.pgd)

    @cached_property
    def under_white_box(self) -> Bools:
        """Per example: right under PGD-50 and at the points given."""
        right = self.under_pgd.copy()
        for points in self.results.values():
            right &= self.judge(points, np.arange(len(self.x)))
        return right

    def under(self, attack: Any, rows: Rows | None = None, model: Any = None) -> Bools:
        """Attack examples and tell which stay right."""
        rows = self.rows if rows is None else rows
        right = np.zeros(len(self.x), bool)
        if len(rows):
            source = self.attackable if model is None else model
            points = attack(source, self.x[rows], self.y[rows])
            right[rows] = self.judge(points, rows)
        return right

    def judge(self, points: Any, rows: Rows) -> Bools:
        """Tell which points, of examples `rows`, are classified rightly."""
        logits = predict_logits(self.attackable, points, self.batch_size)
        return classified_rightly(logits, self.y[rows])

    # ---- computations of a rule's own

    def compute(
        self, name: str, body: Callable[..., Any], rows: Rows, *numbers: float
    ) -> list[npt.NDArray[Any]]:
        """Run a function of tensors on examples, compiled and batch by batch."""

        def build(logits_fn: LogitsFn, probe: tf.Tensor, classes: int) -> Any:
            def run(x: tf.Tensor, targets: tf.Tensor, seed: Any, *rest: Any) -> Any:
                return body(logits_fn, x, targets, seed, *rest)

            signature = [
                tf.TensorSpec((None, *probe.shape[1:]), probe.dtype),
                tf.TensorSpec((None, classes), tf.float32),
                tf.TensorSpec((2,), tf.int32),
                *(tf.TensorSpec((), tf.float32) for _ in numbers),
            ]
            return run, signature

        probe = tf.convert_to_tensor(self.x[:_PROBES])
        run = self._programs.get(name, build, self.attackable, probe).run
        scalars = [tf.constant(number, tf.float32) for number in numbers]
        parts = []
        for number, start in enumerate(range(0, len(rows), self.batch_size)):
            part = rows[start : start + self.batch_size]
            x = tf.convert_to_tensor(self.x[part])
            targets = target_rows(self.y[part], len(part), self.classes)
            seed = tf.constant([self.seed, number], tf.int32)
            parts.append([t.numpy() for t in run(x, targets, seed, *scalars)])
        return [np.concatenate(column) for column in zip(*parts, strict=True)]


# Of all rules together some twenty tests are made: an honest model at the very edge of
# every tolerance is accused once in fifty evaluations, any other hardly ever.
SIGNIFICANCE = 1e-3


_FEW = 10


def tail_probability(count: int, total: int, share: float) -> float:
    """Compute the probability of at least `count` hits among `total`."""
    if count <= 0:
        return 1.0
    hit, miss = math.log(share), math.log1p(-share)
    terms = (
        math.exp(_log_choices(total, k) + k * hit + (total - k) * miss)
        for k in range(count, total + 1)
    )
    return min(1.0, math.fsum(terms))


def clearly_more(count: int, total: int, share: float) -> bool:
    """Tell whether hits are more than `share` of `total`, and not by chance."""
    above = count > share * total
    return above and tail_probability(count, total, share) < SIGNIFICANCE


def clearly_moved(to: int, back: int, total: int, share: float) -> bool:
    """Tell whether examples changed sides in one direction, and not by chance."""
    chance = tail_probability(to, to + back, 0.5)
    return to - back > share * total and chance < SIGNIFICANCE


def standard_error(values: npt.NDArray[Any]) -> float:
    """Estimate the standard error of a mean, infinite where that is guesswork."""
    few = len(values) < _FEW
    return math.inf if few else float(values.std(ddof=1) / math.sqrt(len(values)))


def _log_choices(total: int, count: int) -> float:
    lgamma = math.lgamma
    return lgamma(total + 1) - lgamma(count + 1) - lgamma(total - count + 1)


# Few for Square: enough to beat masked gradients, too few to beat good ones.
QUERIES = 500


# A weak white-box attack misses one or two examples of a hundred honestly.
TOLERATED = 0.02


LOSSES: tuple[LossName, ...] = ("cross_entropy", "dlr")


def black_box_beats_white_box(subject: Subject) -> Verdict:
    """Try what PGD-50 left with Square and with examples made against surrogates."""
    total = len(subject.rows)
    left = np.flatnonzero(subject.under_white_box)
    square = Square(queries=QUERIES, **subject.settings)
    by_square = ~subject.under(square, left)[left]
    by_transfer = np.zeros(len(left), bool)
    for surrogate in subject.surrogates.values():
        attack = MIFGSM(**subject.settings)
        by_transfer |= ~subject.under(attack, left, surrogate)[left]
    fallen = left[by_square | by_transfer]
    unexplained = fallen
    for loss in LOSSES:
        again = APGD(loss=loss, restarts=3, early_stop=True, **subject.settings)
        unexplained = np.flatnonzero(subject.under(again, unexplained))
    figures = {
        "share": len(unexplained) / total,
        "share_before_effort": len(fallen) / total,
        "share_by_square": float(by_square.sum() / total),
        "share_by_transfer": float(by_transfer.sum() / total),
        "white_box_accuracy": len(left) / len(subject.x),
    }
    says = (
        f"Attacks without its gradient fooled the model at "
        f"{percent(len(fallen) / total)} of {total} examples where white-box attacks "
        f"did not; more effort of those still fails at "
        f"{percent(len(unexplained) / total)}."
    )
    advice = (
        "The gradients do not lead to errors that exist. Quote the per-example worst "
        "case with Square of 5,000 queries and transfer, and look for what hides them; "
        "the findings on gradients and logits tell more."
    )
    return Verdict(
        clearly_more(len(unexplained), total, TOLERATED), says, figures, advice
    )


FACTORS = (0.5, 1.0, 2.0)


# Larger steps of a larger ball overlook an example here and there.
EPSILON_CURVE_TOLERATED = 0.02


def epsilon_curve(subject: Subject) -> Verdict:
    """Attack at half, once and twice the radius, and at one that covers the range."""
    rows, total = subject.rows, len(subject.rows)
    widest = widest_radius(subject.norm, subject.input_range, subject.x[0].size)
    radii = [f * subject.epsilon for f in FACTORS if f * subject.epsilon < widest]
    radii.append(widest)
    curve = [
        subject.under_pgd
        if radius == subject.epsilon
        else subject.under(subject.pgd.at(radius))
        for radius in radii
    ]
    pairs = list(pairwise(curve))
    risen = [int((~a & b)[rows].sum()) for a, b in pairs]
    fallen = [int((a & ~b)[rows].sum()) for a, b in pairs]
    rises = any(
        clearly_moved(up, down, total, EPSILON_CURVE_TOLERATED)
        for up, down in zip(risen, fallen, strict=True)
    )
    counts = np.bincount(subject.y, minlength=subject.classes)
    chance = max(float(counts.max()) / len(subject.x), 1.0 / subject.classes)
    end = int(curve[-1].sum())
    above = chance < 1.0 and clearly_more(end, len(subject.x), chance)
    figures = {
        f"accuracy_at_{radius:g}": float(right.mean())
        for radius, right in zip(radii, curve, strict=True)
    }
    change = max(up - down for up, down in zip(risen, fallen, strict=True))
    figures |= {"largest_rise": max(change, 0) / total, "chance": chance}
    listed = ", ".join(percent(float(right.mean())) for right in curve)
    says = (
        f"Over growing radii PGD leaves {listed}; the last one covers the whole range, "
        f"where guessing has {percent(chance)}."
    )
    advice = (
        "The attack fails where it has room enough, so it does not find what is there. "
        "Do not quote it; look at the gradients and at black-box attacks."
    )
    return Verdict(rises or above, says, figures, advice)


DRAWS = 4


# Mean cosine. On Fashion-MNIST plain, adversarially trained and hardened networks had
# 0.86 to 0.96 at their radius and 0.57 or more at three times that, collapsed ones 0.27
# to 0.46.
ALIGNED = 0.5


# No better than chance in practice: gradients are shattered, whatever the accuracy.
SHATTERED = 0.1


# The symptom of catastrophic overfitting: one step leaves much of the accuracy without
# attack, many steps take at least half of that.
MUCH = 0.4


HALF = 0.5


def local_linearity(subject: Subject) -> Verdict:
    """Compare the gradients at `x` and at uniform noise around it."""
    rows = subject.rows
    known, cosine, gamma, gain = subject.compute(
        "local linearity",
        _look_around(subject.norm, subject.input_range),
        rows,
        subject.epsilon,
    )
    # A gradient or a loss that is NaN or infinite has none either.
    known &= np.isfinite(cosine) & np.isfinite(gamma) & np.isfinite(gain)
    if not known.any():
        raise NotApplicableError(
            "All gradients are zero or not finite: they have no direction to compare."
        )
    alignment = float(cosine[known].mean())
    one, many = subject.under_fgsm[rows], subject.under_pgd[rows]
    share_one, share_many, total = one.mean(), many.mean(), len(rows)
    refuted = (
        share_one >= MUCH
        and share_many <= HALF * share_one
        and clearly_moved(
            int((one & ~many).sum()), int((many & ~one).sum()), total, 0.0
        )
    )
    # At a corner of the range nothing is gained: one stands for any large ratio.
    gamma, gain = gamma[known], np.maximum(gain, gamma)[known]
    relative = gamma / np.where(gain > 0, gain, 1.0)
    error = standard_error(cosine[known])
    figures = {
        "alignment": alignment,
        "standard_error": error,
        "gamma": float(np.median(gamma)),
        "relative_gamma": float(np.median(relative)),
        "kept_under_one_step": float(share_one),
        "kept_under_many": float(share_many),
    }
    highest = alignment + 3 * error
    suspect = highest < SHATTERED or (highest < ALIGNED and bool(refuted))
    says = (
        f"Gradients at an input and at noise of the radius have a mean cosine of "
        f"{alignment:.2f}. Of the right decisions one step leaves "
        f"{percent(share_one)}, many steps leave {percent(share_many)}."
    )
    advice = (
        "The loss is curved within the radius, so robustness to one step means "
        "nothing (catastrophic overfitting). Train with a random start, more steps or "
        "a penalty on the gradients, and quote APGD with restarts and Square only."
    )
    return Verdict(suspect, says, figures, advice)


def _look_around(norm: str, input_range: tuple[float, float]) -> Any:
    def body(
        logits_fn: LogitsFn,
        x: tf.Tensor,
        targets: tf.Tensor,
        seed: tf.Tensor,
        epsilon: tf.Tensor,
    ) -> Any:
        origin = tf.cast(x, working_dtype(x.dtype))
        ball = BALLS[norm](origin, tf.cast(epsilon, origin.dtype), input_range)
        axes = list(range(1, x.shape.rank))

        def look(point: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(point)
                logits = logits_fn(tf.cast(point, x.dtype))
                loss = ascent_loss(logits, targets)
            return loss, tape.gradient(loss, point)

        def dot(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
            return tf.cast(tf.reduce_sum(a * b, axes), tf.float32)

        loss, gradient = look(origin)

        def error(point: tf.Tensor, there: tf.Tensor) -> tf.Tensor:
            return tf.abs(there - loss - dot(point - origin, gradient))

        step = ball.project(origin + _longest(ball, gradient, epsilon))

        def draw(number: tf.Tensor, cosine: tf.Tensor, gamma: tf.Tensor) -> Any:
            point = tf.ensure_shape(ball.sample(fold_in(seed, number)), x.shape)
            there, turned = look(point)
            cosine += dot(safe_normalize(gradient), safe_normalize(turned)) / DRAWS
            return number + 1, cosine, tf.maximum(gamma, error(point, there))

        start = (tf.constant(0), tf.zeros_like(loss), error(step, look(step)[0]))
        _, cosine, gamma = tf.while_loop(lambda n, *_: n < DRAWS, draw, start)
        known = tf.reduce_any(gradient != 0, axes)
        return known, cosine, gamma, dot(step - origin, gradient)

    return body


def _longest(ball: Any, gradient: tf.Tensor, epsilon: tf.Tensor) -> tf.Tensor:
    return tf.cast(epsilon, gradient.dtype) * ball.steepest(gradient)


STEPS = 20


def naive_loss(logits: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Compute softmax cross entropy in float32, whose gradient vanishes if it is small."""
    return tf.nn.softmax_cross_entropy_with_logits(targets, tf.cast(logits, tf.float32))


def naive_attack(
    logits_fn: LogitsFn,
    x: tf.Tensor,
    targets: tf.Tensor,
    *,
    epsilon: Any,
    scale: Any,
    norm: str = "linf",
    input_range: tuple[float, float] = (0.0, 1.0),
    margin: Any = 0.0,
) -> tf.Tensor:
    """Take 20 projected gradient steps from `x` and tell which examples resist."""
    origin = tf.cast(x, working_dtype(x.dtype))
    epsilon = tf.cast(epsilon, origin.dtype)
    ball = BALLS[norm](origin, epsilon, input_range)
    length = 2.5 * epsilon / STEPS

    def logits_at(point: tf.Tensor) -> tf.Tensor:
        return tf.cast(logits_fn(tf.cast(point, x.dtype)), tf.float32)

    def step(number: tf.Tensor, point: tf.Tensor, right: tf.Tensor) -> Any:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(point)
            logits = logits_at(point)
            loss = tf.where(
                tf.cast(margin, tf.bool),
                attack_loss(logits, targets, "margin"),
                naive_loss(scale * logits, targets),
            )
        gradient = tf.ensure_shape(tape.gradient(loss, point), point.shape)
        # NaN would lead to points that are wrong, and outside of everything.
        gradient, _ = usable_part(gradient)
        right &= ~misclassified(logits, targets)
        return number + 1, ball.project(point + length * ball.steepest(gradient)), right

    start = (tf.constant(0), origin, tf.ones_like(targets[:, 0], tf.bool))
    _, point, right = tf.while_loop(lambda number, *_: number < STEPS, step, start)
    return right & ~misclassified(logits_at(point), targets)


# Of all examples. Losses differ in the rival they go for: on honest networks the margin
# finds up to five in a hundred more, where saturation hides nearly all.
LOGIT_SCALE_TOLERATED = 0.1


def logit_scale(subject: Subject) -> Verdict:
    """Run a naive attack on the logits times 0.001, 1 and 1000, and with the margin."""
    rows, total = subject.rows, len(subject.rows)
    body = _resisting(subject.norm, subject.input_range)

    def right_under(scale: float, margin: float = 0.0) -> Any:
        numbers = (subject.epsilon, scale, margin)
        (right,) = subject.compute("naive attack", body, rows, *numbers)
        return right

    plain = right_under(1.0)
    others = {
        "0.001": right_under(1e-3),
        "1000": right_under(1e3),
        "margin": right_under(1.0, margin=1.0),
    }
    suspect, figures = False, {"accuracy": float(plain.sum() / len(subject.x))}
    for name, right in others.items():
        fooled, missed = int((plain & ~right).sum()), int((~plain & right).sum())
        suspect |= clearly_moved(fooled, missed, total, LOGIT_SCALE_TOLERATED)
        figures[f"accuracy_{name}"] = float(right.sum() / len(subject.x))
    says = (
        f"A plain cross-entropy attack leaves {percent(figures['accuracy'])} right, on "
        f"logits times 0.001 {percent(figures['accuracy_0.001'])}, on logits times "
        f"1000 {percent(figures['accuracy_1000'])}, with the margin loss "
        f"{percent(figures['accuracy_margin'])}."
    )
    advice = (
        "Cross entropy is saturated: results of attacks that use it as it is are too "
        "high. Use loss='margin' or 'dlr', or rescale the logits."
    )
    return Verdict(suspect, says, figures, advice)


def _resisting(norm: str, input_range: tuple[float, float]) -> Any:
    def body(
        logits_fn: LogitsFn,
        x: tf.Tensor,
        targets: tf.Tensor,
        seed: tf.Tensor,
        epsilon: tf.Tensor,
        scale: tf.Tensor,
        margin: tf.Tensor,
    ) -> tuple[tf.Tensor]:
        del seed
        right = naive_attack(
            logits_fn,
            x,
            targets,
            epsilon=epsilon,
            scale=scale,
            margin=margin,
            norm=norm,
            input_range=input_range,
        )
        return (right,)

    return body


RESTARTS = 4


# Of all examples: the difference that published tables are read to.
MORE_STEPS_TOLERATED = 0.02


def more_steps(subject: Subject) -> Verdict:
    """Attack with twice the steps from the same starts, then from four others."""
    total = len(subject.rows)
    left = np.flatnonzero(subject.under_pgd)
    longer = PGD(steps=2 * PGD_STEPS, early_stop=True, **subject.settings)
    # All examples, so that each begins where it did; those that fall end early.
    after_steps = np.flatnonzero(subject.under_pgd & subject.under(longer))
    again = {**subject.settings, "seed": subject.seed + 1}
    starts = PGD(steps=PGD_STEPS, restarts=RESTARTS, early_stop=True, **again)
    after_all = np.flatnonzero(subject.under(starts, after_steps))
    by_steps, more = len(left) - len(after_steps), len(left) - len(after_all)
    figures = {
        "accuracy": len(left) / len(subject.x),
        "accuracy_more_steps": len(after_steps) / len(subject.x),
        "accuracy_more_starts": len(after_all) / len(subject.x),
        "share": more / total,
    }
    says = (
        f"From {PGD_STEPS} to {2 * PGD_STEPS} steps PGD fools "
        f"{percent(by_steps / total)} more of {total} examples, with {RESTARTS} random "
        f"starts on top {percent(more / total)}."
    )
    advice = (
        "PGD has not converged: its accuracy is too high, and more effort lowers it. "
        "Use APGD with several restarts and go on until nothing changes."
    )
    return Verdict(
        clearly_more(more, total, MORE_STEPS_TOLERATED), says, figures, advice
    )


NOISE_DRAWS = 100


# Random directions are the worst of all attacks: whatever they find, gradients do.
NOISE_TOLERATED = 0.01


MANY_DIMENSIONS = 100


# Half of a small harm is nothing to judge by.
HARM = 0.02


# Where PGD leaves next to nothing, there is no robustness to doubt: half of its harm is
# that of a radius too large for the data.
LEFT = 0.1


def noise(subject: Subject) -> Verdict:
    """Draw 100 points of the ball per example and compare with PGD."""
    rows, total = subject.rows, len(subject.rows)
    body = _count_errors(subject.norm, subject.input_range)
    (errors,) = subject.compute("noise", body, rows, subject.epsilon)
    right = subject.under_pgd[rows]
    alone = int((right & (errors > 0)).sum())
    harm, pgd_harm = errors / NOISE_DRAWS, (~right).astype(float)
    excess = harm - HALF * pgd_harm
    figures = {
        "share": alone / total,
        "clean_accuracy": total / len(subject.x),
        "noise_accuracy": float((1.0 - harm).sum() / len(subject.x)),
        "worst_noise_accuracy": float((errors == 0).sum() / len(subject.x)),
        "pgd_accuracy": float(right.sum() / len(subject.x)),
    }
    as_harmful = (
        subject.x[0].size >= MANY_DIMENSIONS
        and harm.mean() > HARM
        and excess.mean() > 3 * standard_error(excess)
        and clearly_more(int(right.sum()), total, LEFT)
    )
    says = (
        f"Noise takes the accuracy from {percent(figures['clean_accuracy'])} to "
        f"{percent(figures['noise_accuracy'])} on average, PGD to "
        f"{percent(figures['pgd_accuracy'])}; {NOISE_DRAWS} draws fool the model at "
        f"{percent(alone / total)} of {total} examples where PGD does not."
    )
    advice = (
        "An attack that loses to blind guessing is broken by the model: the gradients "
        "are useless. Quote Square, transfer and noise of many draws instead."
    )
    suspect = clearly_more(alone, total, NOISE_TOLERATED) or bool(as_harmful)
    return Verdict(suspect, says, figures, advice)


def _count_errors(norm: str, input_range: tuple[float, float]) -> Any:
    def body(
        logits_fn: LogitsFn,
        x: tf.Tensor,
        targets: tf.Tensor,
        seed: tf.Tensor,
        epsilon: tf.Tensor,
    ) -> tuple[tf.Tensor]:
        origin = tf.cast(x, working_dtype(x.dtype))
        ball = BALLS[norm](origin, tf.cast(epsilon, origin.dtype), input_range)

        def draw(number: tf.Tensor, errors: tf.Tensor) -> Any:
            point = tf.ensure_shape(ball.sample(fold_in(seed, number)), origin.shape)
            wrong = misclassified(logits_fn(tf.cast(point, x.dtype)), targets)
            return number + 1, errors + tf.cast(wrong, tf.int32)

        start = (tf.constant(0), tf.zeros_like(targets[:, 0], tf.int32))
        _, errors = tf.while_loop(lambda number, _: number < NOISE_DRAWS, draw, start)
        return (errors,)

    return body


Floats = npt.NDArray[np.float64]


CALLS = 3


# Of the logits that decide. Kernels that add in another order change 1e-6 of them.
RANDOMNESS_TOLERATED = 1e-4


_TIE = 1e-5  # Closer than this, rounding alone may change a decision.


_EAGER = 32


def randomness(subject: Subject) -> Verdict:
    """Ask the model several times about the same examples."""
    difference, changed, decided = 0.0, 0.0, False
    compiled = [
        np.asarray(
            predict_logits(subject.attackable, subject.x, subject.batch_size),
            np.float64,
        )
        for _ in range(CALLS)
    ]
    few = tf.convert_to_tensor(subject.x[:_EAGER])
    logits_fn = as_logits(subject.model, few)
    eager = [np.asarray(logits_fn(few), np.float64) for _ in range(CALLS)]
    for first, *others in (compiled, eager):
        size, gap = _size_and_gap(first)
        for other in others:
            # A class that is never chosen may have any logit: it measures itself alone.
            relative = np.abs(other - first) / np.maximum(np.abs(first), size[:, None])
            difference = max(difference, float(relative.max()))
            moved = other.argmax(-1) != first.argmax(-1)
            changed = max(changed, float(moved.mean()))
            wide = np.maximum(gap, _size_and_gap(other)[1]) > _TIE * size
            decided |= bool((moved & wide).any())
    figures = {"largest_difference": difference, "decisions_changed": changed}
    if difference <= RANDOMNESS_TOLERATED and not decided:
        return Verdict(False, "Equal inputs get equal outputs.", figures)
    says = (
        f"Outputs for the same input differ by up to {percent(difference)} of the "
        f"logits that decide; {percent(changed)} of the decisions change."
    )
    advice = (
        "One run of an attack measures luck. Attack the mean over many draws "
        "(expectation over transformation), judge each point by many draws, or switch "
        "the noise off."
    )
    return Verdict(True, says, figures, advice)


def _size_and_gap(logits: Floats) -> tuple[Floats, Floats]:
    """Return, per row, how large the two top logits are and how far they are apart."""
    top = np.sort(logits, axis=-1)[:, -2:]
    size = np.abs(top).max(axis=-1)
    tiny = float(np.finfo(np.float32).tiny)
    return np.maximum(size, max(float(np.median(size)), tiny)), top[:, -1] - top[:, 0]


# Both attacks sample the edge of what is possible, so a few examples fall to the
# weaker one alone.
SINGLE_STEP_BEATS_ITERATIVE_TOLERATED = 0.01


def single_step_beats_iterative(subject: Subject) -> Verdict:
    """Compare FGSM and PGD per example, at the same radius."""
    rows = subject.rows
    one, many = subject.under_fgsm[rows], subject.under_pgd[rows]
    alone, other, total = int((~one & many).sum()), int((one & ~many).sum()), len(rows)
    figures = {
        "share": alone / total,
        "standard_error": (alone * (total - alone) / total**3) ** 0.5,
        "fgsm_accuracy": float(one.sum() / len(subject.x)),
        "pgd_accuracy": float(many.sum() / len(subject.x)),
    }
    suspect = clearly_more(
        alone, total, SINGLE_STEP_BEATS_ITERATIVE_TOLERATED
    ) or clearly_moved(alone, other, total, 0.0)
    says = (
        f"One step fools the model at {percent(alone / total)} of {total} examples "
        f"where {PGD_STEPS} steps do not; the accuracy is "
        f"{percent(figures['fgsm_accuracy'])} under one step and "
        f"{percent(figures['pgd_accuracy'])} under many."
    )
    advice = (
        "The gradients away from the input mislead. Try other step sizes, start at the "
        "input itself, add restarts, and take the per-example worst of all attacks."
    )
    return Verdict(suspect, says, figures, advice)


_EXAMPLES = 128


# Rows of float32 or float16 probabilities sum to one to this.
_ROUNDING = 1e-2


def softmax_outputs(subject: Subject) -> Verdict:
    """Ask whether the outputs are probabilities, and whether we see behind them."""
    model = subject.model
    x = tf.convert_to_tensor(subject.x[:_EXAMPLES])
    if isinstance(model, keras.Model):
        kind = head_of(model, x).kind
        says = f"The model ends in a {kind}; the attacks see the logits behind it."
        if kind == "linear":
            says = "The model returns logits."
        return Verdict(False, says, {"share": 0.0, "saturated": 0.0})
    outputs = one_output(model(x))
    p = np.asarray(tf.cast(outputs, tf.float32))
    bounded = ((p >= 0.0) & (p <= 1.0)).all(axis=-1)
    if p.shape[-1] == 1:
        rows = np.full(len(p), saturates(lambda x: one_output(model(x)), x, outputs))
        saturated = (p == 0.0).any(-1) | (p == 1.0).any(-1)
    else:
        rows = bounded & (np.abs(p.sum(-1) - 1.0) < _ROUNDING)
        saturated = (p == 1.0).any(axis=-1)
    figures = {
        "share": float(rows.mean()),
        "saturated": float((rows & saturated).mean()),
    }
    if not rows.all():
        return Verdict(False, "The callable returns logits.", figures)
    says = (
        f"The callable returns probabilities, not logits; {percent(saturated.mean())} "
        "of the rows are exactly zero or one, which leaves no gradient."
    )
    advice = (
        "Return the logits, or pass the Keras model itself: attacks see behind its "
        "softmax."
    )
    return Verdict(True, says, figures, advice)


# What counts as zero: float32 cross entropy of a margin above 27 ends here.
ZERO = 1e-12


# Long trained plain networks are that sure of some examples; defenses that live on it
# are of nearly all.
ZERO_GRADIENTS_TOLERATED = 0.05


def zero_gradients(subject: Subject) -> Verdict:
    """Count the examples whose input gradient is zero, or NaN or infinite."""
    total = len(subject.x)
    naive, odds, finite = subject.compute("zero gradients", _largest, np.arange(total))
    broken = int((~finite).sum())
    vanished, none = (int((finite & (size < ZERO)).sum()) for size in (naive, odds))
    figures = {
        "share": vanished / total,
        "share_without_any": none / total,
        "share_not_finite": broken / total,
    }
    if clearly_more(broken, total, ZERO_GRADIENTS_TOLERATED):
        return Verdict(
            True,
            f"The gradient is NaN or infinite at {percent(broken / total)} of {total} "
            "examples: attacks by gradients leave them, or parts of them, where they "
            "are.",
            figures,
            "Find the operation without a derivative there (a square root or a norm of "
            "zeros, a logarithm, a division) and keep it away from such values by a "
            "small number; quote Square and transferred examples until then.",
        )
    says = (
        f"The gradient of cross entropy is zero at {percent(vanished / total)} of "
        f"{total} examples"
    )
    if clearly_more(none, total, ZERO_GRADIENTS_TOLERATED):
        advice = (
            "The model passes no gradient there (rounding, thresholds, argmax): attack "
            "it through a smooth stand-in for that step (BPDA), with Square and with "
            "transferred examples, and quote the worst."
        )
        also = f", and at {percent(none / total)} no other loss has one either."
        return Verdict(True, says + also, figures, advice)
    advice = (
        "The outputs are saturated: do not quote attacks on plain cross entropy. The "
        "attacks of this package follow the log odds, or loss='margin' or 'dlr'."
    )
    return Verdict(
        clearly_more(vanished, total, ZERO_GRADIENTS_TOLERATED),
        says + ".",
        figures,
        advice,
    )


def _largest(
    logits_fn: LogitsFn, x: tf.Tensor, targets: tf.Tensor, seed: tf.Tensor
) -> Any:
    del seed
    point = tf.cast(x, working_dtype(x.dtype))
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(point)
        logits = logits_fn(tf.cast(point, x.dtype))
        naive, odds = naive_loss(logits, targets), ascent_loss(logits, targets)
    axes = list(range(1, x.shape.rank))
    gradients = [tape.gradient(loss, point) for loss in (naive, odds)]
    naive, odds = (tf.reduce_max(tf.abs(g), axes) for g in gradients)
    finite = tf.reduce_all(tf.math.is_finite(gradients[1]), axes)
    return naive, odds, finite
