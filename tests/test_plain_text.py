"""Text of models and foreign files, made safe."""

from __future__ import annotations

import pytest

from sftrl_ext.plain_text import safe_name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("rule_ood", "rule_ood"),
        ("fig6_gp_l-0.5", "fig6_gp_l-0.5"),
        ("../../../evil", "evil"),
        ("/etc/passwd", "etc-passwd"),
        ("a/../b\\c\x00\n", "a-..-b-c"),
        ("..", "unnamed"),
        ("", "unnamed"),
        ("ÿ" * 300, "ÿ" * 50),
    ],
)
def test_a_name_stays_in_its_folder(text, name):
    assert safe_name(text) == name
