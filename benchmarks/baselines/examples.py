"""The examples that an attacker of other networks transfers."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt

import keras_jsigr as kj
from baselines.bank import SURROGATE_SEED, Bank
from keras_jsigr.core.files import atomic_write

Examples = dict[str, npt.NDArray[np.float32]]


def transfer_examples(bank: Bank, names: list[str], radius: float) -> Examples:
    """Make the examples of every source, or load them: many networks meet the same.

    Args:
        bank: Of the networks that are attacked.
        names: The methods of the surrogates.
        radius: Linf.

    Returns:
        MI-FGSM of each surrogate, and of two ensembles of them all, by the name of the
        source: on the test images of the bank.
    """
    made_on = bank.surrogates
    members = [(name, SURROGATE_SEED) for name in names]
    what = repr((made_on.stems_of(members), *bank.chosen.values(), radius))
    key = hashlib.sha256(what.encode()).hexdigest()[:8]
    file = made_on.file_of(*members[0]).with_name(f"transfer-{key}.npz")
    if not file.exists():
        made = _attacked(bank, names, radius)
        with atomic_write(file) as opened:
            np.savez(opened, **made)
    with np.load(file) as kept:
        return {name: kept[name] for name in kept.files}


def _attacked(bank: Bank, names: list[str], radius: float) -> Examples:
    sources: dict[str, Any] = {
        name: bank.surrogates.net(name, SURROGATE_SEED) for name in names
    }
    members = list(sources.values())
    for fuse in ("logits", "probabilities"):
        sources[fuse] = kj.attacks.LogitsEnsemble(members, fuse=fuse)
    attack = kj.attacks.MIFGSM(epsilon=radius, verbose=0)
    x, y = bank.test_images
    return {name: np.asarray(attack(model, x, y)) for name, model in sources.items()}
