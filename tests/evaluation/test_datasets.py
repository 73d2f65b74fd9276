"""Evaluations of datasets: the report of the same examples as arrays, block by block."""

import dataclasses
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_jsigr as kj
from keras_jsigr.attacks import FGSM, PGD, Attack
from keras_jsigr.core import streams
from keras_jsigr.evaluation import gradient_masking, robust_evaluation
from keras_jsigr.evaluation.gradient_masking_rules import RULES
from keras_jsigr.evaluation.records import SaliencyFigure
from keras_jsigr.evaluation.saliency import join_maps
from keras_jsigr.evaluation.saliency_measures import figure_of

RNG = np.random.default_rng(4)
X = RNG.uniform(0.3, 0.7, (53, 6)).astype("float32")
W = RNG.normal(size=(6, 3)).astype("float32")
Y = (X @ W - 0.5 * W.sum(0)).argmax(-1)
Y[::9] = (Y[::9] + 1) % 3  # some are wrong from the start
EPSILON = 0.02
# One object for all tests: an attack compiles once per model.
CURVE = PGD(EPSILON, input_range=(0.0, 1.0), steps=3, batch_size=8)
SETTINGS = {
    "epsilon": EPSILON,
    "attacks": [FGSM(EPSILON), PGD(EPSILON, steps=3)],
    "transfer_attacks": [FGSM(EPSILON)],
    "batch_size": 8,
    "examples": 4,
    "verbose": 0,
}


def build(weights=W):
    net = keras.Sequential([keras.Input((6,), name="table"), keras.layers.Dense(3)])
    net.set_weights([weights, -0.5 * weights.sum(0)])
    return net


NET, OTHER = build(), build(W + 0.3 * RNG.normal(size=W.shape))


class Batches(keras.utils.PyDataset):
    """Batches of seven, each read once."""

    def __init__(self, x=X, y=Y, **kwargs):
        super().__init__(**kwargs)
        self.x, self.y, self.read = x, y, []

    def __len__(self):
        return -(-len(self.x) // 7)

    def __getitem__(self, number):
        assert number not in self.read
        self.read.append(number)
        rows = slice(7 * number, 7 * number + 7)
        return self.x[rows], self.y[rows]


def dataset(x=X, y=Y, size=5):
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(size)


@pytest.fixture
def few(monkeypatch):
    """Rules that are cheap, and a short curve."""
    some = {name: RULES[name] for name in ("softmax_outputs", "zero_gradients")}
    monkeypatch.setattr(gradient_masking, "RULES", some)
    monkeypatch.setattr(robust_evaluation, "APGD", lambda epsilon, **_: CURVE.at(epsilon))


@pytest.fixture
def blocks_of_16(monkeypatch):
    monkeypatch.setattr(streams, "_MOST", 16)
    monkeypatch.setattr(streams, "_LEAST", 16)


def without_times(report):
    document = report.to_document()
    parts = [document, *document["attacks"], document["saliency"] or {}]
    for part in parts:
        part.pop("seconds", None)
    return document


def evaluate(*data, **changes):
    return kj.evaluate_robustness(NET, *data, **{**SETTINGS, **changes})


EVERYTHING = {"surrogates": {"other": OTHER}, "saliency": {"parts": ["sparsity", "alignment"]}}


@pytest.mark.usefixtures("few", "blocks_of_16")
def test_the_same_figures_as_of_arrays():
    settings = {"diagnostics": False, "examples": 0, "epsilons": [EPSILON]}
    wanted = evaluate(X, Y, **settings)
    assert 0 < wanted.robust.correct < wanted.clean.correct < 53 == wanted.robust.total
    assert without_times(evaluate(dataset(), **settings)) == without_times(wanted)


@pytest.mark.slow
@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("several", [False, True])
def test_the_same_report_as_of_arrays(several, request):
    if several:
        request.getfixturevalue("blocks_of_16")
    wanted = evaluate(X, Y, **EVERYTHING)
    assert wanted.errors == []
    assert 0 < wanted.robust.correct < wanted.clean.correct < 53 == wanted.robust.total
    assert wanted.data["images"] == 53
    assert [r.epsilon for r in wanted.transfer] == [EPSILON, 2 * EPSILON] * 2
    assert all(r.accuracy.total == 53 for r in [*wanted.transfer, *wanted.curve])
    assert sum(c.clean.total for c in wanted.classes) == 53
    assert wanted.saliency.images == wanted.clean.correct
    assert all(f.figures["examples_given"] == 53 for f in wanted.findings)
    for example in wanted.examples:
        assert Y[example.index] == int(example.label)
    source = Batches(workers=2)
    for data in (dataset(), source):
        assert without_times(evaluate(data, **EVERYTHING)) == without_times(wanted)
    assert sorted(source.read) == list(range(8))


@pytest.mark.slow
@pytest.mark.usefixtures("few")
def test_blocks_add_up_to_the_whole(monkeypatch):
    """What draws nothing is the same for any size of the blocks."""
    monkeypatch.setattr(robust_evaluation, "APGD", lambda epsilon, **_: FGSM(epsilon))
    settings = {"attacks": [FGSM(EPSILON)], "saliency": {"parts": ["sparsity"]}}
    settings |= {"surrogates": EVERYTHING["surrogates"], "epsilons": [EPSILON / 2, EPSILON]}
    whole = evaluate(X, Y, **settings)
    monkeypatch.setattr(streams, "_MOST", 16)
    monkeypatch.setattr(streams, "_LEAST", 16)
    parts = evaluate(X, Y, **settings)
    for name in ("clean", "robust", "classes", "curve", "chance", "linearized"):
        assert getattr(parts, name) == getattr(whole, name)
    for one, other in zip(parts.attacks, whole.attacks, strict=True):
        assert dataclasses.replace(one, seconds=0) == dataclasses.replace(other, seconds=0)
    for one, other in zip(parts.transfer, whole.transfer, strict=True):
        assert (one.target, one.accuracy) == (other.target, other.accuracy)
    one, other = (r.saliency.figure("Gini index") for r in (parts, whole))
    assert (one.images, one.unknown) == (other.images, other.unknown)
    np.testing.assert_allclose((one.mean, one.error), (other.mean, other.error), rtol=1e-6)
    assert parts.data != whole.data  # blocks of this size are none that data have


@pytest.mark.slow
@pytest.mark.usefixtures("few", "blocks_of_16")
def test_diagnostics_draw_from_all_blocks(monkeypatch):
    monkeypatch.setattr(robust_evaluation, "IMAGES", 20)
    seen = []

    def look(model, x, y, **_):
        seen.append((x, y))
        return []

    monkeypatch.setattr(gradient_masking, "diagnostics", look)
    evaluate(dataset())
    evaluate(X, Y, seed=1)
    for x, y in seen:
        places = [int(np.flatnonzero((row == X).all(1))[0]) for row in x]
        assert len(set(places)) == 20
        assert places == sorted(places)
        np.testing.assert_array_equal(y, Y[places])
        assert {place // 16 for place in places} == {0, 1, 2, 3}
    assert not np.array_equal(seen[0][0], seen[1][0])


@pytest.mark.slow
@pytest.mark.usefixtures("few", "blocks_of_16")
def test_an_interrupted_evaluation_of_a_dataset_goes_on(tmp_path, monkeypatch):
    settings = {**EVERYTHING, "resume": tmp_path, "saliency": False}
    whole, run, calls = evaluate(X, Y, **{**settings, "resume": None}), Attack.__call__, []

    def counted(self, *args, **kwargs):
        calls.append(self.name)
        if len(calls) == 25:
            raise KeyboardInterrupt
        return run(self, *args, **kwargs)

    monkeypatch.setattr(Attack, "__call__", counted)
    with pytest.raises(KeyboardInterrupt):
        evaluate(dataset(), **settings)
    report = evaluate(dataset(size=9), **settings)
    assert without_times(report) == without_times(whole)
    before = len(calls)
    assert without_times(evaluate(X, Y, **settings)) == without_times(whole)
    assert len(calls) == before


@pytest.mark.usefixtures("few", "blocks_of_16")
def test_an_attack_that_fails_on_one_block_is_told(monkeypatch):
    run, calls = Attack.__call__, []

    def failing(self, model, x, *args, **kwargs):
        calls.append(self.name)
        if calls.count("FGSM") == 2 and self.name == "FGSM":
            raise RuntimeError("no memory")
        return run(self, model, x, *args, **kwargs)

    monkeypatch.setattr(Attack, "__call__", failing)
    report = evaluate(dataset(), diagnostics=False)
    fgsm, pgd = report.attacks
    assert fgsm.accuracy is None
    assert "no memory" in fgsm.error
    assert pgd.accuracy.total == 53
    assert any("FGSM did not finish" in error for error in report.errors)


@pytest.mark.slow
@pytest.mark.usefixtures("few", "blocks_of_16")
def test_a_limit_of_questions_grows_with_the_examples():
    def black_box(x):
        y = tf.numpy_function(lambda v: v @ W - 0.5 * W.sum(0), [x], tf.float32)
        return tf.ensure_shape(y, (None, 3))

    about = {"attacks": ["square"], "max_queries": 60, "diagnostics": False, "epsilons": [EPSILON]}
    found = [
        kj.evaluate_robustness(black_box, *data, **{**SETTINGS, **about})
        for data in ((X, Y), (dataset(),))
    ]
    assert without_times(found[0]) == without_times(found[1])
    assert 0 < found[0].queries <= 66
    assert found[0].robust.correct < found[0].clean.correct


def test_calls_that_take_arrays_alone_say_so():
    data, matrix = dataset(), kj.evaluation.transfer_matrix
    for call in (
        lambda: kj.evaluation.linearized_robustness(NET, data),
        lambda: kj.evaluation.diagnostics(NET, data, None, EPSILON),
        lambda: matrix({"net": NET}, data, None, epsilons=[EPSILON]),
        lambda: kj.saliency.gradient_map(NET, data),
    ):
        with pytest.raises(TypeError, match="array"):
            call()


def test_errors_name_the_place():
    late = X.copy()
    late[50] += 1.0
    streams_of_it = Batches(late)
    with pytest.raises(ValueError, match="leaves the input range"):
        evaluate(streams_of_it)
    with pytest.raises(ValueError, match=r"`y` is None.*dataset"):
        evaluate(dataset().map(lambda x, y: x))
    with pytest.raises(ValueError, match="not batched"):
        evaluate(dataset().unbatch())
    with pytest.raises(ValueError, match="expected y=None"):
        evaluate(dataset(), Y)
    boxes = {"parts": ["localisation"], "boxes": np.ones((53, 4))}
    with pytest.raises(ValueError, match="`boxes` beside a dataset"):
        evaluate(dataset(), saliency=boxes)


@pytest.mark.usefixtures("few", "blocks_of_16")
def test_errors_of_a_later_block_name_it():
    late = X.copy()
    late[50] += 1.0
    with pytest.raises(ValueError, match=r"examples 48 to 52: `x` leaves the input range"):
        evaluate(dataset(late))


@pytest.mark.slow
@pytest.mark.parametrize("several", [False, True])
def test_the_same_maps_as_of_arrays(several, request):
    if several:
        request.getfixturevalue("blocks_of_16")
    models = {"net": NET, "other": OTHER}
    settings = {"epsilon": EPSILON, "parts": ["sparsity", "uniform_noise", "pgd"]}
    settings |= {"batch_size": 8, "attack_steps": 2, "verbose": 0}
    wanted = kj.evaluate_saliency(models, X, Y, **settings)
    found = kj.evaluate_saliency(models, Batches(workers=2), **settings)
    for one, other in zip(found.reports, wanted.reports, strict=True):
        assert without_times(one) == without_times(other)
    assert 10 < wanted["net"].images == wanted["other"].images < 50
    with pytest.raises(ValueError, match="`boxes` beside a dataset"):
        kj.evaluate_saliency(models, dataset(), boxes=np.ones((53, 4)), **settings)
    with pytest.raises(ValueError, match="No example is classified rightly"):
        kj.evaluate_saliency({"net": NET}, dataset(y=(NET(X).numpy().argmin(-1))), **settings)


def test_boxes_of_arrays_follow_their_blocks(monkeypatch):
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Flatten(), keras.layers.Dense(3)]
    model = keras.Sequential([keras.Input((4, 4, 1)), *layers])
    x = RNG.uniform(size=(20, 4, 4, 1)).astype("float32")
    y = model(x).numpy().argmax(-1)
    corner = RNG.integers(0, 3, (20, 2))
    boxes = np.concatenate([corner, corner + 1 + RNG.integers(0, 2, (20, 2))], 1).clip(0, 4)
    settings = {"epsilon": 0.1, "parts": ["localisation"], "boxes": boxes, "verbose": 0}
    whole = kj.evaluate_saliency({"m": model}, x, y, **settings)["m"]
    monkeypatch.setattr(streams, "_MOST", 8)
    monkeypatch.setattr(streams, "_LEAST", 8)
    parts = kj.evaluate_saliency({"m": model}, x, y, **settings)["m"]
    for one, other in zip(parts.figures, whole.figures, strict=True):
        np.testing.assert_allclose((one.mean, one.error), (other.mean, other.error), rtol=1e-6)


def test_figures_of_blocks_add_up():
    """Against the figure of all values at once."""
    values = RNG.normal(size=30)
    values[[3, 17]] = np.nan
    cuts = [values[:1], values[1:3], values[3:4], values[4:20], values[20:]]
    about = ("Sparsity", "Gini index")
    whole = figure_of(values, *about)

    def record(part):
        return kj.evaluation.SaliencyRecord(
            method="gradient",
            images=len(part),
            figures=[figure_of(part, *about)],
            findings=[],
            settings={"examples": str(len(part))},
            seconds={"total": 1.0},
            errors=["sparsity: crashed"],
        )

    joined = join_maps([record(part) for part in cuts])
    figure = joined.figures[0]
    assert isinstance(figure, SaliencyFigure)
    assert (figure.images, figure.unknown, joined.images) == (28, 2, 30)
    np.testing.assert_allclose((figure.mean, figure.error), (whole.mean, whole.error), rtol=1e-12)
    assert joined.seconds == {"total": 5.0}
    assert joined.errors[0] == "sparsity: crashed"
    assert "2 of 30" in joined.errors[1]
    assert len(joined.errors) == 2
    empty = join_maps([record(values[3:4])] * 2).figures[0]
    assert (empty.mean, empty.error, empty.images, empty.unknown) == (None, None, 0, 2)


MEMORY = """
import sys
import keras, numpy as np
import keras_jsigr as kj

class Images(keras.utils.PyDataset):
    def __init__(self, count):
        super().__init__(workers=2)
        self.count = count

    def __len__(self):
        return self.count // 250

    def __getitem__(self, number):
        rng = np.random.default_rng(number)
        return rng.random((250, 28, 28, 1), "float32"), rng.integers(0, 10, 250)

def evaluate(count):
    data = (Images(count),)
    if sys.argv[1] == "arrays":
        data = map(np.concatenate, zip(*data[0]))
    settings = {"epsilon": 0.1, "epsilons": [0.1], "diagnostics": False, "verbose": 0}
    report = kj.evaluate_robustness(net, *data, attacks=["fgsm"], **settings)
    # Of this program alone: `getrusage` goes on with the peak of the one that started it.
    (peak,) = (line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    return report, int(peak.split()[1]) / 1024

net = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])
before = evaluate(5000)[1]
report, after = evaluate(60_000)
assert report.clean.total == 60_000, report
print(after - before)
"""


@pytest.mark.slow
def test_memory_is_bounded():
    """60,000 images are 188 MB: the rise of the peak over that for 5,000."""
    if not sys.platform.startswith("linux"):
        pytest.skip("the peak is read from /proc")
    command = [sys.executable, "-c", MEMORY, "dataset"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rise = float(done.stdout.split()[-1])
    print(f"{rise:.0f} MB")
    assert rise < 120
