"""OUT/cohort.json: what the predictions of many slides in a folder were made with, for `resume`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from histospace_tf import faults, outputs, provenance

FILE, TABLE = "cohort.json", "cohort.h5ad"


@dataclasses.dataclass(frozen=True)
class Record:
    """What the folder's predictions have in common, and what each was made of.

    started: model and options. slides: by .h5ad, relative to the folder, what tells the files that
    it is made of from others.
    """

    path: Path
    started: dict[str, Any]
    slides: dict[str, list[Any]]

    @classmethod
    def taken_up(cls, folder: Path, started: dict[str, Any], *, resume: bool) -> Record:
        """The record of earlier predictions in a folder, to go on with, or a new one.

        Raises:
            InputError: they were made with another model or other options.
        """
        record = cls(folder / FILE, started, {})
        if resume and record.path.is_file():
            with faults.reading(f"record {str(record.path)!r}"):
                kept = json.loads(record.path.read_text(encoding="utf-8"))
                outputs.refuse_changed(kept["started"], started, folder)
                record.slides.update(kept["slides"])
        folder.mkdir(parents=True, exist_ok=True)
        record._write()
        return record

    def holds(self, out: Path, files: Sequence[Path]) -> bool:
        """Whether a slide's prediction is there, and the files that it is made of are as they were:
        the slide, its spots, its regions."""
        now = [provenance.identity(file) for file in files]
        return out.is_file() and self.slides.get(self._key(out)) == now

    def add(self, out: Path, files: Sequence[Path]) -> None:
        """Keeps that a slide was predicted."""
        self.slides[self._key(out)] = [provenance.identity(file) for file in files]
        self._write()

    def _key(self, out: Path) -> str:
        return out.relative_to(self.path.parent).as_posix()

    def _write(self) -> None:
        with outputs.whole_file(self.path) as draft:
            content = {"started": self.started, "slides": self.slides}
            draft.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
