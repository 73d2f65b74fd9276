"""One call for every saliency method."""

from __future__ import annotations

import warnings
from dataclasses import fields
from typing import Any

from keras_jsigr.core.arguments import choice, count
from keras_jsigr.core.batching import as_fit_sees, probe_of
from keras_jsigr.core.streams import Blocks, is_stream
from keras_jsigr.saliency.base import Explainer, SaliencyMethod
from keras_jsigr.saliency.grad_cam import GradCAM
from keras_jsigr.saliency.gradients import (
    Gradient,
    GradientTimesInput,
    IntegratedGradients,
    SmoothGrad,
    VarGrad,
)
from keras_jsigr.saliency.occlusion import RISE, Occlusion
from keras_jsigr.saliency.perturbation import SARFA, Perturbation

METHODS: dict[str, type[SaliencyMethod]] = {
    "gradient": Gradient,
    "gradient_x_input": GradientTimesInput,
    "smoothgrad": SmoothGrad,
    "vargrad": VarGrad,
    "integrated_gradients": IntegratedGradients,
    "grad_cam": GradCAM,
    "perturbation": Perturbation,
    "sarfa": SARFA,
    "occlusion": Occlusion,
    "rise": RISE,
}


def explain(
    model: Any,
    x: Any,
    y: Any = None,
    *,
    method: str | SaliencyMethod = "gradient",
    batch_size: int = 128,
    **settings: Any,
) -> Any:
    """Explain decisions by any saliency method, compiled and batch by batch.

    Equal calls for a Keras model share a compiled program, as long as the model lives.
    A callable is compiled anew in every call: keep an `explainer` of it.

    Args:
        model: A Keras classifier, a hardened model or a callable.
        x: Data `(B, *S)`, or a batched `tf.data.Dataset` or `keras.utils.PyDataset` of
            `(x, y)` or `x`, which is read once; memory holds a few batches, and the maps.
        y: Labels `(B,)` or `(B, C)`; `None` explains the model's own decision. `None`
            with a dataset: its labels are explained, if it has some.
        method: A key of `METHODS`, or a method with its settings, such as
            `SmoothGrad(samples=20)`.
        batch_size: Examples per compiled call.
        **settings: Of the method, such as `samples=50`.

    Returns:
        Float32 maps `(B, *map_shape)`, or the shape of `x` with `reduce=False`: a
        tensor if `x` is one, else a NumPy array, in the order of the examples.

    Raises:
        TypeError: If the method has no such setting, or `model` cannot be called.
        ValueError: If the method is unknown, or a setting or shape is out of range.

    Example:
        >>> import numpy as np
        >>> from keras_jsigr.saliency import explain
        >>> x, net = np.ones((3, 8, 8, 1)), lambda x: x[:, 2:4, 5, 0]
        >>> explain(net, x, method="smoothgrad", samples=4).shape
        (3, 8, 8)
    """
    if "targets" in settings:
        warnings.warn("`targets` is `y` now", DeprecationWarning, stacklevel=2)
        y = settings.pop("targets")
    chosen = _method(method, settings)
    if is_stream(x):
        x, y = Blocks(x, y, model=model, batch_size=count("batch_size", batch_size)), None
        probe = as_fit_sees(x.head.x)
    else:
        probe = x = as_fit_sees(x)
    return chosen.explainer(model, probe_of(probe), batch_size)(x, y)


def explainer(
    model: Any,
    probe: Any,
    *,
    method: str | SaliencyMethod = "gradient",
    batch_size: int = 128,
    **settings: Any,
) -> Explainer:
    """Compile a saliency method once, to call it again and again as `f(x, y=None)`.

    Arguments are those of `explain`, and `probe`, a batch of inputs, at least one.

    Returns:
        The reusable function; it reads the model's current weights. Its attribute
        `method` holds all settings.

    Example:
        >>> from keras_jsigr.saliency import explainer
        >>> x = [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]
        >>> explainer(lambda x: x, x, method="occlusion")(x).shape
        (3, 2)
    """
    chosen = _method(method, settings)
    return chosen.explainer(model, probe_of(as_fit_sees(probe)), batch_size)


def _method(method: Any, settings: dict[str, Any]) -> SaliencyMethod:
    if isinstance(method, SaliencyMethod):
        if settings:
            raise TypeError(
                f"Got settings {sorted(settings)} beside a {type(method).__name__}, "
                f"expected none. Pass them to {type(method).__name__}(...)."
            )
        return method
    advice = "Pass one of these, or a `SaliencyMethod`."
    choice("method", method, tuple(METHODS), advice=advice)
    kind = METHODS[method]
    known = sorted(setting.name for setting in fields(kind) if setting.init)
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise TypeError(
            f"The method '{method}' has no setting {unknown[0]!r}: expected some of "
            f"{known}. Leave it out."
        )
    return kind(**settings)
