"""The rule that finds the penalty weights: as large as clean accuracy allows."""

from __future__ import annotations

import math

LOWEST, HIGHEST = 1e-3, 1e3
_RATE = math.log(2.0)
_DEEPEST = 2.0  # the factor at most doubles, and at most falls to a quarter


def next_factor(
    factor: float,
    slack: float,
    last_slack: float | None,
    *,
    drop: float,
    error: float,
) -> float:
    """Adapt the common factor of the penalty weights to the slack of the constraint.

    Maximizes the factor `f` subject to `slack = accuracy - (reference - drop) >= 0`,
    by integral control of `log f`:

        u = clip(slack / (drop + error), -2, 1)
        f <- clip(f 2^u, 1e-3, 1e3)

    While the constraint is violated and the accuracy rose by more than `error` since
    the last time, the factor waits: the violation is closing by itself, as in the
    first epochs of a new network and while the learning rate decays. It also waits at
    the first measurement, when nobody knows yet where the accuracy goes.

    The slack is measured in units of the drop, for a reason. Where accuracy falls as
    `c f^a`, the slack changes at the bound by `a drop` per unit of `log f`: in these
    units the gain of the loop is `a log 2` for any network and any drop. The `error`
    in the unit makes the steps smaller where the measurement is noise.

    Args:
        factor: Present factor, > 0.
        slack: Validation accuracy minus the bound, -1..1.
        last_slack: The slack one measurement before; `None` if there was none.
        drop: Accuracy that may be given up, 0..1.
        error: Standard error of the accuracy, > 0 (see `standard_error`).

    Returns:
        The new factor, in 1e-3..1e3.

    Reference:
        arXiv 1810.00597 (GECO: a multiplier that grows and shrinks by the exponential
        of its constraint); 2007.03964 (dual ascent seen as integral control).

    Example:
        >>> from keras_jsigr.training.penalty_rule import next_factor
        >>> next_factor(1.0, -0.02, -0.02, drop=0.015, error=0.005)
        0.5
    """
    if slack < 0.0 and (last_slack is None or slack - last_slack > error):
        return factor
    step = min(max(slack / (drop + error), -_DEEPEST), 1.0)
    return min(max(factor * math.exp(_RATE * step), LOWEST), HIGHEST)


def standard_error(accuracy: float, examples: float) -> float:
    """Compute the standard error of an accuracy, never zero.

    `sqrt(p (1 - p) / n)` with `p = (accuracy n + 1) / (n + 2)`.

    Args:
        accuracy: Share of right answers, 0..1.
        examples: Number of examples `n`; none counts as one.

    Returns:
        The standard error, > 0.

    Example:
        >>> from keras_jsigr.training.penalty_rule import standard_error
        >>> round(standard_error(0.5, 2500), 4)
        0.01
    """
    p = (accuracy * examples + 1.0) / (examples + 2.0)
    return math.sqrt(p * (1.0 - p) / max(examples, 1.0))


def clearly_trained(accuracy: float, examples: float, classes: int) -> bool:
    """Tell whether an accuracy is that of a model which learned something.

    It has to lie above chance, `1 / C`, by three standard errors of guessing and by a
    fifth of what there is to gain: random weights often do a little better than chance.

    Args:
        accuracy: Share of right answers, 0..1.
        examples: Number of examples, >= 1.
        classes: Number of classes `C`, >= 2.

    Returns:
        True if so.

    Example:
        >>> from keras_jsigr.training.penalty_rule import clearly_trained
        >>> [clearly_trained(p, 1000, 10) for p in (0.12, 0.25, 0.3)]
        [False, False, True]
    """
    chance = 1.0 / classes
    luck = 3.0 * standard_error(chance, examples)
    return accuracy - chance > max(luck, 0.2 * (1.0 - chance))
