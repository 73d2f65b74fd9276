"""Names of the choices that both the objective and the explanations offer."""

from __future__ import annotations

from typing import Literal, get_args

BaselineName = Literal["blur", "mean", "zero"]
ChangeName = Literal["squared_logits", "probability_drop", "sarfa"]
BASELINES: tuple[str, ...] = get_args(BaselineName)
CHANGES: tuple[str, ...] = get_args(ChangeName)
