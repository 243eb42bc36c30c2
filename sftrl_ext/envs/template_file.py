"""Prompt templates as YAML files: every word a model reads in a task; what the templates of all tasks share.

A file holds keys, each a text with ``$placeholders`` (a literal dollar is ``$$``) or a mapping from names to
such texts. `TemplateForm` says which keys and placeholders a task has; what is wrong in a file is an error
that names the file and the key. The keys ``prompt``, ``feedback`` (outcome to text, needed), ``image_prompt``
(``$image`` stands where the picture goes) and ``system`` mean the same in every task.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from string import Template
from typing import Any, TypeVar, cast

from sftrl_ext.envs.base import IMAGE_MARKER, Message
from sftrl_ext.errors import Registry, SftrlError, named, unknown_name
from sftrl_ext.files import read_yaml

T = TypeVar("T", bound="TextTemplate")

_SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True, eq=False)
class TextTemplate:
    """The words of a task; made from a file.

    Attributes:
        name: The name or path it was loaded by.
        texts: Key to text, for every key that is not a mapping.
        mappings: Key to names and their texts, for every key that is a mapping.
        image_problem: Why the task cannot be shown as images with it; empty if it can.
    """

    name: str
    texts: Mapping[str, Template]
    mappings: Mapping[str, Mapping[str, Template]]
    image_problem: str = ""

    def check(self) -> None:
        """Refuse texts that a task cannot use although their placeholders are right.

        Raises:
            SftrlError: naming the key.
        """

    @property
    def feedback(self) -> Mapping[str, Template]:
        """Outcome to text."""
        return self.mappings["feedback"]

    def first_messages(self, values: Mapping[str, object], modality: str) -> list[Message]:
        """The prompt, after a system message if there is one.

        Args:
            values: Text for each placeholder; ``image`` is added here.
            modality: "text", or "image" for ``image_prompt`` in the place of ``prompt``.

        Raises:
            SftrlError: if the modality is "image" and the template is not made for that.
        """
        if modality == "image":
            self.check_image()
            values = {**values, "image": IMAGE_MARKER}
        roles = (("system", "system"), ("user", "image_prompt" if modality == "image" else "prompt"))
        return [
            {"role": role, "content": self.texts[key].substitute(values)}
            for role, key in roles
            if key in self.texts
        ]

    def has(self, key: str, placeholder: str) -> bool:
        """True if the text of a key has a placeholder."""
        return placeholder in _placeholders(Path(self.name), key, self.texts[key].template)

    def check_image(self) -> None:
        """Refuse a template that does not say how to show the task as images, or that gives them away.

        Raises:
            SftrlError: naming the file and the key.
        """
        if self.image_problem:
            raise SftrlError(self.image_problem)


@dataclass(frozen=True, eq=False)
class TemplateForm:
    """Schema of a task's template files.

    Attributes:
        folder: The package's own templates, ``<name>.yaml``.
        outcomes: Every outcome the verifier can give; ``feedback`` has a text for each, or ``otherwise``.
        placeholders: Key to the placeholders its text, or each of its texts, may have.
        needed: Key to the placeholders its text must have.
        defaults: Key to the text of files without the key.
        mappings: The keys that are mappings; all but ``feedback`` may be left out.
        named: Mapping to the names it may hold, each with the placeholders its text may have.
        variants: Further keys of ``feedback``, each the text of a special case of an outcome.
        hidden: Placeholders that no text may have where they have to be seen in a picture.
        hidden_noun: What those give away, in words.
        shown: Keys, other than those of mappings, that a model reads where it is shown pictures.
        files: Templates by name: those of the folder, and what plug-ins register.
    """

    folder: Path
    outcomes: tuple[str, ...]
    placeholders: Mapping[str, frozenset[str]]
    needed: Mapping[str, frozenset[str]]
    defaults: Mapping[str, str]
    mappings: tuple[str, ...] = ("feedback",)
    named: Mapping[str, Mapping[str, frozenset[str]]] = field(default_factory=dict)
    variants: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    hidden_noun: str = "the picture"
    shown: tuple[str, ...] = ("system", "image_prompt", "reply")
    files: Registry[Path] = field(default_factory=lambda: Registry("prompt template"))

    def __post_init__(self) -> None:
        for path in self.folder.glob("*.yaml"):
            self.files.add(path.stem, path)

    def find(self, name_or_path: str | Path) -> tuple[Path, int]:
        """The file of a registered template by name, or of a user's by path, and its time stamp.

        Raises:
            SftrlError: if there is no such template or file.
        """
        name = str(name_or_path)
        if name in self.files:
            return self.files[name], 0
        path = Path(name).expanduser()
        if not path.is_file():
            if path.suffix.lower() in _SUFFIXES or "/" in name:
                raise SftrlError(f"prompt template file {name} does not exist.")
            return self.files[name], 0
        # Rows of a foreign file may name any path: no other file is read, nor quoted in an error.
        if path.suffix.lower() not in _SUFFIXES:
            raise SftrlError(f"prompt template {name}: expected a file that ends in .yaml or .yml.")
        return path, path.stat().st_mtime_ns

    def load(self, kind: type[T], name_or_path: str | Path) -> T:
        """Load a registered template by name, or a user's by the path of its YAML file.

        Args:
            kind: The task's class of templates.
            name_or_path: The name or path.

        Raises:
            SftrlError: if there is no such template or file, or a key or placeholder in it is missing or
                unknown.
        """
        maker: Any = kind  # mypy takes no type variable for hashable
        return cast(T, _load(self, maker, str(name_or_path), *self.find(name_or_path)))

    def read(self, path: Path) -> tuple[dict[str, Template], dict[str, dict[str, Template]], str]:
        """Read and check one file.

        Returns:
            Texts, mappings and the problem with images, as `TextTemplate` has them.

        Raises:
            SftrlError: if a key or placeholder in it is missing or unknown.
        """
        data = read_yaml(path)
        if not isinstance(data, dict):
            raise SftrlError(
                f"{path}: expected a mapping with the keys prompt, feedback, ..., "
                f"found {type(data).__name__}."
            )
        for key in data:
            if key not in self.placeholders:
                raise SftrlError(f"{path}: {unknown_name('key', key, self.placeholders)}")
        for key in ("prompt", "feedback"):
            if key not in data:
                raise SftrlError(
                    f"{path}: key {key!r} is missing; found {', '.join(map(str, data)) or 'no keys'}."
                )
        merged = {**self.defaults, **data}
        texts = {
            key: self._text(path, key, key, value)
            for key, value in merged.items()
            if key not in self.mappings
        }
        feedback = self._texts(path, "feedback", data["feedback"])
        missing = [outcome for outcome in self.outcomes if outcome not in feedback]
        if missing and "otherwise" not in feedback:
            raise SftrlError(
                f"{path}: key 'feedback' has no text for {', '.join(missing)}; expected every outcome "
                f"({', '.join(self.outcomes)}) or the key 'otherwise'."
            )
        outcomes = (*self.outcomes, *self.variants, "otherwise")
        for key in feedback:
            if key not in outcomes:
                raise SftrlError(f"{path}: {unknown_name('outcome in feedback', key, outcomes)}")
        mappings = {"feedback": feedback}
        for key in self.mappings:
            if key != "feedback":
                mappings[key] = self._texts(path, key, data.get(key) or {})
        for key, names in self.named.items():
            for name, text in mappings[key].items():
                if name not in names:
                    raise SftrlError(f"{path}: {unknown_name(f'name in {key}', name, names)}")
                for placeholder in _placeholders(path, f"{key}.{name}", text.template):
                    if placeholder not in names[name]:
                        fields = " ".join(f"${word}" for word in sorted(names[name])) or "none"
                        raise SftrlError(
                            f"{path}: key '{key}.{name}' has the placeholder ${placeholder}; "
                            f"allowed there: {fields}."
                        )
        return texts, mappings, self._image_problem(path, texts, mappings)

    def _image_problem(
        self, path: Path, texts: Mapping[str, Template], mappings: Mapping[str, Mapping[str, Template]]
    ) -> str:
        """Error message if a template cannot show the task as images; empty if it can."""
        if "image_prompt" not in texts:
            return (
                f"{path}: key 'image_prompt' is missing; with modality 'image' it takes the place of "
                "'prompt'."
            )
        read = {key: texts[key] for key in self.shown if key in texts}
        for mapping in self.mappings:
            read |= {f"{mapping}.{name}": text for name, text in mappings[mapping].items()}
        for key, text in read.items():
            for name in _placeholders(path, key, text.template):
                if name in self.hidden:
                    return (
                        f"{path}: key {key!r} has the placeholder ${name}, which gives {self.hidden_noun} "
                        "away; not allowed with modality 'image'."
                    )
            if IMAGE_MARKER in text.template:
                return (
                    f"{path}: key {key!r} holds the text {IMAGE_MARKER}; write $image in 'image_prompt' only."
                )
        return ""

    def _texts(self, path: Path, key: str, value: Any) -> dict[str, Template]:
        if not isinstance(value, dict):
            raise SftrlError(f"{path}: key {key!r} must be a mapping of names to texts, found {value!r}.")
        return {str(name): self._text(path, f"{key}.{name}", key, text) for name, text in value.items()}

    def _text(self, path: Path, where: str, key: str, value: Any) -> Template:
        """Check one text's placeholders."""
        if not isinstance(value, str):
            raise SftrlError(f"{path}: key {where!r} must be a text, found {value!r}.")
        names = list(_placeholders(path, where, value))
        used = set(names)
        allowed = self.placeholders[key]
        if key == "image_prompt":
            for name in sorted(used & set(self.hidden) & self.placeholders["prompt"]):
                raise SftrlError(
                    f"{path}: key {where!r} has the placeholder ${name}, which gives {self.hidden_noun} away."
                )
        for name in sorted(used - allowed):
            expected = " ".join(f"${word}" for word in sorted(allowed)) or "none"
            raise SftrlError(f"{path}: key {where!r} has the placeholder ${name}; allowed there: {expected}.")
        for name in sorted(self.needed.get(key, frozenset()) - used):
            raise SftrlError(f"{path}: key {where!r} lacks the placeholder ${name}.")
        if names.count("image") > 1:
            raise SftrlError(f"{path}: key {where!r} has the placeholder $image more than once.")
        return Template(value)


@lru_cache(maxsize=192)
def _load(form: TemplateForm, kind: type[TextTemplate], name: str, path: Path, mtime_ns: int) -> TextTemplate:
    """Read one file; ``mtime_ns`` makes an edited file load again."""
    template = kind(name, *form.read(path))
    with named(str(path)):
        template.check()
    return template


def _placeholders(path: Path, where: str, value: str) -> Iterable[str]:
    for match in Template.pattern.finditer(value):
        if match.group("invalid") is not None:
            raise SftrlError(
                f"{path}: key {where!r} has a '$' that starts no placeholder, at character {match.start()}; "
                "write '$$' for a dollar."
            )
        name = match.group("named") or match.group("braced")
        if name:
            yield name
