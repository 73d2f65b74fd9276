"""Models with known maps, measured as a whole."""

import dataclasses
import json
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from keras_jsigr.attacks import FGSM
from keras_jsigr.attacks.pgd import BIM
from keras_jsigr.core.files import from_json, to_json
from keras_jsigr.evaluation import (
    Comparison,
    Report,
    SaliencyReport,
    compare,
    evaluate_robustness,
    evaluate_saliency,
)
from keras_jsigr.evaluation import saliency as saliency_part
from keras_jsigr.evaluation.records import SaliencyFigure, SaliencyRecord
from keras_jsigr.evaluation.resume import ResultCache
from keras_jsigr.evaluation.run import Log
from keras_jsigr.evaluation.saliency_measures import (
    MEASURES,
    KeptLabelPGD,
    MapSettings,
    figure_of,
    findings,
    gaussian_noise,
    uniform_noise,
    unknown_values,
)
from keras_jsigr.saliency import Gradient, SmoothGrad

SETTINGS = {
    "epsilon": 0.1,
    "steps": 6,
    "samples": 2,
    "attack_steps": 3,
    "batch_size": 8,
    "baselines": ("mean", "zero"),
    "verbose": 0,
}


CLASSES = 3


def draw(count=20):
    """A bright square at one of three places on grey: the class is the place."""
    rng = np.random.default_rng(5)
    y = rng.integers(CLASSES, size=count)
    x = 0.3 + 0.05 * rng.random((count, 12, 12, 1), dtype=np.float32)
    boxes = np.array([[4 * k, 4, 4 * k + 4, 8] for k in y])
    for image, (x0, y0, x1, y1) in zip(x, boxes, strict=True):
        image[y0:y1, x0:x1] = 0.9
    return x.astype("float32"), y, boxes


def detector():
    """Logits that rest on the places of the squares alone: the maps are their boxes."""
    weights = np.zeros((12, 12, CLASSES), "float32")
    for k in range(CLASSES):
        # A little less towards the corner, so that no two pixels are equal.
        ramp = np.linspace(1.0, 1.3, 16).reshape(4, 4)
        weights[4:8, 4 * k : 4 * k + 4, k] = ramp
    flat = [keras.Input((12, 12, 1)), keras.layers.Flatten()]
    net = keras.Sequential([*flat, keras.layers.Dense(CLASSES, use_bias=False)])
    net.set_weights([weights.reshape(144, CLASSES)])
    return net


def network(activation, seed):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((12, 12, 1)),
            keras.layers.Conv2D(2, 3, strides=2, activation=activation),
            keras.layers.Flatten(),
            keras.layers.Dense(CLASSES),
        ]
    )


@keras.saving.register_keras_serializable(package="tests")
class Fixed(keras.Layer):
    """Class scores that are one function times a weight: the maps know no weight."""

    def build(self, shape):
        self.scale = self.add_weight(shape=(CLASSES,))
        self.scale.assign([1.0, 2.0, 3.0])

    def call(self, x):
        return keras.ops.sum(x**2, axis=(1, 2, 3))[:, None] * self.scale


@pytest.fixture(scope="module")
def found():
    x, y, boxes = draw()
    models = {"detector": detector()}
    teacher = network("silu", 3)
    return evaluate_saliency(models, x, y, boxes=boxes, teacher=teacher, **SETTINGS)


def some(model, *parts, count=20, **changes):
    """Measure some parts of a model on the squares."""
    x, y, _ = draw(count)
    settings = SETTINGS | {"parts": parts} | changes
    return evaluate_saliency({"net": model}, x, y, **settings)["net"]


@pytest.mark.slow
def test_a_detector_has_the_figures_it_must_have(found):
    record = found["detector"]
    assert record.errors == []
    assert record.images == 20

    def mean(*key):
        return record.figure(*key).mean

    # All of the gradient of the own logit lies in the box, and the other boxes hold
    # little of it: the class is nearly certain.
    assert mean("Pointing game") == 1.0
    assert mean("Relevance mass") > 0.5
    assert mean("Area of the boxes", "what chance gives both") == pytest.approx(1 / 9)
    own, control = (f"zero, {order}" for order in ("by the map", "random order"))
    assert mean("Deletion", own) < mean("Deletion", control)
    assert mean("Insertion", own) > mean("Insertion", control)
    assert mean("Gini index") > 0.6
    for perturbation in ("uniform noise", "Gaussian noise", "saliency attack"):
        assert mean("Rank correlation", perturbation) > 0.5
        assert mean("SSIM", perturbation) > 0.5
        assert record.figure("SSIM", perturbation).images == 20
    assert mean("Length of the perturbation", "uniform noise") <= 0.1 + 1e-6
    assert [f.status for f in record.findings] == ["ok", "ok"]
    assert mean("With the own perturbation map", "rank correlation") > 0.3
    teacher = record.figure("With the teacher's perturbation map", "cosine")
    assert teacher.images == 20


def test_equal_models_have_equal_figures(found):
    twin = some(detector(), "sparsity", "uniform_noise", "sanity")
    known = {(f.metric, f.condition): f for f in found["detector"].figures}
    assert len(twin.figures) == 6
    for figure in twin.figures:
        assert known[figure.metric, figure.condition] == figure


def test_the_maps_of_a_linear_logit_do_not_move():
    method = Gradient(score="logit")
    record = some(detector(), "smoothness", "uniform_noise", "pgd", method=method)
    assert record.figure("Local Lipschitz constant").mean == 0.0
    for perturbation in ("uniform noise", "PGD, class kept"):
        for metric in ("Top-k intersection", "Rank correlation", "SSIM"):
            figure = record.figure(metric, perturbation)
            assert figure.images == 20
            assert figure.mean == pytest.approx(1.0, abs=1e-5)


def test_maps_without_weights_are_suspect():
    x, _, _ = draw()
    y = np.full(len(x), 2)
    net = keras.Sequential([keras.Input((12, 12, 1)), Fixed()])
    settings = SETTINGS | {"parts": ["sanity"]}
    report = evaluate_saliency({"fixed": net}, x, y, **settings)
    same = report["fixed"].figure("Same map with shuffled weights", "all layers")
    assert same.mean == pytest.approx(1.0, abs=1e-6)
    (finding,) = report["fixed"].findings
    assert (finding.rule, finding.status) == ("weights_matter", "suspect")
    assert "Suspect: The maps depend on the weights." in report.summary()


def faithful(shares):
    """Figures of deletion and insertion by baseline, metric and order."""
    return [
        figure_of([value], "Faithfulness", metric, f"{baseline}, {order}")
        for baseline, pairs in shares.items()
        for metric, pair in zip(("Deletion", "Insertion"), pairs, strict=True)
        for order, value in zip(
            ("by the map", "random order", "intensity order"), pair, strict=True
        )
    ]


def test_no_number_is_no_praise():
    nan, order = float("nan"), (0.5, 0.5, 0.5)
    (finding,) = findings(faithful({"zero": [(nan,) * 3, (nan,) * 3]}))
    assert (finding.rule, finding.status) == ("beats_controls", "skipped")
    # One order without a value: its baseline is left out of all.
    shares = {"mean": [order, (0.4, 0.5, 0.6)], "zero": [order, (0.9, nan, 0.5)]}
    (finding,) = findings(faithful(shares))
    assert finding.status == "suspect"
    assert finding.figures["by_the_map"] == pytest.approx(-0.1)
    same = figure_of([nan], "Sanity", "Same map with shuffled weights", "all layers")
    (finding,) = findings([same])
    assert (finding.rule, finding.status) == ("weights_matter", "skipped")
    # As earlier versions kept it.
    old = dataclasses.replace(same, mean=nan)
    assert findings([old])[0].status == "skipped"


def test_maps_without_numbers_are_left_out():
    """The square root has no finite gradient at zero."""
    for dark in [1, 20]:
        x, y, _ = draw()
        x[:dark, 0, 0] = 0.0
        roots = [keras.Input((12, 12, 1)), keras.layers.Lambda(tf.sqrt)]
        net = keras.Sequential([*roots, *detector().layers])
        # The corner must matter: of zero times infinity not all kernels make NaN.
        net.layers[-1].kernel.assign_add(0.01 * tf.ones((144, CLASSES)))
        parts = ("sparsity", "uniform_noise", "sanity")
        settings = SETTINGS | {"parts": parts, "method": Gradient(score="logit")}
        record = evaluate_saliency({"net": net}, x, y, **settings)["net"]
        for figure in record.figures:
            if figure.metric != "Length of the perturbation":
                assert (figure.images, figure.unknown) == (20 - dark, dark)
                assert figure.mean is None if dark == 20 else np.isfinite(figure.mean)
        (error,) = record.errors
        assert f"Gini index {dark} of 20" in error
        (finding,) = record.findings
        assert finding.status == ("skipped" if dark == 20 else "ok")


def test_what_has_no_value_is_not_tried_again(tmp_path, monkeypatch):
    """Unlike a part that crashed."""
    runs, crashes = [], []

    def measured(*args, **kwargs):
        runs.append(1)
        figures = [figure_of([1.0, np.nan], "Sparsity", "Gini index")]
        return SaliencyRecord(
            method="gradient",
            images=2,
            figures=figures,
            findings=[],
            settings={},
            seconds={},
            errors=[*crashes, *unknown_values(figures)],
        )

    x, y, _ = draw(4)
    monkeypatch.setattr(saliency_part, "measure", measured)
    task = SimpleNamespace(model=None, x=x, y=y, right=y == y, log=Log(0))
    maps = MapSettings(epsilon=0.1, norm="linf", input_range=(0.0, 1.0), batch_size=8)
    for expected, crashes[:] in ((1, []), (2, ["sanity: MemoryError"])):
        runs.clear()
        task.cache = ResultCache(tmp_path / str(expected), {})
        for _ in range(2):
            saliency_part.measure_saliency(task, maps)
        assert len(runs) == expected


def test_maps_that_were_measured_differently_are_told(found):
    x, y, _ = draw()
    settings = SETTINGS | {"parts": ["sparsity"]}
    one = evaluate_saliency({"a": detector()}, x, y, **settings)
    smaller = settings | {"batch_size": 7}
    same = evaluate_saliency({"b": detector()}, x, y, **smaller)
    assert compare([*one.reports, *same.reports]).warnings == []
    for other in (
        evaluate_saliency({"b": detector()}, x, y, **settings, method="occlusion"),
        evaluate_saliency({"b": detector()}, x[1:], y[1:], **settings),
    ):
        (told,) = [
            warning
            for warning in compare([*one.reports, *other.reports]).warnings
            if "maps" in warning
        ]
        assert "do not compare" in told


def test_only_what_all_models_get_right_is_explained():
    x, y, _ = draw()
    wrong = detector()
    kernel = wrong.get_weights()[0]
    wrong.set_weights([kernel[:, [1, 0, 2]]])
    settings = SETTINGS | {"parts": ["sparsity"]}
    report = evaluate_saliency({"a": detector(), "b": wrong}, x, y, **settings)
    right = int((y == 2).sum())
    assert report["a"].images == report["b"].images == right
    assert [r.clean.correct for r in report.reports] == [20, right]
    assert report.reports[0].data["explained"] == right
    with pytest.raises(ValueError, match="No example is classified rightly"):
        evaluate_saliency({"b": wrong}, x[y < 2], y[y < 2], **settings)


def test_a_relu_network_is_attacked_with_borrowed_curvature():
    x, _, _ = draw(6)
    net = network("relu", 1)
    y = np.argmax(net(x), -1)
    settings = SETTINGS | {"parts": ["saliency_attack"]}
    record = evaluate_saliency({"net": net}, x, y, **settings)["net"]
    assert record.errors == []
    # Its own second derivatives are zero: without a stand-in the maps would stay.
    assert record.figure("Rank correlation", "saliency attack").mean < 1.0


@pytest.mark.slow
def test_features_and_callables():
    x, w = np.random.default_rng(0).random((2, 20, 20), dtype=np.float32)
    w = w[:, :CLASSES] - 0.5
    settings = SETTINGS | {"baselines": ["zero"]}
    y = (x @ w).argmax(-1)
    record = evaluate_saliency({"f": lambda x: x @ w}, x, y, **settings)["f"]
    assert record.errors == []
    metrics = {figure.metric for figure in record.figures}
    assert {"Deletion", "Gini index", "Rank correlation"} < metrics
    assert not metrics & {"SSIM", "Same map with shuffled weights", "Pointing game"}


def test_methods_with_settings():
    record = some(detector(), "sparsity", method=SmoothGrad(samples=2))
    assert record.method == "SmoothGrad"
    assert record.settings["method"]["samples"] == 2


def test_a_crash_loses_one_part(monkeypatch):
    def crash(context):
        raise RuntimeError("out of luck")

    monkeypatch.setitem(MEASURES, "sparsity", crash)
    record = some(detector(), "sanity", "sparsity")
    assert record.errors == ["sparsity: RuntimeError: out of luck"]
    assert record.figure("Same map with shuffled weights", "all layers").images == 20
    with pytest.raises(KeyError, match="Gini"):
        record.figure("Gini index")


def test_files_hold_everything(found, tmp_path):
    for suffix in ("json", "md", "html"):
        found.save(tmp_path / f"maps.{suffix}")
    assert SaliencyReport.load(tmp_path / "maps.json") == found
    assert isinstance(Comparison.load(tmp_path / "maps.json"), Comparison)
    document = json.loads((tmp_path / "maps.json").read_text())
    first = document["reports"][0]
    assert first["saliency"]["settings"]["seed"] == 0
    assert first["saliency"]["seconds"]["total"] > 0
    assert "tensorflow" in first["versions"]
    for suffix in ("md", "html"):
        text = (tmp_path / f"maps.{suffix}").read_text()
        assert all(word in text for word in ("detector", "Gini index", "SSIM"))


def test_joins_the_report_of_an_evaluation(found, tmp_path):
    x, y, _ = draw()
    settings = {"attacks": [FGSM(epsilon=0.1)], "epsilons": [0.1], "examples": 0}
    settings |= {"diagnostics": False, "epsilon": 0.1, "batch_size": 8}
    chosen = {"attack_steps": 3, "parts": ["sparsity", "pgd"]}
    net = detector()
    report = evaluate_robustness(net, x, y, saliency=chosen, resume=tmp_path / "parts", **settings)
    assert report.errors == []
    assert report.settings["saliency"]["attack_steps"] == 3
    # Boxes and teacher apart, the same figures as alone.
    known = {(f.metric, f.condition): f for f in found["detector"].figures}
    for figure in report.saliency.figures:
        assert known[figure.metric, figure.condition] == figure
    again = evaluate_robustness(net, x, y, saliency=chosen, resume=tmp_path / "parts", **settings)
    assert again.saliency == report.saliency
    report.save(tmp_path / "report.json")
    assert Report.load(tmp_path / "report.json") == report
    without = dataclasses.replace(report, saliency=None)
    joined = without.with_saliency(found["detector"])
    assert "The gradient maps of 20 examples" in joined.summary()


def test_bad_calls_are_refused():
    x, y, _ = draw()
    net = detector()
    for changes, words in (
        ({"models": net}, "expected a dictionary of models"),
        ({"models": {}}, "at least one"),
        ({"method": "guess"}, "Unknown `method`"),
        ({"baselines": ("black",)}, "baselines"),
        ({"parts": ["speed"]}, "parts"),
        ({"top": 1.0}, "`top` is out of range"),
        ({"epsilon": 0.0}, "`epsilon` is out of range"),
        ({"epsilon": 1.5}, "`epsilon` is too large"),
        ({"epsilon": None}, "`epsilon` is None"),
        ({"steps": 0}, "`steps` is out of range"),
        ({"stepz": 3}, "unexpected keyword argument 'stepz'"),
        ({"seed": -1}, "`seed` is out of range"),
        ({"boxes": np.zeros((20, 3))}, "`boxes` does not fit"),
        ({"boxes": np.tile([3, 0, 3, 5], (20, 1))}, "0 <= x0 < x1 <= 12"),
        ({"teacher": lambda x: x[:, 0, :2, 0]}, "has 2 classes"),
        ({"y": None}, "`y` is None"),
    ):
        call = {"models": {"net": net}, "x": x, "y": y} | SETTINGS | changes
        with pytest.raises((ValueError, TypeError), match=words):
            evaluate_saliency(**call)
    for saliency, words in (
        ("yes", "expected True, False or a dictionary"),
        ({"epsilon": 0.2}, "which the evaluation has already"),
        ({"stepz": 2}, "got 'stepz', expected.*'steps'"),
        ({"verbose": 0}, "got 'verbose'"),
        ({"method": "guess"}, "Unknown `method`"),
    ):
        with pytest.raises((ValueError, TypeError), match=words):
            evaluate_robustness(net, x[:4], y[:4], 0.1, saliency=saliency)


def test_both_kinds_of_noise_are_as_long():
    """On images with many values at the ends of the range, as on black ones."""
    for dtype in ["float16", "float32"]:
        x = np.clip(np.random.default_rng(7).uniform(-1, 2, (6, 5, 5, 1)), 0, 1).astype(dtype)
        settings = SimpleNamespace(norm="linf", epsilon=0.3, input_range=(0, 1), seed=0)
        context = SimpleNamespace(settings=settings, x=x)
        lengths = []
        for noise in (uniform_noise, gaussian_noise):
            points = noise(context)
            assert points.dtype == x.dtype
            assert points.min() >= 0
            assert points.max() <= 1
            change = points.astype("float64") - x.astype("float64")
            lengths.append(np.sqrt(np.square(change).sum((1, 2, 3))))
        np.testing.assert_allclose(*lengths, rtol=2e-3 if dtype == "float16" else 1e-5)


def test_mean_and_error_are_those_of_scipy():
    values = np.random.default_rng(0).normal(size=30)
    figure = figure_of(values, "group", "metric", better="lower")
    assert figure.mean == pytest.approx(values.mean())
    assert figure.error == pytest.approx(scipy.stats.sem(values))
    half = (figure.high - figure.low) / 2
    assert half == pytest.approx(scipy.stats.norm.ppf(0.975) * figure.error)
    assert figure.images == 30


def test_only_what_is_used_counts():
    figure = figure_of([1.0, 2.0, 9.0], "group", "metric", used=[True, True, False])
    assert (figure.mean, figure.images) == (1.5, 2)
    for count, mean in ((0, None), (1, 4.0)):
        few = figure_of([4.0, 5.0], "group", "metric", used=np.arange(2) < count)
        assert (few.mean, few.error, few.low, few.high) == (mean, *[None] * 3)


def test_what_is_no_number_is_counted_and_left_out():
    values = [1.0, np.nan, 3.0, np.inf, 8.0, np.nan]
    figure = figure_of(values, "group", "metric", used=np.arange(6) < 5, known=np.arange(6) != 4)
    assert (figure.mean, figure.images, figure.unknown) == (2.0, 2, 3)
    assert figure.error == pytest.approx(1.0)
    none = figure_of([np.nan], "group", "metric", "blur")
    assert (none.mean, none.images, none.unknown) == (None, 0, 1)
    (words,) = unknown_values([figure, figure_of([1.0], "group", "whole"), none])
    assert words.endswith("do not count: metric 3 of 5; metric (blur) 1 of 1.")
    assert unknown_values([figure_of([1.0], "group", "whole")]) == []


def test_figures_of_before_the_count():
    figure = figure_of([1.0, 3.0], "group", "metric")
    document = to_json(figure)
    del document["unknown"]
    assert from_json(SaliencyFigure, document) == figure


W = np.random.default_rng(0).normal(size=(6, 3)).astype("float32")


def logits(x):
    return x @ W


@pytest.fixture
def x_kept_label_pgd():
    return np.random.default_rng(1).uniform(0.3, 0.7, (40, 6)).astype("float32")


def test_stops_where_the_class_would_be_lost(x_kept_label_pgd):
    for norm in ["linf", "l2"]:
        y = logits(x_kept_label_pgd).argmax(-1)
        epsilon = {"linf": 0.05, "l2": 0.1}[norm]
        settings = {"epsilon": epsilon, "norm": norm, "step_size": epsilon / 2}
        expected = x_kept_label_pgd.copy()
        for steps in range(1, 4):
            # Not kept by the plain attack: its iterates, whether they fool or not.
            point = BIM(steps=steps, **settings)(logits, x_kept_label_pgd, y)
            kept = logits(point).argmax(-1) == y
            expected[kept] = point[kept]
        found = KeptLabelPGD(steps=3, **settings)(logits, x_kept_label_pgd, y)
        assert np.all(logits(found).argmax(-1) == y)
        safe = logits(BIM(steps=3, **settings)(logits, x_kept_label_pgd, y)).argmax(-1) == y
        assert 5 < safe.sum() < 35
        # Where the plain attack succeeds, it returns a point that fools, and not its last.
        np.testing.assert_allclose(found[safe], expected[safe], atol=1e-6)
        order = {"linf": np.inf, "l2": 2}[norm]
        moved = np.linalg.norm(found - x_kept_label_pgd, order, axis=1)
        assert np.all(moved <= epsilon * (1 + 1e-4))
        assert np.all(moved[safe] > epsilon / 2)
        assert np.mean(moved[~safe] > 0) > 0.3


def test_returns_the_input_where_the_first_step_loses_it():
    x = np.array([[0.5, 0.51]], "float32")
    found = KeptLabelPGD(epsilon=0.2, step_size=0.1)(lambda x: x, x, [1])
    np.testing.assert_array_equal(found, x)
