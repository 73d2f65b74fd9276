"""What attacks return fools the model itself, which they leave as it was."""

import functools
import gc
import itertools
import os
import pathlib
import re
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr import attacks
from keras_jsigr.core.batching import predict_logits
from keras_jsigr.saliency import explain

SEARCHES = {
    "DeepFool": {},
    "FAB": {"norm": "l2", "steps": 5},
    "CarliniWagner": {
        "steps": 40,
        "searches": 6,
        "learning_rate": 0.1,
        "initial_constant": 100.0,
    },
    "HopSkipJump": {"queries": 300},
}


def classifier(units, scale=1.0, dtype="float32", head="auto", seed=0):
    """A bent network whose logits are of the size `scale`."""
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    if head == "auto":
        head = "sigmoid" if units == 1 else "softmax"
    last = layers.Dense(units, kernel_initializer="he_normal", dtype=dtype)
    return keras.Sequential(
        [
            keras.Input((6,)),
            layers.Rescaling(4.0, -2.0),
            layers.Dense(16, activation="tanh"),
            last,
            layers.Rescaling(scale, dtype=dtype),
            layers.Activation(head, dtype=dtype),
        ]
    )


def answers(model, x):
    """What the model decides: a class, or whether its one output is above half."""
    out = model.predict(x, verbose=0, batch_size=3)
    if out.shape[1] > 1:
        return out.argmax(-1)
    middle = 0.0 if model.layers[-1].activation.__name__ == "linear" else 0.5
    return (out[:, 0] > middle).astype(int)


KINDS = {
    "sigmoid": {"units": 1},
    "one logit": {"units": 1, "head": "linear"},
    "softmax of two": {"units": 2},
    "tiny softmax": {"units": 3, "scale": 1e-3},
    "tiny logits": {"units": 3, "scale": 1e-7, "head": "linear"},
    "large logits": {"units": 3, "scale": 1e3},
    "half sigmoid": {"units": 1, "dtype": "float16"},
    "half softmax": {"units": 3, "dtype": "float16"},
}


@pytest.mark.parametrize("name", SEARCHES)
@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=() if kind == "sigmoid" else pytest.mark.slow) for kind in KINDS],
)
def test_closest_points_fool_the_model_itself(kind, name):
    model = classifier(**KINDS[kind])
    x = np.random.default_rng(1).uniform(0.2, 0.8, (40, 6)).astype("float32")
    y = answers(model, x)
    assert 0 < y.mean() < 2
    attack = getattr(attacks, name)(verbose=0, **SEARCHES[name])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of HopSkipJump's starts
        x_adv = attack(model, x, y)
    moved = (x_adv != x).any(axis=1)
    # What Carlini and Wagner's constants weigh is the size of the logits.
    assert moved.mean() > 0.9 or (name == "CarliniWagner" and "tiny" in kind)
    assert (answers(model, x_adv[moved]) != y[moved]).all()


def cancelling(units, seed=0):
    """Logits that are small differences of large sums, and inputs where they are."""
    rng = np.random.default_rng(seed)
    weights = 100.0 * rng.normal(size=(784, units))
    model = keras.Sequential([keras.Input((784,)), keras.layers.Dense(units)])
    model.set_weights([weights.astype("float32"), -weights.sum(0).astype("float32") / 2])
    x = rng.uniform(-1e-4, 1e-4, size=(16, 784)) / units + 0.5
    return model, x.astype("float32")


@pytest.mark.parametrize(("name", "units"), [("DeepFool", 1), ("FAB", 4), ("CarliniWagner", 4)])
def test_success_in_one_batch_is_success_in_all(name, units):
    """Sums round otherwise among other examples: a margin of less is no success."""
    model, x = cancelling(units)

    def decide(x):
        logits = np.asarray(model(x))
        return logits.argmax(-1) if units > 1 else (logits[:, 0] > 0).astype(int)

    y = decide(x)
    attack = getattr(attacks, name)(verbose=0, **SEARCHES[name])
    whole = attack(model, x, y)
    for x_adv in (whole, attack.with_settings(batch_size=1)(model, x, y)):
        np.testing.assert_allclose(x_adv, whole, atol=1e-5)
        moved = np.flatnonzero((x_adv != x).any(axis=1))
        assert len(moved) > 12
        for size in (1, 2, 3, 7, 16):
            order = np.random.default_rng(size).permutation(moved)
            parts = [order[at : at + size] for at in range(0, len(order), size)]
            assert all((decide(x_adv[part]) != y[part]).all() for part in parts), size


class Counting(tf.Module):
    """Counts its questions and draws from a generator, both in variables."""

    def __init__(self):
        super().__init__()
        self.weights = tf.Variable(tf.random.stateless_normal((6, 3), [0, 1]))
        self.asked = tf.Variable(0.0)
        self.noise = tf.random.Generator.from_seed(1)

    def __call__(self, x):
        self.asked.assign_add(1.0)
        return x @ self.weights + 0.01 * self.noise.normal((3,)) + 0.0 * self.asked


class Hidden:
    """Does not show what it holds."""

    __slots__ = ("__weakref__", "model")

    def __init__(self, model):
        self.model = model

    def __call__(self, x):
        return self.model(x)


OTHERS = ["partial", "python", "module", "function"]


@pytest.mark.parametrize(
    "kind",
    ["training", "hidden", *(pytest.param(kind, marks=pytest.mark.slow) for kind in OTHERS)],
)
def test_attacks_leave_the_variables_alone(kind):
    keras.utils.set_random_seed(0)
    layers = keras.layers
    net = keras.Sequential(
        [keras.Input((6,)), layers.Dense(8), layers.BatchNormalization(), layers.Dropout(0.3)]
    )
    net.add(layers.Dense(3))
    training, module = functools.partial(net, training=True), Counting()
    model = {
        "training": lambda x: net(x, training=True),
        "partial": training,
        "python": lambda x: tf.ensure_shape(tf.py_function(training, [x], tf.float32), (None, 3)),
        "module": module,
        "function": tf.function(module),
        "hidden": Hidden(module),
    }[kind]

    def values():
        seed = net.layers[2].seed_generator.state
        variables = [*net.variables, seed, *module.variables, module.noise.state]
        return [np.array(variable).tobytes() for variable in variables]

    x = np.random.default_rng(1).uniform(size=(6, 6)).astype("float32")
    model(x)  # what is compiled or built by the first question, is
    before = values()
    searches = [attacks.Square(0.1, queries=8)]
    if kind != "python":
        searches += [attacks.PGD(0.1, steps=2), attacks.DeepFool(steps=2)]
    for attack in searches:
        attack.with_settings(verbose=0, batch_size=4)(model, x, [0, 1, 2] * 2)
        assert values() == before


def test_random_layers_draw_anew_in_every_question():
    drop = keras.Sequential([keras.Input((6,)), keras.layers.Dropout(0.5)])
    x = np.ones((4, 6), "float32")
    for model in (lambda x: drop(x, training=True), Counting()):
        assert (predict_logits(model, x) != predict_logits(model, x)).any()


def test_errors_of_python_code_are_told_in_a_line():
    left = []

    def measure(x):
        if not left:
            raise OSError("the sensor is offline")
        left.pop()
        return x[:, :3]

    def model(x):
        return tf.ensure_shape(tf.py_function(measure, [x], tf.float32), (None, 3))

    x = np.full((4, 6), [0.9, *[0.5] * 5], "float32")
    asks = (
        lambda: attacks.Square(0.1, queries=50, verbose=0)(model, x),
        lambda: [explain(model, x, method="occlusion") for _ in range(4)],
        lambda: [explain(model, x, method="rise", samples=8) for _ in range(4)],
    )
    for ask, most in itertools.product(asks, (0, 3)):  # at once, and in the middle
        left[:] = range(most)
        with pytest.raises(tf.errors.OpError) as told:
            ask()
        first, *others = str(told.value).splitlines()
        assert first == "OSError: the sensor is offline"
        assert len(others) == 1


@pytest.mark.slow
def test_starting_points_of_hopskipjump():
    model = classifier(3)
    rng = np.random.default_rng(2)
    pool = rng.uniform(size=(200, 6)).astype("float32")
    decided = answers(model, pool)
    x, target = pool[decided == 0][:4], int(np.bincount(decided[decided > 0]).argmax())
    goal = np.full(len(x), target)
    attack = attacks.HopSkipJump(queries=300, targeted=True, verbose=0)
    x_adv = attack(model, x, goal, starting_points=pool)
    assert (answers(model, x_adv) == goal).all()
    nearest = pool[decided == target][:, None] - x
    assert (np.linalg.norm(x_adv - x, axis=1) <= np.linalg.norm(nearest, axis=-1).min(0)).all()
    # Several radii, and labels that nobody names.
    both = attack(model, x, goal, starting_points=pool[::-1], epsilons=[0.05, 9.0])
    np.testing.assert_allclose(both[1], x_adv, atol=1e-5)
    free = attacks.HopSkipJump(queries=300, verbose=0)
    left = free(model, x, starting_points=pool)
    assert (answers(model, left) != 0).all()
    with pytest.raises(ValueError, match="starting_points"):
        attack(model, x, goal, starting_points=pool[:, :4])


def test_hopskipjump_says_where_it_found_no_start():
    def rare(x):  # noise does not find the class 1
        inside = tf.reduce_max(tf.abs(x - 0.9), axis=1) < 0.02
        return tf.one_hot(tf.cast(inside, tf.int32), 2)

    x, far = np.full((2, 6), 0.5, "float32"), np.full((1, 6), 0.9, "float32")
    attack = attacks.HopSkipJump(queries=300, targeted=True, verbose=0)
    with pytest.warns(RuntimeWarning, match=re.escape("for 2 of 2 examples")):
        np.testing.assert_array_equal(attack(rare, x, [1, 1]), x)
    x_adv = attack(rare, x, [1, 1], starting_points=far)
    assert (rare(x_adv).numpy().argmax(-1) == 1).all()
    # Fooled from the start: nothing to say, however large the logits.
    for scale in (1.0, 1e6):
        x_adv = attack(lambda x, scale=scale: scale * rare(x), x, [0, 0])
        np.testing.assert_array_equal(x_adv, x)


def refused(model, x, y, match, attack=None):
    """Call an attack that names the cause and the way out."""
    with pytest.raises((TypeError, ValueError), match=match):
        (attack or attacks.FGSM(0.1))(model, x, y)


def test_messages_name_the_cause_and_the_way_out():
    body, x, y = classifier(2, head="linear"), np.full((2, 6), 0.5, "float32"), [0, 1]
    fgsm, pixels = attacks.FGSM(0.1), keras.Input((6,), dtype="uint8")
    whole = keras.Model(pixels, body(keras.layers.Rescaling(1.0)(pixels)))
    refused(whole, x, y, r"dtype='uint8'.*float32.*lambda x")
    softmax = keras.Model(body.inputs, keras.ops.softmax(body.outputs[0]))
    refused(softmax, x, y, r"`lambda x: model\(x\)`")
    assert fgsm(lambda x: softmax(x), x, y).shape == x.shape
    two = keras.Model(body.inputs, [body.outputs[0]] * 2)
    refused(two, x, y, r"`lambda x: model\(x\)\[0\]`")
    assert fgsm(lambda x: two(x)[0], x, y).shape == x.shape
    refused(body, x, np.array(["shirt", "coat"]), "class indices")
    refused(body, tf.data.Dataset.from_tensors((x, y)), y, r"expected y=None.*\(x, y\)")
    refused(lambda x: print(end=""), x, y, r"returned None, expected class scores \(B, C\)")
    column = keras.Sequential([keras.Input((6, 1)), keras.layers.Flatten(), body])
    for attack in (fgsm, attacks.AutoAttack(0.1)):
        refused(column, x[0][:, None], y, r"a batch \(None, 6, 1\) with.*x\[None\]", attack)
    python = lambda x: tf.py_function(np.asarray, [x], tf.float32)  # noqa: E731
    refused(python, x, y, "cannot differentiate .*py_function.* Use Square")
    refused(lambda x: x, x[0], y, r"a batch \(N, ...\) with")
    for given, instead in (((1, 1), r"\(0.0, 1.0\)"), ((255, 0), r"\(0.0, 255.0\)")):
        with pytest.raises(ValueError, match=f"empty or reversed.*Pass {instead}"):
            attacks.FGSM(0.1, input_range=given)


def test_independent_labels_are_attacked_one_at_a_time():
    """As the message says: one column is a classifier of two classes."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3, "sigmoid")])
    x = np.random.default_rng(0).uniform(0.3, 0.7, (8, 6)).astype("float32")
    y = (np.asarray(model(x)) > 0.5).astype(int)
    y[0] = 1
    way_out = r"lambda x: model\(x\)\[:, k : k \+ 1\]` as the model and y\[:, k\]"
    refused(model, x, y, way_out)
    for k in (0, 2):
        x_adv = attacks.FGSM(0.5)(lambda x, k=k: model(x)[:, k : k + 1], x, y[:, k])
        now = np.asarray(model(x_adv))[:, k] > 0.5
        assert (now[1:] != y[1:, k]).mean() > 0.9


def test_a_radius_wider_than_the_inputs_is_told():
    """Who forgets to divide by 255 has an attack that may do anything."""
    x = np.random.default_rng(0).uniform(size=(4, 6)).astype("float32")
    y, wide = x[:, :3].argmax(-1), "`epsilon` is wider than the inputs"

    def model(x):
        return x[:, :3]

    # Warnings are errors here, so that nothing more is run.
    for attack, words in (
        (attacks.FGSM(8.0), r"got 8 under linf for inputs in \[0, 1\], where 1 lets .*8/255"),
        (attacks.Square(3.0, norm="l2"), "got 3 under l2 .*, where 2.44949 lets"),
        (attacks.DeepFool(15.0, input_range=(-1, 3)), "got 15 .*where 9.79796 lets"),
    ):
        with pytest.raises(RuntimeWarning, match=f"{wide}: {words}"):
            attack(model, x, y)
    with pytest.warns(RuntimeWarning, match=wide):
        assert len(attacks.FGSM()(model, x, y, epsilons=[0.1, 8.0])) == 2
    attacks.FGSM(1.0)(model, x, y)  # as wide as the inputs: wanted


# Per attack: what it cannot be made with, in words of (norm, loss, targeted).
NEVER = {
    "TargetedAPGD": {"loss", "targeted"},
    "FAB": {"loss", "targeted"},
    "DeepFool": {"loss", "targeted", "l1"},
    "CarliniWagner": {"loss", "linf", "l1"},
    "HopSkipJump": {"loss", "l1"},
    "CleverHansAttack": {"loss", "l1"},
}
ATTACKS = [
    "FGSM",
    "BIM",
    "PGD",
    "APGD",
    "TargetedAPGD",
    "FAB",
    "DeepFool",
    "CarliniWagner",
    "MIFGSM",
    "TransferAttack",
    "NIFGSM",
    "SIFGSM",
    "VMIFGSM",
    "SPSA",
    "Square",
    "HopSkipJump",
    "UniformNoise",
    "GaussianNoise",
    "CleverHansAttack",
]
SMALL = {"HopSkipJump": {"queries": 300}, "CarliniWagner": {"learning_rate": 0.1}}
LOSSES = (None, "cross_entropy", "margin", "dlr")
COMBINATIONS = [
    (norm, loss, targeted)
    for norm in ("linf", "l2", "l1")
    for loss in LOSSES
    for targeted in (False, True)
]
# What differs from another in its defaults alone.
PRESETS = {"BIM", "NIFGSM", "SIFGSM", "VMIFGSM", "GaussianNoise"}


def combined(name):
    """All attacks of a class by (norm, loss, targeted); `None`: it cannot be made so."""
    found = {}
    for norm, loss, targeted in COMBINATIONS:
        given = {"norm": norm, "targeted": targeted, **SMALL.get(name, {})}
        given |= {} if loss is None else {"loss": loss}
        never = NEVER.get(name, set())
        refused = norm in never or ("loss" in never and loss is not None)
        refused |= targeted and ("targeted" in never or loss == "dlr")
        radius = {"linf": 0.4, "l2": 1.5, "l1": 4.0}[norm]
        if refused:
            with pytest.raises((TypeError, ValueError)):
                getattr(attacks, name)(radius, **given)
        else:
            found[norm, loss, targeted] = getattr(attacks, name)(radius, verbose=0, **given)
    return found


def test_settings_that_do_not_go_together_are_refused():
    for name in ATTACKS:
        assert len(combined(name)) >= 2


def in_pairs(name):
    """Attacks in which every two settings that go together meet."""
    for (norm, loss, targeted), attack in combined(name).items():
        if "loss" not in NEVER.get(name, ()):
            place = ["linf", "l2", "l1"].index(norm)
            if loss is None or (name in PRESETS and LOSSES[place + 1] != loss):
                continue
            if targeted != (loss != "dlr" and (place + LOSSES.index(loss)) % 2):
                continue
        yield attack


@pytest.mark.slow
@pytest.mark.parametrize("name", ATTACKS)
def test_all_settings_that_go_together_work(name):
    if name == "CleverHansAttack":
        pytest.importorskip("cleverhans")
    net = classifier(4, head="linear")

    def model(x):  # not Keras': whose layers would be looked at for each attack
        return net(x)

    def answers(x):
        return model(x).numpy().argmax(-1)

    x = np.random.default_rng(3).uniform(0.3, 0.7, (12, 6)).astype("float32")
    pool = np.random.default_rng(4).uniform(size=(300, 6)).astype("float32")
    y, reach = answers(x), answers(pool)
    target = np.array([reach[reach != label][0] for label in y])
    for attack in in_pairs(name):
        given = {"starting_points": pool} if name == "HopSkipJump" else {}
        x_adv = attack(model, x, target if attack.targeted else y, **given)
        hit = answers(x_adv) == target
        fooled = hit if attack.targeted else answers(x_adv) != y
        assert fooled.mean() > (0.3 if "Noise" in name else 0.6), attack


@pytest.mark.slow
def test_equal_attacks_share_a_program_and_its_memory():
    model, x = classifier(3), np.full((4, 6), 0.5, "float32")

    def megabytes_after(calls):
        for _ in range(calls):
            attacks.PGD(0.1, steps=3, verbose=0)(model, x, [0, 1, 2, 0])
        gc.collect()
        pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    before = megabytes_after(100)
    assert megabytes_after(1000) - before < 20.0


def test_autoattack_keeps_the_schedule_of_square():
    """As `resc_schedule=False` in the authors' version "standard"."""
    for norm in ("linf", "l2", "l1"):
        square = attacks.AutoAttack(0.1, norm=norm).attacks[-1]
        assert (square.name, square.queries, square.rescale_schedule) == ("Square", 5000, False)
    assert attacks.Square(0.1).rescale_schedule
