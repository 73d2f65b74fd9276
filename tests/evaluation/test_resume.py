"""What is kept of an evaluation, and what it is known by."""

import dataclasses
import importlib
import linecache
import sys

import keras
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr import harden
from keras_jsigr.attacks import FGSM, PGD, Attack, LogitsEnsemble
from keras_jsigr.evaluation import evaluate_robustness as evaluate
from keras_jsigr.evaluation import (
    gradient_masking,
    resume,
    robust_evaluation,
    saliency_measures,
)
from keras_jsigr.evaluation import robustness as parts
from keras_jsigr.evaluation.records import Finding
from keras_jsigr.evaluation.resume import (
    CachedResult,
    ResultCache,
    array_digest,
    class_fingerprint,
    data_identity,
    model_identity,
)
from keras_jsigr.evaluation.robustness import describe
from keras_jsigr.evaluation.run import model_summary
from keras_jsigr.evaluation.validation import check_surrogates
from keras_jsigr.saliency.gradients import gradient_explainer
from keras_jsigr.saliency.metrics import randomization

MINE = """
import dataclasses
from keras_jsigr.attacks import FGSM

class Mixin:
    def turned(self, gradient):
        return SIGN * gradient

@dataclasses.dataclass(frozen=True, kw_only=True)
class Mine(Mixin, FGSM):
    def direction(self, gradient, state):
        return self.turned(gradient), state
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Import the user's own attack from a file with that sign."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def load(sign):
        (tmp_path / "mine.py").write_text(MINE.replace("SIGN", sign))
        sys.modules.pop("mine", None)
        importlib.invalidate_caches()
        linecache.clearcache()
        return importlib.import_module("mine").Mine

    yield load
    sys.modules.pop("mine", None)


def test_a_class_is_known_by_its_name_and_own_source(mine):
    minus, plus = class_fingerprint(mine("-1.0")), class_fingerprint(mine("+1.0"))
    assert minus["class"] == plus["class"] == "mine.Mine"
    # The source of a base of the user's own counts, too.
    assert minus["source"] != plus["source"]
    assert class_fingerprint(mine("-1.0")) == minus
    assert set(describe(FGSM(epsilon=0.1))) == {"name", "class", "config"}
    # Typed into a session: there is no source.
    space = {"__name__": "typed"}
    exec(MINE.replace("SIGN", "1.0"), space)
    assert set(class_fingerprint(space["Mine"])) == {"class"}


def test_a_repaired_attack_is_run_again(tmp_path, mine):
    settings = dict(epsilon=0.05, epsilons=[0.05], examples=0, diagnostics=False)

    def run(sign):
        attack = mine(sign)(epsilon=0.05)
        return evaluate(NET, X, Y, attacks=[attack], resume=tmp_path, **settings)

    wrong, right = run("-1.0"), run("1.0")
    assert wrong.robust.correct == 40
    assert right.robust.correct < 40
    assert run("1.0").attacks == right.attacks


RNG = np.random.default_rng(4)
X = RNG.uniform(0.3, 0.7, (40, 6)).astype("float32")
W = RNG.normal(size=(6, 3)).astype("float32")
B = -0.5 * W.sum(0)
Y = (X @ W + B).argmax(-1)
# One object for all tests: an attack compiles once per model.
CURVE = PGD(0.02, input_range=(0.0, 1.0), steps=3, batch_size=4)


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
    monkeypatch.setattr(robust_evaluation, "APGD", lambda epsilon, **_: CURVE.at(epsilon))
    return seen


ATTACKS = [FGSM(epsilon=0.02), PGD(epsilon=0.02, steps=3)]
NET = build()


@pytest.fixture
def settings_resume():
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
def test_wherever_it_is_interrupted(tmp_path, calls, settings_resume):
    net = NET
    whole = evaluate(net, X, Y, **settings_resume)
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
            evaluate(net, X, Y, resume=folder, **settings_resume)
        calls.stop_at = None
        report = evaluate(net, X, Y, resume=folder, **settings_resume)
        # The call that was interrupted is the only one that is made again.
        assert calls == [*expected[:stop], *expected[stop - 1 :]]
        assert strip(report) == strip(whole)
    calls.clear()
    again = evaluate(net, X, Y, resume=folder, **settings_resume)
    assert calls == []
    assert strip(again) == strip(whole)
    assert again.attacks == report.attacks


def test_linearized_and_diagnostics_are_kept(tmp_path, calls, settings_resume, monkeypatch):
    work = []

    def once(name, function):
        def run(*args, **kwargs):
            work.append(name)
            return function(*args, **kwargs)

        return run

    def fake(model, x, y, **kwargs):
        figures = {"share": 0.1}
        return [Finding(rule="r", title="t", status="ok", says="s", figures=figures)]

    monkeypatch.setattr(gradient_masking, "diagnostics", once("diagnostics", fake))
    function = once("linearized", parts.linearized_robustness)
    monkeypatch.setattr(parts, "linearized_robustness", function)
    settings_resume["diagnostics"] = True
    net = NET
    first = evaluate(net, X, Y, resume=tmp_path, **settings_resume)
    second = evaluate(net, X, Y, resume=tmp_path, **settings_resume)
    assert work == ["linearized", "diagnostics"]
    assert strip(first) == strip(second)
    assert first.findings[0].figures == {"share": 0.1}


def test_damage_costs_one_piece(tmp_path, calls, settings_resume):
    net = NET
    whole = evaluate(net, X, Y, resume=tmp_path, **settings_resume)
    path = sorted(tmp_path.glob("*/suite-*.npz"))[0]
    path.write_bytes(path.read_bytes()[:-9])
    calls.clear()
    with pytest.warns(RuntimeWarning, match="computed again"):
        again = evaluate(net, X, Y, resume=tmp_path, **settings_resume)
    assert len(calls) == 1
    assert strip(again) == strip(whole)


@pytest.mark.slow
def test_anything_else_is_computed_anew(tmp_path, calls, settings_resume):
    """Another model, data or radius shares the folder, but no result."""
    evaluate(NET, X, Y, resume=tmp_path, **settings_resume)
    for changes in (
        {"model": build(W * 1.01)},
        {"x": X[::-1]},
        {"y": np.where(Y == 0, 1, Y)},
        {"epsilon": 0.021, "attacks": [ATTACKS[0].at(0.021)]},
        {"attacks": [FGSM(epsilon=0.02, loss="margin")]},
    ):
        arguments = {"model": NET, "x": X, "y": Y, **settings_resume, **changes}
        arguments |= {"surrogates": None, "epsilons": [0.5]}
        calls.clear()
        evaluate(resume=tmp_path, **arguments)
        assert calls[0][0] == "FGSM"
    calls.clear()
    settings_resume |= {
        "surrogates": None,
        "attacks": settings_resume["attacks"][:1],
        "epsilons": [0.01],
    }
    # What is known of the same model and radius is used, whatever else is asked.
    evaluate(NET, X, Y, resume=tmp_path, title="other", **settings_resume)
    assert calls == []


def test_a_crashed_piece_is_tried_again(tmp_path, calls, settings_resume, monkeypatch):
    net = NET
    whole = evaluate(net, X, Y, **settings_resume)
    with monkeypatch.context() as patch:

        def crash(model, x, size):
            raise MemoryError("too small")

        patch.setattr(parts, "predict_logits", crash)
        report = evaluate(net, X, Y, resume=tmp_path, **settings_resume)
    assert all(a.error == "MemoryError: too small" for a in report.attacks[:2])
    assert report.attacks[1].accuracy is None
    assert whole.attacks[1].accuracy != whole.clean
    assert any("means nothing" in error for error in report.errors)
    report = evaluate(net, X, Y, resume=tmp_path, **settings_resume)
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
    half = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3, dtype="mixed_float16")])
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
    about = model_summary(one, (6,), 3)
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
def test_what_crashed_is_told_and_tried_again(tmp_path, settings_resume, monkeypatch):
    settings_resume |= {"diagnostics": True, "saliency": {"parts": ["sparsity"]}}
    settings_resume |= {"surrogates": None, "epsilons": [0.5]}

    def crashed(model, x, y, **kwargs):
        kept = {"rule": "r", "title": "t", "figures": {}}
        return [Finding(**kept, status="skipped", says="The rule crashed: no memory")]

    def broken(*args, **kwargs):
        raise MemoryError("full")

    with monkeypatch.context() as patch:
        patch.setattr(gradient_masking, "diagnostics", crashed)
        patch.setitem(saliency_measures.MEASURES, "sparsity", broken)
        report = evaluate(NET, X, Y, resume=tmp_path, **settings_resume)
    assert "diagnostics, t: no memory" in report.errors
    assert "saliency: sparsity: MemoryError: full" in report.errors
    again = evaluate(NET, X, Y, resume=tmp_path, **settings_resume)
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


class Work:
    """Makes a piece and counts how often it had to."""

    def __init__(self, piece=None):
        self.done = 0
        self.made = piece or CachedResult({"a": np.arange(6).reshape(2, 3)}, {"seconds": 0.5})

    def __call__(self):
        self.done += 1
        return self.made


def same(one, two):
    assert one.info == two.info
    assert one.arrays.keys() == two.arrays.keys()
    for name, value in one.arrays.items():
        assert value.dtype == two.arrays[name].dtype
        np.testing.assert_array_equal(value, two.arrays[name])


def test_second_time_nothing_is_done(tmp_path):
    work, settings = Work(), {"epsilon": 0.1, "steps": [1, 2]}
    first = ResultCache(tmp_path, {"model": "a"}).get_or_compute("suite", settings, work)
    second = ResultCache(tmp_path, {"model": "a"}).get_or_compute("suite", settings, work)
    assert work.done == 1
    same(first, second)


def test_types_survive(tmp_path):
    info = {"float": 1 / 3, "inf": float("inf"), "list": (1, 2), "none": None}
    for dtype in ("bool", "int64", "float16", "float32", "float64", ml_dtypes.bfloat16):
        values = np.linspace(-2, 2, 12).reshape(3, 4).astype(dtype)
        work = Work(CachedResult({"x": values, "empty": values[:0]}, info))
        kind = np.dtype(dtype).name
        first = ResultCache(tmp_path, {}).get_or_compute(kind, {}, work)
        second = ResultCache(tmp_path, {}).get_or_compute(kind, {}, work)
        assert work.done == 1
        assert second.info["list"] == [1, 2]
        same(first, second)
        np.testing.assert_array_equal(second.arrays["x"], values)


def test_memory_and_disk_agree(tmp_path):
    work = Work(CachedResult({}, {"range": (0, 1), "n": np.int64(3)}))
    same(
        ResultCache(None, {}).get_or_compute("x", {}, work),
        ResultCache(tmp_path, {}).get_or_compute("x", {}, work),
    )


def test_anything_else_is_another_result(tmp_path):
    for identity, kind, settings in (
        ({"model": "b"}, "suite", {"epsilon": 0.1}),
        ({"model": "a"}, "curve", {"epsilon": 0.1}),
        ({"model": "a"}, "suite", {"epsilon": np.nextafter(0.1, 1.0)}),
        ({"model": "a"}, "suite", {"epsilon": 0.1, "steps": 3}),
    ):
        work, folder = Work(), tmp_path / str(hash(str((identity, kind, settings))))
        cache = ResultCache(folder, {"model": "a"})
        cache.get_or_compute("suite", {"epsilon": 0.1}, work)
        ResultCache(folder, identity).get_or_compute(kind, settings, work)
        assert work.done == 2


def test_results_of_another_format_are_computed_again(tmp_path, monkeypatch):
    work = Work()
    monkeypatch.setattr(resume, "_FORMAT", 1)
    ResultCache(tmp_path, {}).get_or_compute("suite", {}, work)
    monkeypatch.undo()
    ResultCache(tmp_path, {}).get_or_compute("suite", {}, work)
    assert work.done == 2


def _cut(path):
    path.write_bytes(path.read_bytes()[:-20])


def _flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(bytes(data))


def _foreign(path):
    np.savez(path, header=np.zeros(3))


def _pickle(path):
    with open(path, "wb") as file:
        np.savez(file, header=np.array([{"a": 1}], dtype=object))


def test_damage_is_noticed_and_repaired(tmp_path):
    work = Work()
    ResultCache(tmp_path, {}).get_or_compute("x", {}, work)
    (path,) = tmp_path.glob("*/x-*.npz")
    for damage in (_cut, _flip, _foreign, _pickle, lambda p: p.write_bytes(b"")):
        work.done = 1
        damage(path)
        with pytest.warns(RuntimeWarning, match="damaged.*computed again"):
            again = ResultCache(tmp_path, {}).get_or_compute("x", {}, work)
        assert work.done == 2
        same(again, work.made)
        same(ResultCache(tmp_path, {}).get_or_compute("x", {}, work), work.made)
        assert work.done == 2


def test_a_piece_of_other_settings_under_this_name_is_not_taken(tmp_path):
    work = Work()
    ResultCache(tmp_path, {}).get_or_compute("x", {"epsilon": 0.1}, work)
    ResultCache(tmp_path, {}).get_or_compute("x", {"epsilon": 0.2}, work)
    one, two = sorted(tmp_path.glob("*/x-*.npz"))
    one.write_bytes(two.read_bytes())
    with pytest.warns(RuntimeWarning, match="damaged"):
        both = [
            ResultCache(tmp_path, {}).get_or_compute("x", {"epsilon": e}, work) for e in (0.1, 0.2)
        ]
    assert len(both) == 2
    assert work.done == 3


def test_a_crash_leaves_nothing(tmp_path):
    def crash():
        raise RuntimeError("boom")

    store = ResultCache(tmp_path, {})
    with pytest.raises(RuntimeError, match="boom"):
        store.get_or_compute("x", {}, crash)
    assert [p.name for p in tmp_path.glob("*/*")] == ["about.json"]
    work = Work()
    store.get_or_compute("x", {}, work)
    assert work.done == 1


def test_a_full_disk_does_not_stop_the_work(tmp_path, monkeypatch):
    def full(*args):
        raise OSError("No space left on device")

    store = ResultCache(tmp_path, {})
    monkeypatch.setattr(resume, "write_cache_file", full)
    work = Work()
    with pytest.warns(RuntimeWarning, match="No space left"):
        same(store.get_or_compute("x", {}, work), work.made)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be written"):
        ResultCache(tmp_path / "file", {})


def test_digests():
    a = np.arange(6.0)
    digests = {
        array_digest(v) for v in (a, a + 1, a.reshape(2, 3), a.astype("float32"), a[::2], a > 2)
    }
    assert len(digests) == 6
    assert array_digest(a.reshape(2, 3).T.T) == array_digest(a.reshape(2, 3))
