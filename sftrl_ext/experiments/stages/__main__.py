"""One stage as a process: ``python -m sftrl_ext.experiments.stages <kind> <run folder> [<name>]``."""

from __future__ import annotations

import sys
from pathlib import Path

from sftrl_ext.errors import SftrlError, error_text
from sftrl_ext.experiments.recipe.recipe_files import from_yaml
from sftrl_ext.experiments.stages.kinds import KINDS
from sftrl_ext.runs.layout import RunLayout
from sftrl_ext.runs.progress import ProgressFile

_FIRST_WORK = {
    "data": "rows are built",
    "model": "the model is read or built",
    "report": "records are read, figures drawn",
}
"""Work of a stage until it names its own."""


def main() -> int:
    """Run one stage: ``<kind> <run folder> [<name>]``."""
    kind, run_dir, *name = sys.argv[1:4]
    layout = RunLayout(Path(run_dir))
    ProgressFile.of_stage().show(_FIRST_WORK.get(kind, "records are read"))
    try:
        KINDS[kind](from_yaml(layout.recipe), layout, *name)
    except (SftrlError, OSError) as error:
        sys.stderr.write(f"error: {error_text(error)}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
