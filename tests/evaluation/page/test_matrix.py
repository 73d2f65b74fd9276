"""Transfer tables: nothing lost, nothing mixed."""

import dataclasses

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


def test_no_transfer_no_tables(bare, report):
    assert report_matrices([bare]) == []
    assert len(report_matrices([bare, report])) == 1
