"""One page about some outcomes: HTML that needs nothing else, and the numbers as JSON beside it."""

from collections.abc import Iterable, Sequence
from html import escape
from statistics import median

from pipeline import record
from pipeline.page.document import document
from pipeline.page.drawing import svg
from pipeline.store import Store
from train.grouprec import findings, tabulate
from train.grouprec.intervals import Interval
from train.grouprec.outcome import Outcome
from train.grouprec.planted_check import PlantedCheck
from train.grouprec.tabulate import FIGURES, Line

PAGE_NAME, NUMBERS_NAME = "report.html", "report.json"
_STYLE = """
td, th { text-align: right; white-space: nowrap } td:first-child, th:first-child { text-align: left } li { margin: .3em 0; max-width: 46em }
.curves { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(300px, 100%), 1fr)); gap: 1em }
.curves svg { background: var(--card); border-radius: 6px; width: 100% }
"""  # noqa: E501
_WIDTH, _HEIGHT = 320, 110
_CURVES = (
    "Orange: loss. Blue: validation NDCG@10. Each fills the picture with its own range: only shapes compare. Dashed: "
    "the epoch that was kept. A run that was resumed shows the epochs behind its last start."
)
_EXPLAINED = (
    "Expected over a random order of ties, with intervals of 95 % over seeds; below in grey as a published evaluator "
    "orders them, and from last to first. 101 equal scores have HR@5 .0495, HR@10 .0990, NDCG@5 .0292, NDCG@10 .0450."
)


def publish(store: Store, outcomes: Sequence[Outcome], checks: Sequence[PlantedCheck], defects: Sequence[str]) -> None:
    """Write the page and its numbers.

    Args:
        store: a folder.
        outcomes: of all methods and seeds.
        checks: identifiers on planted groups.
        defects: of the data, in sentences.
    """
    numbers = {"outcomes": outcomes, "planted": checks, "defects": defects, "lines": tabulate.lines(outcomes)}
    store.publish(NUMBERS_NAME, record.dumps(numbers))
    store.publish(PAGE_NAME, page(outcomes, checks, defects).encode())


def page(outcomes: Sequence[Outcome], checks: Sequence[PlantedCheck], defects: Sequence[str]) -> str:
    """The page."""
    lines = tabulate.lines(outcomes)
    name = outcomes[0].data if outcomes else "no data"
    sections = [
        ("Figures", f"<p>{_EXPLAINED}</p>" + "".join(_figures(group) for group in _protocols(lines))),
        (
            "What it says",
            _list(findings.best(lines) + findings.worth(lines) or ["Nothing was compared."]),
        ),
        (
            "What explains the gap",
            _list(
                findings.gaps(lines)
                or ["Ties move no NDCG@5 by more than 0.01: the published order and a random one agree."]
            ),
        ),
        ("Defects of the data", _list(defects or ["None was found."])),
        ("Pseudo-groups", _groups(outcomes)),
        ("Planted groups: does the identifier find them?", _planted(checks)),
        ("Convergence", f"<p>{_CURVES}</p>{_curves(outcomes)}"),
        ("Time and memory", _cost(outcomes)),
    ]
    return document(f"Group recommendation without labels: {name}", sections, style=_STYLE)


def _curves(outcomes: Sequence[Outcome]) -> str:
    return f'<div class="curves">{"".join(_convergence(one) for one in outcomes if one.epochs)}</div>'


def _protocols(lines: Sequence[Line]) -> list[list[Line]]:
    groups: dict[tuple[str, str, bool], list[Line]] = {}
    for line in lines:
        groups.setdefault((line.who, line.protocol, line.without_leaked), []).append(line)
    return list(groups.values())


def _figures(lines: Sequence[Line]) -> str:
    head = lines[0]
    among = {"listed": "the listed negatives", "clean": "clean negatives", "full": "all items"}[head.protocol]
    leaked = ", without leaked rows" if head.without_leaked else ""
    title = f"<h3>{head.who.capitalize()}s among {among}{leaked} ({head.rows} rows)</h3>"
    rows = ([line.method, f"{line.ties:.1f}", *_cells(line)] for line in lines)
    return title + _table(("method", "ties", *FIGURES), rows)


def _cells(line: Line) -> list[str]:
    columns = zip(*(line.figures[order] for order in ("expected", "argsort", "last", "first")), strict=True)
    return [
        f"{_interval(expected)}<br><small>{published.mean:.3f} · {last.mean:.3f} to {first.mean:.3f}</small>"
        for expected, published, last, first in columns
    ]


def _interval(value: Interval) -> str:
    return f"{value.mean:.3f}" + ("" if value.half is None else f" ±{value.half:.3f}")


def _groups(outcomes: Sequence[Outcome]) -> str:
    rows = [
        [
            f"{one.method}, seed {one.seed}",
            one.grouping.identifier,
            str(len(one.grouping.sizes)),
            ", ".join(map(str, one.grouping.sizes[:12])) + (" ..." if len(one.grouping.sizes) > 12 else ""),
            _optional(one.grouping.silhouette),
            _optional(one.grouping.adjusted_rand),
        ]
        for one in outcomes
        if one.grouping is not None
    ]
    return _table(("run", "identifier", "groups", "sizes", "silhouette", "ARI"), rows)


def _planted(checks: Sequence[PlantedCheck]) -> str:
    rows = [
        [
            f"{one.groups} groups, noise {one.noise}",
            one.identifier,
            ", ".join(map(str, one.found)),
            ", ".join(f"{value:.2f}" for value in one.adjusted_rand),
        ]
        for one in checks
    ]
    return _table(("planted", "identifier", "found", "ARI"), rows)


def _convergence(one: Outcome) -> str:
    losses = [(report.epoch, report.bpr) for report in one.epochs]
    held = [(report.epoch, report.validation) for report in one.epochs if report.validation is not None]
    values = [value for _, value in held]
    kept = _WIDTH * one.kept_epoch / losses[-1][0]
    mark = f'<path d="M{kept:.1f} 0V{_HEIGHT}" stroke="var(--soft)" stroke-dasharray="3"/>' if held else ""
    curves = _curve(losses, "var(--c1)") + _curve(held, "var(--c0)") + mark
    caption = f"{one.method}, seed {one.seed}: loss {losses[0][1]:.3f} to {losses[-1][1]:.3f}" + (
        f", validation NDCG@10 {min(values):.3f} to {max(values):.3f}, epoch {one.kept_epoch} kept" if held else ""
    )
    drawn = svg(_WIDTH, _HEIGHT, [curves], said=caption)
    return f"<figure>{drawn}<figcaption>{escape(caption)}</figcaption></figure>"


def _curve(points: Sequence[tuple[int, float]], color: str) -> str:
    """Scaled to fill the picture: the shape is what is shown."""
    if len(points) < 2:
        return ""
    last, low, high = points[-1][0], min(y for _, y in points), max(y for _, y in points)
    span = max(high - low, 1e-12)
    drawn = " ".join(f"{_WIDTH * x / last:.1f},{(_HEIGHT - 8) * (high - y) / span + 4:.1f}" for x, y in points)
    return f'<polyline points="{drawn}" fill="none" stroke="{color}" stroke-width="1.5"/>'


def _cost(outcomes: Sequence[Outcome]) -> str:
    rows = [
        [
            f"{one.method}, seed {one.seed}",
            str(len(one.epochs)) if one.epochs else "-",
            f"{median(report.seconds for report in one.epochs):.2f}" if one.epochs else "-",
            f"{one.seconds:.1f}",
            f"{one.memory_mb:.0f}",
        ]
        for one in outcomes
    ]
    return _table(("run", "epochs", "seconds an epoch (median)", "seconds", "MB of the process so far"), rows)


def _optional(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _list(sentences: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences) + "</ul>"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Cells are HTML already."""
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<div class=scroll><table><tr>{''.join(f'<th>{name}</th>' for name in head)}</tr>{body}</table></div>"
