"""A notebook's HTML made fit for the report: pictures are inside, nothing runs or leads away, tables fit."""

import base64
import mimetypes
import re
from pathlib import Path
from urllib.parse import unquote

from bs4 import BeautifulSoup

ELSEWHERE = re.compile(r"""(@import\b[^;]*|url\(\s*['"]?(https?:)?//[^)]*\))""", re.IGNORECASE)  # in CSS

NARROW = 4  # columns that a phone has room for
INTERVAL = re.compile(r"\(\S+\u00a0…\u00a0\S+\)$")  # as tables.show_table writes it

ACTIVE = ("script", "iframe", "frame", "frameset", "object", "embed", "applet", "link", "base", "meta")
LEADS = (
    "href",
    "xlink:href",
    "src",
    "data",
    "background",
    "poster",
    "cite",
    "longdesc",
    "from",
    "to",
    "values",
)


def disarm(soup: BeautifulSoup) -> None:
    """Take out what could run or lead anywhere but to a web page, a mail, or a place in this one."""
    for tag in soup(ACTIVE):
        tag.decompose()
    for tag in soup.find_all(True):
        for name, value in list(tag.attrs.items()):
            text = re.sub(r"[\x00-\x20\x7f-\x9f]", "", str(value)).lower()
            scheme = re.match(r"([^/?#]*?):", text)
            picture = text.startswith("data:image/") and tag.name in ("img", "image", "source")
            harmless = not scheme or scheme[1] in ("http", "https", "mailto") or picture
            gone = name.startswith("on") or name in ("srcdoc", "action", "formaction", "ping", "http-equiv")
            if gone or (name in LEADS and not harmless):
                del tag[name]


def embed(soup: BeautifulSoup, folder: Path) -> None:
    """Pictures of the notebook's folder become data URIs; what lives elsewhere a plain link, or it goes."""
    for tag in soup.find_all(src=True):
        source = tag["src"]
        if source.startswith("data:"):
            continue
        file = own_file(folder, source) if tag.name == "img" else None
        kind = (file and mimetypes.guess_type(file)[0]) or ""
        if file and kind.startswith("image/"):
            tag["src"] = f"data:{kind};base64,{base64.b64encode(file.read_bytes()).decode()}"
        elif tag.name == "img":
            link = soup.new_tag("a", href=source)
            link.string = f"{tag.get('alt') or 'image'} (not in this file: {source})"
            tag.replace_with(link)
        else:
            tag.decompose()
    for tag in soup.find_all(srcset=True):
        del tag["srcset"]
    for tag in soup.find_all(style=True):
        tag["style"] = ELSEWHERE.sub("none", tag["style"])
    for tag in soup("style"):
        tag.string = ELSEWHERE.sub("none", tag.get_text())


def describe_pictures(soup: BeautifulSoup) -> None:
    """A picture that says nothing of itself is described by the caption below it, or else by its heading."""
    for picture in soup("img"):
        if picture.get("alt") and not picture["alt"].startswith("No description"):
            continue
        cell = picture.find_parent(class_="cell")
        caption = cell and cell.find(["p", "figcaption"], class_="caption")
        heading = picture.find_previous(["h1", "h2", "h3", "h4"])
        words = caption or heading
        picture["alt"] = f"Picture: {words.get_text().strip()}" if words else "Picture of this notebook"


def fit_tables(soup: BeautifulSoup) -> None:
    """A table gets a box in which it scrolls where a page is too narrow, and says its count of columns for
    the size of its letters on paper. An interval is one piece, broken on paper only. A cell knows the name of
    its column, which stands beside it on a phone.
    """
    for table in soup("table"):
        columns = max((len(row(["td", "th"])) for row in table("tr")), default=1)
        wide = " wide" if columns > NARROW and table.find("thead") else ""
        box = {"class": f"table{wide}", "tabindex": "0", "role": "group", "aria-label": "Table"}
        table.wrap(soup.new_tag("div", attrs=box | {"style": f"--columns: {columns}"}))
        names = [cell.get_text().strip() for cell in table.select("thead tr:last-child > *")]
        for row in table.select("tbody tr") if wide else ():
            for cell, name in zip(row(["td", "th"]), names, strict=False):
                cell["data-name"] = name
        for cell in table("td"):
            if cell.string and (found := INTERVAL.search(cell.string)):
                piece = soup.new_tag(
                    "span", attrs={"class": "interval"}, string=found[0].replace("\u00a0", " ")
                )
                cell.string = cell.string[: found.start()]
                cell.append(piece)


def own_file(folder: Path, source: str) -> Path | None:
    """The file that a picture's `src` names, if it lies in the notebook's folder, links followed: nothing
    else of this machine gets into a report.

    nbconvert's `embed_images` knows pictures of Markdown alone, not of HTML outputs, follows links out of the
    folder, and ends with an error at a folder.
    """
    try:
        file = (folder / unquote(source)).resolve()
        return file if file.is_relative_to(folder.resolve()) and file.is_file() else None
    except (OSError, ValueError):  # no name that a file could have
        return None
