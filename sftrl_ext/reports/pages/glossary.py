"""Terms of the glossary, which a page explains where each first stands."""

from __future__ import annotations

import re
from functools import cache

from sftrl_ext.paths import glossary_file

_ROW = re.compile(r"^\| (?P<terms>[^|]+) \| (?P<meaning>[^|]+) \|$", re.MULTILINE)


@cache
def glossary() -> dict[str, str]:
    """Term, in lower case, to its meaning as plain text.

    A row of several terms ("turn, attempt", "in distribution (ID)") explains each of them.
    """
    terms: dict[str, str] = {}
    for row in _ROW.finditer(glossary_file().read_text(encoding="utf-8")):
        for term in re.split(r", |\(", row["terms"]):
            name = term.strip(" )`").lower()
            if name != "term":
                terms[name] = row["meaning"].strip().replace("`", "")
    return terms
