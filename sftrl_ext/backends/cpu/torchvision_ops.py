"""Declares torchvision's compiled operators where its CUDA wheel does not load beside a CPU torch.

The package index has torchvision's Linux wheel for CUDA only. Beside a CPU torch its library cannot be
loaded, which torchvision itself tolerates; but it describes the shapes of two operators that then do not
exist, and the import fails. Declared without an implementation, they let it load. Images are resized and
normalized by torch's own operators, as on a GPU node; only detection models would miss the operators.

vLLM's processes import torchvision before any plugin of theirs, so the declaration must come with the
environment: ``python -m sftrl_ext.backends.cpu.torchvision_ops`` writes a line that every interpreter of the
environment runs at its start.
"""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path
from types import ModuleType
from typing import Any

from sftrl_ext.after_import import after_import

OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
"""Operators that ``torchvision/_meta_registrations.py`` describes without a check that they exist."""

START_FILE = "torchvision_ops_of_sftrl.pth"
"""Name of the file in ``site-packages`` that declares them in every process."""

_libraries: list[Any] = []


def declare_missing_operators() -> None:
    """Schedule the operators to be declared where torchvision's library does not load."""
    after_import("torchvision.extension", torchvision_extension_load_library)


def torchvision_extension_load_library(module: ModuleType) -> None:
    """``_load_library("_C")`` has failed: declare the operators that it would have defined."""
    if module._has_ops() or _libraries:
        return
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    _libraries.append(library)  # the operators last as long as the library object
    for operator in OPERATORS:
        library.define(operator)


def write_start_file(folder: Path) -> Path:
    """Let every interpreter that uses a ``site-packages`` folder declare the operators.

    Returns:
        The file.
    """
    path = folder / START_FILE
    path.write_text(f"import {__spec__.name} as ops; ops.declare_missing_operators()\n", encoding="utf-8")
    return path


if __name__ == "__main__":
    sys.stdout.write(f"{write_start_file(Path(sysconfig.get_paths()['purelib']))}\n")
