"""Settings that are variables: assigned, saved and loaded without a silent change."""

import keras
import pytest
from keras import layers

from keras_jsigr import harden


def hardened(**settings):
    model = keras.Sequential([layers.Input((4,)), layers.Dense(3)])
    return harden(model, probe=False, verbose=0, **settings)


def test_a_number_in_place_of_the_variable_is_refused():
    robust = hardened()
    variable = robust.jacobian_weight
    with pytest.raises(TypeError, match=r"Use `model.jacobian_weight.assign\(1.0\)`"):
        robust.jacobian_weight = 1.0
    assert robust.jacobian_weight is variable


def test_loaded_settings_are_told(tmp_path):
    path = tmp_path / "robust.weights.h5"
    hardened().save_weights(path)
    other = hardened(jacobian_weight=0.5, ramp_steps=7)
    message = (
        r"jacobian_weight 0\.5 by 0\.005, ramp_steps 7 by 200.*"
        r"model\.jacobian_weight\.assign\(0\.5\); model\.ramp_steps\.assign\(7\)"
    )
    with pytest.warns(UserWarning, match=message):
        other.load_weights(path)
    assert float(other.jacobian_weight) == pytest.approx(0.005)
    other.load_weights(path)  # nothing is left to tell: warnings are errors here
    hardened().load_weights(path)


def test_a_loaded_model_has_the_assigned_settings_without_a_word(tmp_path):
    robust = hardened()
    robust.jacobian_weight.assign(0.5)
    robust.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert loaded.adjusted() == robust.adjusted()
    assert loaded.adjusted()["jacobian_weight"] == 0.5
