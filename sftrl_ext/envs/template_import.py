"""Prompt templates from a checkout of the authors' repository (LeslieTrue/SFTvsRL): parsed, never executed.

None of the authors' texts is in this package. `read_checkout` takes them out of the reader's own copy: their
files are parsed with `ast`, the texts are looked up by the names of constants, functions and variables, and
each value that the code puts into a text becomes a placeholder of our templates.

==============================================  ======================================================
file                                            what is read there
==============================================  ======================================================
prompt_lib/prompts.py                           prompts and the form of answers
utils_rl.py                                     remarks of both graders, the actions of V-IRL
evaluation/evaluator/base_evaluator.py          the sentence of each card rule
evaluation/evaluator/llama_evaluator.py         the sentence around a remark
gym/gym_virl/envs/navigation_environment.py     instructions and lines of the history
==============================================  ======================================================
"""

from __future__ import annotations

import ast
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml

from sftrl_ext.errors import SftrlError
from sftrl_ext.files import write_text

PROMPTS = "prompt_lib/prompts.py"
GRADERS = "utils_rl.py"
EVALUATOR = "evaluation/evaluator/base_evaluator.py"
DIALOGUE = "evaluation/evaluator/llama_evaluator.py"
NAVIGATION = "gym/gym_virl/envs/navigation_environment.py"

_CARD_REMARKS = (
    ("ILLEGAL_FORMULA", "illegal_characters", ""),
    ("ILLEGAL_FORMULA", "number_misplaced", ""),
    ("ILLEGAL_FORMULA", "operator_misplaced", ""),
    ("ILLEGAL_FORMULA", "opening_misplaced", ""),
    ("ILLEGAL_FORMULA", "closing_unmatched", ""),
    ("ILLEGAL_FORMULA", "closing_misplaced", ""),
    ("ILLEGAL_FORMULA", None, ""),  # of tokens that the tokenizer never makes
    ("INCORRECT_NUMBER", "numbers_not_given", "[${used}]"),
    ("INCORRECT_NUMBER", "numbers_too_often", "[${used}]"),
    ("INCORRECT_NUMBER", "numbers_left_out", "[${unused}]"),
    ("CORRECT_SOLUTION", "equals_target", ""),
    ("PARTIAL_SOLUTION", "begins_solution", ""),
    ("NO_SOLUTION", "matches_no_solution", ""),
    ("NO_SOLUTION", "leaves_solutions", "${start}"),
)
"""Remarks of ``step_rewards`` in the order of its lines: reward, our finding, what its one value becomes.
A list of numbers is printed by Python, in brackets."""

_ROUTE_REMARKS = (
    ("CORRECT_ACTION", "correct"),
    ("INCORRECT_OBS", "intersection_claimed"),
    ("INCORRECT_OBS", "intersection_missed"),
    ("INCORRECT_ACTION", "wrong_action"),
)
"""Remarks of ``step_rewards_virl`` in the order of its lines."""


class SourceFile:
    """One Python file of a checkout as a syntax tree.

    Args:
        checkout: The checkout's folder.
        name: Path in it.

    Raises:
        SftrlError: if there is no such file, or it is not Python.
    """

    def __init__(self, checkout: Path, name: str) -> None:
        self.path = checkout / name
        try:
            self.tree = ast.parse(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise SftrlError(
                f"{self.path}: no such file; expected a checkout of the authors' repository, with {name}."
            ) from None
        except (SyntaxError, ValueError) as error:
            raise SftrlError(f"{self.path}: not a Python file: {error}") from None

    def fail(self, where: str, expected: str, actual: object) -> NoReturn:
        """Refuse the file."""
        raise SftrlError(f"{self.path}: {where}: expected {expected}; found {actual}.")

    def constant(self, name: str, within: ast.AST | None = None) -> str:
        """The text assigned to a name, in the module or inside a function."""
        values = [value.value for value in self.assigned(name, within) if _is_text(value)]
        if len(values) != 1:
            self.fail(name, "one assignment of a text", f"{len(values)}")
        return str(values[0])

    def assigned(self, name: str, within: ast.AST | None = None) -> list[Any]:
        """Every value assigned to a name, in the order of lines; ``+=`` counts."""
        values = []
        for node in _ordered(within or self.tree):
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            if isinstance(node, ast.Assign | ast.AugAssign) and any(
                isinstance(target, ast.Name) and target.id == name for target in targets
            ):
                values.append(node.value)
        return values

    def function(self, name: str) -> ast.FunctionDef:
        """The function or method of this name."""
        for node in _ordered(self.tree):
            if isinstance(node, ast.FunctionDef) and node.name == name:
                return node
        self.fail(f"function {name}", "its definition", "none")

    def calls(self, within: ast.AST, text: str) -> list[ast.Call]:
        """Calls of a function by the text that names it (``stepper.add``), in the order of lines."""
        calls = [node for node in _ordered(within) if isinstance(node, ast.Call)]
        return [call for call in calls if ast.unparse(call.func) == text]

    def text(self, node: ast.AST, value: Callable[[str], str]) -> str:
        """An expression as the text of a template.

        Args:
            node: A text, an f-string, or a sum of texts and values.
            value: The placeholder of a value, given its code.
        """
        if _is_text(node):
            return _literal(str(node.value))  # type: ignore[attr-defined]
        if isinstance(node, ast.JoinedStr):
            return "".join(self.text(part, value) for part in node.values)
        if isinstance(node, ast.FormattedValue):
            return value(ast.unparse(node.value))
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return self.text(node.left, value) + self.text(node.right, value)
        if isinstance(node, ast.Name | ast.Subscript | ast.Call | ast.Attribute):
            return value(ast.unparse(node))
        where = f"line {getattr(node, 'lineno', '?')}"
        self.fail(where, "a text, an f-string or a sum of them", repr(ast.unparse(node)[:80]))

    def placeholders(self, names: Mapping[str, str]) -> Callable[[str], str]:
        """Placeholders by the code of values; any other value is an error."""

        def placeholder(code: str) -> str:
            if code not in names:
                self.fail("a text", f"the values {', '.join(names)}", repr(code))
            return names[code]

        return placeholder

    def formatted(self, name: str, fields: Mapping[str, str]) -> str:
        """A constant that the code fills with ``str.format``, as the text of a template."""
        parts = []
        for literal, field, _, _ in string.Formatter().parse(self.constant(name)):
            parts.append(_literal(literal))
            if field is not None:
                if field not in fields:
                    self.fail(name, f"the fields {', '.join(fields)}", repr(field))
                parts.append(fields[field])
        return "".join(parts)


def read_checkout(checkout: Path, example: bool = False) -> dict[str, dict[str, Any]]:
    """The templates of a checkout.

    Args:
        checkout: Its folder.
        example: Take the prompts with an example answer (``_EG``), which the authors give to served models.

    Returns:
        ``general_points`` and ``virl``, each as the content of a template file.

    Raises:
        SftrlError: naming the file and what was expected there.
    """
    prompts = SourceFile(checkout, PROMPTS)
    failed = _failure_sentence(SourceFile(checkout, DIALOGUE))
    ending = "_EG" if example else ""
    return {
        "general_points": _cards(checkout, prompts, failed, ending),
        "virl": _routes(checkout, prompts, failed, ending),
    }


def write_templates(checkout: Path, out: Path, example: bool = False) -> list[Path]:
    """Write ``general_points.yaml`` and ``virl.yaml`` of a checkout into a folder and load them once.

    Returns:
        The files.

    Raises:
        SftrlError: as `read_checkout`, or if a text cannot be a template.
    """
    from sftrl_ext.envs.general_points.prompts import load_template as load_cards
    from sftrl_ext.envs.virl.prompts import load_template as load_routes

    files = []
    for task, content in read_checkout(checkout, example).items():
        path = out / f"{task}.yaml"
        out.mkdir(parents=True, exist_ok=True)
        head = "# Written by `sftrl template from`. The texts are those of the checkout, under its licence.\n"
        body = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=10**6)
        write_text(path, head + body)
        (load_cards if task == "general_points" else load_routes)(path)
        files.append(path)
    return files


def _cards(checkout: Path, prompts: SourceFile, failed: str, ending: str) -> dict[str, Any]:
    graders, evaluator = SourceFile(checkout, GRADERS), SourceFile(checkout, EVALUATOR)
    grader = graders.function("step_rewards")
    findings, feedback = {}, {}
    rewards = [reward for reward, _, _ in _CARD_REMARKS]
    for remark, (_, name, value) in zip(_remarks(graders, grader, rewards), _CARD_REMARKS, strict=True):
        if name is not None:
            findings[name] = graders.text(remark, _one_value(value) if value else graders.placeholders({}))
    join, end = _joined(graders)
    feedback["cards_not_recognized"] = _about(failed, _unread_cards(graders, grader))
    feedback["otherwise"] = _about(failed, "${findings}" + end)
    fields = {"target_number": "${target}", "face_card_msg": "${rule}", "cards": "[${cards}]"}
    answer = {"cards": "[${cards}]", "numbers": "[${numbers}]", "formula": "${formula}=${target}"}
    return {
        "prompt": prompts.formatted(f"Q_GeneralPoint_EQN_L{ending}", fields),
        "image_prompt": "${image}" + prompts.formatted(f"Q_GeneralPoint_EQN_VL{ending}", fields),
        "rules": _card_rules(evaluator),
        "card": "'$rank'",
        "card_join": ", ",
        "answer": prompts.formatted("ResponseEqn", answer),
        "answer_card": "'$rank'",
        "answer_join": ", ",
        "findings": findings,
        "findings_join": join,
        "feedback": feedback,
        "reply": "$feedback",
    }


def _routes(checkout: Path, prompts: SourceFile, failed: str, ending: str) -> dict[str, Any]:
    graders, walk = SourceFile(checkout, GRADERS), SourceFile(checkout, NAVIGATION)
    grader = graders.function("step_rewards_virl")
    form = graders.placeholders({"format_token": _literal(graders.constant("format_token", grader))})
    _, end = _joined(graders)
    remarks = _remarks(graders, grader, [reward for reward, _ in _ROUTE_REMARKS])
    feedback = {
        name: _about(failed, graders.text(remark, form) + end)
        for remark, (_, name) in zip(remarks, _ROUTE_REMARKS, strict=True)
    }
    feedback["otherwise"] = feedback["wrong_action"]
    chooser = graders.function("set_str_action_space")
    spaces = [value for value in graders.assigned("ACTION_SPACE", chooser) if _is_text(value)]
    if len(spaces) != 2:
        graders.fail("set_str_action_space", "two texts of ACTION_SPACE", len(spaces))
    absolute, relative = (_literal(space.value) for space in spaces)
    # The code ends every instruction and every line of the history with a line feed.
    fields = {"instruction": "${instructions}\n", "action_space": "${rule}", "obs_act_seq": "${history}\n"}
    answer = {
        "current_observation": "${observation}",
        "current_instruction": "${instruction}",
        "action": "${action}",
    }
    return {
        "prompt": prompts.formatted(f"Q_VIRL_L{ending}", fields),
        "image_prompt": "${image}" + prompts.formatted(f"Q_VIRL_VL{ending}", fields),
        "rules": {"absolute": absolute, "relative": relative},
        **_instructions(walk),
        **_history(walk),
        "answer": prompts.formatted("ResponseVIRL", answer),
        "feedback": feedback,
        "reply": "$feedback",
    }


def _one_value(placeholder: str) -> Callable[[str], str]:
    return lambda _: placeholder


def _card_rules(evaluator: SourceFile) -> dict[str, str]:
    """The sentence of each rule: ``arguments['face_card_msg'] = <ten> if .. else <own values>``."""
    for node in _ordered(evaluator.tree):
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Subscript)
            and "face_card_msg" in ast.unparse(node.targets[0].slice)
            and isinstance(node.value, ast.IfExp)
        ):
            texts = (node.value.body, node.value.orelse)
            ten, distinct = (evaluator.text(text, evaluator.placeholders({})) for text in texts)
            return {"face_10": ten, "face_11_12_13": distinct}
    evaluator.fail("face_card_msg", "an assignment of one of two texts", "none")


def _failure_sentence(dialogue: SourceFile) -> str:
    """The user's message after a failed attempt, with ``$reason`` for the remark."""
    texts = set()
    for node in _ordered(dialogue.tree):
        if isinstance(node, ast.JoinedStr) and "'Verify Info'" in ast.unparse(node):
            texts.add(dialogue.text(node, _one_value("${reason}")))
    if len(texts) != 1:
        dialogue.fail("the text around info['Verify Info']", "one", len(texts))
    return texts.pop()


def _about(failed: str, remark: str) -> str:
    return failed.replace("${reason}", remark)


def _remarks(graders: SourceFile, grader: ast.FunctionDef, rewards: Sequence[str]) -> list[ast.expr]:
    """The texts of a grader's remarks, ``stepper.add(<reward>, <text>)``, in the order of lines."""
    calls = graders.calls(grader, "stepper.add")
    keys = [_key(call.args[0]) for call in calls if len(call.args) == 2]
    if keys != list(rewards):
        graders.fail(f"{grader.name}, calls of stepper.add", ", ".join(rewards), ", ".join(keys))
    return [call.args[1] for call in calls]


def _unread_cards(graders: SourceFile, grader: ast.FunctionDef) -> str:
    """The remark on cards that were not recognized, which the grader returns beside the reward."""
    for node in _ordered(grader):
        if isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple) and len(node.value.elts) == 2:
            reward, text = node.value.elts
            if _key(reward) == "INCORRECT_VISION":
                return graders.text(text, graders.placeholders({}))
    graders.fail(grader.name, "the reward INCORRECT_VISION returned with a text", "none")


def _joined(graders: SourceFile) -> tuple[str, str]:
    """Texts between two remarks and after the last: ``return '<between>'.join(..) + '<end>'``."""
    function = graders.function("aggregate_fn")
    [value] = [node.value for node in _ordered(function) if isinstance(node, ast.Return)] or [None]
    if isinstance(value, ast.BinOp) and isinstance(value.left, ast.Call) and _is_text(value.right):
        joiner = value.left.func
        if isinstance(joiner, ast.Attribute) and joiner.attr == "join" and _is_text(joiner.value):
            return _literal(joiner.value.value), _literal(value.right.value)  # type: ignore[attr-defined]
    graders.fail("aggregate_fn", "a join of the remarks and a text after it", repr(ast.unparse(function)))


def _instructions(walk: SourceFile) -> dict[str, str]:
    """Texts of the instructions: a line, the turns, and the way after a turn."""
    function = walk.function("_parse_instruction_and_rail")
    lines = [text for text in walk.assigned("str_instruction", function) if isinstance(text, ast.JoinedStr)]
    if len(lines) != 1:
        walk.fail("str_instruction", "one f-string of a line", len(lines))
    numbered = walk.text(lines[0], walk.placeholders({"idx + 1": "${number}", "instr": "${sentence}"}))
    first = [value for value in walk.assigned("first_msg", function) if isinstance(value, ast.IfExp)]
    if len(first) != 1:
        walk.fail("first_msg", "one assignment of one of two texts", len(first))
    nowhere = [
        call.args[1]
        for call in _ordered(function)
        if isinstance(call, ast.Call) and len(call.args) == 2 and ast.unparse(call.args[0]) == "'landmarks'"
    ]
    if len(nowhere) != 1 or not _is_text(nowhere[0]):
        walk.fail("the text of a milestone without a landmark", "one", len(nowhere))
    appended = [call.args[0] for call in walk.calls(function, "parsed_instruction.append")]
    if len(appended) != 6:
        walk.fail("parsed_instruction.append", "6 calls", len(appended))

    def sentence(node: ast.AST, landmark: str = "${landmark}", opening: ast.AST | None = None) -> str:
        names = {"relative_heading": "${relative}", "next_heading": "${absolute}", "landmark": landmark}
        if opening is not None:
            names["first_msg"] = walk.text(opening, walk.placeholders({}))
        return walk.text(node, walk.placeholders(names))

    last, arrive, turn, go, _, go_landmark = appended
    return {
        "instruction": _line(walk, numbered),
        "turn": sentence(turn, opening=first[0].orelse),
        "turn_first": sentence(turn, opening=first[0].body),
        "turn_last": sentence(last),
        "go": sentence(go),
        "go_landmark": sentence(go_landmark),
        "arrive": sentence(arrive, landmark=_literal(nowhere[0].value)),  # type: ignore[attr-defined]
        "arrive_landmark": sentence(arrive),
    }


def _history(walk: SourceFile) -> dict[str, str]:
    """Texts of the history: its lines, and the observations in a picture and at an intersection."""
    function = walk.function("get_observation_action_sequence")
    lines = [
        text for text in walk.assigned("previous_observations", function) if isinstance(text, ast.JoinedStr)
    ]
    if len(lines) != 6:
        walk.fail("previous_observations", "6 f-strings", len(lines))
    names = {
        "i + 1": "${n}",
        "len(observation_list)": "${n}",
        "action": "${action}",
        "observation": "${observation}",
        "observation_list[-1]": "${observation}",
        "inter": "${note}",
    }

    def line(node: ast.AST) -> str:
        return _line(walk, walk.text(node, walk.placeholders(names)))

    observed, acted, pictured, acting, _, _ = map(line, lines)
    before, after = observed.removesuffix("${observation}"), "; ${note}"
    if before == observed or not (pictured.startswith(before) and pictured.endswith(after)):
        walk.fail("the line of a picture", f"{before!r}, a text and {after!r}", repr(pictured))
    return {
        "observed": observed,
        "acted": acted,
        "acting": acting,
        "view": pictured.removeprefix(before).removesuffix(after),
        "intersection": _note(walk),
    }


def _note(walk: SourceFile) -> str:
    """Observation at an intersection: the text under the key ``intersection_observation``."""
    for node in _ordered(walk.function("_parse_instruction_and_rail")):
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                named = key is not None and ast.unparse(key) == "'intersection_observation'"
                if named and isinstance(value, ast.IfExp) and _is_text(value.body):
                    return _literal(value.body.value)  # type: ignore[attr-defined]
    walk.fail("intersection_observation", "one of two texts", "none")


def _line(source: SourceFile, text: str) -> str:
    """A line without its line feed, which our templates put between lines."""
    if not text.endswith("\n"):
        source.fail("a line", "a line feed at its end", repr(text))
    return text[:-1]


def _ordered(node: ast.AST) -> Iterator[Any]:
    """All nodes below a node in the order of their lines."""
    nodes: list[Any] = [child for child in ast.walk(node) if hasattr(child, "lineno")]
    return iter(sorted(nodes, key=lambda child: (child.lineno, child.col_offset)))


def _is_text(node: object) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _key(node: ast.AST) -> str:
    """The key of ``TABLE["key"]``."""
    return str(node.slice.value) if isinstance(node, ast.Subscript) and _is_text(node.slice) else "?"  # type: ignore[attr-defined]


def _literal(text: str) -> str:
    return text.replace("$", "$$")
