"""Measure the saliency maps of one model or several, in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from keras_jsigr.attacks.calls.inputs import check_inputs
from keras_jsigr.attacks.calls.predictions import PROGRAMS, classified_rightly
from keras_jsigr.core import settings
from keras_jsigr.evaluation.checks import check_data
from keras_jsigr.evaluation.identity import data_identity
from keras_jsigr.evaluation.interpretability.map_task import check_map_task
from keras_jsigr.evaluation.interpretability.measure import check_maps, measure
from keras_jsigr.evaluation.interpretability.saliency_report import (
    SaliencyReport,
    bare_report,
)
from keras_jsigr.evaluation.known_range import known_range
from keras_jsigr.evaluation.model_checks import check_logits, check_model_fits
from keras_jsigr.saliency.methods.method import SaliencyMethod


def evaluate_saliency(
    models: Mapping[str, Any],
    x: Any,
    y: Any,
    *,
    epsilon: float,
    norm: str = "linf",
    input_range: tuple[float, float] | None = None,
    method: str | SaliencyMethod = "gradient",
    teacher: Any = None,
    boxes: Any = None,
    baselines: Sequence[str] = ("blur", "mean", "zero"),
    steps: int = 28,
    parts: Sequence[str] | None = None,
    top: float = 0.1,
    samples: int = 8,
    attack_steps: int = 20,
    batch_size: int = 128,
    seed: int = 0,
    verbose: Literal["auto", 0, 1] = "auto",
) -> SaliencyReport:
    """Measure how faithful, sparse, stable and sane the saliency maps of models are.

    Explained is the true class, on the examples that all models classify rightly, so
    that their figures compare. Per model and metric the report has the mean, its
    standard error and the number of examples:

    - deletion and insertion by the map, beside a random order and that of intensity;
    - agreement with the model's perturbation map, and with that of the `teacher`;
    - Gini index, alignment with the image, local Lipschitz constant;
    - top-k intersection, rank correlation and SSIM with the map under noise, under PGD
      that keeps the class, and under the saliency attack, where the class stays;
    - with `boxes` pointing game and relevance mass;
    - rank correlation with the map of the network with shuffled weights.

    A crash of a part is told in the record; the rest goes on.

    Args:
        models: Keras classifiers, hardened models or callables, by name.
        x: Float `(N, *S)` in `input_range`, array or tensor.
        y: True labels: class indices `(N,)`, or one-hot rows `(N, C)`.
        epsilon: Radius of noise and attacks, in input units, > 0.
        norm: `"linf"`, `"l2"` or `"l1"`.
        input_range: `(low, high)` of valid inputs; `None`: that of the hardened models,
            or (0, 1).
        method: How the maps are made: a name that `keras_jsigr.saliency.explain` takes,
            or a method with settings, such as `SmoothGrad(samples=20)`.
        teacher: Another model of the same classes, trained by itself, or `None`.
        boxes: Real `(N, 4)`, `[x0, y0, x1, y1]` of the object in pixels, or `None`.
        baselines: What removed pixels become: of `"blur"`, `"mean"`, `"zero"`.
        steps: Of deletion and insertion.
        parts: What to measure, such as `("faithfulness", "sanity")`; `None`: all of
            `"faithfulness"`, `"agreement"`, `"sparsity"`, `"alignment"`,
            `"localisation"`, `"smoothness"`, `"uniform_noise"`, `"gaussian_noise"`,
            `"pgd"`, `"saliency_attack"` (nearly half of the time) and `"sanity"`.
        top: Share of the pixels that are the top of a map, above 0, below 1.
        samples: Random points of the local Lipschitz constant.
        attack_steps: Of PGD and of the saliency attack.
        batch_size: Examples worked on at once.
        seed: Of everything random.
        verbose: 1 prints what is done, 0 nothing, `"auto"` only in long runs.

    Returns:
        The report: `report["name"]` is the record of one model, and
        `report.save("maps.html")` makes a page, `.md` or `.json` too.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range or does not fit the others, or if no
            example is classified rightly by all models.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.evaluation.interpretability import evaluate_saliency
        >>> x = np.array([[0.9, 0.1, 0.2], [0.2, 0.6, 0.1]], "float32")
        >>> report = evaluate_saliency(
        ...     {"net": lambda x: x}, x, [0, 1], epsilon=0.1, parts=["sparsity"]
        ... )
        >>> report["net"].figure("Gini index").images
        2
    """
    settings.choice("verbose", verbose, ("auto", 0, 1))
    _check_names(models)
    input_range = known_range(input_range, *models.values())
    x = np.asarray(check_inputs(x, input_range))
    task = check_map_task(
        x,
        epsilon=epsilon,
        norm=norm,
        input_range=input_range,
        method=method,
        teacher=teacher,
        boxes=boxes,
        baselines=baselines,
        steps=steps,
        parts=parts,
        top=top,
        samples=samples,
        attack_steps=attack_steps,
        batch_size=batch_size,
        seed=seed,
    )
    PROGRAMS.forget(*models.values())
    logits = {name: check_logits(m, x, batch_size) for name, m in models.items()}
    classes = next(iter(logits.values())).shape[-1]
    x, labels = check_data(x, y, input_range, classes)
    for name, model in [*models.items(), ("teacher", teacher)]:
        if model is not None:
            check_model_fits(f"model '{name}'", model, x, classes)
    for model in models.values():
        check_maps(model, x, task)
    right = {name: classified_rightly(z, labels) for name, z in logits.items()}
    used = np.all(list(right.values()), axis=0)
    data = {
        "images": len(x),
        "explained": int(used.sum()),
        "fingerprint": data_identity(x, labels),
    }
    reports = []
    for name, model in models.items():
        record = measure(model, x, labels, task, used=used, verbose=verbose)
        reports.append(
            bare_report(
                name,
                model,
                x,
                labels,
                right=right[name],
                classes=classes,
                data=data,
                record=record,
            )
        )
    return SaliencyReport(tuple(reports))


def _check_names(models: Any) -> None:
    if not isinstance(models, Mapping):
        raise TypeError(
            f"`models` is a {type(models).__name__}, expected a dictionary of models "
            "by name. Pass {'my model': model}."
        )
    if not models or not all(isinstance(name, str) and name for name in models):
        raise ValueError(
            f"`models` has the names {list(models)}, expected at least one, each a "
            "string. Pass {'my model': model}."
        )
