"""Equality with cleverhans at equal settings."""

import gc
import sys
import weakref

import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr.attacks import BIM, FGSM, MIFGSM, PGD, CleverHansAttack

fgm = pytest.importorskip("cleverhans.tf2.attacks.fast_gradient_method")


mim = pytest.importorskip("cleverhans.tf2.attacks.momentum_iterative_method")


pgd = pytest.importorskip("cleverhans.tf2.attacks.projected_gradient_descent")


NORMS = {"linf": np.inf, "l2": 2}


CASES = [("linf", False), ("l2", True)]


COMMON = {"clip_min": 0.0, "clip_max": 1.0, "sanity_checks": False}


def radius(norm):
    return 0.1 if norm == "linf" else 0.4


@pytest.mark.slow
def test_fgsm(cnn, images, labels):
    for norm, targeted in CASES:
        y = (labels + 1) % 5 if targeted else labels
        theirs = fgm.fast_gradient_method(
            cnn, images, radius(norm), NORMS[norm], y=y, targeted=targeted, **COMMON
        )
        ours = FGSM(epsilon=radius(norm), norm=norm, targeted=targeted)(cnn, images, y)
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.slow
def test_pgd(cnn, images, labels):
    for norm, targeted in CASES:
        y = (labels + 1) % 5 if targeted else labels
        epsilon = radius(norm)
        theirs = pgd.projected_gradient_descent(
            cnn,
            images,
            epsilon,
            0.25 * epsilon,
            10,
            NORMS[norm],
            y=y,
            targeted=targeted,
            rand_init=False,
            **COMMON,
        )
        attack = PGD(epsilon=epsilon, norm=norm, steps=10, random_start=False, targeted=targeted)
        np.testing.assert_allclose(attack(cnn, images, y), theirs, atol=1e-5)


@pytest.mark.slow
def test_mifgsm(cnn, images, labels):
    for norm, targeted in CASES:
        y = (labels + 1) % 5 if targeted else labels
        epsilon = radius(norm)
        theirs = mim.momentum_iterative_method(
            cnn,
            images,
            epsilon,
            0.1 * epsilon,
            10,
            NORMS[norm],
            y=y,
            targeted=targeted,
            **COMMON,
        )
        attack = MIFGSM(epsilon=epsilon, norm=norm, targeted=targeted)
        np.testing.assert_allclose(attack(cnn, images, y), theirs, atol=1e-5)


SETTINGS = [{"norm": "linf", "targeted": False}, {"norm": "l2", "targeted": True}]


PAIRS = {
    "fast_gradient_method": lambda **s: FGSM(**s),
    "projected_gradient_descent": lambda **s: PGD(steps=4, random_start=False, **s),
    "basic_iterative_method": lambda **s: BIM(steps=4, **s),
    "momentum_iterative_method": lambda **s: MIFGSM(steps=4, **s),
}


def network(x):
    w = np.random.default_rng(51).normal(size=(2, 64, 64)) / 4
    first, second = tf.constant(w[0], tf.float32), tf.constant(w[1], tf.float32)
    flat = tf.reshape(tf.cast(x, tf.float32), [-1, 64])
    return (tf.tanh((flat - 0.5) @ first) @ second)[:, :5]


def inputs(n, dtype="float32"):
    x = np.random.default_rng(52).uniform(size=(n, 8, 8, 1))
    return x.astype(dtype)


@pytest.fixture(autouse=True, scope="module")
def _cleverhans():
    pytest.importorskip("cleverhans.tf2.attacks.fast_gradient_method")


def test_equals_our_own():
    for settings in SETTINGS:
        for method in list(PAIRS)[settings["targeted"] :: 2]:
            x = 0.35 + 0.3 * inputs(12)
            own = np.argmax(network(x), axis=-1)
            y = (own + 1) % 5 if settings["targeted"] else own
            settings = {
                "epsilon": 0.02 if settings["norm"] == "linf" else 0.1,
                **settings,
            }
            theirs = CleverHansAttack(method=method, steps=4, **settings)(network, x, y)
            # Ours may return an earlier iterate that fooled: compare with the last one.
            seed = tf.constant([0, 0])
            ours = PAIRS[method](**settings).perturb(
                network, tf.constant(x), tf.one_hot(y, 5), seed=seed
            )
            np.testing.assert_allclose(theirs, ours, atol=1e-5)
            assert np.abs(theirs - x).max() > 1e-3


def test_momentum_and_step_size():
    x, settings = inputs(6), {"epsilon": 0.1, "step_size": 0.03, "steps": 5}
    y = np.argmax(network(x), axis=-1)
    method = "momentum_iterative_method"
    theirs = CleverHansAttack(method=method, momentum=0.4, **settings)(network, x, y)
    ours = MIFGSM(momentum=0.4, **settings).perturb(
        network, tf.constant(x), tf.one_hot(y, 5), seed=tf.constant([0, 0])
    )
    np.testing.assert_allclose(theirs, ours, atol=1e-5)


def test_ball_range_and_dtype():
    def check(dtype, norm, epsilon):
        x = (255 * inputs(8)).round().astype(dtype)
        attack = CleverHansAttack(
            epsilon=epsilon, norm=norm, input_range=(0, 255), random_start=True, steps=3
        )

        def model(x):
            return network(tf.cast(x, tf.float32) / 255)

        x_adv = attack(model, x)
        assert x_adv.dtype == dtype
        delta = (x_adv.astype("float64") - x).reshape(8, -1)
        lengths = np.linalg.norm(delta, np.inf if norm == "linf" else 2, axis=1)
        assert (lengths <= epsilon + 1e-6).all()
        assert (lengths > 0.5 * epsilon).all()
        assert x_adv.min() >= 0
        assert x_adv.max() <= 255

    for dtype in ["float16", "float64"]:
        for norm, epsilon in [("linf", 20.1), ("l2", 90.3)]:
            check(dtype, norm, epsilon)


def test_random_start_follows_the_seed():
    x = inputs(4)

    def run(seed):
        return CleverHansAttack(epsilon=0.1, steps=1, step_size=1e-3, random_start=True, seed=seed)(
            network, x
        )

    tf.random.set_seed(1)
    first = run(0)
    tf.random.set_seed(2)
    np.testing.assert_array_equal(first, run(0))
    assert np.abs(first - run(1)).max() > 0.05
    assert np.abs(first - x).max() > 0.05


def test_radii_and_region():
    x, region = inputs(5), np.zeros((8, 8))
    region[2:5] = 1
    attack = CleverHansAttack(epsilon=0.1, method="basic_iterative_method", steps=4)
    small, large = attack(network, x, epsilons=[0.02, 0.2], region=region)
    for x_adv, epsilon in ((small, 0.02), (large, 0.2)):
        assert (x_adv != x)[:, 2:5].any()
        np.testing.assert_array_equal(x_adv[:, 5:], x[:, 5:])
        assert np.abs(x_adv - x).max() <= epsilon + 1e-6
    assert np.abs(large - x).max() > 0.1


def test_softmax_head_and_memory(make_cnn):
    x = inputs(6)
    logits, softmax = make_cnn(2), make_cnn(2, activation="softmax")
    attack = CleverHansAttack(epsilon=0.1, method="fast_gradient_method")
    expected = attack(logits, x)
    np.testing.assert_array_equal(attack(softmax, x), expected)
    dead = weakref.ref(softmax)
    del softmax
    gc.collect()
    assert dead() is None
    # cleverhans itself is what it was.
    module = sys.modules["cleverhans.tf2.attacks.fast_gradient_method"]
    assert hasattr(module.compute_gradient, "python_function")
    theirs = module.fast_gradient_method(logits, x, 0.1, np.inf, clip_min=0.0, clip_max=1.0)
    np.testing.assert_allclose(theirs, expected, atol=1e-6)


def test_one_trace_per_model():
    runs = []

    def counted(x):
        runs.append(1)
        return network(x)

    attack = CleverHansAttack(epsilon=0.1, steps=3)
    attack(counted, inputs(4), np.zeros(4))
    before = len(runs)
    attack(counted, inputs(7), np.zeros(7))
    assert len(runs) == before
    attack(counted, inputs(4), np.zeros(4), epsilons=[0.05, 0.1])
    before = len(runs)
    attack(counted, inputs(7), np.zeros(7), epsilons=[0.1, 0.05])
    assert len(runs) == before


def test_nan_gradients_are_told():
    def cusp(x):
        return tf.concat([tf.sqrt(x - 0.5), x], axis=1)

    x = np.array([[0.5], [0.7]], "float32")
    with pytest.warns(RuntimeWarning, match="1 of 2 examples"):
        x_adv = CleverHansAttack(epsilon=0.1, steps=1)(cusp, x, [0, 0])
    assert np.isfinite(x_adv).all()


def test_refused():
    for settings, message in [
        ({"method": "carlini_wagner_l2"}, "Use `CarliniWagner`"),
        ({"method": "spsa"}, "Use `SPSA`"),
        ({"method": "madry_et_al"}, "random_start=True"),
        ({"method": "pgd"}, "Unknown `method`: got 'pgd'"),
        ({"norm": "l1"}, "Unknown `norm`: got 'l1'"),
        ({"step_size": 0.2}, "`step_size` exceeds the radius"),
        ({"steps": 0}, "`steps` is out of range"),
        (
            {"method": "basic_iterative_method", "random_start": True},
            "does not belong to basic_iterative_method",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            CleverHansAttack(epsilon=0.1, **settings)


def test_settings():
    attack = CleverHansAttack(epsilon=0.1, steps=2)
    # cleverhans refuses steps longer than the radius.
    assert attack.step_length(0.1) == 0.1
    assert attack.passes == 2


def test_missing_cleverhans(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "cleverhans"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cleverhans", None)
    attack = CleverHansAttack(epsilon=0.1)
    with pytest.raises(ImportError, match="pip install"):
        attack(network, inputs(2))
