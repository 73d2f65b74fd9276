"""Ensembles that know nothing of the family of models they are used against."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keras_jsigr.attacks.transfer.ensemble import FuseName, LogitsEnsemble


def leave_one_family_out(
    models: Mapping[str, Any],
    families: Mapping[str, str],
    *,
    fuse: FuseName = "probabilities",
) -> dict[str, LogitsEnsemble]:
    """Make, for every family, the ensemble of all models of the other families.

    A surrogate that is built or trained like the target is what an attacker hopes for;
    how well a defence withstands strangers is measured with its relatives left out.

    Args:
        models: Models by name.
        families: The family of each of them by name, such as `"cnn"`.
        fuse: See `LogitsEnsemble`. Families differ in how large their logits are, and
            in the mean of `"logits"` the largest decide alone.

    Returns:
        The ensembles by the family that is left out: sources against its members.

    Raises:
        ValueError: If a model has no family, a family has no model, there is only one
            family, or `fuse` is unknown.

    Reference:
        arXiv 1611.02770 (transfer from ensembles).

    Example:
        >>> from keras_jsigr.evaluation.families import leave_one_family_out
        >>> models = {"a": lambda x: x, "b": lambda x: 3 * x, "c": lambda x: 5 * x}
        >>> families = {"a": "cnn", "b": "cnn", "c": "mlp"}
        >>> ensembles = leave_one_family_out(models, families)
        >>> {family: len(e.models) for family, e in ensembles.items()}
        {'cnn': 1, 'mlp': 2}
    """
    differing = sorted(set(models) ^ set(families))
    if differing:
        raise ValueError(
            f"`models` and `families` do not match: got {differing} in only one of "
            "them, expected the same names. Name the family of every model."
        )
    kinds = list(dict.fromkeys(families[name] for name in models))
    if len(kinds) < 2:
        raise ValueError(
            f"Nothing is left: got the families {kinds}, expected at least two. Add "
            "models of another architecture or training."
        )
    return {
        kind: LogitsEnsemble(
            [m for name, m in models.items() if families[name] != kind], fuse=fuse
        )
        for kind in kinds
    }
