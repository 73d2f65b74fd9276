"""Metrics of saliency maps: pure functions of tensors, one figure per example."""

from keras_jsigr.saliency.metrics.agreement import Agreement, agreement
from keras_jsigr.saliency.metrics.alignment import Alignment, alignment
from keras_jsigr.saliency.metrics.control_map import ControlName, control_map
from keras_jsigr.saliency.metrics.deletion import deletion
from keras_jsigr.saliency.metrics.exchange_curve import exchange_curve
from keras_jsigr.saliency.metrics.gini import gini
from keras_jsigr.saliency.metrics.insertion import insertion
from keras_jsigr.saliency.metrics.local_lipschitz import local_lipschitz
from keras_jsigr.saliency.metrics.pointing_game import pointing_game
from keras_jsigr.saliency.metrics.randomization import randomization
from keras_jsigr.saliency.metrics.rank_correlation import rank_correlation
from keras_jsigr.saliency.metrics.relevance_mass import relevance_mass
from keras_jsigr.saliency.metrics.ssim import ssim
from keras_jsigr.saliency.metrics.top_k_intersection import top_k_intersection

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
