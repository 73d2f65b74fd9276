"""Results that survive a kill, and the options that all benchmarks share."""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import networks as nets

from keras_jsigr.core.files import atomic_write

PACKAGES = (
    "adversarial-robustness-toolbox",
    "cleverhans",
    "foolbox",
    "keras",
    "numpy",
    "saliency",
    "tensorflow-cpu",
    "tensorflow",
    "tf-keras-vis",
    "xplique",
)


class Store:
    """A JSON file of cells by name.

    Several programs may put cells into the same file at once.

    Args:
        path: The file; read if it exists.
        settings: What the cells depend on.

    Raises:
        ValueError: If the file holds cells of other settings.
    """

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.path = Path(path)
        self._settings = as_json(settings)
        self.cells: dict[str, Any] = self._read()

    def _read(self) -> dict[str, Any]:
        if not self.path.exists():
            return {}
        content = json.loads(self.path.read_text())
        if content["settings"] != self._settings:
            raise ValueError(
                f"{self.path} holds figures of other settings: got {self._settings}, "
                f"expected {content['settings']}. Give these a file of their own: "
                "--out FILE."
            )
        return dict(content["cells"])

    @contextmanager
    def _alone(self) -> Iterator[None]:
        # The folder is what is locked: the file is replaced, and a file of locks stays.
        self.path.parent.mkdir(parents=True, exist_ok=True)
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)

    def has(self, name: str, of: Any = None) -> bool:
        """Tell whether a cell is there, holds no error, and is still of the same.

        Args:
            name: Of the cell.
            of: What the cell has to be of, as `put` was told.
        """
        cell = self.cells.get(name)
        return cell is not None and "error" not in cell and cell.get("of") == as_json(of)

    def put(self, name: str, cell: Any, of: Any = None) -> None:
        """Keep a cell, in memory and on disk.

        Args:
            name: Of the cell.
            cell: A dict; replaces the one that is there.
            of: What it was measured on, such as the files of networks. Whoever reads
                the cell later can tell by it whether they are still those.
        """
        with self._alone():
            self.cells = self._read()
            self.cells[name] = cell if of is None else {"of": as_json(of), **cell}
            content = {
                "cells": self.cells,
                "settings": self._settings,
                "versions": versions(),
            }
            write(self.path, f"{json.dumps(content, indent=2)}\n")

    def measure(self, name: str, figures: Callable[[], dict[str, Any]], of: Any = None) -> None:
        """Keep what `figures` finds, and print it; nothing if `has` finds the cell.

        Args:
            name: Of the cell.
            figures: Measures.
            of: What it measures, see `put`.
        """
        if not self.has(name, of):
            self.put(name, figures(), of)
            print(f"{name}: {self.cells[name]}", flush=True)

    def current(self, of: Callable[[str], Any]) -> dict[str, Any]:
        """Return the cells that `has` finds.

        Args:
            of: Says for the name of a cell what it has to be of.

        Returns:
            Cells by name.
        """
        return {n: cell for n, cell in self.cells.items() if self.has(n, of(n))}


def write(path: Path, text: str) -> None:
    """Write a text file that is never seen half written."""
    with atomic_write(path) as file:
        file.write(text.encode())


def as_json(value: Any) -> Any:
    """Return a value as a file of JSON gives it back: lists for tuples."""
    return json.loads(json.dumps(value))


def versions() -> dict[str, Any]:
    """Return the versions of what was measured, and the number of CPUs."""
    found: dict[str, Any] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {**found, "cpus": os.cpu_count()}


RESULTS = Path(__file__).parent / "results"


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
