"""The page of licences: how a licence is read from metadata, and that no dependency is missing."""

from __future__ import annotations

from email.message import Message
from pathlib import Path

import pytest

from sftrl_ext.files import import_file

ROOT = Path(__file__).parents[1]
page = import_file(ROOT / "docs" / "dependency_licences.py", "the page of licences")

APACHE = (
    "                                 Apache License\n                           Version 2.0, January 2004\n"
)
MIT = "Copyright (c) 2020 X\n\nPermission is hereby granted, free of\ncharge, to any person\n"


@pytest.mark.parametrize(
    ("fields", "text", "licence"),
    [
        ([("License-Expression", "Apache-2.0 AND MIT"), ("License", "other")], "", "Apache-2.0 AND MIT"),
        ([("Classifier", "License :: OSI Approved :: MIT License"), ("License", "x")], "", "MIT License"),
        ([("Classifier", "License :: OSI Approved"), ("License", "BSD")], "", "BSD"),
        ([("Classifier", "Topic :: License"), ("License", "HPND")], "", "HPND"),
        ([("License", APACHE)], "", "Apache-2.0"),
        ([("License", "UNKNOWN")], MIT, "MIT"),
        ([], f"{MIT}\nIt is not under the {APACHE}", "MIT"),
        ([], "All rights reserved", "unknown"),
    ],
)
def test_a_licence_is_read_from_metadata_or_its_text(fields, text, licence):
    metadata = Message()
    for name, value in fields:
        metadata[name] = value
    assert page.licence_of(metadata, text) == licence


def test_the_page_lists_every_dependency():
    required = page.dependencies("sftrl-ext", ())
    assert {"numpy", "pyarrow", "python-dateutil"} <= required.keys()
    listed = (ROOT / "docs" / "licences.md").read_text(encoding="utf-8")
    assert not [name for name in required if f"\n| {name} |" not in listed]
    assert "unknown" not in listed
