"""All libraries side by side."""

from __future__ import annotations

import importlib.util

from explainers import ours, pair_maps, tf_keras_vis_maps, xplique_maps
from explainers.settings import Make

OURS = "keras_jsigr"
LIBRARIES = {
    OURS: ours,
    "Xplique": xplique_maps,
    "tf-keras-vis": tf_keras_vis_maps,
    "PAIR saliency": pair_maps,
}
MODULES = {
    "Xplique": "xplique",
    "tf-keras-vis": "tf_keras_vis",
    "PAIR saliency": "saliency",
}


def find(library: str, method: str) -> tuple[Make | None, str]:
    """Return how to prepare a method, or why there is no way.

    Args:
        library: A key of `LIBRARIES`.
        method: Such as `"occlusion"`.

    Returns:
        The function or `None`, and the reason or `""`.
    """
    module = MODULES.get(library)
    if module is not None and importlib.util.find_spec(module) is None:
        return None, "not installed"
    part = LIBRARIES[library]
    if method in part.MISSING:
        return None, part.MISSING[method]
    return part.METHODS[method], ""
