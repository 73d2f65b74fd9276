"""Which networks the studies train, and in which order."""

import re
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import keras
import networks as nets
import numpy as np
import pytest
import study
import study_networks
import study_page as page
from networks import reference_net
from store import Store
from study_networks import RUNGS, Bank, at_radius, load_data, load_methods

import keras_jsigr as kj

METHODS = load_methods()


def bank_of(folder, rung="reference", **options):
    common = {"cache": folder, "jobs": 2, "images": 8, "skip": 0, "quick": False}
    return Bank(RUNGS[rung], Namespace(**{**common, **options}))


def weights(recipe):
    settings = recipe["settings"]
    return settings["jacobian_weight"], settings["selective_weight"]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, (0.0025, 0.0075)),
        ({"jacobian_weight": 0.1, "norm": "squared"}, (0.025, 0.00375)),
        ({"jacobian_weight": 0.1, "form": "separate"}, (0.025, 0.0075)),
    ],
)
def test_weights_follow_the_radius(settings, expected):
    recipe = {"defence": "harden", "settings": settings}
    assert weights(at_radius(recipe, 0.05)) == pytest.approx(expected)
    assert at_radius(recipe, 0.1) == recipe


def test_other_defences_have_no_weights():
    recipe = {"defence": "TRADES-10", "beta": 6.0}
    assert at_radius(recipe, 0.05) == recipe


def test_a_preset_is_spelt_out():
    recipe = {"defence": "harden", "preset": "fast", "settings": {"noise": 0.01}}
    found = at_radius(recipe, 0.05)
    assert found["settings"] == kj.preset("fast", epsilon=0.05) | {"noise": 0.01}
    assert "preset" not in found
    times = at_radius(recipe | {"times": 2.0}, 0.05)
    assert weights(times) == pytest.approx([2 * w for w in weights(found)])
    assert times.keys() == found.keys()
    wider = at_radius(recipe | {"wider": 1.5, "settings": {}}, 0.05)
    assert wider["settings"] == kj.preset("fast", epsilon=0.05 * 1.5)
    assert wider.keys() == found.keys()


def test_files_are_named_after_what_networks_are(tmp_path):
    bank, smaller = bank_of(tmp_path), bank_of(tmp_path, quick=True)
    names = {
        each.file_of(name, seed).name
        for each in (bank, smaller)
        for name in ("plain", "j_sigr")
        for seed in (0, 1)
    }
    assert len(names) == 8
    assert bank.stems_of([("plain", 0)]) == [bank.file_of("plain", 0).stem]


def test_examples_of_transfer_may_be_made_on_another_rung(tmp_path):
    bank, madry = bank_of(tmp_path), bank_of(tmp_path, rung="madry")
    assert bank.surrogates is bank
    assert madry.surrogates.stems_of([("plain", 1000)]) == bank.stems_of(
        [("plain", 1000)]
    )


def test_a_longer_method_has_more_epochs(tmp_path):
    bank = bank_of(tmp_path)
    assert bank.recipe_of("plain", 0)["epochs"] == 15
    assert bank.recipe_of("j_sigr_long", 0)["epochs"] == 40


@pytest.fixture
def stages(monkeypatch):
    found = []
    monkeypatch.setattr(
        study_networks, "side_by_side", lambda parts, _: found.append(parts)
    )
    return found


def test_teachers_come_first_and_nothing_twice(tmp_path, stages):
    bank = bank_of(tmp_path, rung="swish")
    bank.fill([("j_sigr_hard", 3), ("j_sigr_hard", 3), ("plain", 0)])
    own = ["--rung", "swish", "--train"]
    assert stages == [
        [[*own, "plain", "3"], [*own, "plain", "0"]],
        [[*own, "j_sigr_hard", "3"]],
    ]


def test_long_trainings_start_first(tmp_path, stages):
    names = ["plain", "fgsm_rs", "pgd_7", "trades_10", "j_sigr_fgsm_rs", "jacobian"]
    bank_of(tmp_path).fill([(name, 0) for name in [*names, "j_sigr_long"]])
    order = [[part[-2] for part in stage] for stage in stages]
    assert order[0][:2] == ["trades_10", "pgd_7"]
    assert order[0][-1] == "plain"
    assert order[1] == ["j_sigr_long", "j_sigr_fgsm_rs"]


def test_what_is_trained_stays(tmp_path, stages):
    bank = bank_of(tmp_path)
    bank.file_of("plain", 0).write_text("trained before")
    bank.fill([("plain", 0), ("plain", 1)])
    assert stages == [[["--rung", "reference", "--train", "plain", "1"]], []]


def test_slow_networks_are_attacked_on_fewer_images(tmp_path):
    assert bank_of(tmp_path, images=1000).chosen == {"images": 1000}
    assert bank_of(tmp_path, "madry", images=1000).chosen == {"images": 500}
    assert bank_of(tmp_path, "madry", images=32).chosen == {"images": 32}


def test_other_images_may_be_attacked(tmp_path):
    options = {"quick": True, "data_dir": None, "archive": None}
    first, later = (bank_of(tmp_path, skip=skip, **options) for skip in (0, 8))
    assert later.chosen == {"images": 8, "skip": 8}
    for start, bank in ((0, first), (8, later)):
        x, y = bank.test_images
        np.testing.assert_array_equal(x, bank.data.x_test[start : start + 8])
        np.testing.assert_array_equal(y, bank.data.y_test[start : start + 8])


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_trains(name, tmp_path):
    data = kj.datasets.load("fashion_mnist", verbose=False)
    own = at_radius(METHODS[name].recipe, nets.EPSILON)
    recipe = nets.RECIPES["plain"] | own | {"epochs": 1, "images": 256}
    before = reference_net("silu", recipe["seed"]).get_weights()
    path = tmp_path / "net.keras"
    net = nets.train(recipe, data, path, teacher=lambda: reference_net("silu", 1))
    assert isinstance(net, keras.Sequential)
    assert net.output_shape == (None, 10)
    moved = [
        np.abs(a - b).max() for a, b in zip(before, net.get_weights(), strict=True)
    ]
    assert min(moved) > 0
    assert all(np.isfinite(w).all() for w in net.get_weights())


def robust(suite, robust=50.0, images=500):
    return {"clean": 80.0, "robust": robust, "suite": suite, "images": images}


@pytest.mark.parametrize(
    ("suite", "column"), [("standard", "| 50.0 |"), ("APGD-CE, APGD-T", "| 50.0* |")]
)
def test_a_star_tells_that_attacks_are_missing(suite, column):
    table = page.table(
        RUNGS["relu"], {"robust/j_sigr/0": robust(suite)}, load_methods()
    )
    assert column in table
    assert "80.0*" not in table


def test_a_star_stands_where_one_seed_misses_attacks():
    cells = {
        "robust/j_sigr/0": robust("standard", 40.0),
        "robust/j_sigr/1": robust("APGD-CE, APGD-T", 60.0),
    }
    assert "50.0 (40.0 to 60.0)*" in page.table(RUNGS["relu"], cells, METHODS)


def test_the_images_are_counted():
    cells = {
        "robust/plain/0": robust("standard"),
        "maps/plain/0": {"images": 123},
        "robust/plain/1": robust("standard", images=1000),
    }
    assert page.images_of(cells) == "500 or 1,000"


def test_the_source_that_all_defences_share():
    transfer = {"once": 70.0, "twice": 50.0, "twice, by source": {"plain": 66.6}}
    cells = {"robust/j_sigr/0": robust("standard"), "transfer/j_sigr/0": transfer}
    assert "| 70.0 | 50.0 | 66.6 | - |" in page.table(
        RUNGS["relu"], cells, load_methods()
    )
    assert page.figure_at({"a": {"b": 0.0}}, ("a", "b")) == 0.0
    assert page.figure_at({}, ("a", "b")) is None


def test_only_what_has_figures_is_drawn(tmp_path):
    cells = {
        "robust/j_sigr/0": robust("standard"),
        "robust/plain/0": robust("standard"),
    }
    links = page.draw(RUNGS["relu"], cells, METHODS, tmp_path)
    assert "study-relu-frontier.svg" in links
    assert "cost" not in links
    assert [each.name for each in tmp_path.iterdir()] == ["study-relu-frontier.svg"]


def test_who_was_diagnosed_is_said():
    cells = {"robust/fgsm_rs/0": robust("APGD-CE, APGD-T")}
    assert page.findings(cells, METHODS) == "None of them was diagnosed."
    cells["robust/j_sigr/0"] = robust("standard") | {"suspect": {}}
    said = "Diagnosed: J-SIGR, default."
    assert page.findings(cells, METHODS) == f"{said} Nothing is suspect."
    cells["robust/j_sigr/1"] = robust("standard") | {"suspect": {"rule": "why"}}
    assert page.findings(cells, METHODS).splitlines() == [
        f"{said} Suspect is:",
        "",
        "- J-SIGR, default: `rule`: why",
    ]


def test_the_length_of_a_training_is_that_of_its_rung():
    cells = {"robust/plain/0": robust("standard"), "step/plain/0": {"ratio": 1.04}}
    for rung, epochs in (("reference", 15), ("madry", 5), ("tiny", 30)):
        assert f"| plain | 1 | {epochs} | 1.0x |" in page.table(
            RUNGS[rung], cells, load_methods()
        )


def test_what_is_held_out_says_so(tmp_path):
    cells = {"robust/plain/0": robust("standard"), "step/plain/0": {"ratio": 1.0}}
    judged = [page.Judged(RUNGS["relu"], cells, skip) for skip in (0, 3000)]
    page.write_page(judged, METHODS, tmp_path)
    _, first, held_out = (tmp_path / "study.md").read_text().split("\n## ")[:3]
    title = RUNGS["relu"].title
    assert first.startswith(f"{title}\n\nEpsilon 0.1, 500 test images. ")
    opening = (
        f"Held out: {title}\n\nEpsilon 0.1, 500 test images after the first 3,000. "
    )
    assert held_out.startswith(opening)
    assert first.count("images/study-") == 2
    assert "images/study-" not in held_out


def test_the_page_is_made_of_the_figures(tmp_path):
    methods = METHODS
    of = {"suite": "standard", "images": 1000}
    cells = {
        "step/plain/0": {"ratio": 1.0},
        "robust/plain/0": {"clean": 91.0, "robust": 0.0, "suspect": {}, **of},
        "step/j_sigr/0": {"ratio": 2.04},
        "robust/j_sigr/0": {
            "clean": 86.0,
            "robust": 60.0,
            "suspect": {"rule": "why"},
            **of,
        },
        "robust/j_sigr/1": {"clean": 87.0, "robust": 62.0, "suspect": {}, **of},
        "pgd/j_sigr/1": {"pgd": 65.2},
        "maps/j_sigr/0": {"own": 0.4, "teacher": 0.3, "gini": 0.5},
    }
    rung = RUNGS["reference"]
    page.write_page([page.Judged(rung, cells)], methods, tmp_path)
    text = (tmp_path / "study.md").read_text()
    row = next(
        line for line in text.splitlines() if line.startswith("| J-SIGR, default |")
    )
    figures = "| 86.5 (86.0 to 87.0) | 65.2 | 61.0 (60.0 to 62.0) |"
    assert f"| 2 | 15 | 2.0x {figures}" in row
    assert "| 0.400 | 0.300 | 0.500 |" in row
    assert "J-SIGR, default: `rule`: why" in text
    assert "Epsilon 0.1, 1,000 test images." in text
    for plot in ("study-reference-frontier", "study-reference-cost"):
        svg = (tmp_path / "images" / f"{plot}.svg").read_text()
        assert "2 J-SIGR, default" in re.sub(r"\s+", " ", svg)
        assert "plain: 0.0 at" in svg
    cells["step/j_sigr_long/0"] = {"ratio": 2.0}
    costs = {name: page.cost(cells, method) for name, method in methods.items()}
    known = {name: costs[name] for name in ("plain", "j_sigr", "j_sigr_long")}
    # Forty epochs for fifteen.
    assert known == pytest.approx({"plain": 1, "j_sigr": 2.04, "j_sigr_long": 5.334})
    assert costs["pgd_7"] is None


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNGS)
def test_takes_its_images(name):
    rung = RUNGS[name]
    shape = (64, 64, 3) if rung.recipe["source"] == "tiny_imagenet10" else (28, 28, 1)
    net, _ = nets.untrained(nets.RECIPES["plain"] | rung.recipe)
    assert net(np.zeros((2, *shape), np.float32)).shape == (2, 10)
    # What adversaries are given.
    assert rung.recipe.get("epsilon", nets.EPSILON) == rung.epsilon


@pytest.mark.slow
def test_tiny_imagenet_needs_its_archive():
    with pytest.raises(
        ValueError, match=r"Got no archive .*'colour', expected --archive"
    ):
        load_data(RUNGS["colour"], None, None, quick=True)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "results.json"


def test_cells_outlive_the_program(path):
    Store(path, {"images": 8}).put("robust/plain/0", {"clean": 90.0})
    again = Store(path, {"images": 8})
    assert again.cells == {"robust/plain/0": {"clean": 90.0}}
    assert again.has("robust/plain/0")
    assert not again.has("robust/plain/1")


def test_programs_share_a_file(path):
    first, second = Store(path, {}), Store(path, {})
    first.put("robust/plain/0", {"clean": 90.0})
    second.put("robust/plain/1", {"clean": 91.0})
    assert second.has("robust/plain/0")
    assert set(Store(path, {}).cells) == {"robust/plain/0", "robust/plain/1"}


WRITER = """
import sys
sys.path.append(sys.argv[1])
from pathlib import Path
from judges.store import Store
store = Store(Path(sys.argv[2]), {})
for i in range(20):
    store.put(f"{sys.argv[3]}/{i}", {"clean": 90.0})
"""


@pytest.mark.slow
def test_programs_that_write_at_once_lose_nothing(path):
    folder = Path(__file__).parents[2] / "benchmarks"
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(folder), str(path), name])
        for name in ("first", "second")
    ]
    assert [writer.wait() for writer in writers] == [0, 0]
    assert len(Store(path, {}).cells) == 40


def test_cells_of_other_settings_stay(path):
    Store(path, {"images": 8}).put("robust/plain/0", {"clean": 90.0})
    before = path.read_bytes()
    with pytest.raises(ValueError, match="figures of other settings"):
        Store(path, {"images": 16})
    assert path.read_bytes() == before


def test_tuples_come_back_as_lists_and_are_the_same(path):
    store = Store(path, {"sizes": (2, 4)})
    store.put("time/a", {"ratio": 2.0}, of=("a", 1))
    assert store.has("time/a", ("a", 1))
    again = Store(path, {"sizes": (2, 4)})
    assert again.has("time/a", ("a", 1))
    assert again.has("time/a", ["a", 1])
    assert not again.has("time/a", ("a", 2))


def test_an_error_is_tried_again(path):
    store = Store(path, {})
    store.put("attack", {"error": "out of memory"})
    assert not store.has("attack")


def test_a_cell_is_stale_when_its_network_is_another(path):
    Store(path, {}).put("robust/plain/0", {"clean": 90.0}, of=["plain-0-1f2e"])
    again = Store(path, {})
    assert again.has("robust/plain/0", ["plain-0-1f2e"])
    assert not again.has("robust/plain/0", ["plain-0-aaaa"])
    assert not again.has("robust/plain/0")


def test_only_current_cells_are_shown(path):
    store = Store(path, {})
    for name in ("plain/0", "plain/1", "gone/0"):
        store.put(name, {"clean": 90.0}, of=[name])
    networks = {"plain/0": ["plain/0"], "plain/1": ["trained anew"]}
    assert list(store.current(networks.get)) == ["plain/0"]
    # What is stale stays on disk until it is measured anew.
    assert set(Store(path, {}).cells) == {"plain/0", "plain/1", "gone/0"}


def test_what_is_there_is_not_measured_again(path):
    store, calls = Store(path, {}), []

    def figures():
        calls.append(1)
        return {"clean": 90.0 + len(calls)}

    for networks in (["a"], ["a"], ["b"]):
        store.measure("plain/0", figures, of=networks)
    assert store.cells == {"plain/0": {"of": ["b"], "clean": 92.0}}


def options_of(monkeypatch, tmp_path, *more):
    call = ["study.py", "--methods", "plain", "--seeds", "1", *more]
    monkeypatch.setattr(sys, "argv", [*call, "--cache", str(tmp_path)])
    return study.parse_options()


def test_what_is_measured_is_not_trained_again(monkeypatch, tmp_path):
    done = []
    monkeypatch.setattr(Bank, "fill", lambda self, members: done.append(members))
    monkeypatch.setattr(
        Bank, "side_by_side", lambda self, option, members: done.append(members)
    )
    parts = ["--parts", "robust", "pgd", "transfer", "maps"]
    options = options_of(monkeypatch, tmp_path, *parts)
    study.run(Bank(RUNGS["reference"], options), options)
    assert done == []  # the published figures
    again = ["--out", str(tmp_path / "again.json")]
    options = options_of(monkeypatch, tmp_path, *parts, *again)
    study.run(Bank(RUNGS["reference"], options), options)
    trained, measured = done
    assert measured == [("plain", 0)]
    assert trained[:2] == [("plain", study.TEACHER_SEED), ("plain", 0)]
    assert len(trained) == 2 + len(study.SURROGATES)


def test_figures_in_a_file_of_their_own_are_not_published(monkeypatch, tmp_path):
    def never(*args):
        raise AssertionError("the page was written")

    monkeypatch.setattr(study.page, "write_page", never)
    again = ["--out", str(tmp_path / "again.json"), "--table"]
    options_of(monkeypatch, tmp_path, *again)
    study.main()


def test_images_that_nothing_was_chosen_on(monkeypatch, tmp_path):
    options = options_of(monkeypatch, tmp_path, "--held-out")
    assert (options.out.name, options.skip) == ("held_out.json", study.HELD_OUT)
    assert study.PUBLISHED[options.out] == options.skip
    options = options_of(monkeypatch, tmp_path, "--held-out", "--quick")
    assert (options.out.name, options.skip) == ("held_out-quick.json", 0)


def test_the_page_is_made_of_all_that_is_published(monkeypatch, tmp_path):
    def cells(self, of):
        part = self.path.stem
        return {"robust/plain/0": {"of": part}, "step/plain/0": {"of": part}}

    monkeypatch.setattr(study.Store, "current", cells)
    judged = study.judged_of(options_of(monkeypatch, tmp_path, "--table"))
    assert len(judged) == 2 * len(study.RUNGS)
    first, held_out = judged[:2]
    assert (first.skip, held_out.skip) == (0, study.HELD_OUT)
    assert first.cells["robust/plain/0"] == {"of": "study"}
    assert held_out.cells["robust/plain/0"] == {"of": "held_out"}
    other = ["--table", "--out", str(tmp_path / "other.json"), "--skip", "7"]
    judged = study.judged_of(options_of(monkeypatch, tmp_path, *other))
    assert [each.skip for each in judged] == [7] * len(study.RUNGS)


def test_steps_are_those_of_the_study(monkeypatch, tmp_path):
    def cells(self, of):
        held_out = self.path.stem.startswith("held_out")
        return {"robust/plain/0": {}} | ({} if held_out else {"step/plain/0": {}})

    monkeypatch.setattr(study.Store, "current", cells)
    for each in study.judged_of(options_of(monkeypatch, tmp_path, "--table")):
        assert set(each.cells) == {"robust/plain/0", "step/plain/0"}


def test_images_that_are_not_there(monkeypatch, tmp_path):
    options = options_of(monkeypatch, tmp_path, "--quick", "--skip", "2000")
    with pytest.raises(ValueError, match="--skip 2000, expected less than the 2000"):
        _ = Bank(study.RUNGS["reference"], options).test_images
