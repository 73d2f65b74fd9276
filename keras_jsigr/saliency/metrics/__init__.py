"""Metrics of saliency maps: pure functions of tensors, one figure per example."""

from keras_jsigr.saliency.metrics.faithfulness import (
    ControlName,
    control_map,
    deletion,
    exchange_curve,
    insertion,
)
from keras_jsigr.saliency.metrics.localization import pointing_game, relevance_mass
from keras_jsigr.saliency.metrics.similarity import (
    Agreement,
    agreement,
    rank_correlation,
    ssim,
    top_k_intersection,
)
from keras_jsigr.saliency.metrics.stability import (
    Alignment,
    alignment,
    gini,
    local_lipschitz,
    randomization,
)

__all__ = [
    "Agreement",
    "Alignment",
    "ControlName",
    "agreement",
    "alignment",
    "control_map",
    "deletion",
    "exchange_curve",
    "gini",
    "insertion",
    "local_lipschitz",
    "pointing_game",
    "randomization",
    "rank_correlation",
    "relevance_mass",
    "ssim",
    "top_k_intersection",
]
