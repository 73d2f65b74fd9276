"""Penalty weights that find themselves, on every golden."""

import numpy as np
import pytest

AUTO = {"penalty_weights": "auto", "reference_accuracy": 1.0, "accuracy_drop": 0.1}
BATCH = 8


def test_auto_weights(golden, train):
    """Eager, which is cheaper here; tests/training has the other modes."""
    robust = golden.compiled(
        run_eagerly=True, harden={**AUTO, "ramp_steps": 0, "selection": "all"}
    )
    history = train(golden, robust, epochs=2)
    x, y = golden.part(0, BATCH)
    outputs = robust.predict(x, verbose=0)
    chosen = outputs[:, 0] > 0.5 if golden.binary else outputs.argmax(-1)
    slack = np.mean(chosen == y) - 0.9
    assert history["accuracy_slack"][-1] == pytest.approx(slack, abs=1e-6)
    assert history["val_accuracy"][-1] == pytest.approx(slack + 0.9, abs=1e-6)
    assert history["penalty_factor"][0] == 1.0
    assert len(history["penalty_factor"]) == 2
