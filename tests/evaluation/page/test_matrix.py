"""Transfer tables: nothing lost, nothing mixed."""

import dataclasses

import pytest

from keras_jsigr.evaluation.page.matrix import matrices, report_matrices


def test_every_record_has_its_cell(report):
    found = matrices(report.transfer)
    assert [(m.attack, m.epsilon) for m in found] == [
        ("MI-FGSM", 0.05),
        ("MI-FGSM", 0.1),
        ("NI-SI-TI-DIM", 0.05),
        ("NI-SI-TI-DIM", 0.1),
    ]
    for record in report.transfer:
        (matrix,) = [
            m for m in found if (m.attack, m.epsilon) == (record.attack, record.epsilon)
        ]
        assert matrix.cells[record.source, record.target] == record.accuracy
        assert record.source in matrix.sources
        assert record.target in matrix.targets
    assert sum(len(m.cells) for m in found) == len(report.transfer)


def test_white_box_is_the_diagonal(two_reports):
    ((place, found),) = report_matrices(two_reports)
    assert place is None
    for matrix in found:
        assert matrix.targets == ["Hardened", "Plain"]
        assert matrix.sources == ["Hardened", "Plain", "Wide"]


def test_equal_names_or_other_data_keep_reports_apart(report, two_reports):
    places = [place for place, _ in report_matrices([report, report])]
    assert places == [0, 1]
    other = dataclasses.replace(two_reports[1], data={"fingerprint": "other"})
    places = [place for place, _ in report_matrices([report, other])]
    assert places == [0, 1]


@pytest.mark.parametrize("other", ["other weights", ""])
def test_sources_of_one_name_are_one_row_only_if_they_are_one_model(two_reports, other):
    """Lists of callables are all called "surrogate 1", "surrogate 2", ..."""

    def with_source(report, fingerprint):
        transfer = [
            dataclasses.replace(r, fingerprint=fingerprint) if r.source == "Wide" else r
            for r in report.transfer
        ]
        return dataclasses.replace(report, transfer=transfer)

    one, two = two_reports
    one = with_source(one, "some weights")
    # Of one report alone nobody has to know.
    two = dataclasses.replace(
        two,
        transfer=[
            dataclasses.replace(r, source="Wide") if r.source == "Hardened" else r
            for r in two.transfer
        ],
    )
    apart = [place for place, _ in report_matrices([one, with_source(two, other)])]
    assert apart == [0, 1]
    together = report_matrices([one, with_source(two, "some weights")])
    assert [place for place, _ in together] == [None]
    # Not known of either: so in reports of earlier versions.
    both = [with_source(one, other), with_source(two, other)]
    places = [place for place, _ in report_matrices(both)]
    assert places == ([0, 1] if other == "" else [None])


def test_a_target_without_its_white_box_row_is_not_taken_for_another(report):
    """The rows of the model itself may have crashed; nothing collides then."""
    halves = [
        dataclasses.replace(
            report, transfer=[r for r in report.transfer if r.source == source]
        )
        for source in ("Plain", "Wide")
    ]
    assert [place for place, _ in report_matrices(halves)] == [0, 1]


def test_no_transfer_no_tables(bare, report):
    assert report_matrices([bare]) == []
    assert len(report_matrices([bare, report])) == 1
