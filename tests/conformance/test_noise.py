"""Steps at random points near the inputs, on every golden."""

import numpy as np
import pytest


@pytest.mark.slow
def test_noise(golden, train, reference):
    """In graph mode, where weights end elsewhere than without noise."""
    robust = golden.compiled(harden={"noise": 0.05, "noise_patches": (1, 4)})
    train(golden, robust)
    pairs = zip(robust.base.get_weights(), reference.base.get_weights(), strict=True)
    assert any(np.abs(a - b).max() > 1e-7 for a, b in pairs)
