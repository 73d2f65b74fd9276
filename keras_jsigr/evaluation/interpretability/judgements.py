"""What the figures of the maps mean, in words."""

from __future__ import annotations

import math
from collections.abc import Sequence

from keras_jsigr.evaluation.interpretability import faithfulness, sanity
from keras_jsigr.evaluation.records import Finding
from keras_jsigr.evaluation.saliency_records import SaliencyFigure

# Shuffled weights leave the architecture: borders and strides alone correlate maps.
_SAME_MAP = 0.8


def judgements(figures: Sequence[SaliencyFigure]) -> list[Finding]:
    """Judge what was measured: is the map one of this model, and does it say anything.

    Args:
        figures: Of one model.

    Returns:
        One finding per rule whose figures are there.

    Example:
        >>> from keras_jsigr.evaluation.interpretability.judgements import judgements
        >>> judgements([])
        []
    """
    return [*_weights_matter(figures), *_beats_controls(figures)]


def _weights_matter(figures: Sequence[SaliencyFigure]) -> list[Finding]:
    found = [
        f for f in figures if (f.metric, f.condition) == (sanity.METRIC, sanity.ALL)
    ]
    if not found:
        return []
    rule, title = "weights_matter", "The maps depend on the weights"
    same = found[0].mean
    if same is None or not math.isfinite(same):
        says = "Maps of the shuffled weights cannot be compared: no value is finite."
        return [_skipped(rule, title, says)]
    suspect = same > _SAME_MAP
    return [
        Finding(
            rule=rule,
            title=title,
            status="suspect" if suspect else "ok",
            says=(
                "The maps stay nearly the same when all weights are shuffled: they "
                "show the image or the architecture and not what was learned."
                if suspect
                else "The maps change when all weights are shuffled."
            ),
            figures={"rank_correlation": same, "suspect_above": _SAME_MAP},
            advice="Use another method of explanation." if suspect else "",
        )
    ]


def _beats_controls(figures: Sequence[SaliencyFigure]) -> list[Finding]:
    means: dict[str, dict[tuple[str, str], float]] = {}
    for figure in figures:
        if figure.group == faithfulness.GROUP:
            baseline, order = figure.condition.split(", ")
            value = math.nan if figure.mean is None else figure.mean
            means.setdefault(baseline, {})[figure.metric, order] = value
    if not means:
        return []
    rule, title = "beats_controls", "The maps name the pixels that matter"
    # The orders compare only over the same baselines.
    known = [m for m in means.values() if all(map(math.isfinite, m.values()))]
    if not known:
        says = "Deletion and insertion have no finite values to compare."
        return [_skipped(rule, title, says)]
    # Deletion should be small and insertion large: their difference is one figure.
    gain = {
        order: _mean([m["Insertion", order] - m["Deletion", order] for m in known])
        for order in dict.fromkeys(order for _, order in known[0])
    }
    own, chance, bright = gain.values()
    if own <= chance:
        says = "The order of the maps is no better than a random one."
        advice = "Do not show these maps as reasons of the decisions."
    elif own <= bright:
        says = "The maps beat a random order, but bright pixels first does as well."
        advice = ""
    else:
        says = "The order of the maps beats a random one and that of the intensity."
        advice = ""
    return [
        Finding(
            rule=rule,
            title=title,
            status="suspect" if own <= chance else "ok",
            says=f"{says} The figures are insertion minus deletion.",
            figures={key.replace(" ", "_"): value for key, value in gain.items()},
            advice=advice,
        )
    ]


def _skipped(rule: str, title: str, says: str) -> Finding:
    return Finding(rule=rule, title=title, status="skipped", says=says, figures={})


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
