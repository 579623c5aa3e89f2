"""The house stays one that can be overseen: few entries, small folders, short files."""

from pathlib import Path

from workbench import REPO

MOST_ENTRIES, MOST_FILES, MOST_LINES = 16, 13, 410


def kept(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name != "__pycache__"]


def test_the_package_has_few_entries_and_no_folder_many_files():
    package = REPO / "tok1d"
    assert len(kept(package)) <= MOST_ENTRIES
    folders = [
        package,
        *(path for path in package.rglob("*") if path.is_dir() and path.name != "__pycache__"),
    ]
    files = {folder.name: len([path for path in kept(folder) if path.is_file()]) for folder in folders}
    assert len(files) > 12 and {name: n for name, n in files.items() if n > MOST_FILES} == {}


def test_no_file_is_long():
    lines = {
        path.name: len(path.read_text(encoding="utf-8").splitlines())
        for folder in ("tok1d", "benchmarks")
        for path in (REPO / folder).rglob("*.py")
    }
    assert {name: n for name, n in lines.items() if n > MOST_LINES} == {}
