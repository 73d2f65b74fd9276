"""What was measured of the maps of several models: one report each, one page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_jsigr.evaluation.comparison import Comparison
from keras_jsigr.evaluation.json_codec import to_json
from keras_jsigr.evaluation.parts.about import about_model, versions
from keras_jsigr.evaluation.parts.classes import chance
from keras_jsigr.evaluation.rate import Rate
from keras_jsigr.evaluation.report import Report
from keras_jsigr.evaluation.saliency_records import SaliencyRecord


@dataclass(frozen=True)
class SaliencyReport(Comparison):
    """Hold what `evaluate_saliency` found: a report without attacks per model.

    `save("maps.html")`, `.md` and `.json` write it, `load` reads the last;
    `report["name"]` is the record of one model, which `Report.with_saliency` puts on
    the page of an evaluation under attack.

    Attributes:
        reports: One per model.
        warnings: Empty: all models were measured alike.

    Raises:
        TypeError: If something else than reports is given.
        ValueError: If there is none, or one has no figures of maps.
    """

    def __post_init__(self) -> None:
        """Check that every report has figures of maps."""
        super().__post_init__()
        for report in self.reports:
            if report.saliency is None:
                raise ValueError(
                    f"The report '{report.title}' has no figures of saliency maps, "
                    "expected some. Read it with Comparison.load(path)."
                )

    def __getitem__(self, name: str) -> SaliencyRecord:
        """Return the record of a model."""
        records = {report.title: report.saliency for report in self.reports}
        record = records.get(name)
        if record is None:
            raise KeyError(f"Got {name!r}, expected one of {sorted(records)}.")
        return record

    def summary(self) -> str:
        """Say the result in a few sentences per model."""
        from keras_jsigr.evaluation.page.saliency import saliency_words

        return "\n".join(
            f"{report.title}: {saliency_words(report)}" for report in self.reports
        )


def bare_report(
    name: str,
    model: Any,
    x: npt.NDArray[Any],
    y: npt.NDArray[np.int64],
    *,
    right: npt.NDArray[np.bool_],
    classes: int,
    data: dict[str, Any],
    record: SaliencyRecord,
) -> Report:
    """Make the report of a model that was not attacked.

    Args:
        name: Of the model.
        model: A Keras classifier, a hardened model or a callable.
        x: Float `(N, *S)`.
        y: Integers `(N,)`.
        right: Bool `(N,)`: rightly classified.
        classes: Number of classes.
        data: What the report says of the data.
        record: The figures of its maps.

    Returns:
        The report.
    """
    clean = Rate(int(right.sum()), len(x))
    about = to_json(about_model(model, x.shape[1:], classes), "the model's settings")
    return Report(
        title=name,
        model={**about, "name": name},
        threat_model={},
        data=data,
        clean=clean,
        robust=clean,
        attacks=[],
        classes=[],
        curve=[],
        curve_attack={},
        chance=chance(y, classes),
        transfer=[],
        linearized=None,
        findings=[],
        examples=[],
        settings={},
        versions=versions(),
        seconds={"saliency": record.seconds["total"], "total": record.seconds["total"]},
        errors=[],
        saliency=record,
    )
