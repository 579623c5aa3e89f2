"""Text files are UTF-8 in every locale: whoever opens one says so."""

import ast
from collections.abc import Iterator

import pytest
from workbench import REPO

SOURCES = [
    *(REPO / "tok1d").rglob("*.py"),
    *(REPO / "benchmarks").rglob("*.py"),
    *(REPO / "params").rglob("*.py"),
]


def opened_without_encoding(source: str) -> Iterator[int]:
    """Lines that open, read or write a text file in the encoding of whoever runs them."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or any(word.arg == "encoding" for word in node.keywords):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        given, owner = len(node.args), getattr(getattr(node.func, "value", None), "id", None)
        words = {word.arg: word.value for word in node.keywords}
        texts = {"read_text": given == 0, "write_text": given == 1, "FileHandler": True}
        if name in ("open", "fdopen", "NamedTemporaryFile") and (owner in (None, "os", "io", "tempfile")):
            at = 0 if name == "NamedTemporaryFile" else 1
            mode = node.args[at] if given > at else words.get("mode")
            default = "w+b" if name == "NamedTemporaryFile" else "r"
            texts[name] = "b" not in (ast.literal_eval(mode) if mode is not None else default)
        if texts.get(name):
            yield node.lineno


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: file.relative_to(REPO).as_posix())
def test_every_text_file_is_opened_as_utf8(file):
    lines = list(opened_without_encoding(file.read_text(encoding="utf-8")))
    assert not lines, f'{file}: add encoding="utf-8" in lines {lines}'


def test_what_is_looked_for():
    found = "open(a)", "open(a, 'w')", "p.read_text()", "p.write_text(t)", "os.fdopen(f, 'a')"
    fine = "open(a, 'rb')", "Image.open(a)", "p.read_text(encoding='utf-8')", "run.write_text(name, t)"
    assert [len(list(opened_without_encoding(text))) for text in (*found, *fine)] == [1] * 5 + [0] * 4
