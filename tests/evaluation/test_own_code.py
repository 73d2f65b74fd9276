"""An attack that was edited is another attack."""

import dataclasses
import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from keras_jsigr.attacks import FGSM
from keras_jsigr.evaluation.evaluate import evaluate
from keras_jsigr.evaluation.parts.attack_rows import describe
from keras_jsigr.evaluation.parts.own_code import own_code

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
