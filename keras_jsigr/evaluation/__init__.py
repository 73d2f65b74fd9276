"""Honest evaluation: worst case, transfer, diagnostics, saliency maps, a report."""

from keras_jsigr.evaluation.comparison import Comparison, compare
from keras_jsigr.evaluation.evaluate import evaluate
from keras_jsigr.evaluation.families import leave_one_family_out
from keras_jsigr.evaluation.interpretability import SaliencyReport, evaluate_saliency
from keras_jsigr.evaluation.linearized import linearized_robustness
from keras_jsigr.evaluation.masking import diagnostics
from keras_jsigr.evaluation.rate import Rate
from keras_jsigr.evaluation.report import Report
from keras_jsigr.evaluation.saliency_records import SaliencyFigure, SaliencyRecord
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
    "evaluate",
    "evaluate_saliency",
    "leave_one_family_out",
    "linearized_robustness",
    "transfer_matrix",
]
