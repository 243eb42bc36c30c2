"""Text of models and foreign files, made safe."""

from __future__ import annotations

import pytest

from sftrl_ext.plain_text import markdown_line, one_line, printable, safe_name


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ✓ ♠ text\n\tline\r\n", "plain ✓ ♠ text\n\tline\r\n"),
        ("\x1b[2J\x1b]0;title\x07", "␛[2J␛]0;title␇"),
        ("\x00\x08\x7f", "␀␈␡"),
        ("correct\rwrong", "correct␍wrong"),
        ("\x9b31m \u202eabc \ud800", "�31m �abc �"),
    ],
)
def test_control_characters_are_symbols(text, shown):
    assert printable(text) == shown
    assert one_line(f"{text}\n{text}").count("\n") == 0


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "SFT and RL (scale smoke), 12.3 ± 4.5 % of `id` > 3",
            "SFT and RL (scale smoke), 12.3 ± 4.5 % of `id` > 3",
        ),
        ("a\n\n# b", "a # b"),
        ("<script>", "\\<script>"),
        ("![x](http://a/b)", "!\\[x](http://a/b)"),
        ("**x** \\<", "\\*\\*x\\*\\* \\\\\\<"),
        ("`<name>[0]` and `", "`<name>[0]` and `"),
    ],
)
def test_a_line_of_markdown_has_no_markup_of_its_own(text, line):
    assert markdown_line(text) == line


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
