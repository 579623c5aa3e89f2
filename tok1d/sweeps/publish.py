"""Published results: small files in git, from which the table of results in the README is made.

    tok1d publish outputs/dashcam --title "Dashcam frames"    # copies a sweep's results, and renews the table

In `outputs/published/<sweep>/`: results.csv, about.json, and the figures, each with the JSON that names the
run and the card of every number drawn. `tok1d figures` draws figures of numbers again from them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
from pydantic import ConfigDict
from typing_extensions import TypedDict

from tok1d.config.fields import ConfigError
from tok1d.config.registry import NUMBERS
from tok1d.evaluation.card import card_id, images_of, protocol
from tok1d.figures.draw import FIGURES, redraw
from tok1d.jupyter.execute import execute
from tok1d.jupyter.tables import format_cell, markdown_text, name_of
from tok1d.runs import Run, RunError
from tok1d.runs.files import read_json
from tok1d.system.files import replacing

NOTEBOOK = Path("notebooks/figures.ipynb")


def redraw_all(outputs: Path, params: dict[str, Any]) -> int:
    """Execute the figures notebook for each folder of finished runs, and draw published figures of numbers
    again from their JSON. One sweep that cannot be drawn does not keep others; returns an exit status.
    """
    sweeps = sorted({done.parents[1] for done in outputs.glob("*/*/done.json")} - {outputs / PUBLISHED.name})
    failed = 0
    for sweep in sweeps:
        try:
            execute(NOTEBOOK, params | {"outputs": str(outputs), "sweep": sweep.name})
        except (ConfigError, RunError) as error:
            print(f"tok1d: {sweep}: {error}", file=sys.stderr)
            failed += 1
    drawn = [path for path in sorted(outputs.glob("published/[!.]*/**/*.json")) if redraw(path)]
    drawn += [path for path in sorted(outputs.glob("published/*.json")) if redraw(path)]
    print(
        f"{len(sweeps) - failed} of {len(sweeps)} sweeps and {len(drawn)} published figures are drawn again"
    )
    return int(failed > 0)


PUBLISHED = Path("outputs/published")
BEGIN, END = "<!-- results: written by tok1d publish -->", "<!-- end of results -->"


def publish(sweep: Path, title: str, published: Path = PUBLISHED, pictures: bool = True) -> Path:
    """Copy the numbers and figures of a finished sweep, all at once: until then what was published of it
    before is there. Without `pictures` figures that show images are left out. Its runs are named as if it was
    in `outputs`, and of paths among their parameters the last part is kept.

    Raises `RunError` if the sweep is not finished, if its runs were not measured alike, or if another sweep
    of its name is published already.
    """
    sweep = sweep.resolve()  # its name is that of a folder, never `..`
    if not (sweep / "results.csv").exists() or not (sweep / "sweep_done.json").exists():
        raise RunError(
            f"{sweep} is no finished sweep: finish it with 'tok1d sweep params/sweeps/{sweep.name}.yaml'"
        )
    rows = read_results(sweep / "results.csv")
    if rows["card"].nunique() > 1:
        odd = rows[rows["card"] != rows["card"].mode()[0]].iloc[0]["run"]
        raise RunError(
            f"{odd} was not measured as the other runs of {sweep}: 'tok1d evaluate' them alike first"
        )
    folder = published / sweep.name
    what = about(sweep, rows, title) | {"origin": origin(sweep, published)}
    earlier = read_about(folder) if (folder / "about.json").exists() else {}
    if earlier.get("origin", what["origin"]) != what["origin"]:
        raise RunError(
            f"{folder} holds another sweep of that name, {earlier['title']}: rename the folder {sweep}, "
            f"or delete {folder} to replace it"
        )
    with replacing(folder) as temporary:
        temporary.mkdir()
        write_files(temporary, sweep, rows, pictures)
        (temporary / "about.json").write_text(json.dumps(what, indent=1) + "\n", encoding="utf-8")
    return folder


class About(TypedDict):
    """about.json"""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]
    title: str
    card: dict[str, Any]


class Sidecar(TypedDict):
    """The JSON beside a figure."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]
    drawn: list[dict[str, Any]]


def read_about(folder: Path) -> Any:
    """What was published in a folder. Raises `RunError` if that is damaged."""
    return read_json(folder / "about.json", About, f"type 'git checkout {folder}', or delete that folder")


def write_files(folder: Path, sweep: Path, rows: pd.DataFrame, pictures: bool = True) -> None:
    """Results, and each figure with its JSON."""
    left_out = set() if pictures else {name for name, kind in FIGURES.items() if kind.images}
    where = f"outputs/{sweep.name}/"
    rows.map(without_folders).assign(path=where + rows["run"]).to_csv(folder / "results.csv", index=False)
    for file in sorted((sweep / "figures").glob("[!.]*")):
        if file.stem in left_out:
            continue
        if file.suffix == ".json":
            again = f"draw it again with 'tok1d figures {sweep.parent}'"
            kept = read_json(file, Sidecar, again)
            for item in kept["drawn"]:
                item |= {"run": where + Path(item["run"]).name} if "run" in item else {}
            kept = {name: everywhere(value) for name, value in kept.items()}
            (folder / file.name).write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
        elif file.suffix in (".png", ".pdf"):
            shutil.copy(file, folder)


def origin(sweep: Path, published: Path) -> str:
    """Eight letters that tell sweeps of one name apart by where they lie, and do not say where."""
    place = os.path.relpath(sweep, published.resolve().parent)
    return hashlib.sha256(place.encode(errors="surrogateescape")).hexdigest()[:8]


def read_results(file: Path) -> pd.DataFrame:
    """Names and card ids stay texts, though some look like numbers. Raises `RunError` if it is damaged."""
    words = ["run", "series", "card"]
    try:
        rows = pd.read_csv(file, dtype=dict.fromkeys(words, str))
    except ValueError as error:  # no table, or no text
        raise RunError(f"{file} is damaged ({error}): {SWEEP_AGAIN}") from None
    lacking = [name for name in (*words, "num_tokens") if name not in rows or rows[name].isna().all()]
    if lacking:
        raise RunError(f"{file} is damaged (it lacks {lacking[0]}): {SWEEP_AGAIN}")
    return rows


SWEEP_AGAIN = "delete sweep_done.json beside it, and type the 'tok1d sweep' that made it once more"


def without_folders(value: Any) -> Any:
    """`/a/b/photos` -> `photos`: what is published names no machine's folders."""
    return re.sub(r"(?<![\w/])/(?:[^\s/,]+/)*([^\s/,]+)/?", r"\1", value) if isinstance(value, str) else value


def everywhere(value: Any) -> Any:
    """`without_folders` of each text in lists and names with values."""
    if isinstance(value, dict):
        return {name: everywhere(part) for name, part in value.items()}
    return [everywhere(part) for part in value] if isinstance(value, list) else without_folders(value)


def about(sweep: Path, rows: pd.DataFrame, title: str) -> dict[str, Any]:
    """What the README says above the numbers, and the card of all of them."""
    run = Run(sweep / rows["run"][0])
    found = [each.evaluation for each in run.evaluations]
    evaluation = next((e for e in found if card_id(protocol(e["card"])) == rows["card"][0]), run.evaluation)
    card, images = evaluation["card"], without_folders(images_of(evaluation))
    return {"title": title, "made_with": card["made_with"], "images": images, "card": protocol(card)}


def results_table(published: Path = PUBLISHED) -> str:
    """Of every published sweep, in Markdown: a row for each kind of run and token count, means over seeds."""
    parts = []
    for file in sorted(published.glob("[!.]*/results.csv")):  # a killed process may leave hidden folders
        folder, rows = file.parent, read_results(file)
        about = read_about(folder)
        card, seeds = about["card"], rows.groupby(["series", "num_tokens"])["run"].nunique().max()
        what = f"{card['images']:,} images at {card['image_size']} pixels"
        spread = "both values" if seeds == 2 else "standard deviation"
        spread = f"mean and {spread} of {seeds} seeds" if seeds > 1 else "one seed"
        means = f"; {spread}, in brackets the 95 % interval over the images of a single one; {source(about)}"
        link = f"[{markdown_text(folder.name)}]({PUBLISHED.as_posix()}/{quote(folder.name)})"
        parts += [
            f"**{markdown_text(about['title'])}**, {what}{means} ({link}: figures, cards)",
            "",
            *markdown_table(rows),
            "",
        ]
    return "\n".join(parts)


def source(about: dict[str, Any]) -> str:
    """Whose images the numbers are of, and which images distances of sets are to."""
    if "images" in about:
        return markdown_text(about["images"])
    same = "the evaluated images" in about["card"].values()  # published before it was kept
    return "validation images" + "; distances of sets are to the same images" * same


def markdown_table(rows: pd.DataFrame) -> list[str]:
    names = [name for name, number in NUMBERS.items() if number.published and name in rows]
    lines = ["| | tokens | bits | " + " | ".join(map(name_of, names)) + " |"]
    lines.append("|---|---:|---:|" + "---:|" * len(names))
    for (series, count), group in rows.groupby(["series", "num_tokens"], sort=False):
        cells = [f"{group['bits'].mean():,.0f}" if "bits" in group else ""]
        cells += [cell(name, group) for name in names]
        lines.append(f"| {markdown_text(str(series))} | {count} | " + " | ".join(cells) + " |")
    return lines


def cell(name: str, rows: pd.DataFrame) -> str:
    """The mean over seeds: of one its interval over the images, of two both values, which a standard
    deviation would hide, of more what it is.
    """
    values = rows[name].dropna()
    if values.empty:
        return ""
    text, seeds = format_cell(name, values.mean()), [format_cell(name, value) for value in sorted(values)]
    if len(seeds) == 1:
        interval = rows.get(f"{name}_interval")
        if interval is None or not isinstance(interval.iloc[0], str):
            return text
        low, high = json.loads(interval.iloc[0])
        return f"{text} ({format_cell(name, low)}\u00a0…\u00a0{format_cell(name, high)})"
    if len(seeds) == 2:
        return f"{text} ({', '.join(seeds)})"
    spread = format_cell(name, values.std())
    least = format_cell(name, 0)  # 0.00
    return f"{text} ± {spread}" if spread != least else f"{text} ± < {least[:-1]}1"


def renew(readme: Path = Path("README.md"), published: Path = PUBLISHED) -> None:
    """Write the table into the README, between its two marks. Raises `RunError` if they are not there."""
    before, after = around_results(readme)
    with replacing(readme) as temporary:
        temporary.write_text(f"{before}{BEGIN}\n{results_table(published)}{END}{after}", encoding="utf-8")


def around_results(readme: Path = Path("README.md")) -> tuple[str, str]:
    """What stands before the table and after it. Raises `RunError` if it has no place."""
    before, begin, rest = (readme.read_text(encoding="utf-8") if readme.is_file() else "").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise RunError(
            f"{readme} has no place for results: type this in the project's folder, whose README.md has the "
            f"lines {BEGIN} and {END}"
        )
    return before, after
