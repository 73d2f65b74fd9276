"""What to do when the network has learnt its training images by heart, in words."""

from __future__ import annotations

from collections.abc import Mapping

from keras_jsigr.penalties import PenaltySettings

# Of the cross entropy, in nats.
BY_HEART = 0.05


def score_advice(
    settings: PenaltySettings, weights: Mapping[str, float], task_loss: float
) -> dict[str, str]:
    """Say when the gradient of the log probability has next to nothing left.

    `d log p/dx = (1 - p) dm/dx` with the log odds `m`, and the mean of `1 - p` is at
    most that of `-log p`, the cross entropy. Where that is below 0.05, the gradient of
    the score is on average less than a twentieth of that of the log odds, though the
    images of the test may be as easy to fool as ever.

    Args:
        settings: The objective.
        weights: Weights of the penalties by name.
        task_loss: Mean cross entropy of the training images.

    Returns:
        A sentence by a key; empty if all is well, or if the penalties take no log
        probability.

    Reference:
        docs/presets.md, "Other networks, other images".

    Example:
        >>> from keras_jsigr.callbacks.penalty.score_advice import score_advice
        >>> from keras_jsigr.penalties import PenaltySettings
        >>> settings = PenaltySettings(form="separate")
        >>> list(score_advice(settings, {"selective": 0.1}, 0.01))
        ['learnt by heart']
    """
    takes_score = settings.form != "fused" and settings.score == "log_prob"
    if not (takes_score and weights.get("selective", 0.0) > 0.0):
        return {}
    if not 0.0 <= task_loss < BY_HEART:
        return {}
    return {
        "learnt by heart": (
            f"The model has learnt its training images by heart: their mean task loss "
            f"is {task_loss:.2g}. The gradient of score='log_prob' vanishes there, and "
            "with it what the selective penalty does on images not seen. Pass "
            "score='margin' to `harden`."
        )
    }
