"""The command line that the benchmarks share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from networks import nets

RESULTS = Path(__file__).parents[1] / "results"


def parser_of(doc: str, data_dir: bool = False) -> argparse.ArgumentParser:
    """Make a parser that knows `--out`, `--cache`, `--quick` and `--table`.

    Args:
        doc: The docstring of the benchmark; its first line is the description.
        data_dir: Whether the benchmark reads the whole of Fashion-MNIST.

    Returns:
        A parser to add to.
    """
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    add = parser.add_argument
    add("--out", type=Path, default=None, help="the JSON file of results")
    add("--cache", type=Path, default=nets.CACHE, help="the folder of trained nets")
    if data_dir:
        add("--data-dir", default=None, help="folder of Fashion-MNIST's IDX files")
    add("--quick", action="store_true", help="a smoke run, figures without meaning")
    add("--table", action="store_true", help="print what is there, measure nothing")
    return parser


def complete(options: argparse.Namespace, name: str, **quick: Any) -> None:
    """Fill in what follows from other options.

    Args:
        options: Of `parser_of`, changed in place.
        name: Of the file of results, without its suffix.
        quick: What options are in a smoke run.
    """
    if options.quick:
        vars(options).update(quick)
    if options.out is None:
        file = f"{name}-quick.json" if options.quick else f"{name}.json"
        options.out = (nets.CACHE if options.quick else RESULTS) / file
