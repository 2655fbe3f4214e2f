"""The frame of a page: head, style, sections, tables. Every text that comes from elsewhere is escaped.

The style follows the reader's light or dark setting, fits a telephone's width, and prints.
"""

from collections.abc import Sequence
from html import escape

_STYLE = """
:root { --ink: #1c2128; --soft: #59636e; --line: #d6dce2; --paper: #fff; --card: #f5f7f9; --good: #1a7f37; --bad: #b42318;
  --c0: #2f6db5; --c1: #c8561c; --c2: #23824f; --c3: #9b4d96; --c4: #8f6f00; --c5: #16808c; --c6: #6659c4; --c7: #6e7781 }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ec; --soft: #9aa5b1; --line: #363d47; --paper: #14181d; --card: #1d2229;
  --good: #4ac26b; --bad: #ff7b72; --c0: #6aa6ee; --c1: #f0915a; --c2: #5cc48b; --c3: #d08ccb; --c4: #d6b445; --c5: #55c3d0;
  --c6: #a79df2; --c7: #99a3ae } }
* { box-sizing: border-box } html { color-scheme: light dark; -webkit-text-size-adjust: 100% }
body { font: 15px/1.55 system-ui, sans-serif; max-width: 1060px; margin: 2em auto 4em; padding: 0 1em; color: var(--ink);
  background: var(--paper); overflow-wrap: anywhere }
h1 { font-size: 1.65em; line-height: 1.2; margin: 0 0 .3em } h2 { margin: 2.2em 0 .6em; padding-bottom: .2em; border-bottom: 1px solid var(--line) }
h3 { margin: 1.4em 0 .3em; font-size: 1em } p { max-width: 46em } a { color: var(--c0) } small, .soft { color: var(--soft) }
code, pre { font: 13px/1.5 ui-monospace, monospace } pre { background: var(--card); padding: .8em 1em; border-radius: 6px; white-space: pre-wrap }
.scroll { overflow-x: auto; margin: .5em 0 } table { border-collapse: collapse; font-size: 14px }
th, td { padding: .2em 1em .2em 0; text-align: left; vertical-align: top; overflow-wrap: normal }
th { border-bottom: 1px solid var(--soft); font-weight: 600 } td { border-bottom: 1px solid var(--line) }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
svg { display: block; max-width: 100%; height: auto } svg text { font-size: 11px; fill: var(--soft) } svg .ink { fill: var(--ink) }
i.dot { display: inline-block; width: .75em; height: .75em; margin: 0 .35em 0 1em; border-radius: 2px } i.dot:first-child { margin-left: 0 }
.grid { display: flex; flex-wrap: wrap; gap: 1.2em 1.6em } .grid > * { min-width: 0 } .band { width: 200px } .band h3 { margin: .2em 0 }
figure { margin: 0; max-width: 100%; overflow-wrap: anywhere } figcaption, .band p { margin: .2em 0 0; font-size: 13px; color: var(--soft) }
img { display: block; max-width: 100%; height: auto; image-rendering: pixelated }
figure.pair { width: 266px } figure.pair div { display: flex; gap: 4px } figure.pair img { width: 131px; height: 131px }
nav { margin: 1em 0; font-size: 14px } nav a { margin-right: 1.1em; display: inline-block }
@media print { :root { --ink: #000; --soft: #444; --line: #bbb; --paper: #fff; --card: #f5f5f5; --c0: #2f6db5; --c1: #c8561c; --c2: #23824f }
  html { color-scheme: light } body { margin: 0; max-width: none; font-size: 11px } nav { display: none } h2, h3 { break-after: avoid }
  figure, tr, svg, img { break-inside: avoid } .scroll { overflow: visible } * { print-color-adjust: exact; -webkit-print-color-adjust: exact } }
"""  # noqa: E501


class Number:
    """A number that was written out: in a table it stands to the right."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __str__(self) -> str:
        return self._text


def document(
    title: str, sections: Sequence[tuple[str, str]], *, lead: str = "", style: str = "", contents: bool = False
) -> str:
    """A page of sections: heading and HTML of each.

    Args:
        title: text.
        sections: heading (text) and HTML.
        lead: HTML between the title and the first section.
        style: CSS of this page, beside what all pages have.
        contents: whether links to the sections stand on top.
    """
    names = [escape(name) for name, _ in sections]
    links = "".join(f'<a href="#s{number}">{name}</a>' for number, name in enumerate(names))
    nav = f'<nav aria-label="Contents">{links}</nav>' if contents else ""
    body = "".join(
        f'<section id="s{number}"><h2>{name}</h2>{html}</section>'
        for number, (name, (_, html)) in enumerate(zip(names, sections, strict=True))
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}{style}</style></head>"
        f"<body><h1>{escape(title)}</h1>{lead}{nav}<main>{body}</main></body></html>\n"
    )


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """An HTML table of texts and numbers; numbers stand to the right. Wider than the page it scrolls by itself."""
    cells = "".join(
        "<tr>"
        + "".join(f"<td{'' if isinstance(one, str) else ' class=n'}>{escape(str(one))}</td>" for one in row)
        + "</tr>"
        for row in rows
    )
    numeric = ["" if not rows or isinstance(one, str) else " class=n" for one in (rows[0] if rows else head)]
    named = "".join(f"<th{kind}>{escape(one)}</th>" for one, kind in zip(head, numeric, strict=False))
    return f'<div class="scroll"><table>{f"<tr>{named}</tr>" if head else ""}{cells}</table></div>'
