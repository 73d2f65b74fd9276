"""What every attack promises, in every norm: one test for all that are registered."""

import copy
import inspect
import json
import math
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr import attacks

RADII = {"linf": 0.1, "l2": 0.4, "l1": 1.2}
ORDERS = {"linf": np.inf, "l2": 2, "l1": 1}

# Class, further settings, norms; small searches, as the model is traced each time.
REGISTRY = {
    "FGSM": ({}, "linf l2 l1"),
    "BIM": ({"steps": 3}, "linf l2 l1"),
    "PGD": ({"steps": 3, "restarts": 2}, "linf l2 l1"),
    "APGD": ({"steps": 10}, "linf l2 l1"),
    "TargetedAPGD": ({"steps": 4, "early_stop": True}, "linf l2"),
    "FAB": ({"steps": 3, "target_classes": 2}, "linf l2 l1"),
    "DeepFool": ({"steps": 10}, "linf l2"),
    "CarliniWagner": ({"steps": 30, "searches": 3, "learning_rate": 0.1}, "l2"),
    "MIFGSM": ({"steps": 3}, "linf l2 l1"),
    "TransferAttack": ({"steps": 2, "scales": 2, "variance_samples": 1}, "linf l2"),
    "NIFGSM": ({"steps": 2}, "linf"),
    "DIFGSM": ({"steps": 2}, "l2"),
    "TIFGSM": ({"steps": 2}, "l1"),
    "SIFGSM": ({"steps": 2}, "linf"),
    "VMIFGSM": ({"steps": 2}, "l1"),
    "SPSA": ({"steps": 3, "samples": 16}, "linf l2 l1"),
    "Square": ({"queries": 30}, "linf l2 l1"),
    "HopSkipJump": ({"queries": 300}, "linf l2"),
    "UniformNoise": ({"draws": 10}, "linf l2 l1"),
    "GaussianNoise": ({"draws": 10}, "linf l2 l1"),
    "SaliencyAttack": ({"steps": 3}, "linf l2 l1"),
    "CleverHansAttack": ({"steps": 3, "random_start": True}, "linf l2"),
    "Patch": ({"size": 2, "steps": 3}, "linf"),
}
# Traced with another norm than the first in `make test`, too.
DISTINCT = {"APGD-l1", "FAB-l1", "Square-l2", "SPSA-l2", "PGD-l2"}
CASES = [
    pytest.param(
        name,
        norm,
        id=f"{name}-{norm}",
        marks=() if number == 0 or f"{name}-{norm}" in DISTINCT else pytest.mark.slow,
    )
    for name, (_, norms) in REGISTRY.items()
    for number, norm in enumerate(norms.split())
]
# One of a kind, for what each kind does with regions and roundings.
FAMILIES = {"APGD", "FAB", "CarliniWagner", "TransferAttack", "SPSA", "Square", "Patch"}
FAMILIES |= {"HopSkipJump", "GaussianNoise", "SaliencyAttack", "CleverHansAttack"}
# Draws nothing, so that the batch of an example does not matter.
STEADY = {"FGSM", "BIM", "MIFGSM", "NIFGSM", "TIFGSM", "SIFGSM", "DeepFool"}
STEADY |= {"SaliencyAttack"}

RNG = np.random.default_rng(5)
W = RNG.normal(size=(2, 16, 16)).astype("float32") / 2
X = RNG.uniform(size=(6, 4, 4, 1)).astype("float32")
X[0, 0], X[1, 0] = 0.0, 1.0


class Net:
    """Small and bent, and counts how often Python runs it."""

    runs = 0

    def __call__(self, x):
        self.runs += 1
        flat = tf.reshape(tf.cast(x, tf.float32), [-1, 16]) - 0.5
        return (tf.tanh(2.0 * flat @ W[0]) @ W[1])[:, :4]


def decide(x):
    return np.argmax(Net()(x), axis=-1)


def make(name, norm, **others):
    kind, settings = getattr(attacks, name), REGISTRY[name][0]
    if name == "CleverHansAttack":
        pytest.importorskip("cleverhans")
    if name != "Patch":
        settings = {"epsilon": RADII[norm], "norm": norm, **settings}
    return kind(**{**settings, "verbose": 0, **others})


def check_inside(x_adv, x, attack, epsilon=None):
    assert x_adv.shape == x.shape
    assert x_adv.dtype == x.dtype
    delta = (x_adv.astype("float64") - x).reshape(len(x), -1)
    lengths = np.linalg.norm(delta, ORDERS[attack.norm], axis=1)
    assert (lengths <= (epsilon or attack.epsilon or 1.0) + 1e-6).all()
    assert x_adv.min() >= 0.0
    assert x_adv.max() <= 1.0


def test_every_attack_is_registered():
    kinds = {
        name
        for name in attacks.__all__
        if isinstance(getattr(attacks, name), type)
        and issubclass(getattr(attacks, name), attacks.Attack)
        and not inspect.isabstract(getattr(attacks, name))
    }
    assert kinds - {"GradientAttack"} == set(REGISTRY)


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_contract(name, norm):
    attack, net, y = make(name, norm), Net(), decide(X)
    x_adv = attack(net, X, y)
    check_inside(x_adv, X, attack)
    assert np.abs(x_adv - X).max() > 1e-4
    if name != "SaliencyAttack":  # which keeps the class
        wrong = (y + 1) % 4
        assert (decide(attack(net, X, wrong)) != wrong).all()
    # The same for the same seed, for tensors, and without labels.
    np.testing.assert_array_equal(attack(net, X, y), x_adv)
    tensor = attack(net, tf.Variable(X), tf.constant(y)[:, None])
    assert tf.is_tensor(tensor)
    np.testing.assert_array_equal(tensor, x_adv)
    np.testing.assert_array_equal(attack(net, X), x_adv)
    # Neither batches, equal settings nor other radii trace the model again.
    runs, again = net.runs, make(name, norm, batch_size=4, seed=7)
    parts = again(net, X, y)
    check_inside(parts, X, attack)
    if name in STEADY:
        np.testing.assert_allclose(parts, x_adv, atol=1e-5)
    if name != "Patch":
        radii = [0.0, 0.5 * attack.epsilon, attack.epsilon]
        none, half, whole = attack(net, X, y, epsilons=radii)
        np.testing.assert_array_equal(none, X)
        assert not np.shares_memory(none, X)
        check_inside(half, X, attack, radii[1])
        if not attack.unlimited:
            np.testing.assert_array_equal(whole, x_adv)
        with pytest.raises(ValueError, match="epsilon"):
            attack.at(-1.0)
    assert net.runs == runs or name == "CleverHansAttack"
    with pytest.raises(ValueError, match="at least one"):
        attack(net, X[:0], y[:0])
    # In `make test` for one of a kind.
    norms = REGISTRY[name][1].split()
    if norm == norms[0 if name in FAMILIES else -1]:
        check_regions_and_half_precision(attack)


def check_regions_and_half_precision(attack):
    x, region = X.astype("float16"), np.zeros((4, 4))
    region[1:, :3] = 1
    x_adv = attack(Net(), x, decide(x), region=region)
    check_inside(x_adv, x, attack)
    assert (x_adv != x).any()
    np.testing.assert_array_equal(x_adv[:, region == 0], x[:, region == 0])


@pytest.mark.parametrize(
    ("name", "norm"),
    [
        pytest.param(
            *case.values,
            id=case.id,
            marks=() if case.id in ("FGSM-l2", "DeepFool-linf") else pytest.mark.slow,
        )
        for case in CASES
    ],
)
def test_under_check_numerics(name, norm):
    """No operation of an attack gives an infinity, for a radius or none."""
    attack, y = make(name, norm), decide(X)
    plain = attack(Net(), X, y)
    unlimited = {"epsilon": math.inf} if attack.unlimited else {}
    tf.debugging.enable_check_numerics()
    try:
        np.testing.assert_allclose(attack(Net(), X, y), plain, atol=1e-5)
        attack.with_settings(**unlimited)(Net(), X)
        with pytest.raises(ValueError, match="NaN or infinity"):
            attack(Net(), np.where(X == 0.0, np.nan, X), y)
    finally:
        tf.debugging.disable_check_numerics()


def test_round_trips():
    for name in REGISTRY:
        check_round_trips(name)


def check_round_trips(name):
    norm = REGISTRY[name][1].split()[-1]
    attack = make(name, norm, input_range=[0, 255], seed=np.int64(3))
    config = json.loads(json.dumps(attack.get_config()))
    assert type(attack).from_config(config) == attack
    assert hash(type(attack).from_config(config)) == hash(attack)
    assert eval(repr(attack), vars(attacks).copy()) == attack
    assert copy.deepcopy(attack) == attack
    assert pickle.loads(pickle.dumps(attack)) == attack
    assert attack != make(name, norm)
    serialized = keras.saving.serialize_keras_object(attack)
    assert serialized["registered_name"] == f"keras_jsigr>{name}"
    assert keras.saving.deserialize_keras_object(serialized) == attack
    assert attack.passes >= 1
    bare = type(attack)(2) if name == "Patch" else type(attack)()
    assert type(attack).from_config(bare.get_config()) == bare
    with pytest.raises(AttributeError):
        attack.seed = 4


def test_names_of_norms():
    for name, values in {
        "linf": [np.inf, "inf"],
        "l2": [2, "2"],
        "l1": [1, 1.0],
    }.items():
        for value in values:
            assert attacks.PGD(0.1, norm=value) == attacks.PGD(0.1, norm=name)
    assert attacks.AutoAttack(0.1, norm=1).norm == "l1"


class Hardened(keras.Model):
    """What a hardened model tells of itself."""

    def __init__(self, epsilon, input_range):
        super().__init__()
        from keras_jsigr.core.heads import Head

        self.head, self.base = Head("linear"), None
        self.epsilon, self.input_range = epsilon, input_range

    def call(self, x, training=False):
        return Net()(x / 255.0)

    def logits(self, x, training=False):
        return self(x)


def test_radius_and_range_of_a_hardened_model():
    model, x = Hardened(12.0, (0.0, 255.0)), 255.0 * X
    x_adv = attacks.FGSM()(model.logits, x)
    assert np.abs(x_adv - x).max() == pytest.approx(12.0, abs=1e-4)
    assert x_adv.max() <= 255.0
    named = attacks.FGSM(3.0, input_range=(-10.0, 300.0))(model, x)
    assert np.abs(named - x).max() == pytest.approx(3.0, abs=1e-4)
    assert named.min() < 0.0
    suite = attacks.AttackSuite([attacks.FGSM(), attacks.FAB(steps=2)])
    assert suite.epsilon is None
    known = suite.for_model(model)
    assert (known.epsilon, known.input_range) == (12.0, (0.0, 255.0))
    assert np.abs(suite(model, x) - x).max() <= 12.0 + 1e-4


def test_a_radius_that_nobody_names():
    targets, seed = tf.one_hot(decide(X), 4), tf.constant([0, 0])
    for model in (Net(), Hardened(None, (0.0, 1.0))):
        with pytest.raises(ValueError, match=r"Name it, `PGD\(epsilon=...\)`"):
            attacks.PGD()(model, X)
        with pytest.raises(ValueError, match="has no radius"):
            attacks.AutoAttack()(model, X)
    with pytest.raises(ValueError, match="has no radius"):
        attacks.PGD().perturb(Net(), tf.constant(X), targets, seed=seed)
    assert attacks.FAB().epsilon == attacks.FAB(None).epsilon == math.inf


def test_old_names():
    for old, new in {
        "APGDT": attacks.TargetedAPGD,
        "Suite": attacks.AttackSuite,
        "standard": attacks.AutoAttack,
        "Problem": attacks.AttackContext,
    }.items():
        with pytest.warns(DeprecationWarning, match=new.__name__):
            assert getattr(attacks, old) is new
    with pytest.raises(AttributeError):
        _ = attacks.nothing
    for old, kind, config in (
        ("APGDT", attacks.TargetedAPGD, {"epsilon": 0.1, "steps": 3}),
        ("Suite", attacks.AttackSuite, {"attacks": [{
            "module": "keras_jsigr.attacks.gradient.pgd",
            "class_name": "PGD",
            "config": {"epsilon": 0.1, "input_range": [0.0, 1.0]},
            "registered_name": "keras_jsigr>PGD",
        }]}),
    ):  # fmt: skip
        saved = {
            "module": "keras_jsigr.attacks.somewhere",
            "class_name": old,
            "config": config,
            "registered_name": f"keras_jsigr>{old}",
        }
        assert type(keras.saving.deserialize_keras_object(saved)) is kind


def test_an_attack_of_ones_own():
    """The example of the docs: one class, one method."""

    class Brighten(attacks.Attack):
        def search(self, context):
            assert self.epsilon is None  # a tensor, of the context, for all radii
            moved = context.ball.project(context.origin + 2.0 * context.epsilon)
            best = tf.ones(tf.shape(context.x)[:1], tf.bool)
            return context.to_model_input(moved), best

    small, large = Brighten()(Net(), X, epsilons=[0.1, 0.2])
    np.testing.assert_allclose(small, np.minimum(X + 0.1, 1.0), atol=1e-6)
    np.testing.assert_allclose(large, np.minimum(X + 0.2, 1.0), atol=1e-6)
    assert Brighten(0.1, norm=2)(Net(), X).shape == X.shape
