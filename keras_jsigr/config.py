"""Settings of `harden` that were found by measurement, scaled to a threat model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

from keras_jsigr.core import arguments

PresetName = Literal["fast", "balanced", "faithful"]


PRESETS: tuple[str, ...] = get_args(PresetName)


def preset(
    name: PresetName,
    *,
    epsilon: float,
    input_range: tuple[float, float] = (0.0, 1.0),
) -> dict[str, Any]:
    """Return arguments of `harden` for a maximum-norm radius.

    With `r = epsilon / width of input_range`:

    - `"balanced"`, the most robust: `form="separate"`,
      `3 r^2 * 1/2 ||J||_F^2 + 1.2 r * sum_i M_i |d log p(y) / dx_i|`. The second sum is
      how much the loss grows, to first order, at the worst point of the ball, over the
      pixels that the perturbation map leaves unmarked.
    - `"fast"`: `form="guided"`, `0.2 r sum_i |g_i| + 0.8 r sum_i M_i |g_i|`, both from
      one projection `g` near the direction of the score, in four fifths of the time.
    - `"faithful"`: `form="fused"` with `selection="hard"`,
      `0.05 r sum_i ||J_:i||_2 + 0.15 r sum_i M_i ||J_:i||_2`: gradient maps that agree
      most with perturbation maps, and the least loss of clean accuracy. It needs whole
      maps: `maps=` of a trained network, or the slow `masks_per_step=None`.

    All take the step at random points of the ball: `noise=epsilon`; those of
    `"balanced"` differ from the example in patches of pixels. The weights scale with
    the radius as the loss within it does: by `r` where the penalty is a norm of
    the gradient, by `r^2` where it is a square. Where the hardened network learns its
    training images by heart, as it does with few, or hardly learns them, as on hard
    tasks, add `score="margin"`.

    Args:
        name: `"balanced"`, `"fast"` or `"faithful"`.
        epsilon: Maximum-norm radius of the attacks to withstand, in units of the
            inputs, > 0.
        input_range: Range of the inputs that `fit` receives.

    Returns:
        Keywords for `harden`; change them as you would any dict.

    Raises:
        ValueError: If `name` is unknown, or the radius or the range cannot be.

    Reference:
        Measured by `benchmarks/study.py`, docs/presets.md.

    Example:
        >>> import keras_jsigr as kj
        >>> arguments = kj.preset("balanced", epsilon=0.1)
        >>> arguments["form"], arguments["noise"]
        ('separate', 0.1)
        >>> # robust = kj.harden(model, **arguments)
    """
    arguments.choice("preset", name, PRESETS)
    low, high = arguments.interval("input_range", input_range)
    advice = "It is the radius to withstand, in units of the inputs."
    epsilon = arguments.number(
        "epsilon", epsilon, minimum=0.0, above=True, advice=advice
    )
    if epsilon >= high - low:
        raise ValueError(
            f"`epsilon` is out of range: got {epsilon:g}, expected less than the width "
            f"of input_range {high - low:g}. Pass the range of what `fit` receives, "
            "such as input_range=(0, 255)."
        )
    return {
        **_SETTINGS[name](epsilon / (high - low)),
        "noise": epsilon,
        "input_range": (low, high),
    }


def _balanced(radius: float) -> dict[str, Any]:
    return {
        "form": "separate",
        "jacobian_weight": 3.0 * radius**2,
        "selective_weight": 1.2 * radius,
        "noise_patches": (2, 4, 7),
    }


def _fast(radius: float) -> dict[str, Any]:
    return {
        "form": "guided",
        "jacobian_weight": 0.2 * radius,
        "selective_weight": 0.8 * radius,
    }


def _faithful(radius: float) -> dict[str, Any]:
    return {
        "selection": "hard",
        "jacobian_weight": 0.05 * radius,
        "selective_weight": 0.15 * radius,
    }


_SETTINGS: dict[str, Callable[[float], dict[str, Any]]] = {
    "balanced": _balanced,
    "fast": _fast,
    "faithful": _faithful,
}
