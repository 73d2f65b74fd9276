"""The guided form on every golden."""

import keras
import numpy as np
import pytest


def test_guided(golden, train, reference):
    """In graph mode, where weights end elsewhere than in the fused form."""
    robust = golden.compiled(harden={"form": "guided"})
    train(golden, robust)
    pairs = zip(robust.base.get_weights(), reference.base.get_weights(), strict=True)
    assert any(np.abs(a - b).max() > 1e-7 for a, b in pairs)


@pytest.mark.slow
def test_guided_goes_on_after_loading(golden, train, assert_same_weights, tmp_path):
    saved = golden.compiled(harden={"form": "guided", "spread": 0.3})
    train(golden, saved)
    saved.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert (loaded.settings.form, loaded.settings.spread) == ("guided", 0.3)
    for model in (saved, loaded):
        train(golden, model)
    assert_same_weights(loaded, saved)
