"""What a call takes and gives: kinds, batches, traces, seeds, restarts."""

import gc
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr import attacks
from keras_jsigr.attacks import (
    APGD,
    BIM,
    FGSM,
    MIFGSM,
    PGD,
    SPSA,
    Attack,
    AttackContext,
    GradientAttack,
    Square,
)
from keras_jsigr.attacks.losses import attack_loss, misclassified
from keras_jsigr.attacks.norms import is_feasible

RNG = np.random.default_rng(5)


def many(n):
    return np.random.default_rng(6).uniform(size=(n, 8, 8, 1)).astype("float32")


class Counted:
    """A model that counts how often Python runs it."""

    def __init__(self, model):
        self.model, self.runs = model, 0

    def __call__(self, x):
        self.runs += 1
        return self.model(x, training=False)


def test_one_trace_for_all_batches(cnn):
    model, attack = Counted(cnn), PGD(epsilon=0.1, steps=3)
    attack(model, many(7), np.zeros(7, int))
    runs = model.runs
    for n in (1, 7, 300):
        assert attack(model, many(n), np.zeros(n, int)).shape == (n, 8, 8, 1)
    assert model.runs == runs
    attack(model, many(7))
    runs = model.runs
    attack(model, many(300))
    assert model.runs == runs


def test_bound_methods_are_kept_with_their_model(cnn):
    class Wrapper:
        runs = 0

        def logits(self, x):
            self.runs += 1
            return cnn(x)

    wrapper, attack = Wrapper(), FGSM(epsilon=0.1)
    attack(wrapper.logits, many(2), [0, 0])
    runs = wrapper.runs
    attack(wrapper.logits, many(3), [0, 0, 0])
    assert wrapper.runs == runs


def test_weights_may_move_between_calls(make_cnn):
    model, attack, x = make_cnn(1), FGSM(epsilon=0.1), many(4)
    attack(model, x)
    model.set_weights([w[..., ::-1] * 0.5 + 0.1 for w in model.get_weights()])
    fresh = attack(lambda x: model(x), x)
    np.testing.assert_array_equal(attack(model, x), fresh)


def test_models_can_be_collected(make_cnn):
    for view in [lambda m: m.__call__, lambda m: lambda x: m(x)]:
        attack, model = PGD(epsilon=0.1, steps=2), make_cnn()
        attack(view(model), many(2))
        dead = weakref.ref(model)
        del model
        gc.collect()
        assert dead() is None


@pytest.mark.slow
def test_callables_without_weak_references_or_hash(cnn):
    class Slots:
        __slots__ = ("model",)

        def __call__(self, x):
            return self.model(x)

    class Unhashable:
        __hash__ = None

        def __call__(self, x):
            return cnn(x)

    slots, x = Slots(), many(2)
    slots.model = cnn
    expected = FGSM(epsilon=0.1)(cnn, x)
    for model in (slots, Unhashable(), lambda x: cnn(x), lambda x: {"logits": cnn(x)}):
        np.testing.assert_allclose(FGSM(epsilon=0.1)(model, x), expected, atol=1e-6)


def test_label_forms(cnn):
    x, y, attack = many(6), np.array([0, 1, 2, 3, 4, 0]), FGSM(epsilon=0.1)
    expected = attack(cnn, x, y)
    rows, tensor = np.eye(5)[y], tf.constant(y)
    for form in (y[:, None], rows, y.astype("float32"), list(y), tensor):
        np.testing.assert_array_equal(attack(cnn, x, form), expected)


def test_seeds(cnn):
    x = many(6)

    def run(seed):
        return PGD(epsilon=0.1, steps=2, step_size=0.01, seed=seed)(cnn, x)

    first = run(0)
    np.testing.assert_array_equal(first, run(0))
    assert np.abs(first - run(1)).max() > 0.01
    # Batches draw different numbers.
    same = np.concatenate([x[:1], x[:1]])
    two = PGD(epsilon=0.1, steps=1, step_size=0.01, batch_size=1)(cnn, same)
    assert np.abs(two[0] - two[1]).max() > 0.01


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "targeted"), [("cross_entropy", False), ("margin", True)])
def test_restarts_are_never_weaker(make_cnn, targeted, loss):
    model, x = make_cnn(3, scale=4.0), many(64)
    y = (np.argmax(model(x), axis=-1) + targeted) % 5
    settings = dict(epsilon=0.03, steps=2, loss=loss, targeted=targeted)

    def strength(restarts):
        z = model(PGD(restarts=restarts, **settings)(model, x, y))
        targets = tf.one_hot(y, 5)
        value = attack_loss(z, targets, loss).numpy()
        hit = misclassified(z, targets).numpy()
        return (~hit, -value) if targeted else (hit, value)

    (hit1, value1), (hit5, value5) = strength(1), strength(5)
    assert (hit5 | ~hit1).all()
    same = hit1 == hit5
    assert (value5 >= value1 - 1e-5)[same].all()
    assert (value5 > value1 + 1e-4).any()


def test_success_is_never_repaired():
    """A ring: wrong at a distance of 0.1 to 0.2 only, and steps that jump across."""

    def ring(x):
        d = x[:, :1] - 0.5
        # The loss keeps growing with d, the decision flips only inside the ring.
        wrong = tf.cast((d > 0.1) & (d < 0.2), x.dtype)
        rising = tf.concat([-0.01 * d, 0.01 * d], axis=1)
        return rising + (2 * wrong - 1) * tf.constant([[-1.0, 1.0]])

    x = np.full((2, 1), 0.5, "float32")
    attack = PGD(epsilon=0.4, steps=3, step_size=0.15, random_start=False)
    x_adv = attack(ring, x, [0, 0])
    np.testing.assert_allclose(x_adv, 0.65, atol=1e-6)
    targets = tf.one_hot([0, 0], 2)
    last = attack.perturb(ring, tf.constant(x), targets, seed=tf.constant([0, 0]))
    np.testing.assert_allclose(last, 0.9, atol=1e-6)
    # Wrong before the attack: wrong after it, whatever the random start.
    start = np.full((20, 1), 0.65, "float32")
    x_adv = PGD(epsilon=0.3, steps=1, step_size=1e-3)(ring, start, np.zeros(20))
    assert misclassified(ring(x_adv), tf.one_hot(np.zeros(20, int), 2)).numpy().all()


def test_targeted_lowers_the_loss_of_the_target(cnn):
    x, y = many(30), np.full(30, 2)
    before = attack_loss(cnn(x), tf.one_hot(y, 5)).numpy()
    for method in (FGSM, PGD, MIFGSM):
        x_adv = method(epsilon=0.05, targeted=True)(cnn, x, y)
        after = attack_loss(cnn(x_adv), tf.one_hot(y, 5)).numpy()
        assert (after < before).all()


def test_progress(capsys):
    x = many(8)

    def model(x):
        return x[:, 0, :3, 0]

    quick = PGD(epsilon=0.1, batch_size=1, steps=2)
    quick(model, x)
    assert not capsys.readouterr().out
    PGD(epsilon=0.1, batch_size=1, steps=20)(model, x)
    assert "8/8" in capsys.readouterr().out
    PGD(epsilon=0.1, batch_size=1, steps=20, verbose=0)(model, x)
    assert not capsys.readouterr().out
    FGSM(epsilon=0.1, verbose=1)(model, x)
    assert "1/1" in capsys.readouterr().out
    keras.config.disable_interactive_logging()
    try:
        FGSM(epsilon=0.1, verbose=1)(model, x)
    finally:
        keras.config.enable_interactive_logging()
    assert not capsys.readouterr().out


def test_nan_gradients_are_told():
    def cusp(x):
        return tf.concat([tf.sqrt(x - 0.5), x], axis=1)

    x = np.array([[0.5], [0.7]], "float32")
    with pytest.warns(RuntimeWarning, match="1 of 2 examples"):
        x_adv = FGSM(epsilon=0.1)(cusp, x, [0, 0])
    assert np.isfinite(x_adv).all()
    keras.backend.clear_session()


def outside(x):
    """A classifier that is no code of TensorFlow's."""
    return np.asarray(x).reshape(len(x), -1) @ np.eye(4, 3, dtype="float32")


def test_code_that_is_not_of_tensorflow():
    x = RNG.uniform(0.4, 0.6, (6, 2, 2, 1)).astype("float32")
    y = outside(x).argmax(-1)
    for attack in (Square(epsilon=0.4, queries=200), SPSA(epsilon=0.4, steps=5)):
        x_adv = attack(lambda v: tf.numpy_function(outside, [v], tf.float32), x, y)
        assert np.mean(outside(x_adv).argmax(-1) == y) < 0.5


def test_how_to_wrap_it_is_told():
    attack = Square(epsilon=0.1, queries=5)
    x = RNG.uniform(0.4, 0.6, (6, 2, 2, 1)).astype("float32")
    with pytest.raises(TypeError, match=r"cannot be compiled.*numpy_function"):
        attack(outside, x, outside(x).argmax(-1))


def many_models(n):
    return np.random.default_rng(7).uniform(size=(n, 8, 8, 1)).astype("float32")


def test_softmax_head_equals_logits_head(make_cnn):
    """Also where the probabilities are exactly zero and one."""
    for scale in [100.0]:
        logits = make_cnn(2, scale=scale)
        softmax = make_cnn(2, activation="softmax", scale=scale)
        x, attack = many_models(8), PGD(epsilon=0.1, steps=5)
        np.testing.assert_array_equal(attack(softmax, x), attack(logits, x))


def test_sigmoid_head():
    keras.utils.set_random_seed(0)
    layers = [keras.Input((4,)), keras.layers.Dense(1, activation="sigmoid")]
    model = keras.Sequential(layers)
    w = model.layers[0].kernel.numpy()[:, 0]
    x = np.full((2, 4), 0.5, "float32")
    expected = x + 0.1 * np.sign(w) * np.array([[1.0], [-1.0]])
    for y in ([0, 1], [[0], [1]], np.eye(2)[[0, 1]]):
        x_adv = FGSM(epsilon=0.1)(model, x, y)
        np.testing.assert_allclose(x_adv, expected, atol=1e-6)


def test_model_with_a_logits_method(cnn):
    class Hardened(keras.Model):
        def call(self, x, training=False):
            return tf.nn.softmax(cnn(x, training=training))

        def logits(self, x, training=False):
            return cnn(x, training=training)

    x = many_models(4)
    attack = FGSM(epsilon=0.1)
    np.testing.assert_array_equal(attack(Hardened(), x), attack(cnn, x))


def test_batch_norm_and_dropout_run_in_inference(make_cnn):
    keras.utils.set_random_seed(0)
    norm = keras.layers.BatchNormalization()
    layers = [norm, keras.layers.Dropout(0.5), keras.layers.Flatten()]
    model = keras.Sequential([keras.Input((8, 8, 1)), *layers, keras.layers.Dense(3)])
    before = norm.moving_mean.numpy()
    x, attack = many_models(4), PGD(epsilon=0.1, steps=3)
    np.testing.assert_array_equal(attack(model, x), attack(model, x))
    np.testing.assert_array_equal(norm.moving_mean.numpy(), before)


def test_mixed_precision(make_cnn):
    for policy in ["mixed_float16", "mixed_bfloat16"]:
        exact = make_cnn(4)
        keras.config.set_dtype_policy(policy)
        try:
            mixed = make_cnn(4)
        finally:
            keras.config.set_dtype_policy("float32")
        mixed.set_weights([w * 1e-2 for w in exact.get_weights()])
        exact.set_weights([w * 1e-2 for w in exact.get_weights()])
        x = many_models(8)
        attack = FGSM(epsilon=0.1)
        y = np.zeros(8, int)
        moved = np.sign(attack(mixed, x, y) - x)
        # Gradients of about 1e-6: most signs survive half precision.
        assert (moved == np.sign(attack(exact, x, y) - x)).mean() > 0.9


def test_one_dimension_and_colour():
    def check(shape):
        x = np.full((2, *shape), 0.5, "float32")

        def network(x):
            return tf.reshape(x, [-1, np.prod(shape)])[:, :3]

        for norm in ("l2",):
            assert PGD(epsilon=0.1, norm=norm, steps=2)(network, x).shape == x.shape

    for shape in [(5,), (10, 2), (4, 4, 3)]:
        check(shape)


X = np.full((6, 2), 0.5, "float32")


NAN = float("nan")


QUICK = {"epsilon": 0.2}


ATTACKS = [
    attacks.PGD(steps=4, random_start=False, **QUICK),
    attacks.APGD(steps=10, **QUICK),
    attacks.TargetedAPGD(steps=10, **QUICK),
    attacks.FAB(steps=10, **QUICK),
    attacks.CarliniWagner(epsilon=0.4, steps=40, searches=4, learning_rate=0.1),
    attacks.Square(queries=30, **QUICK),
    attacks.UniformNoise(draws=30, **QUICK),
    attacks.HopSkipJump(queries=300, norm="linf"),
]


def model(label):
    """Right up to 0.55, and NaN beyond; wrong nowhere."""

    def logits(x):
        margin = 5.0 - 2.0 * x[:, :1]
        other = tf.zeros_like(margin)
        z = tf.concat([other, margin] if label else [margin, other], axis=1)
        return tf.where(x[:, :1] > 0.55, NAN, z)

    return logits


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The model's gradient was NaN")
def test_no_answer_fools_whatever_the_label():
    for attack in ATTACKS:
        for label in [0, 1]:
            x_adv = attack(model(label), X, np.full(6, label))
            assert np.isfinite(x_adv).all()
            assert np.isnan(model(label)(x_adv)).any(axis=1).all()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The model's gradient was NaN")
def test_no_answer_reaches_no_class():
    """The goal is met on a strip that lies before the NaN, seen from the left."""

    def check(method, goal):
        def logits(x):
            t = x[:, :1]
            other = 0.1 - tf.abs(t - 0.65)
            z = tf.concat([other, -other] if goal == 0 else [-other, other], axis=1)
            return tf.where(t > 0.7, NAN, z)

        settings = {"draws": 50} if method is attacks.UniformNoise else {"steps": 8}
        attack = method(epsilon=0.3, targeted=True, **settings)
        x_adv = attack(logits, X, np.full(6, goal))
        assert (np.argmax(logits(x_adv), axis=1) == goal).all()
        assert np.isfinite(logits(x_adv)).all()

    check(attacks.PGD, 0)
    check(attacks.UniformNoise, 1)


def test_decisions_of_hopskipjump():
    for targeted in [False, True]:
        attack = attacks.HopSkipJump(targeted=targeted)
        z, rows = tf.constant([[NAN, 0.0], [0.0, NAN]]), tf.eye(2)[:1]
        for targets in (rows, rows[:, ::-1]):
            rows = tf.repeat(targets, 2, axis=0)
            context = AttackContext(None, z, rows, 0.1, None)
            fools = attack.margin(z, context).numpy() > 0
            assert fools.tolist() == [not targeted] * 2


@pytest.mark.slow
def test_a_class_ruled_out_changes_nothing():
    def check(attack):
        w = np.random.default_rng(2).normal(size=(5, 4)).astype("float32")

        def plain(x):
            return tf.tanh((x - 0.5) @ w)

        def ruled_out(x):
            z = plain(x)
            return tf.concat([z, tf.fill([tf.shape(z)[0], 1], float("-inf"))], axis=1)

        x = np.random.default_rng(3).uniform(0.3, 0.7, (20, 5)).astype("float32")
        y = np.argmax(plain(x), axis=1)
        x_adv = attack(ruled_out, x, y)
        np.testing.assert_allclose(x_adv, attack(plain, x, y), atol=1e-5)
        assert (np.argmax(plain(x_adv), axis=1) != y).any()
        (outcome,) = attacks.AttackSuite([attack]).run(ruled_out, x, y)
        assert len(outcome.rows) == 20
        assert outcome.broken.any()

    for attack in [
        attacks.PGD(steps=5, random_start=False, **QUICK),
        attacks.APGD(steps=10, loss="dlr", **QUICK),
        attacks.TargetedAPGD(steps=10, target_classes=1, **QUICK),
        attacks.SIFGSM(scales=2, **QUICK),
        attacks.Square(queries=30, **QUICK),
    ]:
        check(attack)


SEED = tf.constant([3, 4])


ATTACKS_PERTURB = [
    FGSM(epsilon=0.1),
    FGSM(epsilon=0.1, random_start=True),
    PGD(epsilon=0.1, steps=3),
    PGD(epsilon=0.5, norm="l2", steps=2, restarts=2),
    MIFGSM(epsilon=0.1, steps=3, loss="margin"),
]


def batch(n=6):
    x = np.random.default_rng(8).uniform(size=(n, 8, 8, 1)).astype("float32")
    return tf.constant(x), tf.one_hot(tf.range(n) % 5, 5)


def test_graph_equals_eager(cnn):
    def check(attack):
        x, targets = batch()
        traces = []

        @tf.function(reduce_retracing=True)
        def step(x, targets, seed):
            traces.append(1)
            return attack.perturb(cnn, x, targets, seed=seed)

        eager = attack.perturb(cnn, x, targets, seed=SEED)
        np.testing.assert_allclose(step(x, targets, SEED), eager, atol=1e-6)
        step(x, targets, SEED + 1)
        assert len(traces) == 1

    for attack in ATTACKS_PERTURB[1::2]:
        check(attack)


@pytest.mark.slow
def test_xla(cnn):
    def check(attack):
        x, targets = batch()

        @tf.function(jit_compile=True)
        def step(x, targets, seed):
            return attack.perturb(cnn, x, targets, seed=seed)

        result = step(x, targets, SEED)
        if attack.random_start:  # XLA has a random stream of its own.
            order = np.inf if attack.norm == "linf" else 2
            delta = (result - x).numpy().reshape(6, -1)
            assert np.linalg.norm(delta, order, axis=1).max() <= attack.epsilon + 1e-6
        else:
            eager = attack.perturb(cnn, x, targets, seed=SEED)
            np.testing.assert_allclose(result, eager, atol=1e-6)

    for attack in ATTACKS_PERTURB:
        check(attack)


def test_no_gradient_flows_through(cnn):
    x, targets = batch()
    attack = PGD(epsilon=0.1, steps=2)
    with tf.GradientTape() as tape:
        tape.watch(x)
        result = attack.perturb(cnn, x, targets, seed=SEED)
    assert tape.gradient(result, [x, *cnn.trainable_variables]) == [None] * (
        1 + len(cnn.trainable_variables)
    )


def test_only_the_input_gradient_is_computed(cnn):
    """The result needs no gradient of a weight, and one step no loop."""
    x, targets = batch()
    attack = FGSM(epsilon=0.1)
    step = tf.function(lambda x: attack.perturb(cnn, x, targets, seed=SEED))
    seen, queue = set(), [t.op for t in step.get_concrete_function(x).outputs]
    while queue:
        op = queue.pop()
        if op not in seen:
            seen.add(op)
            queue += [t.op for t in op.inputs]
    types = {op.type for op in seen}
    assert "Conv2DBackpropInput" in types
    assert not types & {"Conv2DBackpropFilter", "While", "StatelessWhile"}


def test_one_sigmoid_unit():
    x, targets = tf.constant([[0.5, 0.5]]), tf.constant([[1.0]])
    attack = PGD(epsilon=0.25, steps=4)
    result = attack.perturb(lambda x: x @ [[1.0], [-1.0]], x, targets, seed=SEED)
    np.testing.assert_allclose(result, [[0.25, 0.75]], atol=1e-6)


def test_half_precision_input_inside_a_function(cnn):
    x, targets = batch()
    x = tf.cast(x, tf.float16)
    attack = PGD(epsilon=0.1, steps=3)
    step = tf.function(lambda x: attack.perturb(cnn, x, targets, seed=SEED))
    assert step(x).dtype == tf.float16
    delta = tf.cast(step(x), tf.float64) - tf.cast(x, tf.float64)
    assert float(tf.reduce_max(tf.abs(delta))) <= 0.1 + 1e-6


def test_epsilon_zero(cnn):
    x, targets = batch()
    result = FGSM(epsilon=0).perturb(cnn, x, targets, seed=SEED)
    np.testing.assert_array_equal(result, x)


def test_adversarial_training_with_fit(make_cnn):
    attack = FGSM(epsilon=0.1, random_start=True)

    class Robust(keras.Model):
        def __init__(self, base):
            super().__init__()
            self.base = base
            self.counter = self.add_weight(
                shape=(), dtype="int32", initializer="zeros", trainable=False
            )

        def call(self, x, training=False):
            return self.base(x, training=training)

        def train_step(self, data):
            x, y = data
            self.counter.assign_add(1)
            seed = tf.stack([0, tf.convert_to_tensor(self.counter)])
            targets = tf.one_hot(y, 5)
            return super().train_step((attack.perturb(self.base, x, targets, seed=seed), y))

    x, _ = batch(32)
    model = Robust(make_cnn(5))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss)
    history = model.fit(x, tf.range(32) % 5, batch_size=8, epochs=2, verbose=0)
    assert np.isfinite(history.history["loss"]).all()


def test_replica_context(cnn):
    strategy = tf.distribute.get_strategy()
    x, targets = batch()
    attack = PGD(epsilon=0.1, steps=2)

    @tf.function
    def run():
        return strategy.run(lambda: attack.perturb(cnn, x, targets, seed=SEED))

    expected = attack.perturb(cnn, x, targets, seed=SEED)
    np.testing.assert_allclose(run(), expected, atol=1e-6)


def test_default_step_sizes():
    assert FGSM().step_length(0.1) == 0.1
    assert FGSM(random_start=True).step_length(0.1) == pytest.approx(0.125)
    assert PGD(steps=20).step_length(0.1) == pytest.approx(0.0125)
    assert BIM(steps=5).step_length(0.2) == pytest.approx(0.04)
    assert MIFGSM(steps=10).step_length(0.1) == pytest.approx(0.01)
    assert APGD().step_length(0.1) == pytest.approx(0.2)
    assert APGD(norm="l1").step_length(0.1) == pytest.approx(0.1)
    assert PGD(step_size=0.5).step_length(0.1) == 0.5


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
    assert GradientAttack(steps=4).step_length(0.1) == 0.025


def test_refused_settings():
    for settings, error, message in [
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
    ]:
        with pytest.raises(error, match=message):
            PGD(**{"epsilon": 0.1, **settings})


def test_other_refused_settings():
    with pytest.raises(ValueError, match="`momentum`"):
        MIFGSM(epsilon=0.1, momentum=-1)
    with pytest.raises(TypeError, match="epsilom"):
        PGD(epsilon=0.1, epsilom=0.1)


def identity(x):
    return tf.identity(x)


def test_rounded_ends_of_the_range_are_in_it():
    for dtype, low, high in [
        ("float32", -123.68, 255 - 103.939),
        ("float16", -2.1179, 2.64),
        ("bfloat16", -2.1179, 2.64),
    ]:
        ends = tf.cast([[low, high, 0.0]], dtype)
        assert float(ends[0, 1]) > high + 1e-6
        attack = FGSM(epsilon=1.0, input_range=(low, high))
        found = attack(identity, ends, [2])
        attack(identity, found, [2])
        assert is_feasible(found.numpy(), ends.numpy(), 1.0, "linf", (low, high)).all()
        with pytest.raises(ValueError, match="leaves the input range"):
            attack(identity, ends + tf.cast(0.02 * high, dtype), [2])


GOOD = np.full((2, 3), 0.5, "float32")


NAN_SETTINGS, LARGE = GOOD.copy(), GOOD.copy()
NAN_SETTINGS[0, 0], LARGE[0, 0] = np.nan, 1.001


def test_refused_data():
    for x, y, error, message in [
        (np.ones((2, 3), "uint8"), None, TypeError, r"x.astype\('float32'\), scaled"),
        (LARGE, None, ValueError, r"\[0.5, 1.001\], expected \[0, 1\]"),
        (-LARGE, None, ValueError, "leaves the input range"),
        (NAN_SETTINGS, None, ValueError, "NaN or infinity"),
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
    ]:
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
