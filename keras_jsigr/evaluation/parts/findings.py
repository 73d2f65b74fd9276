"""The diagnostics as a part of the evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_jsigr.evaluation.identity import model_identity
from keras_jsigr.evaluation.json_codec import from_json, to_json
from keras_jsigr.evaluation.parts.suite import SuiteResult
from keras_jsigr.evaluation.records import Finding
from keras_jsigr.evaluation.store import Piece, array_digest
from keras_jsigr.evaluation.task import Task


def find_symptoms(
    task: Task, suite: SuiteResult, surrogates: Mapping[str, Any]
) -> list[Finding]:
    """Look for symptoms of gradient masking.

    Args:
        task: The evaluation.
        suite: What the suite found.
        surrogates: Other models by name.

    Returns:
        What each rule found.
    """
    from keras_jsigr.evaluation.masking import diagnostics

    # What black-box attacks found must not pass for a result of white-box ones: that
    # they find more is one of the symptoms.
    white = [n for n, r in enumerate(suite.records) if r.access == "white box"]
    found = np.isin(suite.fooled_by, white)
    points = task.x.copy()
    points[found] = suite.x_adv[found]

    def make() -> Piece:
        findings = diagnostics(
            task.model,
            task.x,
            task.y,
            epsilon=task.epsilon,
            norm=task.norm,
            input_range=task.input_range,
            surrogates=dict(surrogates) or None,
            batch_size=task.batch_size,
            seed=task.seed,
            verbose=0,
            results={"suite": points} if white else None,
        )
        crashed = any(finding.crashed for finding in findings)
        return Piece({}, {"findings": to_json(findings)}, whole=not crashed)

    settings = {
        "epsilon": task.epsilon,
        "norm": task.norm,
        "input_range": task.input_range,
        "batch_size": task.batch_size,
        "seed": task.seed,
        "points": array_digest(points),
        "surrogates": [model_identity(m, task.x) for m in surrogates.values()],
    }
    info = task.store.piece("diagnostics", settings, make).info
    findings: list[Finding] = from_json(list[Finding], to_json(info["findings"]))
    task.log.errors.extend(f"{f.rule}: {f.says}" for f in findings if f.crashed)
    return findings
