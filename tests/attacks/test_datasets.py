"""Attacks on datasets: the same points as on arrays, in one pass."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr import attacks

RNG = np.random.default_rng(5)
W = RNG.normal(size=(2, 16, 16)).astype("float32") / 2
X = RNG.uniform(size=(21, 4, 4, 1)).astype("float32")
SETTINGS = {
    "BIM": {"steps": 2},
    "PGD": {"steps": 2},
    "APGD": {"steps": 4},
    "TargetedAPGD": {"steps": 2},
    "FAB": {"steps": 2, "target_classes": 2},
    "DeepFool": {"steps": 2},
    "CarliniWagner": {"steps": 30, "searches": 2, "norm": "l2", "learning_rate": 0.1},
    "TransferAttack": {"steps": 2, "scales": 1, "variance_samples": 1},
    "SPSA": {"steps": 2, "samples": 4},
    "Square": {"queries": 20},
    "HopSkipJump": {"queries": 200},
    "UniformNoise": {"draws": 3},
    "GaussianNoise": {"draws": 3},
    "SaliencyAttack": {"steps": 2},
    "CleverHansAttack": {"steps": 2, "random_start": True},
    "Patch": {"size": 2, "steps": 2, "location": "random"},
}
FEW = {"PGD", "Square", "HopSkipJump"}
CASES = [pytest.param(n, marks=() if n in FEW else pytest.mark.slow) for n in SETTINGS]


def net(x):
    flat = tf.reshape(tf.cast(x, tf.float32), [-1, 16]) - 0.5
    return (tf.tanh(2.0 * flat @ W[0]) @ W[1])[:, :4]


Y = np.argmax(net(X), axis=-1)


class Batches(keras.utils.PyDataset):
    """Batches of five, which note what is read."""

    def __init__(self, workers=1):
        super().__init__(workers=workers)
        self.read = []

    def __len__(self):
        return 5

    def __getitem__(self, number):
        self.read.append(number)
        rows = slice(5 * number, 5 * number + 5)
        return X[rows], Y[rows]


def dataset(size=4):
    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(size)


def make(name, **others):
    radius = {} if name == "Patch" else {"epsilon": 0.2}
    kind = getattr(attacks, name)
    return kind(**radius, **SETTINGS.get(name, {}), batch_size=2, verbose=0, **others)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore:HopSkipJump found no starting point")
def test_the_same_points_as_on_arrays(name):
    if name == "CleverHansAttack":
        pytest.importorskip("cleverhans")
    attack, source = make(name), Batches(workers=2)
    wanted = attack(net, X, Y)
    assert np.abs(wanted - X).max() > 0.01
    np.testing.assert_array_equal(attack(net, source), wanted)
    assert sorted(source.read) == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(attack(net, dataset(100)), wanted)


def test_every_attack_with_settings_is_here():
    """Attacks that only fix the settings of another one need no case."""
    own = {
        n
        for n in attacks.__all__
        if inspect.isclass(kind := getattr(attacks, n))
        and issubclass(kind, attacks.Attack)
        and not inspect.isabstract(kind)
    }
    fixed = {"GradientAttack", "FGSM", "MIFGSM", "NIFGSM", "DIFGSM", "TIFGSM", "SIFGSM", "VMIFGSM"}
    assert own - fixed == set(SETTINGS)


@pytest.mark.parametrize("name", ["PGD", pytest.param("FAB", marks=pytest.mark.slow)])
def test_several_radii_in_one_pass(name):
    attack, source = make(name), Batches(workers=2)
    for found, wanted in zip(
        attack(net, source, epsilons=[0.05, 0.1]),
        attack(net, X, Y, epsilons=[0.05, 0.1]),
        strict=True,
    ):
        np.testing.assert_array_equal(found, wanted)
    assert sorted(source.read) == [0, 1, 2, 3, 4]


def test_batches_are_made_as_they_are_asked_for():
    attack, source = make("PGD"), Batches()
    wanted, batches = attack(net, X, Y), attack.batches(net, source)
    x_adv, y = next(batches)
    assert source.read == [0, 1, 2, 3]  # a block is eight batches of two
    np.testing.assert_array_equal(x_adv, wanted[:2])
    np.testing.assert_array_equal(y, Y[:2])
    rest = list(batches)
    assert [len(x) for x, _ in rest] == [2] * 9 + [1]
    np.testing.assert_array_equal(np.concatenate([x_adv, *(x for x, _ in rest)]), wanted)
    alone = next(attack.batches(net, dataset().map(lambda x, y: x)))
    assert alone[1] is None
    np.testing.assert_array_equal(alone[0], wanted[:2])  # decisions are the labels here


def test_suites_go_block_by_block():
    suite = attacks.AttackSuite([make("PGD"), make("Square")])
    np.testing.assert_array_equal(suite(net, dataset()), suite(net, X, Y))
    pair = suite(net, dataset(), epsilons=[0.1, 0.2])
    np.testing.assert_array_equal(pair[1], suite(net, X, Y))


def test_one_region_for_all_examples():
    attack, region = make("PGD"), np.zeros((4, 4, 1))
    region[1:3] = 1.0
    found = attack(net, dataset(), region=region)
    np.testing.assert_array_equal(found, attack(net, X, Y, region=region))
    assert np.array_equal(found[:, 0], X[:, 0])
    with pytest.raises(ValueError, match="one region stands for all"):
        attack(net, dataset(), region=np.ones((21, 4, 4, 1)))


def test_targets_are_the_labels_of_the_dataset():
    attack, targets = make("PGD", targeted=True), (Y + 1) % 4
    data = tf.data.Dataset.from_tensor_slices((X, targets)).batch(6)
    np.testing.assert_array_equal(attack(net, data), attack(net, X, targets))
    with pytest.raises(ValueError, match="needs `y`"):
        attack(net, data.map(lambda x, y: x))


def test_progress_counts_examples(capsys):
    attack = make("PGD").with_settings(verbose=1)
    attack(net, dataset())
    assert "21/Unknown" in capsys.readouterr().out
    make("PGD")(net, dataset())
    assert capsys.readouterr().out == ""


def test_checks_of_arrays_are_made_of_every_block():
    late = X.copy()
    late[20] += 2.0
    data = tf.data.Dataset.from_tensor_slices((late, Y)).batch(4)
    with pytest.raises(ValueError, match="leaves the input range"):
        make("PGD")(net, data)
