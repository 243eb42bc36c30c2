"""The distance between a scale and its rehearsal: every key of every command whose value differs.

Both plans are made by the same code. Each training command is composed with verl's own schema, as its process
would compose it, and flattened; launcher arguments, variables of the stage and the recipe itself are compared
beside it. A difference that `sftrl_ext.experiments.rehearsal.replaced` does not list is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.plan import Stage, make_plan
from sftrl_ext.experiments.recipe.schema import Recipe
from sftrl_ext.experiments.rehearsal.replaced import Replaced, entry_of

if TYPE_CHECKING:
    from omegaconf import DictConfig

ABSENT = "(not set)"
"""Value of a key that one side does not have."""

_STEP = re.compile(r"global_step_\d+")
"""A folder of a checkpoint, whose number follows from the number of steps."""

_RATE = re.compile(r"-lr[0-9.e+-]+-(?=s[0-9])")
"""The learning rate in the name of a stage."""


@dataclass(frozen=True)
class Difference:
    """One key with two values.

    Attributes:
        stage: The first stage that differs in it, or ``recipe``.
        key: Full name of the key.
        real: Its value at the scale.
        rehearsed: Its value in the rehearsal.
        entry: The reason why it may differ.
    """

    stage: str
    key: str
    real: Any
    rehearsed: Any
    entry: Replaced


def differences(real: Recipe, rehearsed: Recipe, run_dir: Path) -> list[Difference]:
    """Every key that a rehearsal replaces, once for each pair of values.

    Args:
        real: The composed recipe.
        rehearsed: The recipe that runs in its place.
        run_dir: The run folder, the same for both.

    Raises:
        SftrlError: if the plans have other stages, or a key differs without a reason.
    """
    pairs = _pairs(real.name, make_plan(real, run_dir), make_plan(rehearsed, run_dir))
    differences = list(_differing("recipe", _flat(asdict(real)), _flat(asdict(rehearsed))))
    for pair in pairs:
        differences += _differing(pair[0].name, *map(_settings, pair))
    unlisted = [line for line in differences if entry_of(line[1]) is None]
    if unlisted:
        text = "\n".join(f"  {stage}: {key}: {a!r} -> {b!r}" for stage, key, a, b in unlisted)
        raise SftrlError(
            f"rehearsal of {real.name} at {real.scale.name}: {len(unlisted)} keys differ from what a node "
            f"runs without a reason in the list of replaced keys:\n{text}"
        )
    once = {(key, str(a), str(b)): (stage, key, a, b) for stage, key, a, b in reversed(differences)}
    return [
        Difference(*line, entry)
        for line in reversed(once.values())
        if (entry := entry_of(line[1])) is not None
    ]


def _pairs(name: str, real: list[Stage], rehearsed: list[Stage]) -> list[tuple[Stage, Stage]]:
    """Every stage of the scale with the one that stands for it: the same but for its learning rate.

    Raises:
        SftrlError: if a stage has none, or a rehearsed one stands for none.
    """
    stands = {_RATE.sub("-lrN-", stage.name): stage for stage in rehearsed}
    expected = list(dict.fromkeys(_RATE.sub("-lrN-", stage.name) for stage in real))
    if expected != list(stands):
        raise SftrlError(f"rehearsal of {name}: found the stages {list(stands)}, expected {expected}.")
    return [(stage, stands[_RATE.sub("-lrN-", stage.name)]) for stage in real]


def _differing(
    stage: str, real: Mapping[str, Any], rehearsed: Mapping[str, Any]
) -> Iterator[tuple[str, str, Any, Any]]:
    for key in [*real, *(key for key in rehearsed if key not in real)]:
        values = real.get(key, ABSENT), rehearsed.get(key, ABSENT)
        if len({_RATE.sub("-lrN-", _STEP.sub("global_step_N", str(value))) for value in values}) > 1:
            yield stage, key, *values


def _settings(stage: Stage) -> dict[str, Any]:
    """All that decides what a stage does: launcher, variables, and the composed configuration."""
    command = list(stage.command)
    settings = {f"env.{name}": value for name, value in stage.env.items()}
    if "--config-name" in command:
        start = command.index("--config-name")
        settings |= _flat(compose_config(command[start + 1], command[start + 2 :]))
        command = command[:start]
    name = "launcher"
    for word in command:  # an option names the word after it
        settings[name if word[:1] != "-" else f"launcher{word}"] = word
        name = f"launcher{word}" if word[:2] == "--" else f"{name}.next"
    return settings


def compose_config(name: str, overrides: Sequence[str]) -> dict[str, Any]:
    """The configuration that verl runs with: a config of ours with overrides, resolved."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import OmegaConf

    parsed = OverridesParser.create().parse_overrides([w for w in overrides if not w.startswith("hydra.")])
    groups = tuple(
        f"{override.key_or_group}={override.value()}"
        for override in parsed
        if "." not in override.key_or_group
    )
    values = {override.key_or_group: override for override in parsed if "." in override.key_or_group}
    shape = tuple(f"{'+' * override.is_add()}{key}=null" for key, override in sorted(values.items()))
    config = _composed(name, groups, shape)
    for key, override in values.items():
        OmegaConf.update(config, key, override.value())
    container = OmegaConf.to_container(config, resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


@cache
def _composed(name: str, groups: tuple[str, ...], shape: tuple[str, ...]) -> DictConfig:
    """A config composed with its groups; composing takes seconds, and a plan has few shapes of command.

    The values of the keys in ``shape`` are put in by the caller, who sets all of them each time.
    """
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    from sftrl_ext.paths import configs_dir

    GlobalHydra.instance().clear()
    with initialize_config_dir(config_dir=str(configs_dir()), version_base=None):
        return compose(config_name=name, overrides=[*groups, *shape])


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings, and lists of them, as dotted keys."""
    if isinstance(value, Mapping):
        items: list[tuple[Any, Any]] = list(value.items())
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        items = list(enumerate(value))
    else:
        return {prefix: value}
    return {
        key: leaf
        for name, item in items
        for key, leaf in _flat(item, f"{prefix}.{name}" if prefix else str(name)).items()
    }
