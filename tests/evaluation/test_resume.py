"""An interrupted evaluation goes on: nothing twice, and the same report."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr.attacks import FGSM, PGD, Attack
from keras_jsigr.evaluation import call
from keras_jsigr.evaluation.evaluate import evaluate
from keras_jsigr.evaluation.identity import data_identity, model_identity
from keras_jsigr.evaluation.model_checks import check_surrogates
from keras_jsigr.evaluation.parts import attack_rows, linear
from keras_jsigr.evaluation.parts.about import about_model
from keras_jsigr.evaluation.records import Finding
from keras_jsigr.saliency import gradient_explainer
from keras_jsigr.saliency.metrics import randomization

RNG = np.random.default_rng(4)
X = RNG.uniform(0.3, 0.7, (40, 6)).astype("float32")
W = RNG.normal(size=(6, 3)).astype("float32")
B = -0.5 * W.sum(0)
Y = (X @ W + B).argmax(-1)
# One object for all tests: an attack compiles once per model.
CURVE = PGD(epsilon=0.02, steps=3, batch_size=4)


def build(weights=W, activation=None):
    net = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3, activation)])
    net.set_weights([weights, B])
    return net


@pytest.fixture
def calls(monkeypatch):
    """Name and number of examples of every attack that is run."""
    run = Attack.__call__

    def counted(self, model, x, y=None, **kwargs):
        seen.append((self.name, self.epsilon, len(x)))
        if seen.stop_at == len(seen):
            raise KeyboardInterrupt
        return run(self, model, x, y, **kwargs)

    class Calls(list):
        stop_at = None

    seen = Calls()
    monkeypatch.setattr(Attack, "__call__", counted)
    monkeypatch.setattr(call, "APGD", lambda epsilon, **_: CURVE.at(epsilon))
    return seen


ATTACKS = [FGSM(epsilon=0.02), PGD(epsilon=0.02, steps=3)]
NET = build()


@pytest.fixture
def settings():
    # Pieces of 16 examples: three of the first attack.
    return dict(
        epsilon=0.02,
        attacks=ATTACKS,
        surrogates={"other": build(W * np.float32([1.0, 0.5, 1.5]))},
        transfer_attacks=[ATTACKS[0]],
        epsilons=[0.01, 0.03],
        batch_size=4,
        examples=0,
        diagnostics=False,
    )


def strip(report):
    attacks = [dataclasses.replace(a, seconds=0.0) for a in report.attacks]
    return dataclasses.replace(report, attacks=attacks, seconds={})


@pytest.mark.slow
def test_wherever_it_is_interrupted(tmp_path, calls, settings):
    net = NET
    whole = evaluate(net, X, Y, **settings)
    expected = list(calls)
    assert expected[:3] == [("FGSM", 0.02, 16), ("FGSM", 0.02, 16), ("FGSM", 0.02, 8)]
    total = len(expected)
    assert total > 10
    # In a first piece, a second one, in the curve, in the transfer.
    for stop in (1, 2, total - 3, total):
        calls.clear()
        calls.stop_at = stop
        folder = tmp_path / str(stop)
        with pytest.raises(KeyboardInterrupt):
            evaluate(net, X, Y, resume=folder, **settings)
        calls.stop_at = None
        report = evaluate(net, X, Y, resume=folder, **settings)
        # The call that was interrupted is the only one that is made again.
        assert calls == [*expected[:stop], *expected[stop - 1 :]]
        assert strip(report) == strip(whole)
    calls.clear()
    again = evaluate(net, X, Y, resume=folder, **settings)
    assert calls == []
    assert strip(again) == strip(whole)
    assert again.attacks == report.attacks


def test_linearized_and_diagnostics_are_kept(tmp_path, calls, settings, monkeypatch):
    work = []

    def once(name, function):
        def run(*args, **kwargs):
            work.append(name)
            return function(*args, **kwargs)

        return run

    def fake(model, x, y, **kwargs):
        figures = {"share": 0.1}
        return [Finding(rule="r", title="t", status="ok", says="s", figures=figures)]

    import keras_jsigr.evaluation.masking as package

    monkeypatch.setattr(package, "diagnostics", once("diagnostics", fake))
    function = once("linearized", linear.linearized_robustness)
    monkeypatch.setattr(linear, "linearized_robustness", function)
    settings["diagnostics"] = True
    net = NET
    first = evaluate(net, X, Y, resume=tmp_path, **settings)
    second = evaluate(net, X, Y, resume=tmp_path, **settings)
    assert work == ["linearized", "diagnostics"]
    assert strip(first) == strip(second)
    assert first.findings[0].figures == {"share": 0.1}


def test_damage_costs_one_piece(tmp_path, calls, settings):
    net = NET
    whole = evaluate(net, X, Y, resume=tmp_path, **settings)
    path = sorted(tmp_path.glob("*/suite-*.npz"))[0]
    path.write_bytes(path.read_bytes()[:-9])
    calls.clear()
    with pytest.warns(RuntimeWarning, match="computed again"):
        again = evaluate(net, X, Y, resume=tmp_path, **settings)
    assert len(calls) == 1
    assert strip(again) == strip(whole)


@pytest.mark.slow
def test_anything_else_is_computed_anew(tmp_path, calls, settings):
    """Another model, data or radius shares the folder, but no result."""
    evaluate(NET, X, Y, resume=tmp_path, **settings)
    for changes in (
        {"model": build(W * 1.01)},
        {"x": X[::-1]},
        {"y": np.where(Y == 0, 1, Y)},
        {"epsilon": 0.021, "attacks": [ATTACKS[0].at(0.021)]},
        {"attacks": [FGSM(epsilon=0.02, loss="margin")]},
    ):
        arguments = {"model": NET, "x": X, "y": Y, **settings, **changes}
        arguments |= {"surrogates": None, "epsilons": [0.5]}
        calls.clear()
        evaluate(resume=tmp_path, **arguments)
        assert calls[0][0] == "FGSM"
    calls.clear()
    settings |= {
        "surrogates": None,
        "attacks": settings["attacks"][:1],
        "epsilons": [0.01],
    }
    # What is known of the same model and radius is used, whatever else is asked.
    evaluate(NET, X, Y, resume=tmp_path, title="other", **settings)
    assert calls == []


def test_a_crashed_piece_is_tried_again(tmp_path, calls, settings, monkeypatch):
    net = NET
    whole = evaluate(net, X, Y, **settings)
    with monkeypatch.context() as patch:

        def crash(model, x, size):
            raise MemoryError("too small")

        patch.setattr(attack_rows, "predict_logits", crash)
        report = evaluate(net, X, Y, resume=tmp_path, **settings)
    assert all(a.error == "MemoryError: too small" for a in report.attacks[:2])
    assert report.attacks[1].accuracy == report.clean
    assert whole.attacks[1].accuracy != whole.clean
    assert any("means nothing" in error for error in report.errors)
    report = evaluate(net, X, Y, resume=tmp_path, **settings)
    assert strip(report) == strip(whole)


# ---- identities


def test_identity_of_models(tmp_path):
    one = model_identity(build(), X)
    assert one == model_identity(build(), X)
    net = build()
    net.compile("sgd", "mse")
    assert model_identity(net, X) == one
    build().save(tmp_path / "net.keras")
    assert model_identity(keras.models.load_model(tmp_path / "net.keras"), X) == one
    half = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(3, dtype="mixed_float16")]
    )
    half.set_weights(build().get_weights())
    others = [
        build(np.nextafter(W, 9, dtype="float32")),
        build(activation="tanh"),
        half,
        lambda x: tf.linalg.matmul(x, W),
        lambda x: tf.linalg.matmul(x, 2 * W),
    ]
    assert len({one, *(model_identity(other, X) for other in others)}) == 6


def test_identity_of_subclassed_and_hardened_models():
    class Net(keras.Model):
        def __init__(self, scale):
            super().__init__()
            self.dense, self.scale = keras.layers.Dense(3), scale

        def call(self, x):
            return self.scale * self.dense(x)

    keras.utils.set_random_seed(0)
    net = Net(1.0)
    net(X[:1])
    assert model_identity(net, X) == model_identity(net, X)

    from keras_jsigr import harden
    from keras_jsigr.attacks.transfer.ensemble import LogitsEnsemble

    base = build()
    assert model_identity(harden(base, verbose=0), X) == model_identity(base, X)
    a, b = build(), build(2 * W)
    identities = {
        model_identity(ensemble, X)
        for ensemble in (
            LogitsEnsemble([a, b]),
            LogitsEnsemble([b, a]),
            LogitsEnsemble([a, b], weights=[1, 2]),
            LogitsEnsemble([a, b], fuse="probabilities"),
            LogitsEnsemble([a]),
        )
    }
    assert len(identities) == 5


def test_what_stands_on_a_base_is_more_than_its_base():
    class OnBase(keras.Model):
        def __init__(self, base):
            super().__init__()
            self.base, self.out = base, keras.layers.Dense(3)

        def call(self, x):
            return self.out(self.base(x))

    base = keras.Sequential([keras.Input((6,)), keras.layers.Dense(5, "tanh")])
    one, two = OnBase(base), OnBase(base)
    one(X), two(X)
    assert model_identity(one, X) != model_identity(two, X)
    about = about_model(one, (6,), 3)
    assert not about["hardened"]
    assert about["parameters"] == one.count_params()
    # It has no weights in common with what it is attacked by but those of the base.
    assert list(check_surrogates({"two": two}, one, X, 3)) == ["two"]
    explain = gradient_explainer(one, X)
    assert len(randomization(explain, one, X)) == 2


def test_identity_of_data():
    one = data_identity(X, Y)
    assert one == data_identity(X.astype("float64"), Y.astype("int32"))
    assert one != data_identity(X[:, ::-1], Y)
    assert one != data_identity(X, (Y + 1) % 3)
    assert one != data_identity(X.reshape(-1, 3, 2), Y)


def rounded(gradient):
    """Round the inputs, with a gradient of ones or of zeros."""

    @tf.custom_gradient
    def function(x):
        return tf.round(x * 50.0) / 50.0, lambda g: gradient * g

    return function


class Rounding(keras.layers.Layer):
    """Its configuration does not tell what its gradient is."""

    def __init__(self, function):
        super().__init__(name="rounding")
        self.function = function

    def call(self, x):
        return self.function(x)

    def get_config(self):
        return {}


def test_models_differ_by_their_gradients():
    """A masked network and its smooth stand-in have the same answers and weights."""
    masked, smooth = rounded(0.0), rounded(1.0)
    callables = [lambda x, f=f: tf.linalg.matmul(f(x), W) for f in (masked, smooth)]
    nets = []
    for function in (masked, smooth):
        layers = [Rounding(function), keras.layers.Dense(3)]
        nets.append(keras.Sequential([keras.Input((6,)), *layers]))
        nets[-1].set_weights([W, B])
    for first, second in (callables, nets):
        assert model_identity(first, X) == model_identity(first, X)
        assert model_identity(first, X) != model_identity(second, X)
    model_identity(lambda x: tf.one_hot(tf.argmax(x, -1), 3), X)  # without a gradient


@pytest.mark.slow
def test_what_crashed_is_told_and_tried_again(tmp_path, settings, monkeypatch):
    import keras_jsigr.evaluation.masking as package
    from keras_jsigr.evaluation.interpretability import measure

    settings |= {"diagnostics": True, "saliency": {"parts": ["sparsity"]}}
    settings |= {"surrogates": None, "epsilons": [0.5]}

    def crashed(model, x, y, **kwargs):
        kept = {"rule": "r", "title": "t", "figures": {}}
        return [Finding(**kept, status="skipped", says="The rule crashed: no memory")]

    def broken(*args, **kwargs):
        raise MemoryError("full")

    with monkeypatch.context() as patch:
        patch.setattr(package, "diagnostics", crashed)
        patch.setitem(measure._MEASUREMENTS, "sparsity", broken)
        report = evaluate(NET, X, Y, resume=tmp_path, **settings)
    assert "r: The rule crashed: no memory" in report.errors
    assert "saliency, sparsity: MemoryError: full" in report.errors
    again = evaluate(NET, X, Y, resume=tmp_path, **settings)
    assert again.errors == []
    assert len(again.findings) > 1
    assert again.saliency.figures


def test_callables_that_differ_elsewhere_alone():
    """A vote by another rule, and a defence that does nothing to clean images."""

    class Vote:
        def __init__(self, mode):
            self.models, self.mode = [lambda x: x, lambda x: 2 * x[:, ::-1]], mode

        def __call__(self, x):
            votes = tf.stack([each(x) for each in self.models])
            return getattr(tf, f"reduce_{self.mode}")(votes, 0)

    assert model_identity(Vote("max"), X) != model_identity(Vote("mean"), X)
    eighth = np.round(8 * X) / 8

    def rounding(x):
        return tf.round(8 * x) / 8

    assert model_identity(lambda x: x, eighth) != model_identity(rounding, eighth)
    assert model_identity(rounding, eighth) == model_identity(rounding, eighth)
