"""What counts without images joined, in words: of scores.json and of a model's bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def sentences(split: Mapping[str, Any]) -> list[str]:
    """What joined which folds' training sides, a sentence for each set of sections.

    Args:
        split: entry of scores.json.
    """
    folds: dict[str, list[str]] = {}
    for fold in split.get("counts") or []:
        folds.setdefault(joined(fold), []).append(", ".join(map(str, fold["held_out"])))
    return [f"{words} ({'; '.join(names)} held out)." for words, names in folds.items()]


def joined(record: Mapping[str, Any]) -> str:
    """What joined a training side.

    Args:
        record: of `taught.Joining`, or a fold's of scores.json.
    """
    sections, patients = record["sections"], record["patients"]
    return (
        f"Counts without images: {_count(sections, 'section')} of {_count(patients, 'patient')} "
        f"({record['spots']:,} spots) joined levels and gene factors"
    )


def _count(names: Sequence[str], noun: str) -> str:
    return f"{len(names)} {noun}" + ("" if len(names) == 1 else "s")
