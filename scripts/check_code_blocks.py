"""Check the Python code blocks of the documentation.

    python scripts/check_code_blocks.py

The ```python blocks of one file continue each other, as a reader would run them. They
have to compile, to have no undefined names (ruff), and every name of keras_jsigr in
them has to exist, with the keyword arguments that the call gives it. A session with
prompts (>>>) belongs into a ```pycon block, which is not read.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "keras_jsigr"
OPEN = re.compile(r"^(?P<indent>\s*)(?P<fence>`{3,}|~{3,})(?P<info>.*)$")


def documents(root: Path) -> list[Path]:
    """List the files to check."""
    named = [root / "README.md", root / "CONTRIBUTING.md"]
    return [f for f in named if f.exists()] + sorted((root / "docs").rglob("*.md"))


def extract(text: str) -> tuple[str, int]:
    """Return the code with every line where it stands in the file, and the blocks."""
    lines: list[str] = []
    blocks, fence, python, indent = 0, "", False, 0
    for line in text.splitlines():
        mark = OPEN.match(line)
        code = ""
        if fence:
            if mark and mark["fence"].startswith(fence) and not mark["info"].strip():
                fence = ""
            elif python:
                code = line[min(indent, len(line) - len(line.lstrip())) :]
        elif mark:
            fence, indent = mark["fence"], len(mark["indent"])
            python = re.match(r"python\b", mark["info"].strip()) is not None
            blocks += python
        lines.append(code)
    return "\n".join(lines).rstrip() + "\n", blocks


def aliases(tree: ast.AST) -> dict[str, str]:
    """Map each local name that an import binds to its path in the package."""
    bound: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                if name.name.split(".")[0] == PACKAGE:
                    bound[name.asname or PACKAGE] = name.name if name.asname else PACKAGE
        elif isinstance(node, ast.ImportFrom):
            module = "" if node.level or node.module is None else node.module
            if module.split(".")[0] == PACKAGE:
                for name in node.names:
                    bound[name.asname or name.name] = f"{module}.{name.name}"
    return bound


def dotted(node: ast.expr, bound: dict[str, str]) -> str | None:
    """Return the full path of `kj.a.b`, or None if it is not a name of the package."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name) or node.id not in bound:
        return None
    return ".".join([bound[node.id], *reversed(parts)])


def resolve(path: str) -> object:
    """Import what a dotted path names; AttributeError if there is no such thing."""
    first, *rest = path.split(".")
    found: object = importlib.import_module(first)
    for i, part in enumerate(rest, 1):
        if isinstance(found, ModuleType) and not hasattr(found, part):
            prefix = ".".join([first, *rest[:i]])
            try:
                found = importlib.import_module(prefix)
            except ModuleNotFoundError as error:
                if error.name != prefix:
                    raise
                raise AttributeError(f"there is no {prefix}") from error
        else:
            found = getattr(found, part)
    return found


def wrong_arguments(target: object, call: ast.Call) -> str | None:
    """Say what is wrong with the arguments of a call, if its signature tells."""
    if not callable(target):
        return "is not callable"
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError):
        return None
    starred = any(isinstance(a, ast.Starred) for a in call.args)
    names = {k.arg: None for k in call.keywords if k.arg is not None}
    complete = not starred and len(names) == len(call.keywords)
    bind = signature.bind if complete else signature.bind_partial
    try:
        bind(*([] if starred else call.args), **names)
    except TypeError as error:
        return str(error)
    return None


def problems(code: str) -> Iterator[tuple[int, str]]:
    """Yield the line and text of everything wrong with the names of the package."""
    tree = ast.parse(code)
    bound = aliases(tree)
    for name, path in bound.items():
        try:
            resolve(path)
        except (AttributeError, ImportError) as error:
            yield 1, f"import of {path} as {name}: {error}"
    # Of kj.a.b only the whole is looked up, not kj.a once more.
    inner = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    for node in ast.walk(tree):
        target = node.func if isinstance(node, ast.Call) else node
        if not isinstance(target, ast.Attribute | ast.Name) or id(target) in inner:
            continue
        full = dotted(target, bound)
        if full is None:
            continue
        try:
            found = resolve(full)
        except (AttributeError, ImportError) as error:
            if not isinstance(node, ast.Call):
                yield target.lineno, f"{full}: {error}"
            continue
        if isinstance(node, ast.Call) and (wrong := wrong_arguments(found, node)):
            yield node.lineno, f"{full}: {wrong}"


def ruff(code: str, name: str) -> str:
    """Return what ruff says of undefined names and the like."""
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--quiet"]
    command += ["--select", "E9,F", "--ignore", "F811", "--output-format", "concise"]
    command += ["--stdin-filename", f"{name}.py", "-"]
    done = subprocess.run(command, input=code, capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).strip().replace(f"{name}.py:", f"{name}:")


def main() -> int:
    """Check every document; return 1 if anything is wrong."""
    sys.path.insert(0, str(ROOT))
    wrong = total = 0
    for file in documents(ROOT):
        name = file.relative_to(ROOT).as_posix()
        code, blocks = extract(file.read_text(encoding="utf-8"))
        total += blocks
        if not blocks:
            continue
        if said := ruff(code, name):
            print(said)
            wrong += 1
        try:
            for line, text in problems(code):
                print(f"{name}:{line}: {text}")
                wrong += 1
        except SyntaxError as error:
            print(f"{name}:{error.lineno}: {error.msg}")
            wrong += 1
    print(f"{total} code blocks checked, {wrong} problems")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
