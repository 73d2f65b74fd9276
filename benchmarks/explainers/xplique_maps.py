"""The methods of Xplique on a Keras 3 model with logits."""

from __future__ import annotations

from typing import Any

import numpy as np

from explainers.settings import Make, Run, Settings, feature_layer

MISSING: dict[str, str] = {}


def _run(kind: str, model: Any, batch_size: int, **further: Any) -> Run:
    from xplique import attributions
    from xplique.attributions.base import BlackBoxExplainer

    # Its key is the id of a list that may be gone: it can answer for another model.
    BlackBoxExplainer._cache_models.clear()
    explainer = getattr(attributions, kind)(model, batch_size=batch_size, **further)
    one_hot = np.eye(model.output_shape[-1], dtype="float32")

    def run(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return explainer.explain(x, one_hot[y]).numpy()[..., 0]

    return run


def gradient(model: Any, settings: Settings) -> Run:
    """Prepare `Saliency`, absolute."""
    return _run("Saliency", model, settings.batch_size)


def gradient_x_input(model: Any, settings: Settings) -> Run:
    """Prepare `GradientInput`, signed."""
    return _run("GradientInput", model, settings.batch_size)


def smoothgrad(model: Any, settings: Settings) -> Run:
    """Prepare `SmoothGrad`, signed."""
    return _run(
        "SmoothGrad",
        model,
        settings.rows,
        nb_samples=settings.samples,
        noise=settings.noise,
    )


def integrated_gradients(model: Any, settings: Settings) -> Run:
    """Prepare `IntegratedGradients` by the trapezoidal rule, signed."""
    return _run("IntegratedGradients", model, settings.rows, steps=settings.steps)


def grad_cam(model: Any, settings: Settings) -> Run:
    """Prepare `GradCAM`, resized by cubic splines."""
    return _run("GradCAM", model, settings.batch_size, conv_layer=feature_layer(model))


def _occlusion(stride: int | None) -> Make:
    def make(model: Any, settings: Settings) -> Run:
        return _run(
            "Occlusion",
            model,
            settings.rows,
            patch_size=settings.patch,
            patch_stride=settings.stride if stride is None else stride,
        )

    return make


def rise(model: Any, settings: Settings) -> Run:
    """Prepare `Rise`."""
    return _run(
        "Rise",
        model,
        settings.rows,
        nb_samples=settings.masks,
        grid_size=settings.grid,
        preservation_probability=settings.keep,
    )


METHODS: dict[str, Make] = {
    "gradient": gradient,
    "gradient x input": gradient_x_input,
    "SmoothGrad": smoothgrad,
    "integrated gradients": integrated_gradients,
    "Grad-CAM": grad_cam,
    "occlusion": _occlusion(None),
    "occlusion, stride 1": _occlusion(1),
    "RISE": rise,
}
