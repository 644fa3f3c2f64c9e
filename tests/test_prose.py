"""Files that prose names: each must exist, and so must each function that a document names with its file.

Prose is the documents, and the docstrings and comments of the code. A module is named by its path from the top of the
checkout, by its path inside etherws/, or, from a file in the same folder, by its bare name.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

#: Folders that hold no source of ours.
NOT_OURS = {".git", ".venv", "build", "dist", "_build", "commands"}

#: The map of the code. It answers each of its questions with at least one function.
MAP = ROOT / "docs" / "architecture.rst"

#: The name of a Python file, with or without folders. A name that begins with a pattern, such as *.py, is none.
PYTHON_FILE = re.compile(r"(?<![\w./*<>{}-])(?:[\w.-]+/)*[\w-]+\.py\b(?![\w/])")

#: A literal of reStructuredText; it may go on in the next line.
LITERAL = re.compile(r"``(.+?)``", re.DOTALL)

#: A literal that names a function with its file: ``tunnel/tap.py: Tap.read_batch``.
FUNCTION = re.compile(r"(?P<path>(?:[\w-]+/)*[\w-]+\.py): (?P<name>\w+(?:\.\w+)*)")


def files(*patterns: str) -> list[Path]:
    """The files of the checkout that match one of the patterns."""
    found = {path for pattern in patterns for path in ROOT.glob(pattern) if path.is_file()}
    return sorted(path for path in found if not NOT_OURS & set(path.relative_to(ROOT).parts))


DOCUMENTS = files("*.rst", "docs/**/*.rst", "bench/*.rst")
CODE = files("*.py", "etherws/**/*.py", "tests/**/*.py", "bench/**/*.py", "contrib/**/*.py", "docs/*.py")
OTHERS = files("Makefile", "*.toml", "**/requirements*.txt", "contrib/**/*", ".ci/*", ".github/workflows/*")


def relative(path: Path) -> str:
    """The path as a message shows it."""
    return path.relative_to(ROOT).as_posix()


def prose(path: Path) -> str:
    """What a file says to its readers: a whole document, or the comments and docstrings of code."""
    text = path.read_text(encoding="utf-8")
    if path.name == "CHANGELOG.rst":
        # What a release said of its own files stays as it was.
        return re.split(r"^\d[\w.]* (?!\(unreleased\))[^\n]*\n-+$", text, maxsplit=1, flags=re.MULTILINE)[0]
    return "\n".join(said(text)) if path.suffix == ".py" else text


def said(source: str) -> Iterator[str]:
    """The comments and docstrings of Python code."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.string
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""


def named(name: str, by: Path) -> set[Path]:
    """The files that `name` can mean in the prose of the file `by`."""
    return {path for folder in (ROOT, ROOT / "etherws", by.parent) if (path := folder / name).is_file()}


def test_each_file_that_prose_names_exists() -> None:
    faults = []
    for path in [*DOCUMENTS, *CODE, *OTHERS]:
        # Most files name none anywhere: to take code apart costs more than to search it.
        if not PYTHON_FILE.search(path.read_text(encoding="utf-8")):
            continue
        for name in sorted(set(PYTHON_FILE.findall(prose(path)))):
            found = named(name, path)
            if not found:
                faults.append(f"{relative(path)} names {name}, which does not exist")
            elif len(found) > 1:
                faults.append(f"{relative(path)} names {name}; write which: {sorted(map(relative, found))}")
    assert not faults, "\n".join(faults)


def functions(path: Path) -> list[str]:
    """The functions that a document names with their files; raises AssertionError for one in another form."""
    found = []
    for literal in LITERAL.findall(path.read_text(encoding="utf-8")):
        text = " ".join(literal.split())
        if ".py:" in text:
            assert FUNCTION.fullmatch(text), f"write ``room/module.py: Name.method`` instead of ``{text}``"
            found.append(text)
    return found


def defined(tree: ast.Module) -> set[str]:
    """The names of a module's classes, functions and values, with those of their classes before them."""
    names: set[str] = set()

    def note(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                names.add(prefix + node.name)
                if isinstance(node, ast.ClassDef):
                    note(node.body, f"{prefix}{node.name}.")
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names.update(prefix + target.id for target in targets if isinstance(target, ast.Name))

    note(tree.body, "")
    return names


def test_each_function_that_a_document_names_exists() -> None:
    names = cache(lambda path: defined(ast.parse(path.read_text(encoding="utf-8"))))
    faults = []
    for path in DOCUMENTS:
        found = functions(path)
        assert found or path != MAP, f"{relative(path)} names no function with its file"
        for text in found:
            match = FUNCTION.fullmatch(text)
            assert match
            where = named(match["path"], path)
            if len(where) != 1:
                faults.append(f"{relative(path)}: {text}: there is no such file")
            elif match["name"] not in names(where.pop()):
                faults.append(f"{relative(path)}: {text}: no such name")
    assert not faults, "\n".join(faults)


def test_the_map_names_each_module_once() -> None:
    rooms = MAP.read_text(encoding="utf-8").partition("The rooms\n")[2].partition("A frame's way\n")[0]
    faults = []
    for path in files("etherws/**/*.py"):
        name = path.relative_to(ROOT / "etherws").as_posix()
        times = rooms.count(f"``{name}``")
        # A module beside the rooms may also be what a room may import.
        if path.name not in ("__init__.py", "__main__.py") and times != 1 and ("/" in name or not times):
            faults.append(f"{relative(MAP)} names {name} {times} times")
    assert not faults, "\n".join(faults)


def test_prose_is_found_where_it_is() -> None:
    """The tests above would pass on nothing."""
    assert {"README.rst", "CHANGELOG.rst", "docs/wire.rst"} <= set(map(relative, DOCUMENTS))
    assert {"setup.py", "etherws/wsgi.py", "tests/lab/hosts.py", "bench/run.py"} <= set(map(relative, CODE))
    assert {"Makefile", "contrib/apt-programs", ".ci/run"} <= set(map(relative, OTHERS))
    names = PYTHON_FILE.findall("see tunnel/tap.py, ``wire.py``; all *.py, test_<module>.py; (server/ports.py).")
    assert names == ["tunnel/tap.py", "wire.py", "server/ports.py"]
    source = '"""See a.py."""\nx = "b.py"  # not c.py\ndef f() -> None:\n    """Nor d.py."""\n'
    assert PYTHON_FILE.findall("\n".join(said(source))) == ["c.py", "a.py", "d.py"]
    unreleased = prose(ROOT / "CHANGELOG.rst")
    assert "(unreleased)" in unreleased
    assert "0.2\n---" not in unreleased


def test_a_function_is_found_by_its_full_name() -> None:
    tree = ast.parse("LIMIT = 1\nclass A:\n    size: int = 0\n    def f(self): ...\nasync def g(): ...\n")
    assert defined(tree) == {"LIMIT", "A", "A.size", "A.f", "g"}


def test_no_row_of_a_table_is_cut() -> None:
    """In a simple table a line whose first column has text begins a row: the first cell cannot go on there."""
    for path in DOCUMENTS:
        columns = 0
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if match := re.match(r" *(=+) +=", line):
                columns = match.end(1)
            elif not line.strip():
                columns = 0
            elif columns:
                first = line[:columns].strip()
                assert not first.endswith((",", " and")), f"{relative(path)}:{number}: {first}"
