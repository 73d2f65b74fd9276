"""Cost of one training step, in time and memory, beside a plain step of the same net.

    python benchmarks/step_overhead.py          # what is missing in the results
    python benchmarks/step_overhead.py --parts time     # needs a quiet machine
    python benchmarks/step_overhead.py --quick  # a smoke run
    python benchmarks/step_overhead.py --table  # the table of what is there

Time: all methods take steps of `fit` in one process, in turn: every round times a few
steps of each, so that what disturbs the machine disturbs all alike. A ratio is the
median over rounds of (time of the method / time of plain training in the same round).

Memory: each method has a process of its own, which compiles its step with a batch of 8
and then takes steps of 1,024 examples; the figure is by how much its resident memory
grows at most while it does (Linux).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import networks as nets
import numpy as np
from figures import markdown_table, step_of, steps_in_turn
from networks import NETS, Trades
from store import Store, complete, parser_of

import keras_jsigr as kj

# Architecture, its activation, rounds, and steps of a method in each round.
CASES: dict[str, tuple[str, str, int, int]] = {
    "reference": ("reference", "silu", 40, 5),
    "Madry CNN": ("madry", "relu", 20, 2),
    "ResNet-20": ("resnet20", "relu", 10, 1),
}
# Fields of `JSIGRConfig`; "config": one of its recipes at the radius; "cached": whether
# maps come from a cache; "adversary": where the step is taken.
METHODS: dict[str, dict[str, Any]] = {
    "plain": {},
    "Jacobian, squared": {"norm": "squared", "selective_weight": 0.0},
    "Jacobian target, squared, cached maps": {"norm": "squared", "cached": True},
    "Jacobian target, L1, cached maps": {"cached": True},
    "Jacobian target, L1, live maps": {},
    "score target, L1, cached maps": {"selective_target": "score", "cached": True},
    "Jacobian target, L1, aligned, cached maps": {
        "alignment_weight": 0.1,
        "cached": True,
    },
    "recipe `fast`, live maps": {"config": "fast"},
    "recipe `balanced`, cached maps": {"config": "balanced", "cached": True},
    "score target, L1, at FGSM-RS points": {
        "selective_target": "score",
        "adversary": "FGSM-RS",
    },
    "mixed target, cached maps, at FGSM-RS points": {
        "selective_target": "mixed",
        "cached": True,
        "adversary": "FGSM-RS",
    },
    "FGSM-RS training": {
        "jacobian_weight": 0.0,
        "selective_weight": 0.0,
        "adversary": "FGSM-RS",
    },
    "PGD-7 training": {
        "jacobian_weight": 0.0,
        "selective_weight": 0.0,
        "adversary": "PGD-7",
    },
    "TRADES-10 training": {},
}
# Upper limits of the ratio that the project holds itself to, on every net.
GOALS = {
    "Jacobian target, L1, cached maps": 2.1,
    "Jacobian target, L1, live maps": 2.4,
}
PARTS = ("time", "memory")
MEMORY_BATCH = 1024


def model_of(case: str, method: str, x: np.ndarray, y: np.ndarray) -> keras.Model:
    """Make the model whose `fit` takes the steps of a method."""
    architecture, activation, *_ = CASES[case]
    net = NETS[architecture](activation, 0)
    if method == "plain":
        return net
    if method.startswith("TRADES"):
        return Trades(net, nets.EPSILON, steps=10, beta=6.0)
    settings = dict(METHODS[method])
    maps = attack = None
    if settings.pop("cached", False):
        maps = kj.PerturbationCache.build(net, x, y, verbose=0)
    if "adversary" in settings:
        attack = nets.adversary(settings.pop("adversary"), nets.EPSILON)
    if "config" in settings:
        config = getattr(kj.JSIGRConfig, settings["config"])(nets.EPSILON)
    else:
        config = kj.JSIGRConfig(**settings)
    return kj.harden(
        net,
        recipe=config.replace(check_gradients=False),
        saliency_maps=maps,
        adversary=attack,
        warmup=200,
        verbose=0,
    )


def times(case: str, data: kj.datasets.Dataset, options: argparse.Namespace) -> Any:
    """Time all methods in turn; return medians and quartiles."""
    x, y = data.x_train[: options.batch_size], data.y_train[: options.batch_size]
    rounds, inner = (1, 1) if options.quick else CASES[case][2:]
    steps = {name: step_of(model_of(case, name, x, y), x, y) for name in METHODS}
    return steps_in_turn(steps, rounds, inner)


def memory(case: str, method: str) -> dict[str, float]:
    """Measure a method in a process of its own."""
    command = [sys.executable, str(Path(__file__)), "--peak-of", case, method]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def print_peak(case: str, method: str) -> None:
    """Take steps and print by how many megabytes this process grows at most."""
    data = kj.datasets.load("fashion_mnist", verbose=False)
    x, y = data.x_train[:MEMORY_BATCH], data.y_train[:MEMORY_BATCH]
    step = step_of(model_of(case, method, x, y), x, y)
    # Forgets the peak so far, man 5 proc.
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = kibibytes("VmRSS")
    for _ in range(3):
        step()
    print(json.dumps({"megabytes": round((kibibytes("VmHWM") - before) / 1000, 1)}))


def kibibytes(field: str) -> int:
    """Read a figure of this process."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def print_table(store: Store) -> None:
    """Print ratios, and memory as ratios to plain training."""
    cases = [case for case in CASES if f"time/{case}" in store.cells]
    headings = [heading for case in cases for heading in (case, "memory")]
    rows = []
    for name in METHODS:
        columns = []
        for case in cases:
            cell = store.cells[f"time/{case}"].get(name)
            if cell is None:  # a method that came after
                columns += ["-", "-"]
                continue
            text = f"{cell['ratio']:.2f}"
            if name == "plain":
                text += f" ({cell['milliseconds']:.3g} ms)"
            if cell["ratio"] > GOALS.get(name, np.inf):
                text += f" (goal {GOALS[name]})"
            columns += [text, memory_text(store, case, name)]
        rows.append([name, *columns])
    print(markdown_table(["step", *headings], rows))


def memory_text(store: Store, case: str, name: str) -> str:
    """Say how much memory a method takes."""
    peaks = [
        store.cells.get(f"memory/{case}/{method}", {}).get("megabytes")
        for method in (name, "plain")
    ]
    if None in peaks:
        return "-"
    if name == "plain":
        return f"1.0 ({peaks[0]:.0f} MB)"
    return f"{peaks[0] / peaks[1]:.1f}"


def main() -> None:
    options = parse_options()
    if options.peak_of is not None:
        print_peak(*options.peak_of)
        return
    store = Store(options.out, {"batch": options.batch_size})
    if not options.table:
        data = kj.datasets.load("fashion_mnist", verbose=False)
        for case in options.nets:
            if "time" in options.parts:
                # Methods take turns: a new one is timed with all others.
                of = [CASES[case], METHODS]
                store.measure(f"time/{case}", partial(times, case, data, options), of)
            for method in METHODS if "memory" in options.parts else ():
                of = [CASES[case][:2], METHODS[method]]
                peak = partial(memory, case, method)
                store.measure(f"memory/{case}/{method}", peak, of)
    print_table(store)


def parse_options() -> argparse.Namespace:
    parser = parser_of(__doc__)
    add = parser.add_argument
    add("--nets", nargs="+", choices=list(CASES), default=list(CASES))
    add("--parts", nargs="+", choices=PARTS, default=PARTS, help="what to measure")
    add("--batch-size", type=int, default=128, help="examples of a timed step")
    add("--peak-of", nargs=2, metavar=("NET", "METHOD"), help="of one process alone")
    options = parser.parse_args()
    complete(options, "step_overhead", nets=["reference"])
    return options


if __name__ == "__main__":
    main()
