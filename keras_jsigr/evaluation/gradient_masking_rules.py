"""The rules of the gradient-masking diagnostics, in the order of the report.

A new rule is one function with `@rule`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from keras_jsigr.attacks.apgd import APGD
from keras_jsigr.attacks.base import AttackContext
from keras_jsigr.attacks.gradient_attack import zero_nonfinite
from keras_jsigr.attacks.hopskipjump import HopSkipJump
from keras_jsigr.attacks.losses import LossName, ascent_loss, attack_loss, misclassified
from keras_jsigr.attacks.norms import safe_normalize, widest_radius
from keras_jsigr.attacks.pgd import PGD
from keras_jsigr.attacks.square import Square
from keras_jsigr.attacks.transfer import MIFGSM
from keras_jsigr.core.batching import predict_logits, probe_rows
from keras_jsigr.core.heads import head_of, saturates
from keras_jsigr.core.logits import as_logits, one_output
from keras_jsigr.core.random import fold_in
from keras_jsigr.core.variables import unchanged
from keras_jsigr.evaluation.gradient_masking_context import (
    DiagnosticContext,
    NotApplicableError,
    clearly_more,
    clearly_moved,
    standard_error,
)
from keras_jsigr.evaluation.run import chance


class RuleResult(NamedTuple):
    """What a rule found; the advice is shown if it is suspect."""

    suspect: bool
    says: str
    figures: dict[str, float]
    advice: str = ""


class Rule(NamedTuple):
    """One sign of gradient masking; `title` says what is checked, as it should be."""

    name: str
    title: str
    check: Callable[[DiagnosticContext], RuleResult]
    needs_gradient: bool = True


RULES: dict[str, Rule] = {}


def rule(name: str, title: str, needs_gradient: bool = True) -> Any:
    """Add a check to the diagnostics; it may raise `NotApplicableError`."""

    def add(check: Callable[[DiagnosticContext], RuleResult]) -> Any:
        RULES[name] = Rule(name, title, check, needs_gradient)
        return check

    return add


def moves(right: Any, other: Any) -> tuple[int, int]:
    """Count the examples that are right in the first alone, and in the second."""
    return int((right & ~other).sum()), int((~right & other).sum())


def percent(share: float) -> str:
    """Write a share, 0..1, for the text of a finding."""
    return f"{100 * share:.1f} %"


# Of rules whose helpers use them too.
TIE = 1e-5  # closer than this, rounding alone may change a decision
BATCH_TOLERATED = 0.02  # in batches of another size even half precision differs by less
SCALE_STEPS, NEARBY, WALK_POINTS, NOISE_DRAWS = 20, 4, 32, 100
UNSEEN_QUERIES, UNSEEN_EXAMPLES = 1000, 50  # of an attack by decisions, if suspect


@rule("zero_gradients", "Gradients do not vanish", needs_gradient=False)
def zero_gradients(context: DiagnosticContext) -> RuleResult:
    """Count the examples whose input gradient is zero, NaN or infinite."""
    zero = 1e-12  # float32 cross entropy of a margin above 27 has such a gradient
    # Long trained plain networks are that sure of some examples; defenses that live on
    # it of nearly all.
    tolerated = 0.05
    advice = (
        "The model passes no gradient there (rounding, thresholds, argmax, Python "
        "code): attack it through a smooth stand-in for that step (BPDA), with Square "
        "and with transferred examples (`surrogates`), and quote the worst."
    )
    names = ("share", "share_without_any", "share_not_finite")
    total, none_at_all = len(context.x), context.no_gradient
    if none_at_all and none_at_all.python:
        figures = dict(zip(names, (1.0, 1.0, 0.0), strict=True))
        return RuleResult(True, none_at_all.reason, figures, advice)
    naive, odds, finite = context.compute("zero_gradients", _largest, np.arange(total))
    broken = int((~finite).sum())
    vanished, none = (int((finite & (size < zero)).sum()) for size in (naive, odds))
    counts = (vanished, none, broken)
    figures = {name: n / total for name, n in zip(names, counts, strict=True)}
    says = (
        f"The gradient of cross entropy is zero at {percent(vanished / total)} of {total} examples"
    )
    suspect = True
    if clearly_more(broken, total, tolerated):
        says = (
            f"The gradient is NaN or infinite at {percent(broken / total)} of {total} "
            "examples, which attacks by gradients leave where they are, or nearly"
        )
        advice = (
            "Find the operation without a derivative there (a square root or a norm of "
            "zeros, a logarithm, a division) and keep it away from such values by a "
            "small number; quote Square and transferred examples until then."
        )
    elif clearly_more(none, total, tolerated):
        says += f", and at {percent(none / total)} no other loss has one either"
    else:
        suspect = clearly_more(vanished, total, tolerated)
        advice = (
            "The outputs are saturated: do not quote attacks on plain cross entropy, "
            "but those of this package, which follow the log odds."
        )
    return RuleResult(suspect, f"{says}.", figures, advice)


def _largest(batch: AttackContext) -> Any:
    """Return the largest gradient of both losses, and whether it is finite."""
    point, targets = batch.origin, batch.targets
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(point)
        logits = batch.logits(point)
        naive, odds = cross_entropy(logits, targets), ascent_loss(logits, targets)
    axes = list(range(1, point.shape.rank))
    gradients = [tape.gradient(loss, point) for loss in (naive, odds)]
    naive, odds = (tf.reduce_max(tf.abs(g), axes) for g in gradients)
    return naive, odds, tf.reduce_all(tf.math.is_finite(gradients[1]), axes)


@rule("softmax_outputs", "Outputs are logits")
def softmax_outputs(context: DiagnosticContext) -> RuleResult:
    """Ask whether a callable returns probabilities instead of logits."""
    rounding = 1e-2  # rows of float16 probabilities sum to one to this
    model, x = context.model, tf.convert_to_tensor(context.x[:128])
    if isinstance(model, keras.Model):
        kind = head_of(model, x).kind
        says = f"The model ends in a {kind}; the attacks see the logits behind it."
        says = "The model returns logits." if kind == "linear" else says
        return RuleResult(False, says, {"share": 0.0, "saturated": 0.0})
    outputs = one_output(model(x))
    p = np.asarray(tf.cast(outputs, tf.float32))
    if p.shape[-1] == 1:
        rows = np.full(len(p), saturates(lambda x: one_output(model(x)), x, outputs))
        saturated = (p == 0.0).any(-1) | (p == 1.0).any(-1)
    else:
        sums = np.abs(p.sum(-1) - 1.0) < rounding
        rows = sums & ((p >= 0.0) & (p <= 1.0)).all(axis=-1)
        saturated = (p == 1.0).any(axis=-1)
    sure = float((rows & saturated).mean())
    figures = {"share": float(rows.mean()), "saturated": sure}
    if not rows.all():
        return RuleResult(False, "The callable returns logits.", figures)
    return RuleResult(
        True,
        f"The callable returns probabilities, not logits; {percent(saturated.mean())} "
        "of the rows are exactly zero or one, which leaves no gradient.",
        figures,
        "Return the logits, or pass the Keras model itself: attacks see behind its softmax.",
    )


@rule("randomness", "Equal inputs get equal outputs", needs_gradient=False)
def randomness(context: DiagnosticContext) -> RuleResult:
    """Ask about the same examples again: compiled or not, and in other batches."""
    # Of the two largest logits. Another order of addition changes 1e-6 of them.
    tolerated = 1e-4
    known, difference, changed, decided = context.logits, 0.0, 0.0, False
    few = tf.convert_to_tensor(context.x[:32])
    eager = as_logits(context.model, few)
    size = context.batch_size
    compiled = partial(predict_logits, context.attackable, context.x, size)
    for ask in (compiled, lambda: eager(few)):
        first, *others = (np.asarray(ask(), np.float64) for _ in range(3))
        for other in others:
            far, moved, sure = _compare(first, other, TIE)
            difference, changed = max(difference, far), max(changed, moved)
            decided |= sure
    figures = {"largest_difference": difference, "decisions_changed": changed}
    if difference <= tolerated and not decided:
        return _in_other_batches(context, known, figures)
    return RuleResult(
        True,
        f"Outputs for the same input differ by up to {percent(difference)} of the "
        f"largest logits; {percent(changed)} of the decisions change.",
        figures,
        "One run of an attack measures luck. Attack the mean over many draws, judge "
        "each point by many draws, or switch the noise off.",
    )


def _in_other_batches(
    context: DiagnosticContext, known: Any, figures: dict[str, float]
) -> RuleResult:
    """Ask in batches of another size, each example among other neighbours."""
    count = len(context.x)
    size = max(1, min(count, context.batch_size) // 3)
    order = np.random.default_rng(context.seed).permutation(count)
    logits = predict_logits(context.attackable, context.x[order], size)
    with unchanged(context.model) as changed:
        if not isinstance(context.model, keras.Model):
            context.model(probe_rows(context.x))  # as it is, with what its layers assign
    again = np.empty(known.shape, np.float64)
    again[order] = logits
    far, moved, sure = _compare(known.astype(np.float64), again, BATCH_TOLERATED)
    figures |= {"batch_difference": far, "decisions_by_batch": moved}
    own = f" Being asked changes its variables {changed[:3]}." if changed else ""
    if far <= BATCH_TOLERATED and not sure:
        says = f"Equal inputs get equal outputs, in any batch.{own}"
        return RuleResult(False, says, figures)
    return RuleResult(
        True,
        "The answer for an input depends on the others in its batch: in other "
        f"batches outputs differ by up to {percent(far)} of the largest logits, "
        f"and {percent(moved)} of the decisions change.{own}",
        figures,
        "The model seems to normalize by the batch: call it with training=False. As it "
        "is, an accuracy under attack holds for one composition of batches only.",
    )


def _compare(
    first: npt.NDArray[Any], other: npt.NDArray[Any], tie: float
) -> tuple[float, float, bool]:
    """Return the largest difference, decisions changed, and if beyond rounding."""
    size, gap = _size_and_gap(first)
    # A class that is never chosen may have any logit: relative to itself.
    scale = np.maximum(np.abs(first), size[:, None])
    moved = other.argmax(-1) != first.argmax(-1)
    wide = np.maximum(gap, _size_and_gap(other)[1]) > tie * size
    far = float((np.abs(other - first) / scale).max())
    return far, float(moved.mean()), bool((moved & wide).any())


def _size_and_gap(logits: npt.NDArray[np.float64]) -> tuple[Any, Any]:
    """Return, per row, the size of the two top logits and their distance."""
    top = np.sort(logits, axis=-1)[:, -2:]
    size = np.abs(top).max(axis=-1)
    least = max(float(np.median(size)), float(np.finfo(np.float32).tiny))
    return np.maximum(size, least), top[:, -1] - top[:, 0]


@rule("single_step_beats_iterative", "Many steps beat one")
def single_step_beats_iterative(context: DiagnosticContext) -> RuleResult:
    """Compare FGSM and PGD per example, at the same radius."""
    tolerated = 0.01  # of an honest model, some examples fall to FGSM alone
    rows, total = context.rows, len(context.rows)
    one, many = context.under_fgsm[rows], context.under_pgd[rows]
    alone, other = moves(many, one)
    figures = {
        "share": alone / total,
        "standard_error": (alone * (total - alone) / total**3) ** 0.5,
        "fgsm_accuracy": float(one.sum() / len(context.x)),
        "pgd_accuracy": float(many.sum() / len(context.x)),
    }
    return RuleResult(
        clearly_more(alone, total, tolerated) or clearly_moved(alone, other, total, 0.0),
        f"One step fools the model at {percent(alone / total)} of {total} examples where "
        f"{context.PGD_STEPS} steps do not; the accuracy is {percent(figures['fgsm_accuracy'])} "
        f"under one step and {percent(figures['pgd_accuracy'])} under many.",
        figures,
        "The gradients away from the input mislead. Try other step sizes, start at the "
        "input itself, add restarts, and take the per-example worst of all attacks.",
    )


@rule("black_box_beats_white_box", "White box beats black box")
def black_box_beats_white_box(context: DiagnosticContext) -> RuleResult:
    """Try what PGD left with Square and with examples made against surrogates."""
    # Few for Square: enough to beat masked gradients, too few to beat good ones.
    square = Square(queries=500, **context.settings)
    tolerated = 0.02  # a weak white-box attack misses one or two in a hundred honestly
    total = len(context.rows)
    left = np.flatnonzero(context.under_white_box)
    by_square = ~context.under(square, left)[left]
    by_transfer = np.zeros(len(left), bool)
    for surrogate in context.surrogates.values():
        momentum = MIFGSM(**context.settings)
        by_transfer |= ~context.under(momentum, left, surrogate)[left]
    fallen = unexplained = left[by_square | by_transfer]
    losses: tuple[LossName, ...] = ("cross_entropy", "dlr")
    for loss in losses:
        again = APGD(loss=loss, restarts=3, early_stop=True, **context.settings)
        unexplained = np.flatnonzero(context.under(again, unexplained))
    figures = {
        "share": len(unexplained) / total,
        "share_before_effort": len(fallen) / total,
        "share_by_square": float(by_square.sum() / total),
        "share_by_transfer": float(by_transfer.sum() / total),
        "white_box_accuracy": len(left) / len(context.x),
    }
    return RuleResult(
        clearly_more(len(unexplained), total, tolerated),
        f"Attacks without its gradient fooled the model at {percent(len(fallen) / total)} of "
        f"{total} examples where white-box attacks did not; more effort of those still fails at "
        f"{percent(len(unexplained) / total)}.",
        figures,
        "The gradients do not lead to errors that exist. Quote the per-example worst "
        "case with Square of 5,000 queries and transfer, and look for what hides them.",
    )


@rule("more_steps", "More steps find no more")
def more_steps(context: DiagnosticContext) -> RuleResult:
    """Attack with twice the steps from the same starts, then from four others."""
    restarts = 4
    tolerated = 0.02  # of all examples: the precision of published tables
    steps, total = context.PGD_STEPS, len(context.rows)
    settings = {"early_stop": True, **context.settings}
    left = np.flatnonzero(context.under_pgd)
    # All examples, so that each starts where it did before.
    longer = context.under(PGD(steps=2 * steps, **settings))
    after_steps = np.flatnonzero(context.under_pgd & longer)
    settings["seed"] = context.seed + 1
    starts = PGD(steps=steps, restarts=restarts, **settings)
    after_all = np.flatnonzero(context.under(starts, after_steps))
    by_steps, more = len(left) - len(after_steps), len(left) - len(after_all)
    figures = {
        "accuracy": len(left) / len(context.x),
        "accuracy_more_steps": len(after_steps) / len(context.x),
        "accuracy_more_starts": len(after_all) / len(context.x),
        "share": more / total,
    }
    return RuleResult(
        clearly_more(more, total, tolerated),
        f"From {steps} to {2 * steps} steps PGD fools {percent(by_steps / total)} more of {total} "
        f"examples, with {restarts} random starts on top {percent(more / total)}.",
        figures,
        "PGD has not converged: its accuracy is too high, and more effort lowers "
        "it. Use APGD with several restarts and go on until nothing changes.",
    )


@rule("epsilon_curve", "A larger radius helps the attack")
def epsilon_curve(context: DiagnosticContext) -> RuleResult:
    """Attack at half, once and twice the radius, and at one that covers the range."""
    factors = (0.5, 1.0, 2.0)
    tolerated = 0.02  # larger steps of a larger ball overlook an example here and there
    rows, total, epsilon = context.rows, len(context.rows), context.epsilon
    widest = widest_radius(context.norm, context.input_range, context.x[0].size)
    radii = [f * epsilon for f in factors if f * epsilon < widest] + [widest]
    curve = [context.under_pgd if r == epsilon else context.under(context.pgd.at(r)) for r in radii]
    changes = [moves(b[rows], a[rows]) for a, b in pairwise(curve)]
    rises = any(clearly_moved(*change, total, tolerated) for change in changes)
    guessing = chance(context.y, context.classes)
    end = int(curve[-1].sum())
    above = guessing < 1.0 and clearly_more(end, len(context.x), guessing)
    shares = [float(right.mean()) for right in curve]
    figures = {
        f"accuracy_at_{radius:g}": share for radius, share in zip(radii, shares, strict=True)
    }
    rise = max(up - down for up, down in changes)
    figures |= {"largest_rise": max(rise, 0) / total, "chance": guessing}
    return RuleResult(
        rises or above,
        f"Over growing radii PGD leaves {', '.join(map(percent, shares))}; the last "
        f"one covers the whole range, where guessing has {percent(guessing)}.",
        figures,
        "The attack fails where it has room enough, so it does not find what is "
        "there. Do not quote it; look at the gradients and at black-box attacks.",
    )


@rule("logit_scale", "The scale of the logits does not matter")
def logit_scale(context: DiagnosticContext) -> RuleResult:
    """Run a naive attack on the logits times 0.001, 1 and 1000, and with the margin."""
    # Of all examples. Losses differ in the rival they go for: on honest networks the
    # margin finds up to five in a hundred more, where saturation hides nearly all.
    tolerated = 0.1
    rows, total = context.rows, len(context.rows)

    def right_under(scale: float, margin: float = 0.0) -> Any:
        return context.compute("logit_scale", naive_attack, rows, scale, margin)[0]

    plain = right_under(1.0)
    suspect, figures = False, {"accuracy": float(plain.sum() / len(context.x))}
    for name, scale in (("0.001", 1e-3), ("1000", 1e3), ("margin", 1.0)):
        right = right_under(scale, margin=float(name == "margin"))
        suspect |= clearly_moved(*moves(plain, right), total, tolerated)
        figures[f"accuracy_{name}"] = float(right.sum() / len(context.x))
    return RuleResult(
        suspect,
        f"A plain cross-entropy attack leaves {percent(figures['accuracy'])} right, on "
        f"logits times 0.001 {percent(figures['accuracy_0.001'])}, on logits times "
        f"1000 {percent(figures['accuracy_1000'])}, with the margin loss "
        f"{percent(figures['accuracy_margin'])}.",
        figures,
        "Cross entropy is saturated: results of attacks that use it as it is are "
        "too high. Use loss='margin' or 'dlr', or rescale the logits.",
    )


def naive_attack(batch: AttackContext, scale: tf.Tensor, margin: tf.Tensor) -> tuple[tf.Tensor]:
    """Return who resists PGD on `scale * logits`, or on the margin."""
    ball, targets = batch.ball, batch.targets
    length = 2.5 * batch.epsilon / SCALE_STEPS

    def step(number: tf.Tensor, point: tf.Tensor, right: tf.Tensor) -> Any:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(point)
            logits = batch.logits(point)
            loss = tf.where(
                tf.cast(margin, tf.bool),
                attack_loss(logits, targets, "margin"),
                cross_entropy(scale * logits, targets),
            )
        gradient = tf.ensure_shape(tape.gradient(loss, point), point.shape)
        # NaN would lead to points that are wrong, and outside of everything.
        gradient, _ = zero_nonfinite(gradient)
        right &= ~misclassified(logits, targets)
        moved = ball.project(point + length * ball.steepest(gradient))
        return number + 1, moved, right

    start = (tf.constant(0), batch.origin, tf.ones_like(targets[:, 0], tf.bool))
    _, point, right = tf.while_loop(lambda n, *_: n < SCALE_STEPS, step, start)
    return (right & ~misclassified(batch.logits(point), targets),)


@rule("local_linearity", "Gradients keep their direction")
def local_linearity(context: DiagnosticContext) -> RuleResult:
    """Compare the gradients at `x` and at uniform noise around it."""
    # Mean cosine. On Fashion-MNIST plain, adversarially trained and hardened networks had 0.86 to
    # 0.96 at their radius and 0.57 or more at three times that, collapsed ones 0.27 to 0.46.
    aligned = 0.5
    shattered = 0.1  # no better than chance in practice, whatever the accuracy
    # Catastrophic overfitting: one step leaves at least `kept` of the right decisions,
    # many steps at most half of those.
    kept, half = 0.4, 0.5
    rows, total = context.rows, len(context.rows)
    known, cosine, gamma, gain = context.compute("local_linearity", _look_around, rows)
    # A gradient or a loss that is NaN or infinite has no direction either.
    known &= np.isfinite(cosine) & np.isfinite(gamma) & np.isfinite(gain)
    if not known.any():
        raise NotApplicableError(
            "All gradients are zero or not finite: they have no direction to compare."
        )
    alignment, error = float(cosine[known].mean()), standard_error(cosine[known])
    one, many = context.under_fgsm[rows], context.under_pgd[rows]
    refuted = (
        one.mean() >= kept
        and many.mean() <= half * one.mean()
        and clearly_moved(*moves(one, many), total, 0.0)
    )
    # At a corner of the range nothing is gained: one stands for any large ratio.
    gamma, gain = gamma[known], np.maximum(gain, gamma)[known]
    relative = gamma / np.where(gain > 0, gain, 1.0)
    figures = {
        "alignment": alignment,
        "standard_error": error,
        "gamma": float(np.median(gamma)),
        "relative_gamma": float(np.median(relative)),
        "kept_under_one_step": float(one.mean()),
        "kept_under_many": float(many.mean()),
    }
    highest = alignment + 3 * error
    return RuleResult(
        highest < shattered or (highest < aligned and bool(refuted)),
        "Gradients at an input and at noise of the radius have a mean cosine of "
        f"{alignment:.2f}. Of the right decisions one step leaves "
        f"{percent(one.mean())}, many steps leave {percent(many.mean())}.",
        figures,
        "Robustness to one step means nothing here (catastrophic overfitting). Train "
        "with a random start, more steps or a penalty on the gradients, and quote APGD "
        "with restarts and Square only.",
    )


def _look_around(batch: AttackContext) -> Any:
    """Return gradient there?, mean cosine, error of linearization, linear gain."""
    origin, ball, epsilon = batch.origin, batch.ball, batch.epsilon
    axes = list(range(1, origin.shape.rank))

    def look(point: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(point)
            loss = ascent_loss(batch.logits(point), batch.targets)
        return loss, tape.gradient(loss, point)

    def dot(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
        return tf.cast(tf.reduce_sum(a * b, axes), tf.float32)

    loss, gradient = look(origin)

    def error(point: tf.Tensor, there: tf.Tensor) -> tf.Tensor:
        return tf.abs(there - loss - dot(point - origin, gradient))

    step = ball.project(origin + epsilon * ball.steepest(gradient))

    def draw(number: tf.Tensor, cosine: tf.Tensor, gamma: tf.Tensor) -> Any:
        drawn = ball.sample(fold_in(batch.seed, number))
        there, turned = look(tf.ensure_shape(drawn, origin.shape))
        share = dot(safe_normalize(gradient), safe_normalize(turned))
        gamma = tf.maximum(gamma, error(drawn, there))
        return number + 1, cosine + share / NEARBY, gamma

    start = (tf.constant(0), tf.zeros_like(loss), error(step, look(step)[0]))
    _, cosine, gamma = tf.while_loop(lambda n, *_: n < NEARBY, draw, start)
    known = tf.reduce_any(gradient != 0, axes)
    return known, cosine, gamma, dot(step - origin, gradient)


@rule("unseen_changes", "Gradients lead to the decisions")
def unseen_changes(context: DiagnosticContext) -> RuleResult:
    """Add up the gradient on the way to an input of another decision."""
    # Of a function that is what its gradient says, the sum is the change. Where logits
    # jump beside a small smooth part, the gradient sees that part alone.
    # An example counts if the gradient accounts for less than half of the change. On
    # honest networks that are few; where decisions are rounded, nearly all.
    least, tolerated = 0.5, 0.25
    decisions, order = context.logits.argmax(-1), np.random.default_rng(0)
    others = np.arange(len(decisions))
    for decision in np.unique(decisions):
        mine = decisions == decision
        if mine.all():
            raise NotApplicableError("All examples get one decision.")
        elsewhere = np.flatnonzero(~mine)
        others[mine] = order.choice(elsewhere, int(mine.sum()))
    rows = np.arange(len(decisions))
    seen, change = context.compute("unseen_changes", _walk, rows, others=others)
    known = np.isfinite(seen) & np.isfinite(change) & (change > 0)
    if not known.any():
        raise NotApplicableError("The logits or their gradients are not finite.")
    share, total = seen[known] / change[known], int(known.sum())
    unseen = int((share < least).sum())
    figures = {"share": unseen / total, "median_seen": float(np.median(share))}
    says = (
        "On the way to an input of another decision, the gradients account for "
        f"{percent(figures['median_seen'])} of the change of the logits (median); "
        f"at {percent(unseen / total)} of {total} examples for less than half."
    )
    suspect = clearly_more(unseen, total, tolerated)
    if suspect and context.norm != "l1":
        left = np.flatnonzero(context.under_pgd)[:UNSEEN_EXAMPLES]
        attack = HopSkipJump(queries=UNSEEN_QUERIES, **context.settings)
        with warnings.catch_warnings():  # where it finds no start, PGD's points stay
            warnings.filterwarnings("ignore", "HopSkipJump found no starting point")
            fooled = len(left) - int(context.under(attack, left)[left].sum())
        says += (
            f" By decisions alone (HopSkipJump, {UNSEEN_QUERIES} queries) the model "
            f"is fooled at {fooled} of {len(left)} examples that PGD left."
        )
        figures |= {"left_by_pgd": len(left), "fooled_by_decisions": fooled}
    return RuleResult(
        suspect,
        says,
        figures,
        "The decisions change where the gradients do not see it (rounding or an argmax "
        "beside a small smooth part, or nearly steep steps). Quote attacks by "
        "decisions alone (HopSkipJump) and transferred examples (`surrogates`).",
    )


def _walk(batch: AttackContext, end: tf.Tensor) -> Any:
    """Return what the gradients add up to, and what the margin loses."""
    start = batch.origin
    way = tf.cast(end, start.dtype) - start
    first, last = batch.logits(start), batch.logits(start + way)
    pair = tf.argmax(first, -1), tf.argmax(last, -1)

    def margin(logits: tf.Tensor) -> tf.Tensor:
        own, other = (tf.gather(logits, c, axis=1, batch_dims=1) for c in pair)
        return own - other

    def look(number: tf.Tensor, seen: tf.Tensor) -> Any:
        share = (tf.cast(number, start.dtype) + 0.5) / WALK_POINTS
        point = tf.ensure_shape(start + share * way, start.shape)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(point)
            there = margin(batch.logits(point))
        gradient, _ = zero_nonfinite(tape.gradient(there, point))
        slope = tf.reduce_sum(gradient * way, range(1, start.shape.rank))
        return number + 1, seen - tf.cast(slope, tf.float32) / WALK_POINTS

    begin = (tf.constant(0), tf.zeros_like(first[:, 0]))
    _, seen = tf.while_loop(lambda n, _: n < WALK_POINTS, look, begin)
    return seen, margin(first) - margin(last)


@rule("noise", "Gradients beat noise")
def noise(context: DiagnosticContext) -> RuleResult:
    """Draw 100 points of the ball per example and compare with PGD."""
    tolerated = 0.01  # whatever random directions find, gradients do
    # Noise is as harmful as PGD if it does half of the harm, in many dimensions, where the harm is
    # no trifle, and PGD leaves some accuracy to doubt: else the radius is too large for the data.
    half, many_dimensions, least, left = 0.5, 100, 0.02, 0.1
    rows, total = context.rows, len(context.rows)
    (errors,) = context.compute("noise", _count_errors, rows)
    right = context.under_pgd[rows]
    alone = int((right & (errors > 0)).sum())
    harm = errors / NOISE_DRAWS
    excess = harm - half * (~right).astype(float)
    figures = {
        "share": alone / total,
        "clean_accuracy": total / len(context.x),
        "noise_accuracy": float((1.0 - harm).sum() / len(context.x)),
        "worst_noise_accuracy": float((errors == 0).sum() / len(context.x)),
        "pgd_accuracy": float(right.sum() / len(context.x)),
    }
    as_harmful = (
        context.x[0].size >= many_dimensions
        and harm.mean() > least
        and excess.mean() > 3 * standard_error(excess)
        and clearly_more(int(right.sum()), total, left)
    )
    return RuleResult(
        clearly_more(alone, total, tolerated) or bool(as_harmful),
        f"Noise takes the accuracy from {percent(figures['clean_accuracy'])} to "
        f"{percent(figures['noise_accuracy'])} on average, PGD to "
        f"{percent(figures['pgd_accuracy'])}; {NOISE_DRAWS} draws fool the model at "
        f"{percent(alone / total)} of {total} examples where PGD does not.",
        figures,
        "An attack that loses to blind guessing is broken by the model: the gradients "
        "are useless. Quote Square, transfer and noise of many draws instead.",
    )


def _count_errors(batch: AttackContext) -> tuple[tf.Tensor]:
    """Return how many of the draws fool the model."""
    ball = batch.ball

    def draw(number: tf.Tensor, errors: tf.Tensor) -> Any:
        drawn = ball.sample(fold_in(batch.seed, number))
        point = tf.ensure_shape(drawn, batch.x.shape)
        wrong = misclassified(batch.logits(point), batch.targets)
        return number + 1, errors + tf.cast(wrong, tf.int32)

    start = (tf.constant(0), tf.zeros_like(batch.targets[:, 0], tf.int32))
    return (tf.while_loop(lambda n, _: n < NOISE_DRAWS, draw, start)[1],)


def cross_entropy(logits: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Compute softmax cross entropy in float32; where small, its gradient vanishes."""
    return tf.nn.softmax_cross_entropy_with_logits(targets, tf.cast(logits, tf.float32))
