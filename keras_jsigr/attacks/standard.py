"""The suite of attacks that needs no choice."""

from __future__ import annotations

from typing import Any, Literal

from keras_jsigr.attacks.gradient.apgd import APGD
from keras_jsigr.attacks.gradient.apgd_targeted import APGDT
from keras_jsigr.attacks.minimum_norm.fab import FAB
from keras_jsigr.attacks.queries.square import Square
from keras_jsigr.attacks.suite import Suite

_STEPS, _CLASSES, _QUERIES = 100, 9, 5000
# The sparse steps of the L1 ball need more starts; fewer classes pay for them.
_L1_RESTARTS, _L1_CLASSES = 5, 5


def standard(
    epsilon: float,
    *,
    norm: str = "linf",
    input_range: tuple[float, float] = (0.0, 1.0),
    batch_size: int = 128,
    seed: int = 0,
    verbose: Literal["auto", 0, 1] = "auto",
) -> Suite:
    """Make the suite of AutoAttack: two gradients, a boundary and no gradient at all.

    In turn, each on what is left: APGD-CE (100 steps), APGD-T (the 9 most likely wrong
    classes, 100 steps each), FAB-T (the same) and Square (5000 queries). Under the L1
    norm APGD-CE has 5 restarts and APGD-T 5 classes. All leave an example alone once it
    is misclassified.

    Args:
        epsilon: Radius in input units, >= 0.
        norm: `"linf"`, `"l2"` or `"l1"`.
        input_range: `(low, high)` of valid inputs.
        batch_size: Number of examples worked on at once.
        seed: Of everything random; an int >= 0.
        verbose: 1 shows a progress bar, 0 none, `"auto"` one for long runs.

    Returns:
        The suite.

    Raises:
        TypeError: If a setting has the wrong type.
        ValueError: If a setting is out of range.

    Reference:
        arXiv 2003.01690; arXiv 2103.01208 (L1). Restarts and classes are those of the
        authors' code, version "standard".

    Example:
        >>> from keras_jsigr.attacks.standard import standard
        >>> [attack.name for attack in standard(8 / 255).attacks]
        ['APGD-CE', 'APGD-T', 'FAB-T', 'Square']
    """
    shared: dict[str, Any] = {
        "epsilon": epsilon,
        "norm": norm,
        "input_range": input_range,
        "batch_size": batch_size,
        "seed": seed,
        "verbose": verbose,
    }
    sparse = norm == "l1"
    restarts = _L1_RESTARTS if sparse else 1
    classes = _L1_CLASSES if sparse else _CLASSES
    return Suite(
        [
            APGD(steps=_STEPS, restarts=restarts, early_stop=True, **shared),
            APGDT(steps=_STEPS, target_classes=classes, early_stop=True, **shared),
            FAB(steps=_STEPS, target_classes=_CLASSES, **shared),
            Square(queries=_QUERIES, **shared),
        ]
    )
