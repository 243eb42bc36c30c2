"""JavaScript libraries of other projects that a report carries: pinned, checked, and bundled unchanged.

``python -m sftrl_ext.reports.pages.libraries`` packs the pinned versions with npm and writes the files anew.
"""

from __future__ import annotations

import hashlib
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from sftrl_ext.errors import SftrlError

FOLDER = Path(__file__).parent / "bundled"
"""Files of other projects, and nothing else."""


@dataclass(frozen=True)
class Library:
    """One bundled file of an npm package.

    Attributes:
        name: Name of the package.
        version: Its version.
        path: File within the package.
        sha256: Digest of the file.
        project: Package of the same project with the text of its licence; "" if it has its own.
    """

    name: str
    version: str
    path: str
    sha256: str
    project: str = ""

    @property
    def script(self) -> Path:
        """The bundled script."""
        return FOLDER / Path(self.path).name

    @property
    def licence(self) -> Path:
        """The licence it is under."""
        return FOLDER / f"{self.project or self.name}.LICENSE"

    def text(self) -> str:
        """The script.

        Raises:
            SftrlError: if it is not the pinned file.
        """
        data = self.script.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        if digest != self.sha256:
            raise SftrlError(f"{self.script}: expected sha256 {self.sha256}, found {digest}.")
        return data.decode("utf-8")


LIBRARIES = (
    Library(
        "vega",
        "6.4.0",
        "build/vega.min.js",
        "8f6a3587cf8d4f42c7e08120e3eb05d067e746d554e39d2dcf52acc0bd5ba28f",
    ),
    Library(
        "vega-lite",
        "6.5.0",
        "build/vega-lite.min.js",
        "83e215e84e308ee8688fa6503ba0f1cf8a3c05c0d61df2841a0b92bf86809e00",
    ),
    # Later versions of the interpreter come as modules only, which a page cannot hold.
    Library(
        "vega-interpreter",
        "1.2.1",
        "build/vega-interpreter.min.js",
        "ee191cf04168e0c043214cea7c4e5ef80e908daa0e757c19c8061df5f898cf89",
        project="vega",
    ),
)
"""In the order in which a page loads them. The interpreter stands in for ``eval``, which pages forbid."""


def pack(library: Library) -> None:
    """Write the script and licence of a library from its package."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", "--silent", f"{library.name}@{library.version}"]
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        (archive,) = Path(folder).iterdir()
        with tarfile.open(archive) as package:
            members = {library.path: library.script}
            if not library.project:
                members["LICENSE"] = library.licence
            for member, path in members.items():
                content = package.extractfile(f"package/{member}")
                assert content is not None
                path.write_bytes(content.read())


if __name__ == "__main__":
    for entry in LIBRARIES:
        pack(entry)
        entry.text()
