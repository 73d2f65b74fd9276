"""Measure the package's structure and hold it to its limits.

    python scripts/check_structure.py          # the limits, for `make check`
    python scripts/check_structure.py --root OTHER_CHECKOUT   # only the figures

Counts the files and lines of `keras_jsigr`, the import circles, the imports that point
up (lazy ones too), and for some entry points the files a reader opens: the import
closure. An import of a name counts as an import of the module that the statement names.
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Iterable
from pathlib import Path

PACKAGE = "keras_jsigr"
LIMITS = {"files": 110, "lines": 28_000, "circles": 0, "imports that point up": 0}
CLOSURES = {
    "attacks.pgd": 16,
    "attacks.square": 16,
    "saliency.occlusion": 16,
    "model": 35,
}
# From the bottom to the top; what stands in one row may not import each other.
LAYERS = (
    ("core",),
    ("penalties", "attacks", "saliency", "datasets", "activations"),
    ("config",),
    ("training",),
    ("serving",),
    ("model",),
    ("harden",),
    ("evaluation",),
    ("callbacks",),
    ("cli",),
)
RANKS = {name: rank for rank, row in enumerate(LAYERS) for name in row}


def main() -> None:
    """Print the figures; fail if one is over its limit."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[1])
    parser.add_argument("--files", metavar="MODULE", help="list a module's closure")
    options = parser.parse_args()
    sources = read_sources(options.root)
    graph = {name: imports(name, tree.body, sources) for name, (_, tree) in sources.items()}
    every = {name: imports(name, ast.walk(tree), sources) for name, (_, tree) in sources.items()}
    if options.files:
        print(*sorted(closure(graph, options.files)), sep="\n")
        return
    own = [name for name in sources if not name.startswith("data")]
    circles, upward = find_circles(every), points_up(every)
    figures = {
        "files": len(own),
        "lines": sum(sources[name][0] for name in own),
        "circles": len(circles),
        "imports that point up": len(upward),
    }
    rows = [(name, figures[name], limit) for name, limit in LIMITS.items()]
    rows += [
        (f"closure of {name}", len(closure(graph, name)), limit)
        for name, limit in CLOSURES.items()
        if name in graph
    ]
    for name, figure, limit in rows:
        print(f"{name:28s} {figure:6d}   at most {limit}")
    for found in (*circles, *upward):
        print("  ", found)
    if any(figure > limit for _, figure, limit in rows):
        raise SystemExit("The structure is over its limits.")


def read_sources(root: Path) -> dict[str, tuple[int, ast.Module]]:
    """Return lines and syntax tree of every module by its name inside the package."""
    sources = {}
    for path in sorted((root / PACKAGE).rglob("*.py")):
        parts = path.relative_to(root / PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        text = path.read_text(encoding="utf-8")
        sources[name] = (len(text.splitlines()), ast.parse(text))
    return sources


def imports(
    name: str, nodes: Iterable[ast.AST], sources: dict[str, tuple[int, ast.Module]]
) -> set[str]:
    """Return the modules that the import statements among the nodes name."""
    found = set()
    for node in nodes:
        if not isinstance(node, ast.ImportFrom) or not node.module:
            continue
        if node.module.split(".")[0] != PACKAGE:
            continue
        module = node.module[len(PACKAGE) + 1 :]
        for alias in node.names:
            inner = f"{module}.{alias.name}".lstrip(".")
            found.add(inner if inner in sources and inner != name else module)
    return found - {name}


def closure(graph: dict[str, set[str]], start: str) -> set[str]:
    """Return a module and all that it imports, directly or not."""
    seen, left = {start}, [start]
    while left:
        for name in graph.get(left.pop(), ()):
            if name not in seen:
                seen.add(name)
                left.append(name)
    return seen


def find_circles(graph: dict[str, set[str]]) -> list[str]:
    """Return the groups of modules that import each other."""
    reach = {name: closure(graph, name) for name in graph}
    groups = {
        tuple(sorted(other for other in reach[name] if name in reach.get(other, ())))
        for name in graph
    }
    return ["circle: " + ", ".join(group) for group in sorted(groups) if group[1:]]


def points_up(graph: dict[str, set[str]]) -> list[str]:
    """Return the imports that point to a higher layer, or to a sister of the same."""
    found = []
    for name, targets in sorted(graph.items()):
        here = name.split(".")[0]
        for target in sorted(targets):
            there = target.split(".")[0]
            if here == there or here not in RANKS or there not in RANKS:
                continue
            if RANKS[there] >= RANKS[here]:
                found.append(f"points up: {name} imports {target}")
    return found


if __name__ == "__main__":
    main()
