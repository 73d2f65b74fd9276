"""Settings: defaults, equality, serialization, and refusals."""

import copy
import json
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr.attacks import FGSM, MIFGSM, PGD, Attack, GradientAttack
from keras_jsigr.attacks.calls.inside import inside

METHODS = [FGSM, PGD, MIFGSM]


def test_default_step_sizes():
    assert FGSM(epsilon=0.1).step_length == 0.1
    assert FGSM(epsilon=0.1, random_start=True).step_length == pytest.approx(0.125)
    assert PGD(epsilon=0.1, steps=20).step_length == pytest.approx(0.0125)
    assert MIFGSM(epsilon=0.1, steps=10).step_length == pytest.approx(0.01)
    assert PGD(epsilon=0.1, step_size=0.5).step_length == 0.5


@pytest.mark.parametrize("method", METHODS)
def test_round_trips(method):
    attack = method(epsilon=np.float32(0.25), norm="l2", input_range=[0, 255], seed=3)
    config = json.loads(json.dumps(attack.get_config()))
    assert method.from_config(config) == attack
    assert hash(method.from_config(config)) == hash(attack)
    assert eval(repr(attack)) == attack
    assert copy.deepcopy(attack) == attack
    assert pickle.loads(pickle.dumps(attack)) == attack
    assert attack != method(epsilon=0.25)
    serialized = keras.saving.serialize_keras_object(attack)
    assert serialized["registered_name"] == f"keras_jsigr>{method.__name__}"
    assert keras.saving.deserialize_keras_object(serialized) == attack


def test_different_methods_differ():
    assert FGSM(epsilon=0.1) != MIFGSM(epsilon=0.1)


@keras.saving.register_keras_serializable(package="test_attacks")
class Holder(keras.Model):
    """A model with an attack among its settings."""

    def __init__(self, attack, **kwargs):
        super().__init__(**kwargs)
        self.attack = attack
        self.dense = keras.layers.Dense(2)

    def call(self, x):
        return self.dense(x)

    def get_config(self):
        return {**super().get_config(), "attack": self.attack}

    @classmethod
    def from_config(cls, config):
        attack = keras.saving.deserialize_keras_object(config.pop("attack"))
        return cls(attack=attack, **config)


# Keras 3.15 on NumPy 2 warns whenever it saves weights.
@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")
def test_inside_a_keras_file(tmp_path):
    attack = PGD(epsilon=0.1, steps=3, norm="l2")
    model = Holder(attack)
    x = np.full((2, 3), 0.5, "float32")
    expected = attack(model, x)
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert loaded.attack == attack
    np.testing.assert_array_equal(loaded.attack(loaded, x), expected)


def test_settings_cannot_move():
    with pytest.raises(AttributeError):
        FGSM(epsilon=0.1).epsilon = 0.2


def test_bases_are_abstract_or_usable():
    with pytest.raises(TypeError, match="abstract"):
        Attack(epsilon=0.1)
    assert GradientAttack(epsilon=0.1, steps=4).step_length == 0.025


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"epsilon": -0.1}, ValueError, "`epsilon` is out of range: got -0.1"),
        ({"epsilon": float("nan")}, ValueError, "`epsilon` is out of range: got nan"),
        ({"epsilon": float("inf")}, ValueError, "finite"),
        ({"epsilon": "0.1"}, TypeError, "`epsilon` is not a number: got '0.1'"),
        ({"epsilon": True}, TypeError, "`epsilon` is not a number"),
        ({"norm": "l7"}, ValueError, r"Unknown `norm`: got 'l7', expected one of"),
        ({"loss": "mse"}, ValueError, "Unknown `loss`: got 'mse'"),
        ({"steps": 0}, ValueError, "`steps` is out of range: got 0"),
        ({"steps": 2.0}, TypeError, "`steps` is not an integer"),
        ({"restarts": 0}, ValueError, "`restarts` is out of range"),
        ({"restarts": 2, "random_start": False}, ValueError, "repeat the same"),
        ({"step_size": 0.0}, ValueError, "`step_size` is out of range"),
        ({"input_range": (1, 0)}, ValueError, "reversed"),
        ({"input_range": (0, float("nan"))}, ValueError, "`input_range`"),
        ({"input_range": 1.0}, TypeError, "not a pair"),
        ({"batch_size": 0}, ValueError, "`batch_size`"),
        ({"seed": -1}, ValueError, "`seed`"),
        ({"targeted": 1}, ValueError, "`targeted`"),
        ({"random_start": "no"}, ValueError, "`random_start`"),
        ({"verbose": 2}, ValueError, "`verbose`"),
    ],
)
def test_refused_settings(settings, error, message):
    with pytest.raises(error, match=message):
        PGD(**{"epsilon": 0.1, **settings})


def test_other_refused_settings():
    with pytest.raises(ValueError, match="`momentum`"):
        MIFGSM(epsilon=0.1, momentum=-1)
    with pytest.raises(TypeError):
        PGD(0.1)
    with pytest.raises(TypeError, match="epsilom"):
        PGD(epsilon=0.1, epsilom=0.1)


def identity(x):
    return tf.identity(x)


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [
        ("float32", -123.68, 255 - 103.939),
        ("float16", -2.1179, 2.64),
        ("bfloat16", -2.1179, 2.64),
    ],
)
def test_rounded_ends_of_the_range_are_in_it(dtype, low, high):
    ends = tf.cast([[low, high, 0.0]], dtype)
    assert float(ends[0, 1]) > high + 1e-6
    attack = FGSM(epsilon=1.0, input_range=(low, high))
    found = attack(identity, ends, [2])
    attack(identity, found, [2])
    assert inside(found.numpy(), ends.numpy(), 1.0, "linf", (low, high)).all()
    with pytest.raises(ValueError, match="leaves the input range"):
        attack(identity, ends + tf.cast(0.02 * high, dtype), [2])


GOOD = np.full((2, 3), 0.5, "float32")
NAN, LARGE = GOOD.copy(), GOOD.copy()
NAN[0, 0], LARGE[0, 0] = np.nan, 1.001


@pytest.mark.parametrize(
    ("x", "y", "error", "message"),
    [
        (np.ones((2, 3), "uint8"), None, TypeError, r"x.astype\('float32'\), scaled"),
        (LARGE, None, ValueError, r"\[0.5, 1.001\], expected \[0, 1\]"),
        (-LARGE, None, ValueError, "leaves the input range"),
        (NAN, None, ValueError, "NaN or infinity"),
        (np.full((2, 3), np.inf, "float32"), None, ValueError, "NaN or infinity"),
        (GOOD[:0], None, ValueError, "at least one"),
        (GOOD[0], None, ValueError, r"x\[None\]"),
        ([GOOD, GOOD], None, TypeError, "list"),
        ({"a": GOOD}, None, TypeError, "several inputs"),
        (GOOD, [0, 3], ValueError, "got 3, expected class indices 0 to 2"),
        (GOOD, [0, -1], ValueError, "got -1"),
        (GOOD, [0.5, 0.0], ValueError, "got 0.5"),
        (GOOD, [0], ValueError, "does not match"),
        (GOOD, 1, ValueError, "does not match"),
        (GOOD, np.zeros((2, 2)), ValueError, r"expected \(2,\), \(2, 1\) or \(2, 3\)"),
        (GOOD, np.zeros((2, 3)), ValueError, "no one-hot row"),
        (GOOD, np.array([[2, -1, 0], [1, 0, 0]]), ValueError, "no one-hot row"),
    ],
)
def test_refused_data(x, y, error, message):
    with pytest.raises(error, match=message):
        FGSM(epsilon=0.1)(identity, x, y)


def test_rounding_at_the_range_is_tolerated():
    x = GOOD.copy()
    x[0, 0] = 1.0 + 5e-7
    assert FGSM(epsilon=0.1)(identity, x, [0, 1]).max() <= 1.0


def test_targeted_needs_labels():
    with pytest.raises(ValueError, match="`targeted=True` needs `y`"):
        FGSM(epsilon=0.1, targeted=True)(identity, GOOD)


def test_models_that_do_not_fit():
    a, b = keras.Input((3,)), keras.Input((3,))
    model = keras.Model([a, b], keras.layers.Add()([a, b]))
    with pytest.raises(ValueError, match="takes 2 inputs"):
        FGSM(epsilon=0.1)(model, GOOD)
    with pytest.raises(TypeError, match="expected a Keras model or a callable"):
        FGSM(epsilon=0.1)("model.keras", GOOD)
    with pytest.raises(ValueError, match="do not depend on its input"):
        FGSM(epsilon=0.1)(lambda x: tf.round(tf.stop_gradient(x)), GOOD, [0, 1])


def test_symbolic_tensors_are_sent_to_perturb():
    step = tf.function(lambda x: FGSM(epsilon=0.1)(identity, x))
    with pytest.raises(TypeError, match=r"attack\.perturb"):
        step(tf.constant(GOOD))
