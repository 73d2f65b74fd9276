"""Callbacks: watch saliency, robustness and penalties while a model trains."""

from keras_jsigr.callbacks.accuracy_constraint import AccuracyConstraint
from keras_jsigr.callbacks.penalty_monitor import PenaltyMonitor
from keras_jsigr.callbacks.refresh_maps import RefreshMaps
from keras_jsigr.callbacks.robust_accuracy import RobustAccuracy
from keras_jsigr.callbacks.saliency_grid import SaliencyGrid
from keras_jsigr.training.distribution import DistributedBackup

__all__ = [
    "AccuracyConstraint",
    "DistributedBackup",
    "PenaltyMonitor",
    "RefreshMaps",
    "RobustAccuracy",
    "SaliencyGrid",
]
