import numpy as np
import pytest
import scipy.stats

from keras_jsigr.evaluation.interpretability.column_program import ColumnProgram
from keras_jsigr.evaluation.interpretability.figures import figure_of, unknown_values
from keras_jsigr.evaluation.json_codec import from_json, to_json
from keras_jsigr.evaluation.saliency_records import SaliencyFigure


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


def test_what_is_no_number_is_counted_and_left_out():
    values = [1.0, np.nan, 3.0, np.inf, 8.0, np.nan]
    figure = figure_of(
        values, "group", "metric", used=np.arange(6) < 5, known=np.arange(6) != 4
    )
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


@pytest.mark.parametrize(("count", "mean"), [(0, None), (1, 4.0)])
def test_too_few_examples_have_no_interval(count, mean):
    figure = figure_of([4.0, 5.0], "group", "metric", used=np.arange(2) < count)
    assert (figure.mean, figure.error, figure.low, figure.high) == (mean, *[None] * 3)


def test_columns_go_through_in_batches_with_one_trace():
    sizes = []

    def double(a, b):
        sizes.append(a.shape.as_list())
        return a * b

    program = ColumnProgram(double, 4)
    a, b = np.arange(10.0), np.arange(10.0)[::-1].copy()
    np.testing.assert_array_equal(program(a, b), a * b)
    np.testing.assert_array_equal(program(a[:3], b[:3]), (a * b)[:3])
    assert sizes == [[None]]
