"""Transfer of adversarial examples: made against one model, tried on others."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_jsigr.attacks.calls.inputs import check_inputs
from keras_jsigr.attacks.calls.predictions import (
    PROGRAMS,
    classified_rightly,
    predict_logits,
)
from keras_jsigr.core import settings
from keras_jsigr.evaluation.checks import check_data, check_radii
from keras_jsigr.evaluation.known_range import known_range
from keras_jsigr.evaluation.model_checks import check_model_fits, class_count
from keras_jsigr.evaluation.named_attacks import attacks_of
from keras_jsigr.evaluation.parts.attack_rows import outside_words
from keras_jsigr.evaluation.parts.by_name import by_name
from keras_jsigr.evaluation.records import TransferRecord
from keras_jsigr.evaluation.store import Store
from keras_jsigr.evaluation.transfer_cell import Labels, TransferBench, records_of


def transfer_matrix(
    models: Mapping[str, Any],
    x: Any,
    y: Any,
    *,
    attacks: Sequence[Any] = ("mi-fgsm",),
    epsilons: Sequence[float],
    targets: Sequence[str] | None = None,
    norm: str = "linf",
    input_range: tuple[float, float] | None = None,
    labels: Labels = "true",
    only_correct: bool = False,
    batch_size: int = 128,
    seed: int = 0,
    store: Store | None = None,
) -> list[TransferRecord]:
    """Measure the accuracy of every model on examples made against every model.

    Examples are made once per source, attack and radius and tried on all targets. The
    diagonal, source equal to target, is the same attack with white-box access: read
    the rest beside it.

    Args:
        models: Models by name: the sources.
        x: Float `(N, *S)` in `input_range`.
        y: Labels: class indices `(N,)` or one-hot rows.
        attacks: Attacks, or their names; each is run at all radii.
        epsilons: Radii in input units.
        targets: Names of the models to try the examples on; `None`: all.
        norm: Of the attacks given by name.
        input_range: `(low, high)` of valid inputs; `None`: that of the hardened models,
            or (0, 1).
        labels: Whether the examples shall leave the `"true"` class or the source's
            `"own"` decision, as an attacker without labels has to do.
        only_correct: Whether to count only the examples that all targets classify
            rightly without attack; their number is the `total` of the rates.
        batch_size: Examples per call of a model.
        seed: Of the attacks given by name.
        store: Keeps finished cells, see `Store`.

    Returns:
        One record per source, attack, radius and target, in this order.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range or does not fit the others, or if no
            example is classified rightly by all targets.

    Reference:
        arXiv 1611.02770 (transfer between models), arXiv 1710.06081 (momentum).

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.attacks import FGSM
        >>> from keras_jsigr.evaluation.transfer import transfer_matrix
        >>> models = {"a": lambda x: x, "b": lambda x: x[:, ::-1]}
        >>> x, y = np.array([[0.6, 0.4]], "float32"), [0]
        >>> records = transfer_matrix(
        ...     models, x, y, attacks=[FGSM(epsilon=0.2)], epsilons=[0.2]
        ... )
        >>> [(r.source, r.target, r.accuracy.correct) for r in records]
        [('a', 'a', 0), ('a', 'b', 1), ('b', 'a', 1), ('b', 'b', 0)]
    """
    batch_size = settings.count("batch_size", batch_size)
    settings.choice("labels", labels, ("true", "own"))
    settings.choice("only_correct", only_correct, (False, True))
    if not isinstance(models, Mapping) or not models:
        raise TypeError(
            f"`models` is {type(models).__name__} of no use: expected a dictionary of "
            "at least one model by name. Pass {'plain': model, 'robust': other}."
        )
    input_range = known_range(input_range, *models.values())
    targets = list(models) if targets is None else list(targets)
    for name in targets:
        settings.choice("targets", name, tuple(models))
    x = check_inputs(x, input_range)
    PROGRAMS.forget(*models.values())
    first, one = next(iter(models.items()))
    classes = class_count(f"model '{first}'", one, np.asarray(x[:16]))
    x, rows = check_data(x, y, input_range, classes)
    for name, model in models.items():
        check_model_fits(f"model '{name}'", model, x, classes)
    radii = check_radii("epsilons", epsilons)
    made = attacks_of(
        attacks,
        epsilon=radii[0],
        norm=norm,
        input_range=input_range,
        batch_size=batch_size,
        seed=seed,
        transfer=True,
    )
    counted = np.ones(len(x), bool)
    if only_correct:
        for name in targets:
            logits = predict_logits(models[name], x, batch_size)
            counted &= classified_rightly(logits, rows)
        if not counted.any():
            raise ValueError(
                f"No example is classified rightly by all of {targets}: expected at "
                "least one. Pass only_correct=False, or check the labels."
            )
    bench = TransferBench(models, x, rows, labels, batch_size, store or Store(None, {}))
    records = []
    for source in models:
        for label, attack in by_name(made).items():
            for radius in radii:
                cell = bench.cell(source, attack.at(radius), targets)
                if cell.outside:
                    warnings.warn(
                        f"{label} on {source} at {radius:g}: "
                        f"{outside_words(cell.outside)}. Repair the attack.",
                        RuntimeWarning,
                        stacklevel=2,
                    )
                records += records_of(cell._replace(attack=label), counted)
    return records
