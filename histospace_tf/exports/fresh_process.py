"""A module of this package run in a new process, which holds nothing that this one holds."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import histospace_tf

_WITHOUT = """
import runpy, sys
names, module = sys.argv[1:3]
del sys.argv[1:3]
sys.modules.update(dict.fromkeys(names.split(",")))
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


def run_module(
    module: str, *arguments: str, without: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """`python -m module arguments` with this process' modules, on the CPU; its output as text.

    Args:
        without: top-level packages that cannot be imported there, as if they were not installed.
    """
    start = ["-c", _WITHOUT, ",".join(without), module] if without else ["-m", module]
    environment = {
        **os.environ,
        # The same modules as this process finds, in the same order.
        "PYTHONPATH": os.pathsep.join(
            [*filter(None, sys.path), str(Path(histospace_tf.__file__).parents[1])]
        ),
        # This process may hold all of an accelerator's memory; a CPU's float32 is exact besides.
        "CUDA_VISIBLE_DEVICES": "-1",
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }
    return subprocess.run(
        [sys.executable, "-P", *start, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        errors="replace",
    )
