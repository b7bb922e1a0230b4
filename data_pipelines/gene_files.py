"""Gene names that a user writes: files of them, and what a misspelt one may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

from histospace_tf.vocabulary import InputError, named, repeats


def read_gene_file(path: Path) -> tuple[str, ...]:
    """Gene names from a text file: one a line, in order; "#" starts a comment.

    Raises:
        InputError: the file is missing, not text, empty, holds a gene twice or two on a line.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise InputError(f"gene file {str(path)!r} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"gene file {str(path)!r} cannot be read as text: {error}") from None
    genes = []
    for number, line in enumerate(lines, start=1):
        gene = line.partition("#")[0].strip()
        if any(mark in gene for mark in "\t,;\0"):
            raise InputError(
                f"gene file {str(path)!r}, line {number}: {gene[:60]!r}; one gene a line is needed"
            )
        if gene:
            genes.append(gene)
    if not genes:
        raise InputError(f"gene file {str(path)!r} names no gene; one a line is needed")
    repeated = repeats(genes)
    if repeated:
        raise InputError(
            f"gene file {str(path)!r} holds {len(repeated)} gene(s) more than once: "
            f"{named(repeated)}"
        )
    return tuple(genes)


def nearest_names(name: str, known: Sequence[str], limit: int = 3) -> list[str]:
    """Known names that look like `name`, best first; capitals do not count."""
    by_lower = {other.lower(): other for other in reversed(known)}
    near = difflib.get_close_matches(name.lower(), list(by_lower), n=limit)
    return [by_lower[other] for other in near]
