"""Checks what a built wheel holds: `python .ci/wheel.py FILE.whl`."""

import sys
import zipfile
from pathlib import Path

TOP = Path(__file__).parents[1]
ROOTS = {
    "histospace_tf": TOP / "histospace_tf",
    "histospace_tf/data_pipelines": TOP / "data_pipelines",
    "histospace_tf/models": TOP / "models",
}
LARGEST = 3_000_000  # bytes


def main(path: str) -> None:
    names = zipfile.ZipFile(path).namelist()
    modules = {name for name in names if name.endswith(".py")}
    # Without what lies behind the two links, which stands under its own root.
    links = ("data_pipelines", "models")
    expected = {
        f"{root}/{file.relative_to(folder).as_posix()}"
        for root, folder in ROOTS.items()
        for file in folder.rglob("*.py")
        if folder.name != "histospace_tf" or file.relative_to(folder).parts[0] not in links
    }
    if modules != expected:
        sys.exit(f"lacks {sorted(expected - modules)}, has besides {sorted(modules - expected)}")
    tops = {name.partition("/")[0] for name in names}
    strangers = {top for top in tops if not top.startswith("histospace_tf")}
    if strangers:
        sys.exit(
            f"wheel puts {sorted(strangers)} into site-packages; histospace_tf alone belongs there"
        )
    pages = [path.name for path in (TOP / "histospace_tf" / "reports").glob("*.[cj]s*")]
    for needed in ("py.typed", *(f"reports/{name}" for name in pages)):
        if f"histospace_tf/{needed}" not in names:
            sys.exit(f"wheel lacks {needed}")
    pretrained = TOP / "models" / "pretrained"
    for file in pretrained.rglob("*"):
        name = f"histospace_tf/models/pretrained/{file.relative_to(pretrained).as_posix()}"
        if file.is_file() and name not in names:
            sys.exit(f"wheel lacks {name}")
    size = Path(path).stat().st_size
    if size >= LARGEST:
        sys.exit(f"wheel has {size:,} bytes; below {LARGEST:,} is promised")
    print(
        f"{Path(path).name}: {len(modules)} modules, {size / 1e6:.2f} MB, nothing else at the top "
        "level"
    )


main(sys.argv[1])
