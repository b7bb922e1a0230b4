"""A module of this package run in a new process, which holds nothing that this one holds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import histospace_tf


def run_module(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -m module arguments` with this process' modules, on the CPU; its output as text."""
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
        [sys.executable, "-P", "-m", module, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        errors="replace",
    )
