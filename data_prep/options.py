"""The options of ``sftrl data``, which are its arguments on the command line."""

from __future__ import annotations

import argparse
import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import Progress, TextColumn

from sftrl_ext.errors import SftrlError

if TYPE_CHECKING:
    from sftrl_ext.envs.task_config import TaskConfig

CARDS, ROUTES = "general_points", "virl"
"""Tasks that have options of their own; importing them would slow down every command."""

IMPORT = "import"
"""The kind that reads a file instead of building rows."""

GIVEN = "given"
"""The kind that makes an evaluation split of the instances that a file lists."""

Tell = Callable[[str], None]
"""Takes a sentence for the user."""


def _option(default: Any, help: str | None = None, *, of: str = "", **argument: Any) -> Any:
    """A field that is an option; ``of`` is the one task that it is for."""
    text = f"{of}: {help}" if of else help
    return field(default=default, metadata={"of": of, "argument": {"help": text, **argument}})


@dataclass
class DataOptions:
    """The options of ``sftrl data``: a kind, where to write, and how rows are drawn and played."""

    kind: str = field(
        metadata={
            "argument": {"help": "rl, sft, reasoned, suboptimal, import, given, virl-city or panoramas"}
        }
    )
    out: Path = field(metadata={"argument": {"type": Path}})
    task: str = _option(CARDS, "a registered task, such as general_points or virl")
    split: str = _option("id", "split, or several with commas (mixed evenly)")
    rows: int = _option(1000, "how many; of a city, its routes", type=int)
    seed: int = _option(0, type=int)
    eval: bool = _option(False, "draw from the split's evaluation stream, not the training one")
    template: str = _option("default", "prompt template: a name, or a YAML file of yours")
    max_attempts: int | None = _option(None, "default: 5 for cards, 2 at each point of a route", type=int)
    profile: str = _option("exact")
    draw: str | None = _option(None, "iid, deck or authors (default under --profile authors)", of=CARDS)
    suits: str | None = _option(None, "mixed, black or red; images are black by default", of=CARDS)
    modality: str = _option("text", "text or image: how cards or places are shown")
    image_size: str | None = _option(None, "size of images, in pixels", metavar="WxH")
    look: str | None = _option(None, "how images are drawn: table=blue,deck=plain,arrangement=row", of=CARDS)
    embed_images: bool = _option(False, "write the pictures into the file as PNG")
    routes: Path | None = _option(
        None, "a route_infos.json, its folder, or a folder of such", of=ROUTES, type=Path
    )
    away: list[Path] | None = _option(
        None, "routes of other cities, for visual_ood", of=ROUTES, type=Path, nargs="+"
    )
    holdout: float | None = _option(None, "share of the routes that no training walks", of=ROUTES, type=float)
    missing_panorama: str | None = _option(None, "skip (default) or error, between milestones", of=ROUTES)
    skip_bad: bool = _option(False, "leave out bad routes and list them", of=ROUTES)
    style: str | None = _option(None, "how a city looks (kind virl-city)", of=ROUTES)
    settings: str | None = _option(None, "keys of a task of yours: largest=20,base=3", metavar="KEY=VALUE")
    source: Path | None = _option(
        None,
        "import: the authors' data.json; given: hands or routes; panoramas: their map",
        type=Path,
        flag="--from",
    )

    @classmethod
    def add_to(cls, parser: argparse.ArgumentParser) -> None:
        """Add every option to a parser."""
        for option in fields(cls):
            argument = dict(option.metadata["argument"])
            if option.name == "kind":
                parser.add_argument("kind", **argument)
                continue
            flag = argument.pop("flag", f"--{option.name.replace('_', '-')}")
            if option.name == "out":
                argument["required"] = True
            elif isinstance(option.default, bool):
                argument["action"] = "store_true"
            else:
                argument["default"] = option.default
            parser.add_argument(flag, dest=option.name, **argument)

    @classmethod
    def of(cls, args: argparse.Namespace) -> DataOptions:
        """The options of a parsed command line."""
        return cls(**{option.name: getattr(args, option.name) for option in fields(cls)})

    @property
    def splits(self) -> list[str]:
        """The splits that are mixed."""
        return [name.strip() for name in self.split.split(",")]

    def check_task(self) -> None:
        """Refuse options that are for another task than the chosen one.

        Raises:
            SftrlError: naming the option and its task.
        """
        for option in fields(self):
            task = option.metadata.get("of")
            if task and task != self.task and getattr(self, option.name):
                raise SftrlError(
                    f"--{option.name.replace('_', '-')} is for task {task!r}; expected --task {task} beside "
                    f"it, found --task {self.task}."
                )

    def config(self) -> TaskConfig:
        """The settings of the task, as a recipe has them.

        Raises:
            SftrlError: for an unknown task, or a look without images.
        """
        from sftrl_ext.envs.task import TASKS
        from sftrl_ext.envs.task_config import TaskConfig

        attempts = TASKS[self.task].attempts if self.max_attempts is None else self.max_attempts
        look = look_fields(self.image_size, self.look)
        if look and self.modality == "text":
            raise SftrlError(
                "a look or an image size is given with modality 'text'; expected modality 'image'."
            )
        return TaskConfig(
            name=self.task,
            kind=self.task,
            max_attempts=attempts,
            profile=self.profile,
            template=self.template,
            modality=self.modality,
            look=look,
            draw=self.draw,
            suits=self.suits or "",
            settings=pairs(self.settings, "settings"),
        )

    def authors_file(self) -> Path:
        """The file that an import reads.

        Raises:
            SftrlError: if none is named, or images are requested.
        """
        if self.modality != "text" or self.embed_images:
            raise SftrlError("kind 'import' gives text rows; expected neither images nor --embed-images.")
        if self.source is None:
            raise SftrlError("kind 'import' needs the authors' file: expected --from data.json.")
        return self.source

    def given_file(self) -> Path:
        """The list that an evaluation split is made of.

        Raises:
            SftrlError: if none is named, or pictures are to be embedded.
        """
        if self.embed_images:
            raise SftrlError("kind 'given' gives rows without pictures; expected nothing of --embed-images.")
        if self.source is None:
            raise SftrlError("kind 'given' needs a list of hands or routes: expected --from hands.csv.")
        return self.source


@contextlib.contextmanager
def counted_rows() -> Iterator[Callable[[int], None]]:
    """Show in a terminal how many rows were read so far; the total is not known before the end."""
    with Progress(
        TextColumn("{task.completed:,.0f} rows"), console=Console(stderr=True), transient=True
    ) as bar:
        task = bar.add_task("rows", total=None)
        yield lambda rows: bar.update(task, completed=rows)


def look_fields(size: str | None, changes: str | None) -> dict[str, Any]:
    """Fields of a look as the command line writes them.

    Args:
        size: ``<width>x<height>``, in pixels.
        changes: ``<field>=<value>``, several with commas.

    Raises:
        SftrlError: if a text has another form.
    """
    fields: dict[str, Any] = {}
    if size:
        match = re.fullmatch(r"([0-9]{1,6})x([0-9]{1,6})", size.strip())
        if match is None:
            raise SftrlError(f"image size is {size!r}, expected <width>x<height>, such as 1200x1200.")
        fields |= {"width": int(match[1]), "height": int(match[2])}
    return fields | pairs(changes, "look")


def pairs(text: str | None, name: str) -> dict[str, Any]:
    """Read ``<field>=<value>``, several with commas; digits are a number.

    Raises:
        SftrlError: if the text has another form.
    """
    values: dict[str, Any] = {}
    for change in text.split(",") if text else ():
        key, sign, value = (word.strip() for word in change.partition("="))
        if not (key and sign and value):
            raise SftrlError(
                f"{name} has {change!r}, expected <field>=<value>, such as table=blue,deck=plain."
            )
        values[key] = int(value) if value.isascii() and value.isdigit() else value
    return values
