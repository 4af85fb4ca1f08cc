"""The HTML of a report: sections with text, tables and pictures in one file that asks for nothing outside. Torch-free.

What comes from data goes through `escape`; only `Section.body` is HTML already, made by the functions here.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterable, Sequence

import attrs

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")

_STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1f2328; --soft: #59636e; --line: #d1d9e0; --box: #f6f8fa; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #16191d; --ink: #e4e7eb; --soft: #9aa4af; --line: #3a424b; --box: #20252b; }
  a { color: #7cb7ff; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 80rem; padding: 1rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; margin: 0.2rem 0; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 0.5rem; padding-top: 0.5rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.5rem 0 0.5rem; }
p { max-width: 48rem; margin: 0.5rem 0; }
nav ul { columns: 16rem; padding-left: 1.2rem; }
.soft, figcaption { color: var(--soft); }
.key { display: grid; grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); gap: 0.6rem; margin: 1rem 0; }
.key div { background: var(--box); border: 1px solid var(--line); border-radius: 6px; padding: 0.5rem 0.7rem; }
.key dt { color: var(--soft); font-size: 0.85rem; }
.key dd { margin: 0; font-size: 1.4rem; font-variant-numeric: tabular-nums; }
.key small { display: block; color: var(--soft); font-size: 0.8rem; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(18rem, 100%), 1fr)); gap: 1rem; }
figure { margin: 0; min-width: 0; }
img { display: block; width: 100%; height: auto; background: #fff; border: 1px solid var(--line); border-radius: 4px; }
figcaption { font-size: 0.85rem; margin-top: 0.3rem; }
figcaption ul { margin: 0; padding-left: 1.1rem; }
.scroll { overflow-x: auto; margin: 0.8rem 0; }
table { border-collapse: collapse; font-size: 0.9rem; overflow-wrap: normal; }
th, td { text-align: right; padding: 0.15rem 0.6rem; border-bottom: 1px solid var(--line);
  font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
.wide th, .wide td { text-align: left; vertical-align: top; }
.wide td + td { overflow-wrap: anywhere; min-width: 8rem; }
@media (max-width: 30rem) { table { font-size: 0.82rem; } th, td { padding: 0.15rem 0.3rem; } }
pre { background: var(--box); border: 1px solid var(--line); border-radius: 6px; padding: 0.7rem; font-size: 0.8rem;
  white-space: pre-wrap; }
"""


@attrs.frozen(kw_only=True, eq=False)
class Picture:
    """One plot or drawing.

    name: of its PNG file. alt: what it shows, for who cannot see it. caption: below it, then `lines` as a list. png:
    the file. jpeg: stands in for it on the page where that is smaller.
    """

    name: str
    alt: str
    caption: str
    png: bytes
    jpeg: bytes | None = None
    lines: Sequence[str] = ()


@attrs.frozen(kw_only=True, eq=False)
class Group:
    """Pictures side by side, under a heading if they have one."""

    title: str = ""
    pictures: Sequence[Picture]


@attrs.frozen(kw_only=True, eq=False)
class Section:
    """One part of the page. anchor: its id. body: HTML above the pictures."""

    anchor: str
    title: str
    body: str
    groups: Sequence[Group] = ()


def page(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """The whole file."""
    links = "".join(f'<li><a href="#{one.anchor}">{escape(one.title)}</a></li>' for one in sections)
    text = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<header><h1>{escape(title)}</h1><p class="soft">{escape(subtitle)}</p></header>
<nav aria-label="Contents"><ul>{links}</ul></nav>
<main>
{"".join(map(_section, sections))}</main>
</body>
</html>
"""
    # A path may hold bytes that are no text; a file of UTF-8 cannot.
    return text.encode("utf-8", "backslashreplace").decode()


def escape(text: object) -> str:
    """`text` as HTML text or attribute; control characters, which HTML forbids, become U+FFFD."""
    return html.escape(_CONTROL.sub("\ufffd", str(text)))


def short(text: str, length: int = 80) -> str:
    """The beginning of a text that a model may have made as long as it likes."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>\n"


def preformatted(text: str) -> str:
    return f"<pre>{escape(text)}</pre>\n"


def items(texts: Iterable[str]) -> str:
    """A list, or nothing."""
    inner = "".join(f"<li>{escape(one)}</li>" for one in texts)
    return f"<ul>{inner}</ul>\n" if inner else ""


def table(titles: Sequence[str], rows: Iterable[Sequence[object]], *, wide: bool = False) -> str:
    """A table whose first column is text. wide: the others are text too, and may be broken anywhere."""
    head = "".join(f'<th scope="col">{escape(one)}</th>' for one in titles)
    body = "".join("<tr>" + "".join(f"<td>{escape(one)}</td>" for one in row) + "</tr>\n" for row in rows)
    kind = ' class="wide"' if wide else ""
    box = f'<div class="scroll" role="group" aria-label="{escape(titles[0])} table" tabindex="0">'
    return f"{box}<table{kind}><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>\n"


def key_figures(figures: Iterable[tuple[str, str, str]]) -> str:
    """Numbers to be seen first: name, value, remark."""
    inner = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(remark)}</small></dd></div>"
        for name, value, remark in figures
    )
    return f'<dl class="key">{inner}</dl>\n'


def _section(section: Section) -> str:
    groups = "".join(
        (f"<h3>{escape(one.title)}</h3>\n" if one.title else "")
        + f'<div class="grid">\n{"".join(map(_figure, one.pictures))}</div>\n'
        for one in section.groups
        if one.pictures
    )
    return (
        f'<section id="{section.anchor}" aria-labelledby="{section.anchor}-title">\n'
        f'<h2 id="{section.anchor}-title">{escape(section.title)}</h2>\n{section.body}{groups}</section>\n'
    )


def _figure(picture: Picture) -> str:
    kind, data = "png", picture.png
    if picture.jpeg is not None and len(picture.jpeg) < len(picture.png):
        kind, data = "jpeg", picture.jpeg
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    caption = escape(picture.caption) + items(picture.lines)
    return f'<figure><img src="{source}" alt="{escape(picture.alt)}"><figcaption>{caption}</figcaption></figure>\n'
