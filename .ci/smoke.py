"""Smoke test of an installed wheel, from outside the checkout: `python smoke.py COMMAND OUT.h5ad`.

Simulates a small data set, checks it, predicts one of its images with the packaged model into
OUT.h5ad, and imports what every command needs.
"""

import importlib
import pkgutil
import subprocess
import sys
import tempfile
from pathlib import Path

import histospace_tf

assert "site-packages" in histospace_tf.__file__, histospace_tf.__file__
for module in pkgutil.walk_packages(histospace_tf.__path__, "histospace_tf."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)

command = str(Path(sys.argv[1]).absolute())


def run(*arguments: str) -> str:
    done = subprocess.run([command, *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{arguments} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


with tempfile.TemporaryDirectory() as folder:
    version = run("--version")
    assert histospace_tf.__version__ in version, version
    run("simulate", "--out", f"{folder}/tissue", "--patients", "2")
    print(run("check", f"{folder}/tissue"))
    (image, *_) = sorted(Path(folder).glob("tissue/ST-imgs/*/*/*.jpg"))
    print(run("predict", str(image), "--mpp", "0.69", "--fast", "--out", sys.argv[2]))
print(f"histospace-tf {histospace_tf.__version__} works on Python {sys.version.split()[0]}")
