"""Ensembles in logits: the mean, its checks, and attacks on it."""

import gc
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage, stats

from keras_jsigr.attacks import FGSM, MIFGSM
from keras_jsigr.attacks.ensemble import LogitsEnsemble
from keras_jsigr.attacks.losses import ascent_loss, attack_loss, loss_slope
from keras_jsigr.attacks.saliency_attack import top_share
from keras_jsigr.attacks.transfer import (
    DIFGSM,
    NIFGSM,
    SIFGSM,
    TIFGSM,
    VMIFGSM,
    TransferAttack,
    default_kernel,
    gaussian_kernel,
    gradient_variance,
    input_diversity,
    scale_copy,
    smooth_gradient,
)
from keras_jsigr.core.logits import as_logits
from keras_jsigr.core.random import fold_in

RNG = np.random.default_rng(13)


def many(n):
    return np.random.default_rng(6).uniform(size=(n, 8, 8, 1)).astype("float32")


def test_weighted_mean_of_any_heads(make_cnn):
    def check(weights):
        logits = [make_cnn(seed) for seed in range(3)]
        softmax = make_cnn(1, activation="softmax")

        class Hardened(keras.Model):
            def call(self, x, training=False):
                return tf.nn.softmax(logits[2](x, training=training))

            def logits(self, x, training=False):
                return logits[2](x, training=training)

        ensemble = LogitsEnsemble([logits[0], softmax, Hardened()], weights)
        x = many(6)
        share = np.ones(3) if weights is None else np.array(weights)
        expected = np.tensordot(share / share.sum(), [z(x) for z in logits], 1)
        np.testing.assert_allclose(ensemble(x), expected, atol=1e-5)
        np.testing.assert_allclose(ensemble.weights, share / share.sum())

    for weights in [None, [1, 1, 0.25], [0, 3, 1]]:
        check(weights)


def test_a_member_without_weight_may_rule_out_a_class():
    def check(fuse):
        def ruled_out(x):
            return tf.concat([x[:, :1], tf.fill(tf.shape(x[:, 1:]), -np.inf)], axis=1)

        ensemble = LogitsEnsemble([lambda x: x, ruled_out], weights=[1, 0], fuse=fuse)
        x = tf.constant([[1.0, 2.0]])
        alone = LogitsEnsemble([lambda x: x], fuse=fuse)
        np.testing.assert_allclose(ensemble(x), alone(x), rtol=1e-6)

    for fuse in ["logits", "probabilities"]:
        check(fuse)


def test_mean_of_probabilities(make_cnn):
    a, b = make_cnn(0), make_cnn(1, activation="softmax")
    ensemble = LogitsEnsemble([a, b, b], [3, 1, 0], fuse="probabilities")
    x = many(6)
    expected = 0.75 * tf.nn.softmax(a(x)) + 0.25 * b(x)
    np.testing.assert_allclose(tf.nn.softmax(ensemble(x)), expected, atol=1e-6)
    assert np.isfinite(FGSM(epsilon=0.1)(ensemble, x)).all()


def test_one_unit_beside_two():
    """A sigmoid unit counts as the two logits (0, z)."""
    keras.utils.set_random_seed(0)
    unit = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, activation="sigmoid")])
    pair = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    x = RNG.normal(size=(5, 4)).astype("float32")
    z = x @ unit.layers[0].kernel.numpy()
    expected = (np.concatenate([0 * z, z], axis=1) + pair(x).numpy()) / 2
    np.testing.assert_allclose(LogitsEnsemble([unit, pair])(x), expected, atol=1e-6)


def test_first_call_inside_a_function(make_cnn):
    models = [make_cnn(0, activation="softmax"), make_cnn(1)]
    x = many(4)
    expected = LogitsEnsemble(models)(x)
    inside = tf.function(LogitsEnsemble(models), autograph=False)
    np.testing.assert_allclose(inside(x), expected, atol=1e-6)
    open_shape = [tf.TensorSpec((None, None, None, 1))]
    other = LogitsEnsemble(models)
    with pytest.raises(ValueError, match="expected a fixed one"):
        tf.function(other, input_signature=open_shape, autograph=False)(x)


def test_attacks_see_one_model(make_cnn):
    a, b = make_cnn(0), make_cnn(1)
    ensemble, x = LogitsEnsemble([a, b], [2, 1]), many(5)
    attack = MIFGSM(0.1, steps=2)
    expected = attack(lambda x: (2 * a(x) + b(x)) / 3, x)
    np.testing.assert_allclose(attack(ensemble, x), expected, atol=1e-5)
    # Without labels, the ensemble's own decisions are left.
    decided = np.argmax(ensemble(x), axis=-1)
    np.testing.assert_array_equal(attack(ensemble, x), attack(ensemble, x, decided))
    probe = as_logits(ensemble, x)
    np.testing.assert_allclose(probe(x), ensemble(x), atol=1e-6)


@pytest.mark.slow
def test_members_follow_their_weights_and_can_be_collected(make_cnn):
    model, attack, x = make_cnn(0), FGSM(epsilon=0.1), many(3)
    ensemble = LogitsEnsemble([model, make_cnn(1)])
    before = ensemble(x)
    attack(ensemble, x)
    model.set_weights([2 * w for w in model.get_weights()])
    assert np.abs(ensemble(x) - before).max() > 1e-3
    fresh = FGSM(epsilon=0.1)(LogitsEnsemble(ensemble.models), x)
    np.testing.assert_array_equal(attack(ensemble, x), fresh)
    dead = weakref.ref(ensemble)
    del ensemble
    gc.collect()
    assert dead() is None


def test_name(make_cnn):
    def other(x):
        return x

    model = make_cnn()
    assert LogitsEnsemble([model, other]).name == f"{model.name} + other"


def test_refused():
    for models, settings, error, message in [
        ([], {}, TypeError, "one or more"),
        (lambda x: x, {}, TypeError, "expected a list"),
        (["a.keras"], {}, TypeError, "Got str for a model"),
        ([abs, abs], {"weights": [1]}, ValueError, "for 2 models"),
        ([abs, abs], {"weights": [0, 0]}, ValueError, "not all zero"),
        ([abs], {"weights": [-1]}, ValueError, "`weights` is out of range"),
        ([abs], {"weights": ["1"]}, TypeError, "`weights` is not a number"),
        ([abs], {"fuse": "losses"}, ValueError, "Unknown `fuse`"),
    ]:
        with pytest.raises(error, match=message):
            LogitsEnsemble(models, **settings)


def test_members_that_do_not_fit():
    def dense(inputs, classes, name):
        layers = [keras.Input((inputs,)), keras.layers.Dense(classes)]
        return keras.Sequential(layers, name=name)

    three, four = dense(3, 2, "three"), dense(4, 2, "four")
    with pytest.raises(ValueError, match=r"got \(3,\) for `three` and \(4,\)"):
        LogitsEnsemble([three, four])
    many_classes = LogitsEnsemble([three, dense(3, 5, "five")])
    with pytest.raises(ValueError, match="got three 2, five 5"):
        many_classes(np.zeros((1, 3), "float32"))
    a, b = keras.Input((3,)), keras.Input((3,))
    two_inputs = keras.Model([a, b], keras.layers.Add()([a, b]))
    with pytest.raises(ValueError, match="takes 2 inputs"):
        LogitsEnsemble([three, two_inputs])


RNG_TRANSFER_ATTACKS = np.random.default_rng(12)


W1, W2 = (
    RNG_TRANSFER_ATTACKS.normal(size=(6, 7)),
    RNG_TRANSFER_ATTACKS.normal(size=(7, 3)),
)


X, Y = (
    RNG_TRANSFER_ATTACKS.uniform(0.3, 0.7, (8, 6)),
    RNG_TRANSFER_ATTACKS.integers(0, 3, 8),
)


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


WIDE = RNG_TRANSFER_ATTACKS.normal(size=(2, 64, 5)).astype("float32")


def many_transfer_attacks(n):
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


def test_nesterov_and_scales_in_numpy():
    for norm in ["linf", "l2"]:
        for nesterov, scales in [(True, 1) if norm == "l2" else (True, 5)]:
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


def test_variance_tuning_in_numpy():
    def check(nesterov, scales):
        attack = VMIFGSM(epsilon=0.2, steps=5, nesterov=nesterov, scales=scales, variance_samples=4)
        run = fold_in(SEED, -1)

        def draw(step, number):
            stream = fold_in(fold_in(fold_in(run, step), number), 0)
            noise = tf.random.stateless_uniform(X.shape, stream, -1, 1, tf.float64, alg="philox")
            return 1.5 * 0.2 * noise.numpy()

        draws = [[draw(t, i) for i in range(4)] for t in range(5)]
        expected = reference(attack, draws=draws)
        np.testing.assert_allclose(last_iterate(attack), expected, atol=1e-6)
        untuned = reference(attack)
        assert np.abs(expected - untuned).max() > 1e-3

    for nesterov, scales in [(False, 1), (True, 3)]:
        check(nesterov, scales)


def test_nothing_on_is_mifgsm():
    x = many_transfer_attacks(9)
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
    model, x = make_cnn(2, scale=1e4), many_transfer_attacks(6)
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
    x = tf.constant(many_transfer_attacks(n))
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


def test_combinations_stay_inside():
    for names in [
        ("diversity", "kernel_size"),
        tuple(ALL),
    ]:
        norm = "l2" if len(names) == len(ALL) else "linf"
        settings = {name: ALL[name] for name in names}
        attack = TransferAttack(
            epsilon=0.2 if norm == "linf" else 0.8, norm=norm, steps=3, **settings
        )
        x, x_adv = many_transfer_attacks(5), run(attack)
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


@pytest.mark.parametrize("compile_by", [pytest.param(True, marks=pytest.mark.slow), False])
def test_graph_equals_eager(compile_by):
    x, targets = tf.constant(many_transfer_attacks(4)), tf.one_hot([0, 1, 2, 3], 5)
    # XLA draws other random numbers.
    settings = {"nesterov": True, "scales": 2, "kernel_size": 3} if compile_by else ALL
    attack = TransferAttack(epsilon=0.1, steps=2, **settings)

    @tf.function(jit_compile=compile_by)
    def step(x, targets, seed):
        return attack.perturb(tiny, x, targets, seed=seed)

    eager = attack.perturb(tiny, x, targets, seed=SEED)
    np.testing.assert_allclose(step(x, targets, SEED), eager, atol=1e-6)


def test_targeted():
    x, y = many_transfer_attacks(30), np.full(30, 2)
    attack = TransferAttack(epsilon=0.2, targeted=True, scales=2, variance_samples=2)
    result = attack.perturb(tiny, tf.constant(x), tf.one_hot(y, 5), seed=SEED)
    before, after = (tf.nn.log_softmax(tiny(z))[:, 2] for z in (x, result))
    assert (after > before).numpy().all()


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


def test_refused_settings():
    for settings, error, message in [
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
    ]:
        with pytest.raises(error, match=message):
            TransferAttack(epsilon=0.1, **settings)


def test_nips2017():
    attack = MIFGSM.nips2017(input_range=(-1, 1), batch_size=10)
    assert attack.epsilon == pytest.approx(2 * 16 / 255)
    assert attack.step_length(attack.epsilon) == pytest.approx(2 * 1.6 / 255)
    assert (attack.steps, attack.momentum, attack.random_start) == (10, 1.0, False)
    assert attack == MIFGSM(epsilon=attack.epsilon, input_range=(-1, 1), batch_size=10)
    assert DIFGSM.nips2017().diversity == 0.5
    with pytest.raises(ValueError, match="reversed"):
        MIFGSM.nips2017(input_range=(1, 0))


RNG_TRANSFER_TRICKS = np.random.default_rng(11)


SEED_TRANSFER_TRICKS = tf.constant([5, 6])


def frames(shape, seed=SEED_TRANSFER_TRICKS, **settings):
    """Top, left, height and width of each image on its canvas, from white images."""
    white = tf.ones(shape, tf.float64)
    seen = input_diversity(white, seed, **settings).numpy()[..., 0]
    inside = seen > 0.5
    rows, columns = inside.any(axis=2), inside.any(axis=1)
    return np.stack([rows.argmax(1), columns.argmax(1), rows.sum(1), columns.sum(1)], axis=1)


def resize(image, height, width):
    """Bilinear with half-pixel centres, one axis after the other."""
    for axis, size in enumerate((height, width)):
        side = image.shape[axis]
        places = (np.arange(size) + 0.5) * side / size - 0.5
        image = np.apply_along_axis(
            lambda line, places=places, side=side: np.interp(places, np.arange(side), line),
            axis,
            image,
        )
    return image


def test_diversity_resizes_and_pads():
    for shape in [(6, 28, 28, 1), (6, 19, 40, 3), (6, 7, 5, 2)]:
        for scale in [0.9, 0.4]:
            x = RNG_TRANSFER_TRICKS.uniform(size=shape)
            settings = {"probability": 1.0, "scale": scale}
            seen = input_diversity(
                tf.constant(x), SEED_TRANSFER_TRICKS, fill=0.25, **settings
            ).numpy()
            for image, result, frame in zip(x, seen, frames(shape, **settings), strict=True):
                top, left, height, width = frame
                small = resize(image, height, width)
                # Its coordinates are float32.
                theirs = tf.image.resize(image, (height, width))
                np.testing.assert_allclose(small, theirs, atol=1e-5)
                expected = np.full(shape[1:], 0.25)
                expected[top : top + height, left : left + width] = small
                np.testing.assert_allclose(result, expected, atol=1e-12)


def test_diversity_is_as_random_as_it_says():
    shape = (4000, 20, 30, 1)
    found = frames(shape, probability=0.3, scale=0.8)
    changed = found[:, 2] < 20
    assert abs(changed.mean() - 0.3) < 5 * np.sqrt(0.21 / 4000)
    assert (found[~changed] == [0, 0, 20, 30]).all()
    top, left, height, width = found[changed].T
    assert set(height) == {16, 17, 18, 19}
    assert set(width) == set(range(24, 30))
    # One draw for both: the aspect ratio is kept to a pixel.
    assert (np.abs(width / 30 - height / 20) < 1 / 20).all()
    for size in (16, 19):
        count = (height == size).sum()
        assert abs(count / changed.sum() - 0.25) < 5 * np.sqrt(0.19 / changed.sum())
        places = top[height == size]
        assert set(places) == set(range(20 - size + 1))
        half = (20 - size) / 2
        spread = np.sqrt(((20 - size + 1) ** 2 - 1) / 12 / count)
        assert abs(places.mean() - half) < 5 * spread
    assert (left + width <= 30).all()


def test_diversity_at_its_ends():
    x = tf.constant(RNG_TRANSFER_TRICKS.uniform(size=(9, 28, 28, 3)).astype("float32"))
    off = input_diversity(x, SEED_TRANSFER_TRICKS, probability=0.0)
    np.testing.assert_array_equal(off, x)
    on = input_diversity(x, SEED_TRANSFER_TRICKS, probability=1.0)
    np.testing.assert_array_equal(on, input_diversity(x, SEED_TRANSFER_TRICKS, probability=1.0))
    assert np.abs(on - input_diversity(x, SEED_TRANSFER_TRICKS + 1, probability=1.0)).max() > 0.1
    for side in (1, 2, 3):
        x = tf.ones((50, side, side, 1))
        seen = input_diversity(x, SEED_TRANSFER_TRICKS, probability=1.0).numpy()
        assert set(np.unique(seen)) == ({1.0} if side == 1 else {0.0, 1.0})


def test_diversity_is_linear_and_so_is_its_gradient():
    x = tf.constant(RNG_TRANSFER_TRICKS.uniform(size=(4, 9, 9, 2)))
    weights = RNG_TRANSFER_TRICKS.normal(size=(4, 9, 9, 2))

    def total(x):
        return tf.reduce_sum(weights * input_diversity(x, SEED_TRANSFER_TRICKS, probability=0.7))

    with tf.GradientTape() as tape:
        tape.watch(x)
        value = total(x)
    gradient = tape.gradient(value, x)
    np.testing.assert_allclose(tf.reduce_sum(gradient * x), value, rtol=1e-9)
    direction = tf.constant(RNG_TRANSFER_TRICKS.normal(size=x.shape))
    change = total(x + direction) - value
    np.testing.assert_allclose(tf.reduce_sum(gradient * direction), change, rtol=1e-8)


def test_diversity_in_a_graph_of_any_batch():
    step = tf.function(
        lambda x: input_diversity(x, SEED_TRANSFER_TRICKS, probability=1.0),
        input_signature=[tf.TensorSpec((None, 8, 8, 1))],
    )
    x = tf.constant(RNG_TRANSFER_TRICKS.uniform(size=(3, 8, 8, 1)).astype("float32"))
    eager = input_diversity(x, SEED_TRANSFER_TRICKS, probability=1.0)
    np.testing.assert_allclose(step(x), eager, atol=1e-6)
    assert step(x[:0]).shape == (0, 8, 8, 1)


def test_kernel():
    for length in [1, 3, 5, 15]:
        expected = stats.norm.pdf(np.linspace(-3, 3, length) if length > 1 else [0.0])
        np.testing.assert_allclose(gaussian_kernel(length), expected / expected.sum())


def test_smoothing():
    for length, shape in [(5, (9, 7, 3)), (15, (28, 28, 1))]:
        for dtype in ["float32", "float64"]:
            gradient = RNG_TRANSFER_TRICKS.normal(size=(2, *shape)).astype(dtype)
            kernel = np.outer(gaussian_kernel(length), gaussian_kernel(length))
            expected = ndimage.convolve(
                gradient.astype("float64"), kernel[None, :, :, None], mode="constant"
            )
            result = smooth_gradient(tf.constant(gradient), length)
            assert result.dtype == dtype
            np.testing.assert_allclose(result, expected, atol=1e-6)


def test_smoothing_beyond_the_image_and_not_at_all():
    gradient = tf.constant(RNG_TRANSFER_TRICKS.normal(size=(2, 4, 6, 2)))
    np.testing.assert_allclose(smooth_gradient(gradient, 1), gradient, rtol=1e-12)
    kernel = np.outer(gaussian_kernel(15), gaussian_kernel(15))
    expected = ndimage.convolve(gradient.numpy(), kernel[None, :, :, None], mode="constant")
    np.testing.assert_allclose(smooth_gradient(gradient, 15), expected, atol=1e-9)


def test_default_kernel():
    assert [default_kernel(n, 20) for n in (28, 199, 200, 299)] == [5, 5, 15, 15]


def test_only_images():
    for shape in [(2, 5), (2, 5, 5), (2, 3, 4, 5, 1)]:
        x = tf.zeros(shape)
        with pytest.raises(ValueError, match=r"Input diversity needs images: got .*\(5"):
            input_diversity(tf.zeros((2, 5)), SEED_TRANSFER_TRICKS)
        with pytest.raises(ValueError, match="needs images"):
            input_diversity(x, SEED_TRANSFER_TRICKS)
        with pytest.raises(ValueError, match="needs images"):
            smooth_gradient(x, 5)


def test_scale_copies():
    x = RNG_TRANSFER_TRICKS.normal(size=(3, 4))
    for number in range(5):
        copy = scale_copy(tf.constant(x), tf.constant(number))
        np.testing.assert_array_equal(copy, x / 2**number)


def test_variance_of_a_square():
    """With the gradient `x^2` it is `E (x + r)^2 - x^2 = E r^2 = side^2 / 3`."""

    def check(norm, power):
        x = tf.constant(RNG_TRANSFER_TRICKS.uniform(-1, 1, (8, 50)))
        samples, side = 50, 3.0 / 50**power
        region = tf.constant(np.repeat([[1.0, 0.0]], 25, axis=1).reshape(1, 50))
        variance = gradient_variance(
            lambda x, seed: x**2,
            x,
            x**2,
            SEED_TRANSFER_TRICKS,
            radius=3.0,
            samples=samples,
            norm=norm,
            region=tf.tile(region, (8, 1)),
        ).numpy()
        np.testing.assert_allclose(variance[:, 25:], 0.0, atol=1e-12)
        variance, points = variance[:, :25], x.numpy()[:, :25]
        # The variance of (x + r)^2 - x^2 = 2 x r + r^2 per draw.
        spread = np.sqrt(4 * points**2 * side**2 / 3 + 4 * side**4 / 45) / np.sqrt(samples)
        assert (np.abs(variance - side**2 / 3) < 5 * spread).all()
        assert np.abs(variance - side**2 / 3).max() > 0

    for norm, power in [("linf", 0.0), ("l2", 0.5), ("l1", 1.0)]:
        check(norm, power)


def test_variance_draws_and_gives_seeds():
    seen, seeds = [], []

    def gradient_at(x, seed):
        seen.append(x.numpy())
        seeds.append(tuple(seed.numpy()))
        return x

    x = tf.zeros((2, 6))
    result = gradient_variance(gradient_at, x, x, SEED_TRANSFER_TRICKS, radius=0.5, samples=4)
    np.testing.assert_allclose(result, np.mean(seen, axis=0), atol=1e-6)
    assert len(set(seeds)) == 4
    assert 0.4 < np.abs(seen).max() <= 0.5


def test_slope_is_the_ratio_of_gradients():
    for classes in [1, 5]:
        logits = tf.constant(RNG_TRANSFER_TRICKS.normal(0, 4, (40, classes)), tf.float32)
        y = RNG_TRANSFER_TRICKS.integers(0, max(classes, 2), 40)
        targets = tf.one_hot(y, 5) if classes == 5 else tf.constant(y[:, None], tf.float32)
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(logits)
            true = attack_loss(logits, targets)
            scaled = ascent_loss(logits, targets)
        slope = loss_slope(logits, targets).numpy()[:, None]
        expected = tape.gradient(true, logits)
        result = slope * tape.gradient(scaled, logits).numpy()
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-6)
        assert (loss_slope(logits, targets, "margin").numpy() == 1).all()


def test_slope_at_its_ends():
    sure, wrong = tf.constant([[1e4, 0.0, 0.0]]), tf.constant([[-1e4, 0.0, 0.0]])
    target = tf.constant([[1.0, 0.0, 0.0]])
    assert 0.0 < float(loss_slope(sure, target)[0]) < 1e-25
    assert float(loss_slope(wrong, target)[0]) == 1.0
    soft = tf.constant([[0.8, 0.1, 0.1]])
    assert float(loss_slope(sure, soft)[0]) == 1.0


def test_top_share():
    for share in [0.01, 0.3, 0.5, 1.0]:
        values = RNG_TRANSFER_TRICKS.integers(0, 4, (6, 13)).astype("float32")
        order = np.argsort(-values, axis=1, kind="stable")
        expected = np.zeros(values.shape, bool)
        count = max(1, round(share * 13))
        np.put_along_axis(expected, order[:, :count], True, axis=1)
        np.testing.assert_array_equal(top_share(tf.constant(values), share), expected)
