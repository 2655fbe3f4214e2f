"""What a table says, in sentences: which figures ties decide, which method is best, whether groups bring anything."""

from collections.abc import Sequence

from train.grouprec.intervals import Interval
from train.grouprec.tabulate import FIGURES, Line
from train.grouprec.ties import Order

_AT = FIGURES.index("NDCG@5")


def gaps(lines: Sequence[Line]) -> list[str]:
    """How far the published order of ties is from what the scores know, where it matters."""
    return [_gap(line) for line in lines if abs(_of(line, "argsort").mean - _of(line, "expected").mean) > 0.01]


def best(lines: Sequence[Line]) -> list[str]:
    """The best method of each protocol by expected NDCG@5, and whether another is as good as far as the seeds tell."""
    said = []
    for group in _beside(lines):
        ordered = sorted(group, key=lambda line: -_of(line, "expected").mean)
        leader = ordered[0]
        rivals = [line.method for line in ordered[1:] if _overlap(_of(leader, "expected"), _of(line, "expected"))]
        also = f"; no worse as far as the seeds tell: {', '.join(rivals)}" if rivals else ""
        said.append(f"{_place(leader)}: best is {leader.method} with {_shown(_of(leader, 'expected'))}{also}.")
    return said


def worth(lines: Sequence[Line]) -> list[str]:
    """What pseudo-groups add to the same model without them, if both were run."""
    said = []
    for group in _beside(lines):
        of = {line.method: _of(line, "expected") for line in group}
        if not {"recommended", "ungrouped"} <= of.keys():
            continue
        gain = of["recommended"].mean - of["ungrouped"].mean
        within = _overlap(of["recommended"], of["ungrouped"])
        verdict = "nothing beyond the noise of seeds" if within else ("a gain" if gain > 0 else "a loss")
        said.append(f"{_place(group[0])}: grouping brings {verdict} ({gain:+.3f} NDCG@5 to the same model without it).")
    return said


def _beside(lines: Sequence[Line]) -> list[list[Line]]:
    """Lines of one protocol together."""
    groups: dict[str, list[Line]] = {}
    for line in lines:
        groups.setdefault(_place(line), []).append(line)
    return list(groups.values())


def _gap(line: Line) -> str:
    published, expected = _of(line, "argsort").mean, _of(line, "expected").mean
    lowest, highest = _of(line, "last").mean, _of(line, "first").mean
    return (
        f"{_place(line)}, {line.method}: NDCG@5 reads {published:.3f} where a published evaluator orders the ties and "
        f"{expected:.3f} over a random order. {line.ties:.1f} candidates share the held-out item's score, so that the "
        f"order of ties alone moves it between {lowest:.3f} and {highest:.3f}."
    )


def _of(line: Line, order: Order) -> Interval:
    return line.figures[order][_AT]


def _overlap(one: Interval, other: Interval) -> bool:
    return abs(one.mean - other.mean) <= (one.half or 0) + (other.half or 0)


def _place(line: Line) -> str:
    return f"{line.data}, {line.who}, {line.protocol}{' without leaked rows' if line.without_leaked else ''}"


def _shown(value: Interval) -> str:
    return f"{value.mean:.3f}" + ("" if value.half is None else f" ±{value.half:.3f}")
