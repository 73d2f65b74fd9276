"""Evaluate the saliency maps of models."""

from __future__ import annotations

import dataclasses
import math
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
from keras_jsigr.core.streams import Blocks, is_stream
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
    join_identities,
    model_identity,
    short_hash,
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

_NONE_RIGHT = (
    "No example is classified rightly by every model, expected at least one. Train the models, or "
    "check the labels."
)


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
        raise ValueError(_NONE_RIGHT)
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
    y: Any = None,
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
        boxes: Real `(N, 4)`, `[x0, y0, x1, y1]` of the object in pixels, or `None`; for
            arrays alone.
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
    if streamed := is_stream(x):
        refuse_boxes(boxes)
        blocks = Blocks(x, y, model=next(iter(models.values())))
        x, y = blocks.head.x, blocks.head.y
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
    first = next(iter(models.values()))
    classes = validation.check_logits(first, np.asarray(probe_rows(x)), 128).shape[-1]
    x, y = validation.check_data(x, y, settings.input_range, classes)
    for name, model in [*models.items(), ("teacher", teacher)]:
        if model is not None:
            validation.class_count(f"model '{name}'", model, x, classes)
    for model in models.values():
        check_maps(model, x, settings)
    prints: list[str] = []
    labels: list[npt.NDArray[np.int64]] = []
    right: dict[str, int] = dict.fromkeys(models, 0)
    records: dict[str, list[SaliencyRecord]] = {name: [] for name in models}
    for block in blocks if streamed else Blocks(x, y):
        x, y = validation.check_block(block, settings.input_range, classes)
        part, size = of_block(settings, block.first, len(x)), settings.batch_size
        logits = {n: validation.check_logits(m, x, size) for n, m in models.items()}
        rows = {name: classified_rightly(z, y) for name, z in logits.items()}
        used = np.all(list(rows.values()), axis=0)
        for name, model in models.items():
            right[name] += int(rows[name].sum())
            if used.any():
                with unchanged(model, teacher):
                    record = measure(model, x, y, part, used=used, verbose=verbose)
                records[name].append(record)
        prints.append(data_identity(x, y))
        labels.append(y)
    if not all(records.values()):
        raise ValueError(_NONE_RIGHT)
    y = np.concatenate(labels)
    explained = sum(record.images for record in next(iter(records.values())))
    data: dict[str, Any] = {"images": len(y), "explained": explained}
    data["fingerprint"] = join_identities(prints)
    reports = []
    for name, model in models.items():
        record = join_maps(records[name])
        clean, total = Rate(right[name], len(y)), record.seconds["total"]
        about = to_json(model_summary(model, x.shape[1:], classes), "its settings")
        report = Report(
            title=name,
            model={**about, "name": name},
            data=data,
            clean=clean,
            robust=clean,
            chance=chance(y, classes),
            versions=versions(),
            seconds={"saliency": total, "total": total},
            saliency=record,
        )
        reports.append(report)
    return SaliencyReport(tuple(reports))


def of_block(settings: MapSettings, first: int, count: int) -> MapSettings:
    """Return settings with the boxes of a block."""
    if settings.boxes is None:
        return settings
    return dataclasses.replace(settings, boxes=settings.boxes[first : first + count])


def join_maps(records: Sequence[SaliencyRecord]) -> SaliencyRecord:
    """Add up what was measured in the blocks of data."""
    if len(records) == 1:
        return records[0]
    groups: dict[tuple[str, str, str], list[SaliencyFigure]] = {}
    errors: list[str] = []
    for record in records:
        for figure in record.figures:
            groups.setdefault((figure.group, figure.metric, figure.condition), []).append(figure)
        told = unknown_values(record.figures)
        errors += [error for error in record.errors if error not in [*told, *errors]]
    figures = [_joined_figure(group) for group in groups.values()]
    examples = " ".join(record.settings["examples"] for record in records)
    return dataclasses.replace(
        records[0],
        images=sum(record.images for record in records),
        figures=figures,
        findings=findings(figures),
        settings={**records[0].settings, "examples": short_hash(examples)},
        seconds={
            name: sum(record.seconds.get(name, 0.0) for record in records)
            for name in records[0].seconds
        },
        errors=[*errors, *unknown_values(figures)],
    )


def _joined_figure(parts: Sequence[SaliencyFigure]) -> SaliencyFigure:
    """Return mean and standard error over the examples of several figures."""
    known = [(p.images, p.mean, p.error or 0.0) for p in parts if p.mean is not None]
    n, mean, error = sum(images for images, *_ in known), None, None
    if n:
        mean = sum(images * value for images, value, _ in known) / n
        squares = [i * ((i - 1) * e**2 + (value - mean) ** 2) for i, value, e in known]
        error = math.sqrt(sum(squares) / (n - 1) / n) if n > 1 else None
    unknown = sum(part.unknown for part in parts)
    return dataclasses.replace(parts[0], mean=mean, error=error, images=n, unknown=unknown)


def refuse_boxes(boxes: Any) -> None:
    """Refuse boxes of a dataset: nothing says which belongs to which example."""
    if boxes is not None:
        raise ValueError(
            "`boxes` beside a dataset: got no way to match them with its examples, expected "
            "arrays. Pass `x` and `y` as arrays in the order of the boxes."
        )


def check_nested_settings(
    saliency: bool | Mapping[str, Any],
    model: Any,
    x: Any,
    threat: Mapping[str, Any],
    *,
    streamed: bool = False,
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
    if streamed:
        refuse_boxes(chosen.get("boxes"))
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
