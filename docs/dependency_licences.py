"""Write `licences.md`: the licence of every package that sftrl-ext installs; `make licences`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from email.message import Message
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PACKAGE, EXTRAS = "sftrl-ext", ("cpu", "dev")
PAGE = Path(__file__).with_name("licences.md")
_CLASSIFIER = "License :: "
_LONGEST = 60
_TEXTS = {
    "Apache License": "Apache-2.0",
    "MIT License": "MIT",
    "Permission is hereby granted, free of charge": "MIT",
    "Redistribution and use in source and binary forms": "BSD",
    "GNU LESSER GENERAL PUBLIC LICENSE": "LGPL",
    "GNU GENERAL PUBLIC LICENSE": "GPL",
    "Mozilla Public License": "MPL-2.0",
}


def licence_of(metadata: Message, text: str = "") -> str:
    """Licence of a package.

    Args:
        metadata: Its core metadata.
        text: Its licence file, read where the metadata names no licence.

    Returns:
        The SPDX expression, else the classifiers, else the field ``License`` if it is a name and no text,
        else the licence whose words begin ``text``; "unknown" without any.
    """
    expression = metadata.get("License-Expression")
    if expression:
        return str(expression)
    classifiers = [str(value) for value in metadata.get_all("Classifier", [])]
    names = [value.rpartition(" :: ")[2] for value in classifiers if value.startswith(_CLASSIFIER)]
    names = [name for name in names if name != "OSI Approved"]
    if names:
        return ", ".join(names)
    field = str(metadata.get("License", "")).strip()
    if field and "\n" not in field and len(field) <= _LONGEST and field != "UNKNOWN":
        return field
    content = " ".join(f"{field} {text}".split())
    positions = {content.find(sentence): name for sentence, name in _TEXTS.items() if sentence in content}
    return positions[min(positions)] if positions else "unknown"


def dependencies(package: str, extras: tuple[str, ...]) -> dict[str, Distribution]:
    """Installed packages that a package requires, with those that they require, by name."""
    reached: dict[str, Distribution] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [(package, extra) for extra in ("", *extras)]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            installed = distribution(name)
        except PackageNotFoundError:  # of another platform, or an option that is not installed
            continue
        reached[canonicalize_name(name)] = installed
        waiting += [
            (canonicalize_name(requirement.name), further)
            for requirement in map(Requirement, installed.requires or ())
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra})
            for further in ("", *requirement.extras)
        ]
    del reached[canonicalize_name(package)]
    return reached


def licence_text(installed: Distribution) -> str:
    """Text of a package's first licence file; empty without one."""
    for file in installed.files or ():
        if re.search(r"licen[cs]e|copying", file.name, re.IGNORECASE) and ".dist-info" in str(file):
            return Path(str(file.locate())).read_text(encoding="utf-8", errors="replace")
    return ""


def page(rows: dict[str, Distribution]) -> Iterator[str]:
    """Lines of the page."""
    yield "# Licences"
    yield ""
    yield f"The packages that `{PACKAGE}[{','.join(EXTRAS)}]` installs, with the licence that each names in"
    yield "its metadata (`make licences` writes this page). None of them is part of this package."
    yield ""
    yield "| package | version | licence |"
    yield "| :-- | :-- | :-- |"
    for name in sorted(rows):
        licence = licence_of(rows[name].metadata, licence_text(rows[name]))  # type: ignore[arg-type]
        yield f"| {name} | {rows[name].version} | {licence} |"


if __name__ == "__main__":
    PAGE.write_text("\n".join(page(dependencies(PACKAGE, EXTRAS))) + "\n", encoding="utf-8")
