"""Names of patients: one patient written in several ways, and cells that name no patient.

A split keeps a patient's sections on one side, so the same patient under two names would be on
both. Names that are equal except for case, blanks, marks between their parts (A-1, A_1, A1) and the
form of their numbers (7, 007, 7.0) are therefore taken for one patient, with a warning.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterable, Sequence

from histospace_tf.data_pipelines import text_tables
from histospace_tf.vocabulary import Problem, named

# Columns of sections.csv and of AnnData's obs that name patients; the first one present is used.
COLUMNS = ("patient", "patient_id", "donor", "donor_id", "subject", "subject_id")
_NOBODY = frozenset(
    [
        *text_tables.MISSING,
        *("-", "--", "?", "#n/a", "n.a.", "nat"),
        *("unknown", "missing", "not available", "not applicable", "not known"),
    ]
)
_WHOLE = re.compile(r"(\d+)[.,]0+")  # as a spreadsheet may write a whole number


def stated(text: str) -> str | None:
    """The patient that a cell names; None for an empty cell, NaN, NA, none, unknown, ..."""
    name = " ".join(text.split())
    return None if name.casefold() in _NOBODY else name


def same_as(name: str) -> str:
    """The form that all ways to write one patient's name have in common."""
    plain = unicodedata.normalize("NFKC", name).casefold().strip()
    whole = _WHOLE.fullmatch(plain)
    key = ""
    for kind, part in itertools.groupby(whole[1] if whole else plain, key=_kind):
        text = "".join(part)
        if kind == "digits":
            key += "-" if key and key[-1].isdigit() else ""  # 1-1 is not 11
            key += str(int(text))
        elif kind == "letters" or set(text) == {"+"}:
            key += text
    return key or plain


def _kind(letter: str) -> str:
    """ "digits" or "letters"; any other character, itself, only separates parts of a name.

    Marks count as letters: they are the vowels of many scripts.
    """
    category = unicodedata.category(letter)
    return "digits" if category == "Nd" else "letters" if category[0] in "LM" else letter


def one_name_each(names: Sequence[str]) -> dict[str, str]:
    """Patients written in several ways: each way -> the first one."""
    first: dict[str, str] = {}
    for name in names:
        first.setdefault(same_as(name), name)
    return {name: first[same_as(name)] for name in names if first[same_as(name)] != name}


def joined_warning(kept: str, others: Iterable[str], where: str) -> Problem:
    """A warning that several names are taken for one patient, `kept`."""
    return Problem(
        "warning",
        where,
        f"patients {named([kept, *others])} are taken for one, {kept!r}: their names differ in "
        "capitals, blanks, marks or the form of numbers alone.",
        "Write every patient in one way; patients that are different need names that differ more.",
    )
