"""Who is one patient, and what no name is."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from histospace_tf.data_pipelines import patients, readers, splits
from histospace_tf.data_pipelines.readers import sources, visium
from histospace_tf.vocabulary import InputError
from made import visium as made_visium
from made.cohorts import messages
from made.sections import made_section, write_her2st, write_stnet

PICTURE = made_visium.noise_picture(5)


def table_of_runs(folder: Path, text: str, *, encoding: str = "utf-8") -> Path:
    """Two runs, A and B, and a sections.csv."""
    for number, name in enumerate("AB"):
        made_visium.write_run(folder / "runs" / name / "outs", PICTURE, seed=number)
    (folder / "sections.csv").write_bytes(text.encode(encoding))
    return folder


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("P1", "p1"),
        ("P1", " P1\u00a0"),
        ("P 1", "P1"),
        ("A-1", "A_1"),
        ("A/1", "A.1"),
        ("1", "1.0"),
        ("1", "1,00"),
        ("007", "7"),
        ("P007", "p7"),
        ("Müller", "MÜLLER"),
        ("Mu\u0308ller", "Müller"),
        ("John Doe", "john  doe"),
        ("P\u0662", "p2"),
    ],
)
def test_one_patient_in_two_ways(one: str, other: str) -> None:
    assert patients.same_as(one) == patients.same_as(other)
    assert patients.one_name_each([one, "X", other]) == ({other: one} if one != other else {})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("P1", "P2"),
        ("1.01", "11"),
        ("P\u0661", "P\u0662"),
        ("กี", "กิ"),
        ("P1", "P11"),
        ("P1-1", "P11"),
        ("P 1 1", "P 11"),
        ("1.5", "15"),
        ("10", "1.0"),
        ("10", "100"),
        ("HER2+", "HER2"),
        ("A", "B"),
        ("Müller", "Muller"),
        ("TCGA-A1-A0SB", "TCGA-A1-A0SC"),
    ],
)
def test_two_patients_stay_two(one: str, other: str) -> None:
    assert patients.same_as(one) != patients.same_as(other)


def test_cells_that_name_no_patient() -> None:
    for cell in ("", " ", "NA", "NaN", "none", "Unknown", "n/a", "-", "<NA>", "\u00a0"):
        assert patients.stated(cell) is None
    assert patients.stated(" P  1 ") == "P 1"


@pytest.mark.parametrize("pair", [("P1", "p1"), ("1", "1.0"), ("007", "7")])
def test_one_patient_is_joined_with_a_warning_and_never_on_both_sides(
    tmp_path: Path, pair: tuple[str, str]
) -> None:
    text = f"section,path,patient\nA,runs/A,{pair[0]}\nB,runs/B,{pair[1]}\n"
    cohort = readers.read_cohort(table_of_runs(tmp_path, text))
    assert cohort.patients == (pair[0],)
    assert f"patients {pair[0]!r}, {pair[1]!r} are taken for one" in messages(cohort, "warning")
    assert "sections 'A', 'B'" in messages(cohort, "warning")
    names = np.repeat(["A", "B"], 4)
    index = splits.SpotIndex(names, np.repeat(pair[0], 8), np.zeros((8, 2)), np.zeros(8))
    fold = splits.outer_fold(index)
    assert splits.leaking_patients(index, fold) == (pair[0],)  # said by fit, no longer hidden
    with pytest.raises(InputError, match="leaves nothing to train on"):
        splits.outer_fold(index, [pair[1]])


def test_a_patient_is_held_out_in_any_way_of_writing_it() -> None:
    names = np.array(["P1", "P1", "P2", "Q-7"])
    index = splits.SpotIndex(np.array(list("abcd")), names, np.zeros((4, 2)), np.zeros(4))
    for asked, rows in (("p1", [0, 1]), ("P 2", [2]), ("q_07", [3])):
        fold = splits.outer_fold(index, [asked])
        assert fold.test.tolist() == rows
        assert fold.held_out == (names[rows[0]],)
    with pytest.raises(InputError, match="nothing to hold out is named 'P3'"):
        splits.outer_fold(index, ["P3"])


@pytest.mark.parametrize("cell", ["", "NA", "unknown"])
def test_an_empty_patient_among_filled_ones_is_refused_with_its_line(
    tmp_path: Path, cell: str
) -> None:
    text = f"section,path,patient\n\nA,runs/A,P1\nB,runs/B,{cell}\n"
    with pytest.raises(InputError, match=r"line 4: section 'B' names no patient, and 1 of 2"):
        readers.read_cohort(table_of_runs(tmp_path, text))


def test_patients_of_folders_and_of_metadata_are_joined_too(tmp_path: Path) -> None:
    folders = write_her2st(tmp_path / "h", made_section("A1", "P1"), made_section("A2", "p-1"))
    assert readers.read_cohort(folders).patients == ("P1",)
    rows = write_stnet(tmp_path / "s", made_section("C1", "BC1"), made_section("D1", "BC2"))
    table = rows / "metadata.csv"
    table.write_text(table.read_text().replace("BC2,", "bc1,"))
    assert readers.read_cohort(rows).patients == ("BC1",)
    table.write_text(table.read_text().replace("bc1,", ","))
    with pytest.raises(InputError, match=r"metadata\.csv', line 3: patient ''"):
        readers.read_cohort(rows)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("section;path;patient;mpp\nA1;runs/A;P1;0,7\nB1;runs/B;P2;0,7\n", "utf-8"),
        ("section\tpath\tpatient\tmpp\r\nA1\truns/A\tP1\t0.7\r\nB1\truns/B\tP2\t0.7\r\n", "utf-16"),
        ("Section,PATH,Donor ID,mpp,\nA1,runs/A,P1,0.7,\nB1,runs/B,P2,0.7,\n", "utf-8-sig"),
        ("section,path,patient,mpp\nA1,runs\\A,P1,0.7,\n,,,\nB1,.\\runs\\B,P2,0.7\n,,,\n", "utf-8"),
        ('sep=,\n# m\nsection,path,patient,mpp\n"A1",runs/A,P1,"0,7"\nB1,runs/B,P2,.7\n', "utf-8"),
        ('"section" "path" "patient" "mpp"\n"1" "A1" "runs/A" "P1" 0.7\n'
         '"2" "B1" "runs/B" "P2" 0.7\n', "utf-8"),
        ("section,path,image,patient,mpp\nA1,runs/A,NA,P1,0.7\nB1,runs/B,NaN,P2,0.7\n", "utf-8"),
        (",section,path,patient,mpp\n0,A1,runs/A,P1,0.7\n1,B1,runs/B,P2,0.7\n", "utf-8"),
    ],
)  # fmt: skip
def test_sections_csv_in_every_dialect(tmp_path: Path, text: str, encoding: str) -> None:
    cohort = readers.read_cohort(table_of_runs(tmp_path, text, encoding=encoding))
    found = [(s.name, s.patient, s.mpp) for s in cohort.sections]
    assert found == [("A1", "P1", 0.7), ("B1", "P2", 0.7)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sample,path\nA,runs/A\n", "no column 'section'; did you mean 'section' by 'sample'"),
        ("section,path,pateint\nA,runs/A,P\n", "did you mean 'patient' by 'pateint'"),
        ("section,path,individual\nA,runs/A,P\n", "did you mean 'patient' by 'individual'"),
        ("section,path,patient,donor\nA,runs/A,P,Q\n", "2 columns for 'patient'"),
        ("section,path,mpp\nA,runs/A,0;5\n", "mpp '0;5'"),
        ("section,path\nA,runs/A,x\n", "line 2: 3 fields under 2 column names"),
        ("section,path\nA,runs/A\nB\n", "line 3: 1 fields under 2 column names"),
        ("section,path\nS/1,runs/A\n", "section S/1: its name has a slash"),
        ("section,path\nS 1,runs/A\nS_1,runs/B\n", "section S_1: .* those of section 'S 1'"),
        ("section,path\na,runs/A\nA,runs/B\n", "section A: .* those of section 'a'"),
        ("section,path\nA,runs/A\nB,./runs/A/outs\n", "section B: .* data of section 'A' again"),
        ("section,path,\nA,runs/A,good\n", "a column without a name"),
    ],
)
def test_sections_csv_with_faults(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        readers.read_cohort(table_of_runs(tmp_path, text))


@pytest.mark.parametrize("name", ["Sections.CSV", "sections.tsv", "sections.csv.txt"])
def test_the_table_is_found_under_the_names_that_programs_give_it(
    tmp_path: Path, name: str
) -> None:
    folder = table_of_runs(tmp_path, "section\tpath\tpatient\nA1\truns/A\tP1\n")
    (folder / "sections.csv").rename(folder / name)
    assert readers.read_cohort(folder).patients == ("P1",)
    (folder / "sections.xlsx").write_bytes(b"PK\x03\x04")
    with pytest.raises(InputError, match=r"2 tables of sections .*keep one, called sections\.csv"):
        readers.read_cohort(folder)
    (folder / name).unlink()
    with pytest.raises(InputError, match=r"sections\.xlsx' is no text"):
        readers.read_cohort(folder)


def test_names_of_sections_stay_text(tmp_path: Path) -> None:
    text = "section,path,patient\n01,runs/A,P1\n1,runs/B,P2\n"
    cohort = readers.read_cohort(table_of_runs(tmp_path, text))
    assert [s.name for s in cohort.sections] == ["01", "1"]


def test_a_name_that_is_too_long_is_refused(tmp_path: Path) -> None:
    made_visium.write_run(tmp_path / "A", PICTURE)
    (source,), _ = visium.find_sections(tmp_path / "A")
    kept, (problem,) = sources.checked_names([dataclasses.replace(source, name="x" * 200)])
    assert kept == []
    assert "more than 150 letters" in str(problem)


@pytest.mark.parametrize("way", ["path", "link", "copy"])
def test_the_same_counts_under_two_names_are_warned_of(tmp_path: Path, way: str) -> None:
    text = "section,path,patient\nA,runs/A/outs,P1\nB,runs/B/outs,P2\nC,{},P3\n"
    folder = table_of_runs(tmp_path, text.format("runs/A/../A/outs" if way == "path" else "runs/C"))
    if way == "link":
        (folder / "runs" / "C").symlink_to("A")
    elif way == "copy":
        shutil.copytree(folder / "runs" / "A", folder / "runs" / "C")
    cohort = readers.read_cohort(folder)
    assert [s.name for s in cohort.sections] == ["A", "B", "C"]
    warned = [p for p in cohort.problems if "spot by spot" in p.message]
    assert [(p.severity, p.where) for p in warned] == [("warning", "section C")]
    assert "section 'A'" in warned[0].message
