"""Files of a Hugging Face folder: which hold its weights, and links to them instead of copies."""

from __future__ import annotations

import hashlib
import os
import shutil
from fnmatch import fnmatch
from pathlib import Path

from sftrl_ext.errors import SftrlError
from sftrl_ext.files import read_json

SMALL_FILES = ("*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken")
"""Configurations, tokenizer, processor and chat template."""
INDEX = "model.safetensors.index.json"
_LEFT_OUT = ("*.index.json", "size.json")


def stored_weights(folder: Path) -> list[Path]:
    """The safetensors files that hold the weights of a folder; none if it has them in another format.

    Raises:
        SftrlError: if the index of the files names some that are not there.
    """
    single, index = folder / "model.safetensors", folder / INDEX
    if single.is_file():
        return [single]
    if not index.is_file():
        return []
    content = read_json(index)
    names = sorted(set(content.get("weight_map", {}).values())) if isinstance(content, dict) else []
    if not names:
        raise SftrlError(f"{index}: no weight_map in it; expected the file of each weight.")
    missing = [name for name in names if Path(name).name != name or not (folder / name).is_file()]
    if missing:
        raise SftrlError(
            f"{folder}: {len(missing)} of the {len(names)} files of weights that {INDEX} names are missing: "
            f"{', '.join(missing[:3])}."
        )
    return [folder / name for name in names]


def small_files(folder: Path) -> list[Path]:
    """All files of a folder but its weights, as far as a model needs them."""
    return [
        path
        for path in sorted(folder.iterdir())
        if path.is_file()
        and any(fnmatch(path.name, pattern) for pattern in SMALL_FILES)
        and not any(fnmatch(path.name, pattern) for pattern in _LEFT_OUT)
    ]


def link_weights(folder: Path, out: Path, *, portable: bool = False) -> str:
    """Put the weights of a folder into another one without a second copy on the disk.

    A hard link outlives the file it was made from. On another file system it has to be a symbolic link.

    Args:
        folder: A folder with safetensors.
        out: The other folder.
        portable: ``out`` is read on machines that may not have ``folder``: where no hard link is possible,
            copy.

    Returns:
        How the files got there: ``hard links``, ``symbolic links`` or ``copies``.
    """
    done = {_link(path.resolve(), out / path.name, portable) for path in stored_weights(folder)}
    if (folder / INDEX).is_file() and not (folder / "model.safetensors").is_file():
        shutil.copyfile(folder / INDEX, out / INDEX)
    return " and ".join(sorted(done))


def _link(source: Path, target: Path, portable: bool) -> str:
    try:
        os.link(source, target)
        return "hard links"
    except OSError:  # another file system, one without links, or a file of another user
        if portable:
            shutil.copyfile(source, target)
            return "copies"
    target.symlink_to(source)
    return "symbolic links"


def folder_digest(folder: Path) -> str:
    """Digest of a model folder: small files by content, weights by name, size and time of change.

    Weights are tens of gigabytes, too much to read before each run.
    """
    digest = hashlib.sha256()
    for path in small_files(folder):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    for path in stored_weights(folder) or sorted(folder.glob("*.bin")):
        stat = path.stat()
        digest.update(f"{path.name}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
    return digest.hexdigest()
