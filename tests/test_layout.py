"""The layout's promises: floors, packages, what a wheel holds."""

from __future__ import annotations

import ast
import configparser
import functools
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import histospace_tf

ROOT = Path(__file__).parents[1]
# Where the real files of the two linked sub-packages lie.
ROOTS = {
    "histospace_tf": ROOT / "histospace_tf",
    "histospace_tf.data_pipelines": ROOT / "data_pipelines",
    "histospace_tf.models": ROOT / "models",
}


def folders() -> dict[str, Path]:
    """Every package by its import name: the three roots, and their folders with an __init__.py."""
    inside = {
        f"{package}.{folder.name}": folder
        for package, root in ROOTS.items()
        for folder in sorted(root.iterdir())
        if (folder / "__init__.py").is_file()
    }
    return {**inside, **ROOTS}


FOLDERS = folders()
# Modules, and folders of which every module stands on one floor.
FLOORS = {
    0: [
        "vocabulary",
        "faults",
        "legal_values",
        "config",
        "presets",
        "request_options",
        "outputs",
        "provenance",
    ],
    1: ["data_pipelines", "scores"],
    2: [
        "data_pipelines.datasets",
        "data_pipelines.stain_graph",
        "data_pipelines.tfds_images",
        "models",
        "distribution",
        "training",
        "checkpoints",
        "foreign_encoders",
    ],
    3: [
        "cohort",
        "bundle",
        "bundle_file",
        "network_model",
        "packaged",
        "exports",
        "exporting",
        "loaded",
    ],
    4: [
        "predictors",
        "folds",
        "slide_level",
        "slide_prediction",
        "checks",
        "reports",
        "runs",
        "inherited_scores",
    ],
    5: [
        "requests",
        "publishing",
        "fitting",
        "bulk_fitting",
        "evaluation",
        "scoring",
        "predicting",
        "predicting_slides",
        "outlining",
        "featurizing",
        "checking",
        "doctor",
        "normalizing",
        "viewing",
        "reporting",
    ],
    6: ["api", "cli", "commands", "__main__"],
}
FLOOR_OF = {f"histospace_tf.{name}": floor for floor, names in FLOORS.items() for name in names}


MOST_PARAMETERS = 8


def modules() -> dict[str, Path]:
    """Every module of the package by its import name; a package by its own name."""
    found = {}
    for package, folder in FOLDERS.items():
        for path in folder.glob("*.py"):
            found[package if path.stem == "__init__" else f"{package}.{path.stem}"] = path
    return found


def floor_of(module: str) -> int | None:
    """Floor of a module, or of the package that it belongs to; None for the packages themselves."""
    while module:
        if module in FLOOR_OF:
            return FLOOR_OF[module]
        module = module.rpartition(".")[0]
    return None


@functools.cache
def imports(path: Path) -> set[str]:
    """Full names imported anywhere in a file, inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import; use the full name"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
            names.add(str(node.module))
    return names


def test_floors_name_what_is_there() -> None:
    assert set(FLOOR_OF) <= {*modules(), *FOLDERS}


def test_the_page_on_architecture_states_the_same_floors() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    stated: dict[int, set[str]] = {floor: set() for floor in FLOORS}
    for floor, cell in re.findall(r"^\| (\d) \| (.*?) \|", page, re.MULTILINE):
        # A folder and a colon: what stands in it.
        folder, _, inside = cell.rpartition(": ")
        prefix = folder.strip("`/") + "." if folder else ""
        stated[int(floor)] |= {prefix + name.strip("/") for name in re.findall(r"`(.*?)`", inside)}
    for floor, names in FLOORS.items():
        listed = {name for name in names if not name.startswith("__")}
        missing = listed - stated[floor] - {"data_pipelines"}  # of which modules are named
        assert not missing, f"docs/architecture.md lacks {missing} on floor {floor}"
        for name in stated[floor]:
            assert floor_of(f"histospace_tf.{name}") == floor, name
            assert f"histospace_tf.{name}" in {*modules(), *FOLDERS}, name


def test_every_module_has_a_floor() -> None:
    homeless = [
        name
        for name, path in modules().items()
        if path.stem != "__init__" and not floor_of(name) and floor_of(name) != 0
    ]
    assert homeless == []


def test_imports_go_to_the_same_floor_or_lower() -> None:
    wrong = []
    for name, path in modules().items():
        floor = floor_of(name)
        for imported in imports(path):
            below = floor_of(imported)
            if floor is not None and below is not None and below > floor:
                wrong.append(f"{name} (floor {floor}) imports {imported} (floor {below})")
    assert wrong == []


def assert_no_circles(graph: dict[str, set[str]]) -> None:
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"circle: {' -> '.join((*trail, name))}"
        if name not in done:
            for other in graph[name]:
                visit(other, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def import_graph() -> dict[str, set[str]]:
    """Module -> the modules that it imports."""
    known = modules()
    return {
        name: {
            i for i in imports(path) if i in known and i != name and not name.startswith(f"{i}.")
        }
        for name, path in known.items()
    }


def test_imports_have_no_circles() -> None:
    assert_no_circles(import_graph())


def test_folders_have_no_circles() -> None:
    """A folder taken as one thing: what it imports never imports it."""

    def home(module: str) -> str:
        parts = module.split(".")
        folder = ".".join(parts[:2])
        return folder if folder in FOLDERS else module

    graph: dict[str, set[str]] = {}
    for name, imported in import_graph().items():
        graph.setdefault(home(name), set()).update(map(home, imported))
    for folder, imported in graph.items():
        imported.discard(folder)
    assert_no_circles(graph)


def test_data_pipelines_and_models_never_import_each_other() -> None:
    for name, path in modules().items():
        for imported in imports(path):
            assert not (".data_pipelines" in name and ".models" in imported), (name, imported)
            assert not (".models" in name and ".data_pipelines" in imported), (name, imported)


def test_floors_0_and_1_never_import_tensorflow_and_models_use_keras_alone() -> None:
    for name, path in modules().items():
        tops = {imported.partition(".")[0] for imported in imports(path)}
        floor = floor_of(name)
        if floor in (0, 1):
            assert not tops & {"tensorflow", "keras", "tensorflow_datasets"}, name
        if ".models" in name:
            assert "tensorflow" not in tops, name


def test_no_test_file_imports_another_and_what_they_share_stands_in_made() -> None:
    tests = ROOT / "tests"
    for path in tests.rglob("*.py"):
        tops = {imported.partition(".")[0] for imported in imports(path)}
        assert not {top for top in tops if top.startswith("test_") or top == "conftest"}, path
    strangers = {
        path.name for path in tests.glob("*.py") if not path.name.startswith(("test_", "conftest"))
    }
    assert strangers == set()


def test_no_function_has_more_than_eight_parameters() -> None:
    many = {}
    for name, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                taken = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                count = len(taken) - (bool(taken) and taken[0].arg in ("self", "cls"))
                if count > MOST_PARAMETERS:
                    many[f"{name}.{node.name}"] = count
    assert many == {}


def test_importing_the_package_and_its_command_line_leaves_heavy_libraries_out() -> None:
    code = (
        "import sys, histospace_tf.cli; print(sorted({'tensorflow', 'keras', 'pandas', 'anndata', "
        "'sklearn', 'cv2', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[]"


def test_the_citation_states_the_packages_version() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {histospace_tf.__version__}\n" in citation


def test_setup_cfg_lists_the_packages_that_are_on_disk() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert set(setup["options"]["packages"].split()) == set(FOLDERS)
    # No package lies deeper than one folder below its root, and none without __init__.py.
    for root in ROOTS.values():
        for path in root.rglob("*.py"):
            assert path.parent in FOLDERS.values(), path


@pytest.fixture(scope="module")
def wheel_without_links(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Names in a wheel built from a copy of the checkout in which the two links are absent."""
    copy = tmp_path_factory.mktemp("no_links") / "checkout"
    shutil.copytree(
        ROOT,
        copy,
        symlinks=True,
        ignore=shutil.ignore_patterns(
            ".git", ".venv*", "build", "dist", "*.egg-info", "runs", ".*_cache"
        ),
    )
    for link in ("data_pipelines", "models"):
        (copy / "histospace_tf" / link).unlink()
    out = copy / "wheels"
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", str(out), str(copy)],
        check=True,
        capture_output=True,
    )
    (wheel,) = out.glob("*.whl")
    return zipfile.ZipFile(wheel).namelist()


def test_wheel_built_without_links_holds_every_module(wheel_without_links: list[str]) -> None:
    expected = {
        (name.replace(".", "/") + ("/__init__.py" if path.stem == "__init__" else ".py"))
        for name, path in modules().items()
    }
    assert {name for name in wheel_without_links if name.endswith(".py")} == expected
    data = {
        f"{name.replace('.', '/')}/{path.name}"
        for name, folder in FOLDERS.items()
        for path in folder.iterdir()
        if path.is_file() and path.suffix != ".py" and not path.name.startswith(".")
    }
    pretrained = ROOT / "models" / "pretrained"
    data |= {
        f"histospace_tf/models/pretrained/{path.relative_to(pretrained).as_posix()}"
        for path in pretrained.rglob("*")
        if path.is_file()
    }
    assert "histospace_tf/data_pipelines/genes/gene_names.csv.gz" in data
    assert "histospace_tf/data_pipelines/genes/mouse_gene_names.csv.xz" in data
    packed = {name for name in wheel_without_links if not name.endswith(".py")}
    assert {name for name in packed if ".dist-info/" not in name} == data
