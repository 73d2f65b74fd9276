"""Our iterative attacks with `early_stop=True`: fooled examples leave the loop."""

from __future__ import annotations

from typing import Any

import keras_jsigr as kj
from judges import ours
from judges.budget import Budget, Make, Run


def _stopping(attack_class: Any) -> Make:
    def make(model: Any, budget: Budget) -> Run:
        return ours.run(model, attack_class(**ours.stepping(budget), early_stop=True))

    return make


ATTACKS: dict[str, Make] = {
    "PGD": _stopping(kj.attacks.PGD),
    "MI-FGSM": _stopping(kj.attacks.MIFGSM),
}
_ONE_FORM = "has one form only"
MISSING = {name: _ONE_FORM for name in ours.ATTACKS if name not in ATTACKS}
