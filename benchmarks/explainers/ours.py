"""The methods of keras_jsigr, with the settings of the other libraries."""

from __future__ import annotations

from typing import Any

import numpy as np

import keras_jsigr as kj
from explainers.settings import Make, Run, Settings, feature_layer


def _run(method: str, model: Any, settings: Settings, **further: Any) -> Run:
    probe = np.zeros((1, *model.input_shape[1:]), "float32")
    explain = kj.saliency.explainer(
        model,
        probe,
        method=method,
        batch_size=settings.batch_size,
        score="logit",
        **further,
    )

    def run(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return explain(x, y).reshape(x.shape[:3])

    return run


def gradient(model: Any, settings: Settings) -> Run:
    """Prepare `"gradient"`, absolute."""
    return _run("gradient", model, settings)


def gradient_x_input(model: Any, settings: Settings) -> Run:
    """Prepare `"gradient_x_input"`, signed."""
    return _run("gradient_x_input", model, settings, reduce=False)


def smoothgrad(model: Any, settings: Settings) -> Run:
    """Prepare `"smoothgrad"`, signed."""
    return _run(
        "smoothgrad",
        model,
        settings,
        samples=settings.samples,
        noise=settings.noise,
        seed=settings.seed,
        reduce=False,
    )


def integrated_gradients(model: Any, settings: Settings) -> Run:
    """Prepare `"integrated_gradients"` by the trapezoidal rule, signed."""
    return _run(
        "integrated_gradients",
        model,
        settings,
        steps=settings.steps,
        rule="trapezoid",
        reduce=False,
    )


def grad_cam(model: Any, settings: Settings) -> Run:
    """Prepare `"grad_cam"`."""
    return _run("grad_cam", model, settings, layer=feature_layer(model))


def _occlusion(stride: int | None) -> Make:
    def make(model: Any, settings: Settings) -> Run:
        return _run(
            "occlusion",
            model,
            settings,
            patch=settings.patch,
            stride=settings.stride if stride is None else stride,
        )

    return make


def rise(model: Any, settings: Settings) -> Run:
    """Prepare `"rise"`."""
    return _run(
        "rise",
        model,
        settings,
        samples=settings.masks,
        grid=settings.grid,
        keep=settings.keep,
        seed=settings.seed,
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
MISSING: dict[str, str] = {}
