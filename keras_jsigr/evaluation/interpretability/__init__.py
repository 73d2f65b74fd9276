"""Saliency maps under measurement: faithful, sparse, stable, sane."""

from keras_jsigr.evaluation.interpretability.evaluate_saliency import evaluate_saliency
from keras_jsigr.evaluation.interpretability.saliency_report import SaliencyReport

__all__ = ["SaliencyReport", "evaluate_saliency"]
