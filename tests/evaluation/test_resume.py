"""An attack that was edited is another attack."""

import dataclasses
import importlib
import subprocess
import sys
from pathlib import Path

import keras
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf

from keras_jsigr.attacks import FGSM, PGD, Attack
from keras_jsigr.evaluation import evaluate as call
from keras_jsigr.evaluation import robustness as attack_rows
from keras_jsigr.evaluation import robustness as linear
from keras_jsigr.evaluation.evaluate import evaluate
from keras_jsigr.evaluation.records import Finding
from keras_jsigr.evaluation.resume import (
    CachedResult,
    Store,
    array_digest,
    data_identity,
    model_identity,
    own_code,
)
from keras_jsigr.evaluation.robustness import describe
from keras_jsigr.evaluation.run import about_model
from keras_jsigr.evaluation.validation import check_surrogates
from keras_jsigr.saliency import gradient_explainer
from keras_jsigr.saliency.metrics import randomization

BEGIN = """
import dataclasses, functools
import numpy as np
from keras_jsigr.attacks import FGSM
SIGN = 1.0
TABLE = {"five": [1, 2]}
TURN = np.eye(3)

def helper(g):
    return g

class Mixin:
    def lean(self, g):
        return g

@dataclasses.dataclass(frozen=True, kw_only=True)
class Mine(Mixin, FGSM):
    kinds = {"a", "b", "c"}

    @functools.cached_property
    def half(self):
        return 0.5

    @staticmethod
    def shrink(g, by=2.0):
        return [part / by for part in g]

    def direction(self, g, s):
        if s in {"one", "two", "three"}:
            return self.lean(g), s
        return SIGN * helper(g), TABLE[s], TURN
"""


def made(text):
    space = {"__name__": "mine"}
    exec(text, space)
    return space["Mine"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("SIGN = 1.0", "SIGN = -1.0"),
        ("    return g\n\nclass", "    return -g\n\nclass"),
        ("        return g\n", "        return -g\n"),
        ('{"five": [1, 2]}', '{"five": [1, 3]}'),
        ("np.eye(3)", "-np.eye(3)"),
        ('"b", "c"}', '"b", "d"}'),
        ("return 0.5", "return 0.25"),
        ("by=2.0", "by=3.0"),
        ("part / by", "part * by"),
        ("SIGN * helper", "SIGN + helper"),
        ("self.lean", "self.half"),
        ('"two"', '"four"'),
    ],
)
def test_every_edit_is_noticed(before, after):
    edited = BEGIN.replace(before, after)
    assert edited != BEGIN
    assert own_code(made(BEGIN)) != own_code(made(edited))


def test_nothing_else_is():
    assert own_code(made(BEGIN)) == own_code(made("\n# More lines.\n" + BEGIN))
    # Own attacks keep the keys that they always had.
    assert own_code(FGSM) is None
    assert set(describe(FGSM(epsilon=0.1))) == {"name", "class", "config"}


def test_functions_that_call_each_other():
    """As many as a module may have: a walk along the calls would be too deep."""
    text = BEGIN.replace("    return g\n\nclass", "    return step_0(g)\n\nclass")
    chain = "".join(f"def step_{n}(g): return step_{n + 1}(g)\n" for n in range(900))
    last = "def step_900(g): return helper(g) {} 1\n"
    codes = [own_code(made(text + chain + last.format(sign))) for sign in "+-+"]
    assert codes[0] == codes[2] != codes[1]


@pytest.mark.slow
def test_the_same_in_another_process(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(BEGIN)
    code = (
        "import mine; from keras_jsigr.evaluation.parts.own_code import own_code; "
        "print(own_code(mine.Mine))"
    )
    path = f"{tmp_path}:{Path(__file__).parents[2]}"
    other = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": path, "PYTHONHASHSEED": "1"},
        check=True,
        capture_output=True,
        text=True,
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert own_code(importlib.import_module("mine").Mine) == other.stdout.strip()


def test_a_repaired_attack_is_run_again(tmp_path):
    rng = np.random.default_rng(0)
    x, w = rng.uniform(0.3, 0.7, (30, 6)), rng.normal(size=(6, 3))
    x, w = x.astype("float32"), w.astype("float32")
    y = (x @ w).argmax(-1)

    def run(sign):
        @dataclasses.dataclass(frozen=True, kw_only=True)
        class Mine(FGSM):
            def direction(self, gradient, state):
                return sign * gradient, state

        settings = dict(epsilon=0.05, epsilons=[0.05], examples=0, diagnostics=False)
        attack = Mine(epsilon=0.05)
        return evaluate(
            lambda x: x @ w, x, y, attacks=[attack], resume=tmp_path, **settings
        )

    wrong, right = run(-1.0), run(1.0)
    assert wrong.robust.correct == 30
    assert right.robust.correct < 30
    assert run(1.0).attacks == right.attacks


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


def test_linearized_and_diagnostics_are_kept(
    tmp_path, calls, settings_resume, monkeypatch
):
    work = []

    def once(name, function):
        def run(*args, **kwargs):
            work.append(name)
            return function(*args, **kwargs)

        return run

    def fake(model, x, y, **kwargs):
        figures = {"share": 0.1}
        return [Finding(rule="r", title="t", status="ok", says="s", figures=figures)]

    import keras_jsigr.evaluation.gradient_masking as package

    monkeypatch.setattr(package, "diagnostics", once("diagnostics", fake))
    function = once("linearized", linear.linearized_robustness)
    monkeypatch.setattr(linear, "linearized_robustness", function)
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

        patch.setattr(attack_rows, "predict_logits", crash)
        report = evaluate(net, X, Y, resume=tmp_path, **settings_resume)
    assert all(a.error == "MemoryError: too small" for a in report.attacks[:2])
    assert report.attacks[1].accuracy == report.clean
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
    from keras_jsigr.attacks.ensemble import LogitsEnsemble

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
def test_what_crashed_is_told_and_tried_again(tmp_path, settings_resume, monkeypatch):
    import keras_jsigr.evaluation.gradient_masking as package
    from keras_jsigr.evaluation import saliency as measure

    settings_resume |= {"diagnostics": True, "saliency": {"parts": ["sparsity"]}}
    settings_resume |= {"surrogates": None, "epsilons": [0.5]}

    def crashed(model, x, y, **kwargs):
        kept = {"rule": "r", "title": "t", "figures": {}}
        return [Finding(**kept, status="skipped", says="The rule crashed: no memory")]

    def broken(*args, **kwargs):
        raise MemoryError("full")

    with monkeypatch.context() as patch:
        patch.setattr(package, "diagnostics", crashed)
        patch.setitem(measure._MEASUREMENTS, "sparsity", broken)
        report = evaluate(NET, X, Y, resume=tmp_path, **settings_resume)
    assert "r: The rule crashed: no memory" in report.errors
    assert "saliency, sparsity: MemoryError: full" in report.errors
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
        self.made = piece or CachedResult(
            {"a": np.arange(6).reshape(2, 3)}, {"seconds": 0.5}
        )

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
    first = Store(tmp_path, {"model": "a"}).piece("suite", settings, work)
    second = Store(tmp_path, {"model": "a"}).piece("suite", settings, work)
    assert work.done == 1
    same(first, second)


@pytest.mark.parametrize(
    "dtype", ["bool", "int64", "float16", "float32", "float64", ml_dtypes.bfloat16]
)
def test_types_survive(tmp_path, dtype):
    values = np.linspace(-2, 2, 12).reshape(3, 4).astype(dtype)
    info = {"float": 1 / 3, "inf": float("inf"), "list": (1, 2), "none": None}
    work = Work(CachedResult({"x": values, "empty": values[:0]}, info))
    first = Store(tmp_path, {}).piece("x", {}, work)
    second = Store(tmp_path, {}).piece("x", {}, work)
    assert work.done == 1
    assert second.info["list"] == [1, 2]
    same(first, second)
    np.testing.assert_array_equal(second.arrays["x"], values)


def test_memory_and_disk_agree(tmp_path):
    work = Work(CachedResult({}, {"range": (0, 1), "n": np.int64(3)}))
    same(Store(None, {}).piece("x", {}, work), Store(tmp_path, {}).piece("x", {}, work))


@pytest.mark.parametrize(
    ("identity", "kind", "settings"),
    [
        ({"model": "b"}, "suite", {"epsilon": 0.1}),
        ({"model": "a"}, "curve", {"epsilon": 0.1}),
        ({"model": "a"}, "suite", {"epsilon": np.nextafter(0.1, 1.0)}),
        ({"model": "a"}, "suite", {"epsilon": 0.1, "steps": 3}),
    ],
)
def test_anything_else_is_another_piece(tmp_path, identity, kind, settings):
    work = Work()
    Store(tmp_path, {"model": "a"}).piece("suite", {"epsilon": 0.1}, work)
    Store(tmp_path, identity).piece(kind, settings, work)
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


@pytest.mark.parametrize(
    "damage", [_cut, _flip, _foreign, _pickle, lambda p: p.write_bytes(b"")]
)
def test_damage_is_noticed_and_repaired(tmp_path, damage):
    work = Work()
    Store(tmp_path, {}).piece("x", {}, work)
    (path,) = tmp_path.glob("*/x-*.npz")
    damage(path)
    with pytest.warns(RuntimeWarning, match="damaged.*computed again"):
        again = Store(tmp_path, {}).piece("x", {}, work)
    assert work.done == 2
    same(again, work.made)
    same(Store(tmp_path, {}).piece("x", {}, work), work.made)
    assert work.done == 2


def test_a_piece_of_other_settings_under_this_name_is_not_taken(tmp_path):
    work = Work()
    Store(tmp_path, {}).piece("x", {"epsilon": 0.1}, work)
    Store(tmp_path, {}).piece("x", {"epsilon": 0.2}, work)
    one, two = sorted(tmp_path.glob("*/x-*.npz"))
    one.write_bytes(two.read_bytes())
    with pytest.warns(RuntimeWarning, match="damaged"):
        both = [
            Store(tmp_path, {}).piece("x", {"epsilon": e}, work) for e in (0.1, 0.2)
        ]
    assert len(both) == 2
    assert work.done == 3


def test_a_crash_leaves_nothing(tmp_path):
    def crash():
        raise RuntimeError("boom")

    store = Store(tmp_path, {})
    with pytest.raises(RuntimeError, match="boom"):
        store.piece("x", {}, crash)
    assert [p.name for p in tmp_path.glob("*/*")] == ["about.json"]
    work = Work()
    store.piece("x", {}, work)
    assert work.done == 1


def test_a_full_disk_does_not_stop_the_work(tmp_path, monkeypatch):
    import keras_jsigr.evaluation.resume as module

    def full(*args):
        raise OSError("No space left on device")

    store = Store(tmp_path, {})
    monkeypatch.setattr(module, "write_cache_file", full)
    work = Work()
    with pytest.warns(RuntimeWarning, match="No space left"):
        same(store.piece("x", {}, work), work.made)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be written"):
        Store(tmp_path / "file", {})


def test_digests():
    a = np.arange(6.0)
    digests = {
        array_digest(v)
        for v in (a, a + 1, a.reshape(2, 3), a.astype("float32"), a[::2], a > 2)
    }
    assert len(digests) == 6
    assert array_digest(a.reshape(2, 3).T.T) == array_digest(a.reshape(2, 3))
