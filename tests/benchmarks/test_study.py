"""The study: what is trained, in which order, what is kept, and what the page shows."""

import json
import re
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import interpretability
import keras
import networks as nets
import numpy as np
import pytest
import study
import study_networks
import study_page as page
from networks import reference_net
from store import Store
from study_data import load_data
from study_networks import RUNGS, Bank, at_radius, load_methods

import keras_jsigr as kj

METHODS = load_methods()


def bank_of(folder, rung="reference", **options):
    common = {"cache": folder, "jobs": 2, "images": 8, "skip": 0, "quick": False}
    common |= {"weights": None, "validation": False}
    return Bank(RUNGS[rung], Namespace(**{**common, **options}))


def weights(recipe):
    config = kj.JSIGRConfig(**recipe["settings"])
    return config.jacobian_weight, config.selective_weight


def test_weights_follow_the_radius():
    for settings, expected in (
        ({}, (0.0025, 0.0075)),
        ({"jacobian_weight": 0.1, "norm": "squared"}, (0.025, 0.00375)),
        ({"jacobian_weight": 0.1, "selective_target": "score"}, (0.025, 0.0075)),
    ):
        recipe = {"defence": "harden", "settings": settings}
        assert weights(at_radius(recipe, 0.05)) == pytest.approx(expected)
    assert at_radius(recipe, 0.1) == recipe
    other = {"defence": "TRADES-10", "beta": 6.0}
    assert at_radius(other, 0.05) == other


def test_a_named_config_is_spelt_out():
    recipe = {"defence": "harden", "config": "fast", "settings": {"start_radius": 0.0}}
    found = at_radius(recipe, 0.05)
    expected = kj.JSIGRConfig.fast(0.05).replace(start_radius=0.0)
    assert kj.JSIGRConfig(**found["settings"]) == expected
    assert set(found) == {"defence", "settings"}
    times = at_radius(recipe | {"times": 2.0}, 0.05)
    assert weights(times) == pytest.approx([2 * w for w in weights(found)])
    wider = at_radius(recipe | {"wider": 1.5, "settings": {}}, 0.05)
    expected = kj.JSIGRConfig.fast(0.05 * 1.5)
    assert kj.JSIGRConfig(**wider["settings"]) == expected


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
    madry = bank_of(tmp_path, "madry").surrogates
    assert madry.stems_of([("plain", 1000)]) == bank.stems_of([("plain", 1000)])
    epochs = [bank.recipe_of(n, 0)["epochs"] for n in ("plain", "j_sigr_long")]
    assert epochs == [15, 40]


def test_the_published_figures_are_those_of_the_methods(monkeypatch):
    """A changed recipe makes figures stale, and the tables would leave them out."""
    monkeypatch.setattr(sys, "argv", ["study.py", "--table"])
    shown = {
        (each.rung.name, each.skip, key)
        for each in study.judged_of(study.parse_options())
        for key in each.cells
    }
    stored = {
        (file.stem.partition("-")[2] or "reference", skip, key)
        for path, skip in study.PUBLISHED.items()
        for file in path.parent.glob(f"{path.stem}*.json")
        for key in stored_cells(file)
    }
    assert len(stored) > 200
    assert stored <= shown
    for rung in ("reference", "tiny"):
        name = "interpretability" + ("" if rung == "reference" else f"-{rung}")
        names, bank = interpretability.METHODS, bank_of(Path("none"), rung)
        for key, cell in stored_cells(study.RESULTS / f"{name}.json").items():
            assert cell["of"] == bank.stems_of(interpretability.members_of(key, names))


def stored_cells(file):
    return json.loads(file.read_text())["cells"]


@pytest.fixture
def stages(monkeypatch):
    found = []

    def see(parts, jobs):
        found.append(parts)

    monkeypatch.setattr(study_networks, "side_by_side", see)
    return found


def test_teachers_come_first_and_nothing_twice(tmp_path, stages):
    bank = bank_of(tmp_path, rung="swish")
    bank.file_of("plain", 1).write_text("trained before")
    bank.fill([("j_sigr_hard", 3), ("j_sigr_hard", 3), ("plain", 0), ("plain", 1)])
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


def test_which_images_are_attacked(tmp_path):
    assert bank_of(tmp_path, images=1000).chosen == {"images": 1000}
    assert bank_of(tmp_path, "madry", images=1000).chosen == {"images": 500}
    options = {"quick": True, "data_dir": None, "archive": None}
    for skip in (0, 8):
        bank = bank_of(tmp_path, skip=skip, **options)
        assert bank.chosen == {"images": 8} | ({"skip": 8} if skip else {})
        x, y = bank.test_images
        np.testing.assert_array_equal(x, bank.data.x_test[skip : skip + 8])
        np.testing.assert_array_equal(y, bank.data.y_test[skip : skip + 8])
    with pytest.raises(ValueError, match="--skip 2000, expected less than the 2000"):
        _ = bank_of(tmp_path, skip=2000, **options).test_images


def test_every_method_has_valid_settings():
    for method in METHODS.values():
        own = at_radius(method.recipe, 4 / 255)
        if own["defence"] == "harden":
            kj.JSIGRConfig(**own["settings"])


# Every kind of step: the others differ in their weights.
KINDS = (
    "plain",
    "noise",
    "input_gradients",
    "jacobian",
    "interpretation",
    "inverted_selection",
    "j_sigr",
    "j_sigr_balanced",
    "j_sigr_faithful",
    "balanced_random",
    "pgd_7",
    "trades_10",
    "j_sigr_fgsm_rs",
)


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_trains(name, tmp_path):
    data = kj.datasets.load("fashion_mnist", verbose=False)
    own = at_radius(METHODS[name].recipe, nets.EPSILON)
    recipe = nets.RECIPES["plain"] | own | {"epochs": 1, "images": 256}
    before = reference_net("silu", recipe["seed"]).get_weights()
    path = tmp_path / "net.keras"
    net = nets.train(recipe, data, path, teacher=lambda: reference_net("silu", 1))
    assert isinstance(net, keras.Sequential)
    assert net.output_shape == (None, 10)
    moved = [np.abs(a - b).max() for a, b in zip(before, net.get_weights(), strict=True)]
    assert min(moved) > 0
    assert all(np.isfinite(w).all() for w in net.get_weights())


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNGS)
def test_takes_its_images(name):
    rung = RUNGS[name]
    shapes = {"tiny_imagenet10": (64, 64, 3), "gtsrb": (32, 32, 3), "clothing": (128, 128, 3)}
    shape = shapes.get(rung.recipe["source"], (28, 28, 1))
    recipe = {k: v for k, v in rung.recipe.items() if k != "pretrained"}
    net, _ = nets.untrained(nets.RECIPES["plain"] | recipe)
    classes = 43 if "gtsrb" in name else 10
    assert net(np.zeros((2, *shape), np.float32)).shape == (2, classes)
    # What adversaries are given.
    assert rung.recipe.get("epsilon", nets.EPSILON) == rung.epsilon


def test_tiny_imagenet_needs_its_archive():
    with pytest.raises(ValueError, match=r"Got no archive .*'tiny_imagenet10', expected"):
        load_data("tiny_imagenet10", None, None, quick=True)


def robust(suite, robust=50.0, images=500):
    return {"clean": 80.0, "robust": robust, "suite": suite, "images": images}


def test_a_star_stands_where_a_seed_misses_attacks():
    whole = {"robust/j_sigr/0": robust("standard", 40.0)}
    part = {"robust/j_sigr/1": robust("APGD-CE, APGD-T", 60.0)}
    rung = RUNGS["relu"]
    assert "| 80.0 | - | 40.0 |" in page.table(rung, whole, METHODS)
    assert "| 60.0* |" in page.table(rung, part, METHODS)
    assert "50.0 (40.0 to 60.0)*" in page.table(rung, whole | part, METHODS)


def test_the_source_that_all_defences_share():
    transfer = {"once": 70.0, "twice": 50.0, "twice, by source": {"plain": 66.6}}
    cells = {"robust/j_sigr/0": robust("standard"), "transfer/j_sigr/0": transfer}
    assert "| 70.0 | 50.0 | 66.6 | - |" in page.table(RUNGS["relu"], cells, METHODS)


def test_who_was_diagnosed_is_said():
    cells = {"robust/fgsm_rs/0": robust("APGD-CE, APGD-T")}
    assert page.findings(cells, METHODS) == "None of them was diagnosed."
    cells["robust/plain/0"] = robust("standard") | {"suspect": {}}
    assert page.findings(cells, METHODS) == "Diagnosed: plain. Nothing is suspect."
    cells["robust/plain/1"] = robust("standard") | {"suspect": {"rule": "why"}}
    assert page.findings(cells, METHODS).splitlines() == [
        "Diagnosed: plain. Suspect is:",
        "",
        "- plain: `rule`: why",
    ]


def test_the_length_of_a_training_is_that_of_its_rung():
    cells = {"robust/plain/0": robust("standard"), "step/plain/0": {"ratio": 1.04}}
    for rung, epochs in (("reference", 15), ("madry", 5), ("tiny", 30)):
        row = f"| plain | 1 | {epochs} | 1.0x |"
        assert row in page.table(RUNGS[rung], cells, METHODS)


def test_the_page_is_made_of_the_figures(tmp_path):
    of = {"suite": "standard", "images": 1000, "suspect": {}}
    cells = {
        "step/plain/0": {"ratio": 1.0},
        "robust/plain/0": {"clean": 91.0, "robust": 0.0, **of},
        "step/j_sigr/0": {"ratio": 2.04},
        "robust/j_sigr/0": {"clean": 86.0, "robust": 60.0, **of},
        "robust/j_sigr/1": {"clean": 87.0, "robust": 62.0, **of},
        "pgd/j_sigr/1": {"pgd": 65.2},
        "maps/j_sigr/0": {"own": 0.4, "teacher": 0.3, "gini": 0.5},
    }
    judged = [page.Judged(RUNGS["reference"], cells, skip) for skip in (0, 3000)]
    page.write_page(judged, METHODS, tmp_path)
    text = (tmp_path / "results" / "study.md").read_text()
    _, first, held_out = text.split("\n## ")[:3]
    title = METHODS["j_sigr"].title
    row = next(line for line in first.splitlines() if line.startswith(f"| {title} |"))
    figures = "| 86.5 (86.0 to 87.0) | 65.2 | 61.0 (60.0 to 62.0) |"
    assert f"| 2 | 15 | 2.0x {figures}" in row
    assert "| 0.400 | 0.300 | 0.500 |" in row
    assert "Epsilon 0.1, 1,000 test images." in first
    for plot in ("study-reference-frontier", "study-reference-cost"):
        svg = (tmp_path / "images" / f"{plot}.svg").read_text()
        assert f"2 {title}" in re.sub(r"\s+", " ", svg)
        assert "plain: 0.0 at" in svg
    assert held_out.startswith("Held out: ")
    assert "1,000 test images after the first 3,000." in held_out
    assert (first.count("images/study-"), held_out.count("images/study-")) == (2, 0)
    cells["step/j_sigr_long/0"] = {"ratio": 2.0}
    # Forty epochs for fifteen.
    costs = [page.cost(cells, METHODS[n]) for n in ("plain", "j_sigr", "j_sigr_long")]
    assert costs == pytest.approx([1, 2.04, 5.334])
    assert page.cost(cells, METHODS["pgd_7"]) is None


@pytest.fixture
def path(tmp_path):
    return tmp_path / "results.json"


def test_cells_outlive_the_program_and_programs_share_a_file(path):
    first, second = Store(path, {"images": 8}), Store(path, {"images": 8})
    first.put("robust/plain/0", {"clean": 90.0})
    second.put("robust/plain/1", {"clean": 91.0})
    again = Store(path, {"images": 8})
    assert set(again.cells) == {"robust/plain/0", "robust/plain/1"}
    assert again.has("robust/plain/0")
    assert not again.has("robust/plain/2")
    before = path.read_bytes()
    with pytest.raises(ValueError, match="figures of other settings"):
        Store(path, {"images": 16})
    assert path.read_bytes() == before


WRITER = """
import sys
sys.path.append(sys.argv[1])
from pathlib import Path
from store import Store
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


def test_a_cell_is_stale_when_it_failed_or_its_network_is_another(path):
    store = Store(path, {"sizes": (2, 4)})
    store.put("plain/0", {"clean": 90.0}, of=("plain", 0))
    store.put("plain/1", {"error": "out of memory"})
    again = Store(path, {"sizes": (2, 4)})
    assert again.has("plain/0", ("plain", 0))
    assert again.has("plain/0", ["plain", 0])
    assert not again.has("plain/0", ["plain", 1])
    assert not again.has("plain/0")
    assert not again.has("plain/1")
    assert list(again.current({"plain/0": ["plain", 0]}.get)) == ["plain/0"]
    assert set(again.cells) == {"plain/0", "plain/1"}


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
    monkeypatch.setattr(Bank, "side_by_side", lambda self, option, members: done.append(members))
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
    other = ["--table", "--out", str(tmp_path / "other.json"), "--skip", "7"]
    options = options_of(monkeypatch, tmp_path, *other)
    study.main()
    assert study.judged_of(options) == []


def test_images_that_nothing_was_chosen_on(monkeypatch, tmp_path):
    options = options_of(monkeypatch, tmp_path, "--held-out")
    assert (options.out.name, options.skip) == ("held_out.json", study.HELD_OUT)
    assert study.PUBLISHED[options.out] == options.skip
    options = options_of(monkeypatch, tmp_path, "--held-out", "--quick")
    assert (options.out.name, options.skip) == ("held_out-quick.json", 0)


def test_the_page_is_made_of_all_that_is_published(monkeypatch, tmp_path):
    def cells(self, of):
        part = self.path.stem.split("-")[0]
        steps = {} if part == "held_out" else {"step/plain/0": {"of": part}}
        return {"robust/plain/0": {"of": part}} | steps

    monkeypatch.setattr(study.Store, "current", cells)
    judged = study.judged_of(options_of(monkeypatch, tmp_path, "--table"))
    assert len(judged) == 2 * len(study.RUNGS)
    first, held_out = judged[:2]
    assert (first.skip, held_out.skip) == (0, study.HELD_OUT)
    assert first.cells["robust/plain/0"] == {"of": "study"}
    assert held_out.cells["robust/plain/0"] == {"of": "held_out"}
    # The time of a step does not depend on the images.
    assert held_out.cells["step/plain/0"] == {"of": "study"}


def test_pretrained_weights_are_those_of_the_file(tmp_path):
    recipe = nets.RECIPES["plain"] | RUNGS["clothing"].recipe
    with pytest.raises(ValueError, match="expected --weights mobilenet"):
        nets.untrained(recipe)
    other = nets.NETS["mobilenet"]("relu", 7).layers[1]
    other.save_weights(tmp_path / "own.weights.h5")
    net, _ = nets.untrained(recipe, weights=tmp_path / "own.weights.h5")
    for found, expected in zip(net.layers[1].get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)
