"""Honest evaluation: worst case, transfer, diagnostics, saliency maps, a report."""

import warnings
from typing import Any

from keras_jsigr.attacks.ensemble import leave_one_family_out
from keras_jsigr.evaluation.gradient_masking import diagnostics
from keras_jsigr.evaluation.records import Rate, SaliencyFigure, SaliencyRecord
from keras_jsigr.evaluation.render.figures import plot_history
from keras_jsigr.evaluation.report import Comparison, Report, compare
from keras_jsigr.evaluation.robust_evaluation import evaluate_robustness
from keras_jsigr.evaluation.robustness import linearized_robustness
from keras_jsigr.evaluation.saliency import SaliencyReport, evaluate_saliency
from keras_jsigr.evaluation.transfer import transfer_matrix

__all__ = [
    "Comparison",
    "Rate",
    "Report",
    "SaliencyFigure",
    "SaliencyRecord",
    "SaliencyReport",
    "compare",
    "diagnostics",
    "evaluate_robustness",
    "evaluate_saliency",
    "leave_one_family_out",
    "linearized_robustness",
    "plot_history",
    "transfer_matrix",
]


def __getattr__(name: str) -> Any:
    if name == "evaluate":
        warnings.warn(
            "`evaluate` is called `evaluate_robustness` now; the old name goes with "
            "the next release.",
            DeprecationWarning,
            stacklevel=2,
        )
        return evaluate_robustness
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
