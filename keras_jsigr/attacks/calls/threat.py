"""What a suite of attacks is allowed to do, and whether a point keeps to it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_jsigr.attacks.attack import Attack

# Room for the rounding of inputs of large values or half precision.
_RELATIVE, _ABSOLUTE = 1e-4, 1e-6
_ORDERS = {"linf": math.inf, "l2": 2, "l1": 1}


def one_threat(attacks: Iterable[Any]) -> tuple[Attack, ...]:
    """Check that attacks search the same ball.

    Args:
        attacks: Untargeted attacks; those of infinite radius take that of the others.

    Returns:
        The attacks, all of one radius.

    Raises:
        TypeError: If something else than attacks is given.
        ValueError: If there are none, one is targeted, or radius, norm or range differ.

    Example:
        >>> from keras_jsigr.attacks import FGSM, PGD
        >>> from keras_jsigr.attacks.calls.threat import one_threat
        >>> [attack.name for attack in one_threat([FGSM(epsilon=1), PGD(epsilon=1)])]
        ['FGSM', 'PGD']
    """
    try:
        given = list(attacks)
    except TypeError:
        given = [None]
    strange = [item for item in given if not isinstance(item, Attack)]
    if strange:
        raise TypeError(
            f"`attacks` is {attacks!r}, expected a list of attacks. Pass for instance "
            "[APGD(epsilon=0.1), Square(epsilon=0.1)]."
        )
    if not given:
        raise ValueError(
            "`attacks` is empty: expected at least one attack. Use "
            "`standard(epsilon)` for a suite that needs no choice."
        )
    targeted = [attack.name for attack in given if attack.targeted]
    if targeted:
        raise ValueError(
            f"A suite makes a model leave the class `y`: got the targeted {targeted}, "
            "expected attacks with targeted=False. Call targeted attacks themselves."
        )
    limits = {attack.epsilon for attack in given} - {math.inf}
    for name, values in (
        ("epsilon", limits),
        ("norm", {attack.norm for attack in given}),
        ("input_range", {attack.input_range for attack in given}),
    ):
        if len(values) > 1:
            raise ValueError(
                f"The attacks of a suite differ in `{name}`: got {sorted(values)}, "
                "expected one value. Make one suite for each."
            )
    radius = limits.pop() if limits else math.inf
    return tuple(a if a.epsilon == radius else a.at(radius) for a in given)


def inside(
    x_adv: npt.NDArray[Any],
    x: npt.NDArray[Any],
    epsilon: float,
    norm: str,
    input_range: tuple[float, float],
) -> npt.NDArray[np.bool_]:
    """Tell which points are in the ball and the range, up to rounding.

    Args:
        x_adv: Float `(N, *S)`.
        x: Like `x_adv`, the inputs.
        epsilon: Radius in input units.
        norm: `"linf"`, `"l2"` or `"l1"`.
        input_range: `(low, high)` in input units.

    Returns:
        Bool `(N,)`; a point with NaN is not inside.

    Raises:
        ValueError: If the shapes differ.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.attacks.calls.threat import inside
        >>> x, x_adv = np.zeros((2, 2)), np.array([[0.3, 0.3], [0.5, 0.5]])
        >>> inside(x_adv, x, 0.5, "l2", (0.0, 1.0)).tolist()
        [True, False]
    """
    if x_adv.shape != x.shape:
        raise ValueError(
            f"The attack returned shape {x_adv.shape}, expected {x.shape}. Return one "
            "point per example."
        )
    points = x_adv.reshape(len(x), -1).astype("float64")
    delta = points - x.reshape(len(x), -1).astype("float64")
    length = np.linalg.norm(delta, _ORDERS[norm], axis=1)
    low, high = input_range
    slack = _ABSOLUTE * max(1.0, abs(low), abs(high))
    # Comparisons with NaN are false.
    result: npt.NDArray[np.bool_] = (
        (length <= epsilon * (1.0 + _RELATIVE) + slack)
        & (points >= low - slack).all(axis=1)
        & (points <= high + slack).all(axis=1)
    )
    return result
