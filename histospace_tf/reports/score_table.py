"""scores.json as text, and the order of its rows."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from histospace_tf.predictors import registry
from histospace_tf.reports import bulk, findings, joined_counts
from histospace_tf.scores import metrics

_POOLED = (
    "pooled: r once over all spots. Where a section is high, the others' mean is low: the gene\n"
    "mean falls below 0, and the others with it as far as they do not predict the level"
)

_COLUMNS = {metrics.SCORES[key].heading: key for key in metrics.SHOWN}
_LABEL_WIDTH = 34
_WIDTH = 100


def table(scores_json: Mapping[str, Any]) -> str:
    """The scores as text for a terminal, at most 100 columns wide.

    One block per section; where there are more, one of their mean and one of all spots pooled, and
    where there are enough, one of the slides as a whole ("bulk"); then the same again for every
    "shared_genes". The last column, depth, is the mean over genes of r with the spots' total
    counts; its line "measured" is that of the measured values themselves.
    """
    sections = scores_json["sections"]
    blocks = [
        (
            f"{name} (patient {entry['patient']}, {entry['spots']} spots)",
            entry["rows"],
            entry.get("depth") or {},
        )
        for name, entry in sections.items()
    ]
    notes: dict[int, dict[str, str]] = {}
    if len(blocks) > 1:
        depths = [depth for _, _, depth in blocks]
        blocks.append(("mean over sections", scores_json["mean"], mean_depth(depths)))
        notes[len(blocks) - 1] = some_sections(scores_json)
        if scores_json.get("pooled"):
            spots = sum(entry["spots"] for entry in sections.values())
            blocks.append((f"all {spots} spots pooled", scores_json["pooled"], {}))
    whole = scores_json.get("bulk") or {}
    if whole.get("rows"):
        blocks.append((bulk.heading(whole), whole["rows"], {}))
    lines = [line for at, b in enumerate(blocks) for line in _block(*b, notes.get(at, {}))]
    for name, part in scores_json.get("shared_genes", {}).items():
        genes = sorted({f"{count}" for count in part["genes"].values()})
        lines += [f"On the {' or '.join(genes)} genes that {name} predicts:", "", table(part)]
    return "\n".join(lines)


def notes(scores_json: Mapping[str, Any]) -> list[str]:
    """What a reader of `table` must know, as text at most 100 columns wide."""
    words = [
        *findings.findings(scores_json),
        *trained(scores_json),
        *joined_counts.sentences(scores_json["split"]),
        *bulk.sentences(scores_json),
    ]
    return [
        *(textwrap.fill(line, _WIDTH, subsequent_indent="  ") for line in words),
        *(
            [registry.FOOTNOTE, *([_POOLED] if len(scores_json["sections"]) > 1 else [])]
            if scores_json["sections"]
            else []
        ),
    ]


def trained(scores_json: Mapping[str, Any]) -> list[str]:
    """What the compared predictors of a table are, one sentence each; and the model, where it is a
    network that others published."""
    blocks = [entry["rows"] for entry in scores_json["sections"].values()]
    blocks.append((scores_json.get("bulk") or {}).get("rows") or {})
    chosen = {one["predictor"]: one for one in scores_json.get("chosen") or ()}
    entries = [registry.entry(name) for name in registry.row_names(blocks)]
    return [
        f"{one.label}: {one.note_of(chosen.get(one.name, {}))}."
        for one in entries
        if one and one.note and (one.kind == "other" or "architecture" in chosen.get(one.name, {}))
    ]


def some_sections(scores_json: Mapping[str, Any]) -> dict[str, str]:
    """A note on each row of the mean that only some of the sections have: no other mean's equal."""
    sections = scores_json["sections"].values()
    some = {}
    for name in registry.row_names([entry["rows"] for entry in sections]):
        has = sum(bool(entry["rows"].get(name)) for entry in sections)
        if 0 < has < len(sections):
            some[name] = f"{has} of {len(sections)} sections"
    return some


def _block(
    title: str, rows: Mapping[str, Any], depth: Mapping[str, Any], notes: Mapping[str, str]
) -> list[str]:
    """Lines of one block of the table, an empty one at its end."""
    heading = "".join(f"{name:>8}" for name in (*_COLUMNS, *(["depth"] if depth else [])))
    lines = [f"{title:<{_LABEL_WIDTH}}{heading}"]
    if len(title) >= _LABEL_WIDTH:
        lines = [title, " " * _LABEL_WIDTH + heading]
    for name in registry.row_names([rows]):
        if rows.get(name):
            cells = [_cell(rows[name].get(key)) for key in _COLUMNS.values()]
            cells += [_cell(depth.get(name))] if depth else []
            words = registry.label(name, note=notes.get(name, ""))
            lines.append(_line(words, cells))
    if depth:
        lines.append(_line("measured", [*[_cell(None)] * len(_COLUMNS), _cell(depth["measured"])]))
    return [*lines, ""]


def _line(label: str, cells: Sequence[str]) -> str:
    values = "".join(cells)
    if len(label) > _LABEL_WIDTH - 2:
        return f"  {label}\n{' ' * _LABEL_WIDTH}{values}"
    return f"  {label:<{_LABEL_WIDTH - 2}}{values}"


def _cell(value: float | None) -> str:
    return f" {'-' if value is None else f'{value:.3f}':>7}"


def mean_depth(depths: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """Mean over sections of the depth audit, each over the sections that have it."""
    mean: dict[str, float | None] = {}
    for name in dict.fromkeys(name for depth in depths for name in depth):
        values = [value for depth in depths if (value := depth.get(name)) is not None]
        mean[name] = sum(values) / len(values) if values else None
    return mean
