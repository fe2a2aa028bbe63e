"""The diagram as one SVG file that needs nothing else: no script, no font, no other file.

Type of one pitch makes every width known here. Lane heads come again every few rows, tooltips
tell the rest of a message, and the colours follow the reader's light or dark.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from xml.sax.saxutils import escape

from actorbus.message import format_id
from actorbus.persistence.drawing.heading import summary, title
from actorbus.persistence.drawing.label import OUTSIDE, after, label, lane_name, standing
from actorbus.persistence.drawing.wording import cells, clipped, elided

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from actorbus.persistence.drawing.sequence import Arrow, Bar, Diagram, End

_ROW: Final = 36.0
_LANE: Final = 156.0
_GUTTER: Final = 88.0
"""Left of the lanes, for the times."""
_TOP: Final = 78.0
_HEAD: Final = 44.0
"""A band of lane heads."""
_HEADS_EVERY: Final = 40.0
"""Rows."""
_ABOVE: Final = 0.6
"""Rows above an arrow that belong to its label."""
_BELOW: Final = 0.4
"""Rows below an arrow that belong to its loop or cross."""
_MARGIN: Final = 24.0
_RIGHT: Final = 190.0
"""Right of the lanes, for what labels have to say beyond them."""
_LEAST_WIDTH: Final = 760.0
_CELL: Final = 6.63
"""The pitch of 11 px type; the widest of the usual fonts has this."""
_BAR: Final = 8.0
_SLOTS: Final = 6
"""So many bars side by side; those beyond lie on the last one."""
_HEAD_CELLS: Final = 20
_SHORT: Final = 10.0
"""How far before a lane a cross is."""
_LOOP: Final = 30.0
_TOLD: Final = 20
_LONG: Final = 600

_STYLE: Final = """\
text{font:11px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;fill:#1f2328}
text,tspan{direction:ltr;unicode-bidi:isolate}
.paper,.band{fill:#fff}
.title{font-size:15px;font-weight:600}
.about,.after,.key{fill:#59636e}
.after{text-anchor:end}
.life{stroke:#d1d9e0}
.head rect{fill:#f6f8fa;stroke:#818b98}
.head text{text-anchor:middle;font-weight:600}
.outside text{font-style:italic;font-weight:400}
.bar{fill:#ddf4ff;stroke:#54aeff}
.bar.wrong{fill:#ffebe9;stroke:#ff8182}
.line{fill:none;stroke:#1f2328;stroke-width:1.4}
.tip{fill:#1f2328;stroke:#1f2328}
.answer .line{stroke:#59636e;stroke-dasharray:5 4}
.answer .tip{fill:#59636e;stroke:#59636e}
.waits .line{stroke:#9a6700;stroke-dasharray:1 4}
.waits .tip{fill:none;stroke:#9a6700}
.waits circle.line{stroke-dasharray:none}
.wrong .line,.cross{stroke:#d1242f}
.wrong .tip{fill:#d1242f;stroke:#d1242f}
.cross{fill:none;stroke-width:2.2}
.label{paint-order:stroke;stroke:#fff;stroke-width:4px;stroke-linejoin:round}
.what{font-weight:600}
.trouble{fill:#d1242f}
.waits .trouble{fill:#9a6700}
.hit{fill:transparent}
.message:hover .hit{fill:#0969da;fill-opacity:.09}
@media (prefers-color-scheme:dark){
text{fill:#e6edf3}
.paper,.band{fill:#0d1117}
.about,.after,.key{fill:#9198a1}
.life{stroke:#3d444d}
.head rect{fill:#161b22;stroke:#656c76}
.bar{fill:#0c2d6b;stroke:#388bfd}
.bar.wrong{fill:#5d0f12;stroke:#f85149}
.line{stroke:#e6edf3}
.tip{fill:#e6edf3;stroke:#e6edf3}
.answer .line{stroke:#9198a1}
.answer .tip{fill:#9198a1;stroke:#9198a1}
.waits .line,.waits .tip{stroke:#d29922}
.waits .tip{fill:none}
.wrong .line,.cross{stroke:#ff7b72}
.wrong .tip{fill:#ff7b72;stroke:#ff7b72}
.label{stroke:#0d1117}
.trouble{fill:#ff7b72}
.waits .trouble{fill:#d29922}
}
"""


def svg(diagram: Diagram) -> str:
    """The file's text, of characters that any XML reader takes."""
    page = _Page.of(diagram)
    parts = [
        *_opening(diagram, page),
        *(_life(x, page) for x in page.lanes),
        *(_bar(bar, page) for bar in diagram.bars),
        *(line for y in page.heads for line in _band(diagram, page, y)),
        *(line for arrow in diagram.arrows for line in _message(diagram, arrow, page)),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


@dataclass(frozen=True, slots=True)
class _Page:
    """From rows and lanes to pixels."""

    lanes: tuple[float, ...]
    width: float
    height: float
    breaks: tuple[float, ...]
    """Rows before which lane heads come again."""

    @classmethod
    def of(cls, diagram: Diagram) -> _Page:
        lanes = tuple(_GUTTER + _LANE * (lane + 0.5) for lane in range(len(diagram.lanes)))
        breaks = tuple(_breaks(diagram))
        width = max(_LEAST_WIDTH, _GUTTER + _LANE * len(lanes) + _RIGHT)
        height = _TOP + _HEAD * (len(breaks) + 2) + _ROW * diagram.height
        return cls(lanes, width, height, breaks)

    def y(self, row: float) -> float:
        return _TOP + _HEAD * (1 + bisect_right(self.breaks, row)) + _ROW * row

    @property
    def heads(self) -> list[float]:
        """The top of every band of lane heads."""
        between = [self.y(row) - _HEAD for row in self.breaks]
        return [_TOP, *between, self.height - _HEAD]


def _breaks(diagram: Diagram) -> Iterator[float]:
    """At even distances, but above a message rather than through it."""
    rows = [arrow.y for arrow in diagram.arrows]
    at = _HEADS_EVERY
    while at < diagram.height - _HEADS_EVERY / 8:
        near = bisect_right(rows, at - _BELOW)
        if near < len(rows) and rows[near] - _ABOVE < at:
            at = rows[near] - _ABOVE
        yield at
        at += _HEADS_EVERY


def _opening(diagram: Diagram, page: _Page) -> Iterator[str]:
    width, height = _px(page.width), _px(page.height)
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
        f' viewBox="0 0 {width} {height}" role="img" aria-labelledby="title desc">'
    )
    heading, about = title(diagram), summary(diagram)
    yield f'<title id="title">{escape(heading)}</title>'
    yield f'<desc id="desc">{escape(about)}</desc>'
    yield f"<style>\n{_STYLE}</style>"
    yield f'<rect class="paper" width="{width}" height="{height}"/>'
    yield f'<text class="title" x="{_px(_MARGIN)}" y="26">{escape(heading)}</text>'
    yield f'<text class="about" x="{_px(_MARGIN)}" y="44">{escape(about)}</text>'
    yield from _key(_MARGIN, 62)


def _key(x: float, y: float) -> Iterator[str]:
    """What the lines mean."""
    for kind, word in (
        ("", "message"),
        ("answer", "reply"),
        ("waits", "not handled yet"),
        ("wrong", "failed or dead"),
    ):
        tip = _cross(x + 26, y - 4) if kind == "wrong" else _head(x + 30, y - 4, 1)
        yield (
            f'<g class="{kind}"><path class="line" d="M{_px(x)} {_px(y - 4)}H{_px(x + 26)}"/>{tip}'
            f'<text class="key" x="{_px(x + 36)}" y="{_px(y)}">{word}</text></g>'
        )
        x += 36 + _CELL * (len(word) + 3)


def _life(x: float, page: _Page) -> str:
    bottom = page.height - _HEAD
    return f'<path class="life" d="M{_px(x)} {_px(_TOP)}V{_px(bottom)}"/>'


def _band(diagram: Diagram, page: _Page, top: float) -> Iterator[str]:
    yield (
        f'<rect class="band" x="0" y="{_px(top)}" width="{_px(page.width)}" height="{_px(_HEAD)}"/>'
    )
    for name, x in zip(diagram.lanes, page.lanes, strict=True):
        full = OUTSIDE if name is None else clipped(name, _LONG)
        yield (
            f'<g class="head{" outside" if name is None else ""}"><title>{escape(full)}</title>'
            f'<rect x="{_px(x - _LANE / 2 + 5)}" y="{_px(top + 8)}" width="{_px(_LANE - 10)}"'
            f' height="{_px(_HEAD - 18)}" rx="4"/>'
            f'<text x="{_px(x)}" y="{_px(top + 25)}">'
            f"{escape(lane_name(name, _HEAD_CELLS))}</text></g>"
        )


def _bar(bar: Bar, page: _Page) -> str:
    x = page.lanes[bar.lane] - _BAR / 2 + min(bar.slot, _SLOTS - 1) * (_BAR - 2)
    top, bottom = page.y(bar.top), page.y(bar.bottom)
    return (
        f'<rect class="bar{" wrong" if bar.wrong else ""}" x="{_px(x)}" y="{_px(top)}"'
        f' width="{_px(_BAR)}" height="{_px(bottom - top)}" rx="1"/>'
    )


def _message(diagram: Diagram, arrow: Arrow, page: _Page) -> Iterator[str]:
    classes = ["message"]
    classes += [name for name in ("answer", "waits", "wrong") if getattr(arrow, name)]
    y = page.y(arrow.y)
    yield f'<g class="{" ".join(classes)}" data-id="{format_id(arrow.view.id)}">'
    yield f"<title>{escape(_tooltip(diagram, arrow))}</title>"
    yield (
        f'<rect class="hit" x="0" y="{_px(y - _ROW * _ABOVE + 2)}" width="{_px(page.width)}"'
        f' height="{_px(_ROW * _ABOVE + 8)}"/>'
    )
    yield f'<text class="after" x="{_px(_GUTTER - 10)}" y="{_px(y - 6)}">{after(arrow)}</text>'
    yield from _line(arrow, page, y)
    yield _labelled(arrow, page, y)
    yield "</g>"


def _line(arrow: Arrow, page: _Page, y: float) -> Iterator[str]:
    """One line along all lanes that the message reaches, and a tip at each."""
    start = page.lanes[arrow.source]
    if not arrow.ends:
        yield _straight(start, start + _LOOP, y)
        yield _cross(start + _LOOP, y) if arrow.wrong else _ring(start + _LOOP, y)
        return
    others = [end for end in arrow.ends if end.lane != arrow.source]
    tips = [_tip(arrow, end, start, page.lanes[end.lane]) for end in others]
    if tips:
        reach = [start, *(tip.x for tip in tips)]
        yield _straight(min(reach), max(reach), y)
    for tip in tips:
        yield tip.drawn(y)
    for end in arrow.ends:
        if end.lane == arrow.source:
            yield _loop(start, y)
            yield _tip(arrow, end, start + _LOOP, start).drawn(y + 10)


@dataclass(frozen=True, slots=True)
class _Tip:
    """What an arrow ends in: a head on the lane, or a cross before it."""

    x: float
    towards: int
    crossed: bool

    def drawn(self, y: float) -> str:
        return _cross(self.x, y) if self.crossed else _head(self.x, y, self.towards)


def _tip(arrow: Arrow, end: End, start: float, x: float) -> _Tip:
    towards = 1 if x > start else -1
    crossed = end.wrong or arrow.wrong
    return _Tip(x - towards * _SHORT if crossed else x, towards, crossed)


def _straight(left: float, right: float, y: float) -> str:
    return f'<path class="line" d="M{_px(left)} {_px(y)}H{_px(right)}"/>'


def _loop(x: float, y: float) -> str:
    return f'<path class="line" d="M{_px(x)} {_px(y)}h{_px(_LOOP)}v10h{_px(-_LOOP)}"/>'


def _head(x: float, y: float, towards: int) -> str:
    back = -8 * towards
    return f'<path class="tip" d="M{_px(x)} {_px(y)}l{back} -4v8z"/>'


def _cross(x: float, y: float) -> str:
    return f'<path class="cross" d="M{_px(x - 5)} {_px(y - 5)}l10 10m0 -10l-10 10"/>'


def _ring(x: float, y: float) -> str:
    return f'<circle class="line" cx="{_px(x + 4)}" cy="{_px(y)}" r="4"/>'


def _labelled(arrow: Arrow, page: _Page, y: float) -> str:
    """At the left end of its arrow, or as far left of that as it needs to fit the page."""
    left, right = _GUTTER + 4, page.width - _MARGIN
    said = label(arrow, int((right - left) / _CELL))
    reach = [page.lanes[lane] for lane in (arrow.source, *(end.lane for end in arrow.ends))]
    x = max(left, min(min(reach) + 10, right - cells(str(said)) * _CELL))
    spans = "".join(
        f'<tspan class="{part}">{escape(text)}</tspan>'
        for part, text in zip(said._fields, said, strict=True)
        if text
    )
    return f'<text class="label" x="{_px(x)}" y="{_px(y - 6)}" xml:space="preserve">{spans}</text>'


def _tooltip(diagram: Diagram, arrow: Arrow) -> str:
    view = arrow.view
    to = _recipients(diagram, arrow.ends) or (
        f"topic {elided(view.topic, 128)}" if view.topic else "nobody"
    )
    lines = [
        f"{elided(view.kind, 48)} {elided(view.type, 128)}",
        f"{lane_name(view.sender, 128)} → {to}",
        f"{format_id(view.id)} on {elided(view.node, 128)}",
        f"sent {view.created_at:%H:%M:%S.%f} UTC, {view.priority.name.lower()}",
        str(label(arrow, 400)),
        *(_became(diagram, end) for end in arrow.ends[:_TOLD] if arrow.to_many and end.wrong),
    ]
    if view.error:
        lines.append(clipped(view.error, _LONG))
    if view.payload is not None:
        lines.append(clipped(json.dumps(view.payload, ensure_ascii=False, default=str), _LONG))
    return "\n".join(lines)


def _became(diagram: Diagram, end: End) -> str:
    return (
        f"{lane_name(diagram.lanes[end.lane], 64)}: {elided(standing(end.status, end.reason), 96)}"
    )


def _recipients(diagram: Diagram, ends: Sequence[End]) -> str:
    shown = ", ".join(lane_name(diagram.lanes[end.lane], 64) for end in ends[:_TOLD])
    return shown if len(ends) <= _TOLD else f"{shown} and {len(ends) - _TOLD:,} more"


def _px(value: float) -> str:
    """A length, without digits that nobody sees."""
    return f"{value:.1f}".removesuffix(".0")
