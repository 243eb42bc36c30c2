"""Find the answer {current observation, current instruction, action} in whatever a model wrote.

See `sftrl_ext.envs.answer` for how. The main field is the action. The word ``current`` may be left out of
the keys.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sftrl_ext.envs.answer import AFTER_KEY, AnswerForm, text_at, text_between

_KEY = re.compile(rf"(?i:\b((?:current[ _-]?)?(?:observation|instruction)|action)){AFTER_KEY}")
_SPELLINGS = ("current {}", "current_{}", "current-{}", "current{}", "{}")
_FIELDS = {
    spelling.format(field): field for field in ("observation", "instruction") for spelling in _SPELLINGS
} | {"action": "action"}

_LONGEST = 100
_GAPS = re.compile(r"[\s_-]+")
_CALL = re.compile(r"(forward|stop|turn ?direction)(?: ?\(([^()]*)\))?")


@dataclass(frozen=True)
class Answer:
    """Claims of a response; a field is None if it is missing or no text."""

    observation: str | None = None
    instruction: str | None = None
    action: str | None = None


def extract_answer(text: str) -> Answer:
    """Find the answer in a response; never raises, in time linear in the part that is read."""
    return Answer(**_FORM.extract(text))


def normalize_action(action: str) -> str:
    """An action in the form of the rails, however it is spelled: ``Turn_Direction("North-East")``.

    Upper case, quotes and gaps do not count, nor whether a compass word is one word or two.

    Returns:
        ``forward()``, ``stop()`` or ``turn_direction(word)``; what is no action comes back as it was written.
    """
    if len(action) > _LONGEST:
        return action
    plain = _GAPS.sub(" ", action.translate(_NO_QUOTES)).strip(" .;,").lower()
    match = _CALL.fullmatch(plain)
    if match is None:
        return action
    inside = (match[2] or "").strip()
    if match[1] in ("forward", "stop"):
        return action if inside else f"{match[1]}()"
    # "north east" is one word of the compass; "slightly left" keeps its blank.
    word = inside.replace(" ", "") if inside[:5] in ("north", "south") else inside
    return f"turn_direction({word})" if word else action


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


_NO_QUOTES = dict.fromkeys(map(ord, "\"'`“”‘’"))
_FORM = AnswerForm(
    _KEY,
    _FIELDS,
    main="action",
    convert={"observation": _text, "instruction": _text, "action": _text},
    read_main=text_at,
    read_other=text_between,
)
