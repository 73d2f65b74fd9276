"""What the words claim."""

import dataclasses

import pytest

from keras_jsigr.evaluation.page.compared import compared
from keras_jsigr.evaluation.page.labels import labels
from keras_jsigr.evaluation.page.transfer import (
    strongest_source,
    strongest_transfer,
)
from keras_jsigr.evaluation.rate import Rate
from keras_jsigr.evaluation.records import TransferRecord


def changed(report, **parts):
    return dataclasses.replace(report, **parts)


def pair(foreign, home, epsilon=0.1, total=1000):
    return [
        TransferRecord(
            source=source,
            target="mine",
            attack="PGD",
            epsilon=epsilon,
            accuracy=Rate(correct, total),
        )
        for source, correct in (("mine", home), ("other", foreign))
    ]


def test_says_what_was_attacked_how(report):
    words = report.summary()
    assert "6 attacks, APGD-CE, APGD-T, FAB-T, Square, Transfer (MI-FGSM) and" in words
    assert "at most 0.1 in the L∞ norm" in words
    assert "1,000 examples" in words
    assert "92.0 % are classified rightly (95 % interval 90.2\u201393.5 %)" in words
    assert "41.2 % remain right (95 % interval 38.2\u201344.3 %)" in words
    assert "Attacks that were not run may break more" in words
    assert "Not without errors: Square" in words


@pytest.mark.parametrize(
    ("kept", "words"),
    [
        (412, "Guessing would give 15.0 %"),
        (150, "Guessing would do as well: 15.0 %"),
        (14, "Guessing would be right more often: 15.0 %"),
    ],
)
def test_compares_with_guessing(make_report, kept, words):
    assert words in make_report(kept=kept).summary()


@pytest.mark.parametrize(
    ("foreign", "home", "words"),
    [
        (700, 430, "Access makes the attack stronger, as it should."),
        (430, 700, "gradients mislead, and the accuracy under attack is overestimated"),
        (430, 440, "access makes no clear difference"),
    ],
)
def test_says_what_transfer_means(report, foreign, home, words):
    transfer = pair(foreign, home)
    assert words in changed(report, transfer=transfer).summary()


@pytest.mark.parametrize("marked", [True, False])
def test_the_union_of_all_sources_is_no_match_for_one_attack(report, marked):
    """Each source is weaker than access; only all of them together are not."""
    shares = {"mine": 430, "one": 500, "two": 520, "ensemble": 540}
    alone = [
        TransferRecord(
            source=source,
            target="mine",
            attack="PGD",
            epsilon=0.1,
            accuracy=Rate(correct, 1000),
        )
        for source, correct in shares.items()
    ]
    # Earlier versions did not mark the row.
    union = dataclasses.replace(
        alone[0], source="any surrogate", accuracy=Rate(300, 1000), union=marked
    )
    found = changed(report, transfer=[*alone, union])
    assert strongest_transfer(found).source == "any surrogate"
    assert strongest_source(found).source == "one"
    words = found.summary()
    assert "30.0 % right at worst (PGD against any surrogate)" in words
    assert "best single source 50.0 % (PGD against one); with access" in words
    assert "Access makes the attack stronger, as it should." in words
    assert "mislead" not in words
    # Who calls a model so is not misunderstood.
    only = changed(report, transfer=[alone[0], dataclasses.replace(union, union=False)])
    assert strongest_source(only).source == "any surrogate"
    assert "gradients mislead" in only.summary()


def test_transfer_below_the_suite_lowers_the_claim(report):
    words = changed(report, transfer=pair(300, 430)).summary()
    assert "its accuracy under attack is at most 30.0 %" in words
    words = changed(report, transfer=pair(413, 430)).summary()
    assert "at most 41.3 %" not in words


def test_transfer_at_the_radius_of_the_threat_model_counts(report):
    transfer = pair(100, 90, epsilon=0.3) + pair(700, 430)
    assert strongest_transfer(changed(report, transfer=transfer)).epsilon == 0.1
    larger = changed(report, transfer=pair(100, 90, epsilon=0.3))
    assert "within 0.3 leave 10.0 %" in larger.summary()
    assert "under attack is at most" not in larger.summary()


def test_says_what_diagnostics_found(make_report):
    good, bad = make_report(), make_report(bad=True)
    assert "Of 2 rules of the diagnostics none found anything suspect" in good.summary()
    assert "1 found something suspect" in bad.summary()
    assert ": Gradients vanish." in bad.summary()
    assert "may be less robust than the figures say" in bad.summary()
    skipped = [f for f in good.findings if f.status == "skipped"]
    only = changed(good, findings=skipped)
    assert "The diagnostics could not be run" in only.summary()


def test_says_what_is_missing(bare, report):
    words = bare.summary()
    assert "No attack was run" in words
    assert "Transfer from other models was not measured." in words
    assert "No diagnostics were run." in words
    broken = changed(report, errors=["The curve crashed."])
    assert "Not everything worked: The curve crashed." in broken.summary()


def test_compared_ranks_and_warns(make_report):
    close = [make_report("A", kept=400), make_report("B", kept=412)]
    words = " ".join(compared(close))
    assert (
        "Under attack B remains right most often, 41.2 % of the time; A 40.0 %" in words
    )
    assert "The intervals of B and A overlap" in words
    far = " ".join(compared([make_report("A", kept=100), make_report("B", kept=412)]))
    assert "overlap" not in far
    other = changed(close[1], threat_model={"norm": "l2", "epsilon": 0.1})
    words = " ".join(compared([close[0], other]))
    assert "do not compare directly" in words
    assert "most often" not in words
    assert compared([close[0]]) == []


def test_labels_are_unique(make_report):
    report = make_report("A")
    assert labels([report, make_report("B")]) == ["A", "B"]
    titled = changed(report, title="Another")
    assert labels([report, titled]) == ["A", "Another"]
    assert labels([report, report]) == ["1. A", "2. A"]
    twin = changed(make_report("B"), title="A")
    assert labels([report, twin]) == ["A", "B"]
