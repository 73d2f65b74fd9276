"""Evaluate the saliency maps of models."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict, Unpack

import numpy as np
import numpy.typing as npt

from keras_jsigr.core import arguments
from keras_jsigr.core.batching import PROGRAMS, classified_rightly, probe_rows
from keras_jsigr.core.files import from_json, to_json
from keras_jsigr.core.logits import as_logits
from keras_jsigr.core.variables import unchanged
from keras_jsigr.evaluation import validation
from keras_jsigr.evaluation.records import Rate, SaliencyFigure, SaliencyRecord
from keras_jsigr.evaluation.render.tables import saliency_words
from keras_jsigr.evaluation.report import Comparison, Report
from keras_jsigr.evaluation.resume import (
    CachedResult,
    array_digest,
    class_fingerprint,
    data_identity,
    model_identity,
)
from keras_jsigr.evaluation.run import Log, Task, chance, model_summary, versions
from keras_jsigr.evaluation.saliency_measures import (
    MEASURES,
    MapContext,
    MapSettings,
    check_boxes,
    findings,
    unknown_values,
)
from keras_jsigr.saliency.base import Explainer, SaliencyMethod
from keras_jsigr.saliency.explain import explainer


def measure(
    model: Any,
    x: npt.NDArray[Any],
    y: npt.NDArray[np.int64],
    settings: MapSettings,
    *,
    used: npt.NDArray[np.bool_],
    verbose: Any = 0,
) -> SaliencyRecord:
    """Measure the maps of one model, part by part; a crash loses its part alone."""
    if not used.any():
        raise ValueError(
            "No example is classified rightly by every model, expected at least one. "
            "Train the models, or check the labels."
        )
    log = Log(verbose)
    x = x[used]
    context = MapContext(
        model=model,
        logits_fn=as_logits(model, probe_rows(x)),
        explain=_explainer(model, x, settings),
        x=x,
        y=y[used],
        boxes=None if settings.boxes is None else settings.boxes[used],
        settings=settings,
    )
    figures: list[SaliencyFigure] = []
    for name in settings.parts:
        with log.part(name):
            figures += MEASURES[name](context)
    return SaliencyRecord(
        method=settings.method_name,
        images=len(x),
        figures=figures,
        findings=findings(figures),
        settings=settings.get_config()
        | {"method": _plain(context.explain.method), "examples": array_digest(used)},
        seconds={**log.seconds, "total": log.total()},
        errors=[*log.errors, *unknown_values(figures)],
    )


def check_maps(model: Any, x: npt.NDArray[Any], settings: MapSettings) -> None:
    """Make one map, so that what cannot be explained is refused before any work."""
    with warnings.catch_warnings():  # that the map is zero, as in a batch of one it may be
        warnings.simplefilter("ignore", UserWarning)
        maps = _explainer(model, x, settings)(x[:1])
    if maps.ndim > 3 or maps.shape[1:] != x.shape[1 : maps.ndim]:
        raise ValueError(
            f"The method {settings.method_name!r} gives maps of shape "
            f"{maps.shape[1:]} for examples of shape {x.shape[1:]}, expected one value "
            "per pixel. Leave `reduce` at True."
        )


def _explainer(model: Any, x: Any, settings: MapSettings) -> Explainer:
    size = settings.batch_size
    return explainer(model, x[:1], method=settings.method, batch_size=size)


def _plain(method: SaliencyMethod) -> dict[str, Any]:
    """Return the settings of a method as JSON can hold them."""
    return {
        name: value if isinstance(value, str | int | float | None) else repr(value)
        for name, value in vars(method).items()
    }


@dataclass(frozen=True)
class SaliencyReport(Comparison):
    """What `evaluate_saliency` found: a comparison of reports without attacks.

    `report["name"]` is the record of one model, which `Report.with_saliency` puts on
    the page of an evaluation under attack.

    Raises:
        TypeError, ValueError: As `Comparison`, or if a report has no figures of maps.
    """

    def __post_init__(self) -> None:
        """Check that every report has figures of maps."""
        super().__post_init__()
        for report in self.reports:
            if report.saliency is None:
                what = f"The report '{report.title}' has no figures of saliency maps."
                raise ValueError(f"{what} Read it with Comparison.load(path).")

    def __getitem__(self, name: str) -> SaliencyRecord:
        """Return the record of a model."""
        records = {report.title: report.saliency for report in self.reports}
        record = records.get(name)
        if record is None:
            raise KeyError(f"Got {name!r}, expected one of {sorted(records)}.")
        return record

    def summary(self) -> str:
        """Say the result in a few sentences per model."""
        return "\n".join(f"{r.title}: {saliency_words(r)}" for r in self.reports)


class SaliencyOptions(TypedDict, total=False):
    """The rarer keywords of `evaluate_saliency`, which documents them."""

    baselines: Sequence[str]
    steps: int
    top: float
    samples: int
    attack_steps: int
    batch_size: int
    seed: int


def evaluate_saliency(  # noqa: D417
    models: Mapping[str, Any],
    x: Any,
    y: Any,
    epsilon: float | None = None,
    *,
    norm: str = "linf",
    input_range: tuple[float, float] | None = None,
    method: str | SaliencyMethod = "gradient",
    teacher: Any = None,
    boxes: Any = None,
    parts: Sequence[str] | None = None,
    verbose: Literal["auto", 0, 1] = "auto",
    **options: Unpack[SaliencyOptions],
) -> SaliencyReport:
    """Measure how faithful, sparse, stable and sane the saliency maps of models are.

    Explained is the true class, on the examples that all models classify rightly. The figures are
    deletion and insertion, beside a random order and that of intensity; agreement with perturbation
    maps of the model and the `teacher`; Gini index, alignment with the image, local Lipschitz
    constant; top-k intersection, rank correlation and SSIM with the map under noise, PGD and the
    saliency attack, where the class stays; with `boxes` pointing game and relevance mass; rank
    correlation with the map of the network with shuffled weights. A crash of a part is told in the
    record; the rest goes on.

    Args:
        models: Keras classifiers, hardened models or callables, by name.
        x, y, epsilon, norm, input_range, verbose: See `evaluate_robustness`; `epsilon`
            is the radius of noise and attacks.
        method: A name that `keras_jsigr.saliency.explain` takes, or a method with
            settings, such as `SmoothGrad(samples=20)`.
        teacher: Another model of the same classes, trained by itself, or `None`.
        boxes: Real `(N, 4)`, `[x0, y0, x1, y1]` of the object in pixels, or `None`.
        parts: What to measure; `None`: all of `"faithfulness"`, `"agreement"`, `"sparsity"`,
            `"alignment"`, `"localisation"`, `"smoothness"`, `"pgd"`, `"uniform_noise"`,
            `"gaussian_noise"`, `"sanity"` and, nearly half of the time, `"saliency_attack"`.
        **options: `baselines`: what removed pixels become, of `"blur"`, `"mean"` and
            `"zero"` (default: all); `steps` of deletion and insertion, 28; `top`: the
            share of the pixels that are the top of a map, 0.1; `samples`: random points
            of the local Lipschitz constant, 8; `attack_steps` of PGD and of the
            saliency attack, 20; `batch_size`, 128; `seed` of everything random, 0.

    Returns:
        The report: `report["name"]` is the record of one model, with mean, standard
        error and number of examples of each figure; `report.save("maps.html")`.

    Raises:
        TypeError, ValueError: As `evaluate_robustness`, or if no example is classified
            rightly by all models.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr import evaluate_saliency
        >>> x, parts = np.eye(2, 3, dtype="float32"), ["sparsity"]
        >>> report = evaluate_saliency({"net": lambda x: x}, x, [0, 1], 0.1, parts=parts)
        >>> report["net"].figure("Gini index").images
        2
    """
    arguments.choice("verbose", verbose, ("auto", 0, 1))
    validation.check_models(models)
    validation.check_options("evaluate_saliency", SaliencyOptions, options)
    known = (epsilon, norm, input_range, *models.values())
    x, limits = validation.check_threat_model(x, *known)
    x = np.asarray(x)
    settings = MapSettings(
        **limits,
        method=method,
        teacher=teacher,
        boxes=check_boxes(boxes, x),
        parts=parts,
        **options,
    )
    PROGRAMS.forget(*models.values())
    size = settings.batch_size
    logits = {n: validation.check_logits(m, x, size) for n, m in models.items()}
    classes = next(iter(logits.values())).shape[-1]
    x, labels = validation.check_data(x, y, settings.input_range, classes)
    for name, model in [*models.items(), ("teacher", teacher)]:
        if model is not None:
            validation.class_count(f"model '{name}'", model, x, classes)
    for model in models.values():
        check_maps(model, x, settings)
    right = {name: classified_rightly(z, labels) for name, z in logits.items()}
    used = np.all(list(right.values()), axis=0)
    data: dict[str, Any] = {"images": len(x), "explained": int(used.sum())}
    data["fingerprint"] = data_identity(x, labels)
    reports = []
    for name, model in models.items():
        with unchanged(model, teacher):
            record = measure(model, x, labels, settings, used=used, verbose=verbose)
        clean, total = Rate(int(right[name].sum()), len(x)), record.seconds["total"]
        about = to_json(model_summary(model, x.shape[1:], classes), "its settings")
        report = Report(
            title=name,
            model={**about, "name": name},
            data=data,
            clean=clean,
            robust=clean,
            chance=chance(labels, classes),
            versions=versions(),
            seconds={"saliency": total, "total": total},
            saliency=record,
        )
        reports.append(report)
    return SaliencyReport(tuple(reports))


def check_nested_settings(
    saliency: bool | Mapping[str, Any], model: Any, x: Any, threat: Mapping[str, Any]
) -> MapSettings | None:
    """Check what `evaluate_robustness` got as `saliency`."""
    if saliency is False:
        return None
    if saliency is not True and not isinstance(saliency, Mapping):
        raise TypeError(
            f"`saliency` is {saliency!r}, expected True, False or a dictionary of "
            "settings of `evaluate_saliency`. Pass for instance {'teacher': other}."
        )
    chosen = {} if saliency is True else dict(saliency)
    if shared := sorted(set(chosen) & set(threat)):
        raise ValueError(
            f"`saliency` has the settings {shared}, which the evaluation has already. "
            "Pass them to `evaluate_robustness` itself."
        )
    known = sorted({f.name for f in dataclasses.fields(MapSettings)} - set(threat))
    for name in chosen:
        arguments.choice("saliency", name, known)
    chosen["boxes"] = check_boxes(chosen.get("boxes"), x)
    settings = MapSettings(**threat, **chosen)
    check_maps(model, x, settings)
    return settings


def measure_saliency(task: Task, maps: MapSettings) -> SaliencyRecord:
    """Measure the maps of the rightly classified examples."""

    def compute() -> CachedResult:
        record = measure(task.model, task.x, task.y, maps, used=task.right)
        # What has no finite value will have none the next time either.
        crashed = set(record.errors) - set(unknown_values(record.figures))
        return CachedResult({}, {"record": to_json(record)}, complete=not crashed)

    method: Any = maps.method
    if not isinstance(method, str):
        method = {"settings": repr(method), **class_fingerprint(type(method))}
    settings = {
        **maps.get_config(),
        "method": method,
        "teacher": maps.teacher and model_identity(maps.teacher, task.x),
        "boxes": None if maps.boxes is None else array_digest(maps.boxes),
        "rows": array_digest(task.right),
    }
    info = task.cache.get_or_compute("saliency", settings, compute).info
    record: SaliencyRecord = from_json(SaliencyRecord, to_json(info["record"]))
    for error in record.errors:
        task.log.fail("saliency", error)
    return record
