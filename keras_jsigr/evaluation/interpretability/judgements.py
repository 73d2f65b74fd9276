"""What the figures of the maps mean, in words."""

from __future__ import annotations

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
    if not found or found[0].mean is None:
        return []
    same = found[0].mean
    suspect = same > _SAME_MAP
    return [
        Finding(
            rule="weights_matter",
            title="The maps depend on the weights",
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
    means: dict[tuple[str, str], list[float]] = {}
    for figure in figures:
        if figure.group == faithfulness.GROUP and figure.mean is not None:
            order = figure.condition.split(", ")[-1]
            means.setdefault((figure.metric, order), []).append(figure.mean)
    if not means:
        return []
    # Deletion should be small and insertion large: their difference is one figure.
    gain = {
        order: _mean(means["Insertion", order]) - _mean(means["Deletion", order])
        for order in dict.fromkeys(order for _, order in means)
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
            rule="beats_controls",
            title="The maps name the pixels that matter",
            status="suspect" if own <= chance else "ok",
            says=f"{says} The figures are insertion minus deletion.",
            figures={key.replace(" ", "_"): value for key, value in gain.items()},
            advice=advice,
        )
    ]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
