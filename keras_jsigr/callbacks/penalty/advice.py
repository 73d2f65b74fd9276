"""What to do when a penalty does nothing or drowns the task loss, in words."""

from __future__ import annotations

from collections.abc import Mapping

NOTHING, DROWNED = 1e-3, 0.9
_SETTINGS = {
    "jacobian": "jacobian_weight",
    "selective": "selective_weight",
    "align": "align_weight",
    "fused": "jacobian_weight and selective_weight",
}


def advice(
    shares: Mapping[str, float], weights: Mapping[str, float], of: str
) -> dict[str, str]:
    """Say what is wrong with the weights of the penalties.

    A penalty with a share below 0.001 does nothing; penalties that together have more
    than 0.9 drown the task loss. The weight that is named for a remedy gives the
    penalty a tenth of the whole in the first case, and half in the second.

    Args:
        shares: Of each penalty, 0..1, and of the `task`.
        weights: Of the penalties as they are set, by name.
        of: What the shares are of: `"gradient"` or `"loss"`.

    Returns:
        Sentences by a key for each kind of trouble; empty if all is well.

    Example:
        >>> from keras_jsigr.callbacks.penalty.advice import advice
        >>> found = advice({"task": 1.0, "jacobian": 1e-4}, {"jacobian": 0.01}, "loss")
        >>> found["jacobian does nothing"].split(". ")[1]
        'Raise jacobian_weight (now 0.01) to about 11'
    """
    penalties = {name: share for name, share in shares.items() if name != "task"}
    found = {
        f"{name} does nothing": _nothing(name, share, weights[name], of)
        for name, share in penalties.items()
        if share < NOTHING
    }
    if sum(penalties.values()) > DROWNED:
        name = max(penalties, key=lambda name: penalties[name])
        found["drowned"] = _drowned(name, shares, weights[name], of)
    return found


def _nothing(name: str, share: float, weight: float, of: str) -> str:
    setting = _SETTINGS[name]
    start = (
        f"The {name} penalty does nothing: its share of the {of} is "
        f"{100.0 * share:.2g} %, below {100.0 * NOTHING:g} %. "
    )
    if share == 0.0 and weight > 0.0:
        return (
            f"{start}No weight can change that: it is zero on these examples. Look for "
            "saturated or dead units, and for layers without a second derivative."
        )
    if name == "fused" or share == 0.0:
        remedy = f"Raise {setting} tenfold" if weight else f"Raise {setting} above 0"
    else:
        wanted = weight * (0.1 / 0.9) * (1.0 - share) / share
        remedy = f"Raise {setting} (now {weight:.2g}) to about {wanted:.2g}"
    off = "=0 and ".join(setting.split(" and ")) + "=0"
    return f"{start}{remedy}. Or do without: {off} saves its cost."


def _drowned(name: str, shares: Mapping[str, float], weight: float, of: str) -> str:
    share, setting = shares[name], _SETTINGS[name]
    held = 1.0 - shares["task"]
    remedy = f"Lower {setting}"
    if name != "fused" and share > 0.5:
        wanted = weight * (1.0 - share) / share
        remedy += f" (now {weight:.2g}) to about {wanted:.2g}"
    return (
        f"The penalties drown the task loss: they have {100.0 * held:.0f} % of the "
        f"{of}, the {name} penalty alone {100.0 * share:.0f} %. The model gets flat "
        f"before it gets right. {remedy}, or let the penalties grow in more slowly "
        "with `ramp_steps`."
    )
