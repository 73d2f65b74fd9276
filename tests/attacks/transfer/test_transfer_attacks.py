"""The transfer family: NumPy references, every combination, settings and refusals."""

import copy
import gc
import json
import pickle
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from keras_jsigr.attacks import MIFGSM
from keras_jsigr.attacks.search.seeds import fold_in
from keras_jsigr.attacks.transfer.gradient_smoothing import gaussian_kernel
from keras_jsigr.attacks.transfer.transfer_attack import TransferAttack
from keras_jsigr.attacks.transfer.transfer_presets import (
    DIFGSM,
    NIFGSM,
    SIFGSM,
    TIFGSM,
    VMIFGSM,
)

RNG = np.random.default_rng(12)
W1, W2 = RNG.normal(size=(6, 7)), RNG.normal(size=(7, 3))
X, Y = RNG.uniform(0.3, 0.7, (8, 6)), RNG.integers(0, 3, 8)
TARGETS = tf.one_hot(Y, 3)
SEED = tf.constant([3, 4])
PRESETS = [NIFGSM, DIFGSM, TIFGSM, SIFGSM, VMIFGSM]
ALL = {
    "nesterov": True,
    "diversity": 0.7,
    "kernel_size": "auto",
    "scales": 3,
    "variance_samples": 2,
}


WIDE = RNG.normal(size=(2, 64, 5)).astype("float32")


def many(n):
    rng = np.random.default_rng(6)
    return rng.uniform(size=(n, 8, 8, 1)).astype("float32")


def tiny(x):
    """A network of images that is quickly traced."""
    x = tf.reshape(tf.cast(x, tf.float32), (-1, 64))
    return tf.tanh(x @ WIDE[0]) @ tf.transpose(WIDE[0])[:5, :5] + 0.1 * x @ WIDE[1]


def network(x):
    return 3.0 * tf.tanh(x @ tf.constant(W1)) @ tf.constant(W2)


def cross_entropy_gradient(x):
    hidden = np.tanh(x @ W1)
    z = 3.0 * hidden @ W2
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    return 3.0 * ((p - np.eye(3)[Y]) @ W2.T * (1 - hidden**2)) @ W1.T


def reference(attack, even=1.0, draws=None):
    """The update as the papers write it, with the true gradient of cross entropy."""
    step = attack.epsilon / attack.steps

    def gradient(x):
        scales = [2.0**-i for i in range(attack.scales)]
        return np.mean([s * cross_entropy_gradient(s * x) for s in scales], axis=0)

    x, m, v = X.copy(), np.zeros_like(X), np.zeros_like(X)
    for t in range(attack.steps):
        ahead = x + attack.momentum * step * even * m * attack.nesterov
        g = gradient(ahead)
        m = attack.momentum * m + (g + v) / np.abs(g + v).mean(1, keepdims=True)
        if draws is not None:
            v = np.mean([gradient(x + r) for r in draws[t]], axis=0) - g
        if attack.norm == "linf":
            x = np.clip(x + step * np.sign(m), X - attack.epsilon, X + attack.epsilon)
        else:
            x = x + step * m / np.linalg.norm(m, axis=1, keepdims=True)
            far = np.linalg.norm(x - X, axis=1, keepdims=True)
            x = X + (x - X) * np.minimum(1, attack.epsilon / far)
    return x


def last_iterate(attack):
    return attack.perturb(network, tf.constant(X), TARGETS, seed=SEED)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(("nesterov", "scales"), [(True, 1), (False, 4), (True, 5)])
def test_nesterov_and_scales_in_numpy(nesterov, scales, norm):
    attack = TransferAttack(
        epsilon=0.2,
        steps=6,
        momentum=0.8,
        norm=norm,
        nesterov=nesterov,
        scales=scales,
    )
    even = 1.0 if norm == "linf" else 6**-0.5
    expected = reference(attack, even)
    np.testing.assert_allclose(last_iterate(attack), expected, atol=1e-5)
    plain = MIFGSM(epsilon=0.2, steps=6, momentum=0.8, norm=norm)
    assert np.abs(expected - last_iterate(plain)).max() > 1e-3


@pytest.mark.parametrize(("nesterov", "scales"), [(False, 1), (True, 3)])
def test_variance_tuning_in_numpy(nesterov, scales):
    attack = VMIFGSM(
        epsilon=0.2, steps=5, nesterov=nesterov, scales=scales, variance_samples=4
    )
    run = fold_in(SEED, -1)

    def draw(step, number):
        stream = fold_in(fold_in(fold_in(run, step), number), 0)
        noise = tf.random.stateless_uniform(
            X.shape, stream, -1, 1, tf.float64, alg="philox"
        )
        return 1.5 * 0.2 * noise.numpy()

    draws = [[draw(t, i) for i in range(4)] for t in range(5)]
    expected = reference(attack, draws=draws)
    np.testing.assert_allclose(last_iterate(attack), expected, atol=1e-6)
    untuned = reference(attack)
    assert np.abs(expected - untuned).max() > 1e-3


def test_nothing_on_is_mifgsm():
    x = many(9)
    settings = {"epsilon": 0.5, "norm": "l2", "momentum": 0.5, "loss": "margin"}
    expected = MIFGSM(**settings)(tiny, x)
    np.testing.assert_array_equal(TransferAttack(**settings)(tiny, x), expected)


def test_smoothing_comes_before_the_sign(cnn, images, labels):
    attack = TIFGSM(epsilon=0.1, steps=1, kernel_size=3)
    x, y = tf.constant(images), tf.one_hot(labels, 5)
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.nn.softmax_cross_entropy_with_logits(y, cnn(x))
    kernel = np.outer(gaussian_kernel(3), gaussian_kernel(3))[None, :, :, None]
    smooth = ndimage.convolve(
        tape.gradient(loss, x).numpy().astype("float64"), kernel, mode="constant"
    )
    clear = np.abs(smooth) > 1e-7
    moved = attack(cnn, images, labels) - images
    np.testing.assert_array_equal(np.sign(moved)[clear], np.sign(smooth)[clear])
    assert clear.mean() > 0.9


def test_confident_copies_do_not_vanish(make_cnn):
    """The gradient of cross entropy is zero in float32 at every copy."""
    model, x = make_cnn(2, scale=1e4), many(6)
    moved = np.abs(SIFGSM(epsilon=0.1, steps=1)(model, x) - x)
    # The strided convolution sees no last row and column.
    np.testing.assert_allclose(moved[:, :7, :7].max(axis=(1, 2, 3)), 0.1, atol=1e-6)
    assert (moved[:, :7, :7] > 0).all()


def test_neighbours_without_a_gradient():
    """Neighbours leave the range, where a model may be undefined."""

    def model(x):
        return tf.concat([tf.sqrt(x + 0.01), 1.0 - x], axis=1)

    x = np.array([[0.05], [0.95]], "float32")
    x_adv = VMIFGSM(epsilon=0.2)(model, x, [0, 0])
    np.testing.assert_allclose(x_adv, np.maximum(x - 0.2, 0.0), atol=1e-6)


def run(attack, n=5, seed=SEED):
    """The last iterate, without a trace."""
    x = tf.constant(many(n))
    targets = tf.one_hot(tf.argmax(tiny(x), axis=1), 5)
    return attack.perturb(tiny, x, targets, seed=seed).numpy()


def test_diversity_follows_the_seed():
    attack = DIFGSM(epsilon=0.2, diversity=1.0, steps=4)
    first = run(attack)
    np.testing.assert_array_equal(first, run(attack))
    assert np.abs(first - run(attack, seed=SEED + 1)).max() > 0.01
    # Restarts differ without a random start.
    DIFGSM(epsilon=0.2, restarts=2)
    with pytest.raises(ValueError, match="repeat the same"):
        VMIFGSM(epsilon=0.2, restarts=2)


@pytest.mark.parametrize(
    "names",
    [
        ("diversity", "kernel_size"),
        ("diversity", "variance_samples"),
        ("scales", "variance_samples"),
        ("nesterov", "diversity", "scales"),
        tuple(ALL),
    ],
    ids="+".join,
)
def test_combinations_stay_inside(names):
    norm = "l2" if len(names) == len(ALL) else "linf"
    settings = {name: ALL[name] for name in names}
    attack = TransferAttack(
        epsilon=0.2 if norm == "linf" else 0.8, norm=norm, steps=3, **settings
    )
    x, x_adv = many(5), run(attack)
    delta = (x_adv - x).reshape(5, -1)
    size = np.linalg.norm(delta, np.inf if norm == "linf" else 2, axis=1)
    assert (size <= attack.epsilon + 1e-6).all()
    assert (size > 0.5 * attack.epsilon).all()
    assert x_adv.min() >= 0.0
    assert x_adv.max() <= 1.0


class Counted:
    """A model that counts how often Python runs it."""

    def __init__(self, model):
        self.model, self.runs = model, 0

    def __call__(self, x):
        self.runs += 1
        return self.model(x)


def test_one_trace():
    model, attack = Counted(tiny), TransferAttack(epsilon=0.1, steps=3, **ALL)
    attack(model, many(3), [0, 0, 0])
    runs = model.runs
    for n in (1, 5, 200):
        attack(model, many(n), np.zeros(n, int))
    one, two = attack(model, many(3), [0, 0, 0], epsilons=[0.05, 0.1])
    assert np.abs(one - many(3)).max() <= 0.05 + 1e-6
    np.testing.assert_array_equal(two, attack(model, many(3), [0, 0, 0]))
    assert model.runs == runs


def test_regions_hold():
    x, region = many(4), np.zeros((8, 8))
    region[2:5, 1:7] = 1
    attack = TransferAttack(epsilon=0.2, steps=2, nesterov=True, variance_samples=2)
    x_adv = attack(tiny, x, region=region)
    np.testing.assert_array_equal(x_adv[:, region == 0], x[:, region == 0])
    assert (np.abs(x_adv - x)[:, region == 1] > 0.05).any()


@pytest.mark.parametrize("compile_by", [True, False], ids=["xla", "graph"])
def test_graph_equals_eager(compile_by):
    x, targets = tf.constant(many(4)), tf.one_hot([0, 1, 2, 3], 5)
    # XLA draws other random numbers.
    settings = {"nesterov": True, "scales": 2, "kernel_size": 3} if compile_by else ALL
    attack = TransferAttack(epsilon=0.1, steps=2, **settings)

    @tf.function(jit_compile=compile_by)
    def step(x, targets, seed):
        return attack.perturb(tiny, x, targets, seed=seed)

    eager = attack.perturb(tiny, x, targets, seed=SEED)
    np.testing.assert_allclose(step(x, targets, SEED), eager, atol=1e-6)


def test_half_precision_and_early_stop():
    x = many(4).astype("float16")
    attack = TransferAttack(
        epsilon=0.1, steps=2, early_stop=True, diversity=0.5, scales=2
    )
    x_adv = attack(tiny, x)
    assert x_adv.dtype == "float16"
    assert np.abs(x_adv.astype("float64") - x).max() <= 0.1 + 1e-6


def test_targeted():
    x, y = many(30), np.full(30, 2)
    attack = TransferAttack(epsilon=0.2, targeted=True, scales=2, variance_samples=2)
    result = attack.perturb(tiny, tf.constant(x), tf.one_hot(y, 5), seed=SEED)
    before, after = (tf.nn.log_softmax(tiny(z))[:, 2] for z in (x, result))
    assert (after > before).numpy().all()


def test_models_can_be_collected():
    attack, model = VMIFGSM(epsilon=0.1, steps=2), Counted(tiny)
    attack(model, many(2))
    dead = weakref.ref(model)
    del model
    gc.collect()
    assert dead() is None


def test_other_inputs_than_images():
    both = SIFGSM(epsilon=0.1, variance_samples=1, scales=2, steps=2)
    assert last_iterate(both).shape == X.shape
    for attack in (DIFGSM(epsilon=0.1), TIFGSM(epsilon=0.1)):
        with pytest.raises(ValueError, match=r"needs images: got inputs of shape \(6,"):
            attack(network, X, Y)


def test_names():
    settings = {"epsilon": 0.1}
    names = [TransferAttack(**settings).name, *(p(**settings).name for p in PRESETS)]
    expected = ["MI", "NI", "MI-DI", "MI-TI", "SI-MI", "VMI"]
    assert names == [f"{name}-FGSM" for name in expected]
    assert TransferAttack(**settings, **ALL).name == "SI-VNI-DI-TI-FGSM"
    assert SIFGSM(epsilon=0.1, momentum=0.0).name == "SI-I-FGSM"


def test_passes():
    attack = TransferAttack(epsilon=0.1, steps=10, scales=5, variance_samples=20)
    assert attack.passes == 10 * 5 * 21


@pytest.mark.parametrize("method", [TransferAttack, *PRESETS])
def test_round_trips(method):
    attack = method(epsilon=0.25, norm="l2", seed=3, scales=2, kernel_size=7)
    config = json.loads(json.dumps(attack.get_config()))
    assert method.from_config(config) == attack
    assert eval(repr(attack)) == attack
    assert pickle.loads(pickle.dumps(copy.deepcopy(attack))) == attack
    serialized = keras.saving.serialize_keras_object(attack)
    assert serialized["registered_name"] == f"keras_jsigr>{method.__name__}"
    assert keras.saving.deserialize_keras_object(serialized) == attack


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"nesterov": 1}, ValueError, "`nesterov`"),
        ({"diversity": 1.5}, ValueError, r"`diversity` .* got 1.5, .* \[0, 1\]"),
        ({"diversity": "0.5"}, TypeError, "`diversity` is not a number"),
        ({"diversity_scale": 1.0}, ValueError, r"expected a share in \(0, 1\)"),
        ({"diversity_scale": 0}, ValueError, "`diversity_scale`"),
        ({"kernel_size": 4}, ValueError, "got 4, expected an odd number .* Pass 5"),
        ({"kernel_size": -1}, ValueError, "`kernel_size`"),
        ({"kernel_size": "large"}, TypeError, "`kernel_size`"),
        ({"scales": 0}, ValueError, "`scales`"),
        ({"variance_samples": 1.5}, TypeError, "`variance_samples`"),
        ({"variance_range": 0.0}, ValueError, "`variance_range`"),
        ({"momentum": -1}, ValueError, "`momentum`"),
    ],
)
def test_refused_settings(settings, error, message):
    with pytest.raises(error, match=message):
        TransferAttack(epsilon=0.1, **settings)


def test_nips2017():
    attack = MIFGSM.nips2017(input_range=(-1, 1), batch_size=10)
    assert attack.epsilon == pytest.approx(2 * 16 / 255)
    assert attack.step_length == pytest.approx(2 * 1.6 / 255)
    assert (attack.steps, attack.momentum, attack.random_start) == (10, 1.0, False)
    assert attack == MIFGSM(epsilon=attack.epsilon, input_range=(-1, 1), batch_size=10)
    assert DIFGSM.nips2017().diversity == 0.5
    with pytest.raises(ValueError, match="reversed"):
        MIFGSM.nips2017(input_range=(1, 0))
