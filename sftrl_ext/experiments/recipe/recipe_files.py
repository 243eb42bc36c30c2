"""Recipe files: found by name, composed with Hydra, checked by the schema, kept in the run folder.

A recipe file names a task and is composed with four groups of ``configs/``: ``task`` (rules, splits,
prompts), ``scale`` (the machine), ``model``, and ``budget`` (rows and steps of that task at that scale).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sftrl_ext.envs import TASKS
from sftrl_ext.errors import SftrlError, first_line, named, unknown_name
from sftrl_ext.experiments.recipe import launcher_config
from sftrl_ext.experiments.recipe import schema as schemas
from sftrl_ext.experiments.recipe.arms import check_arms
from sftrl_ext.experiments.recipe.attention import check_attention
from sftrl_ext.experiments.recipe.given_paths import add_eval_sets, make_paths_absolute
from sftrl_ext.experiments.recipe.ranges import check_names as check_known_names
from sftrl_ext.experiments.recipe.ranges import check_ranges, check_task
from sftrl_ext.experiments.recipe.schema import (
    METRICS,
    OFFLOADS,
    ROLES,
    SAYS,
    SCALES,
    TRAINING_STATES,
    ComposedRecipe,
    Recipe,
)
from sftrl_ext.experiments.recipe.trackers import check_names
from sftrl_ext.experiments.recipe.trainer_modes import check_mode
from sftrl_ext.files import read_yaml, yaml_errors
from sftrl_ext.paths import configs_dir, recipes_dir
from sftrl_ext.plugins import absolute_name, inherited_plugins, load_plugins
from sftrl_ext.runs.compute import RL_TOKENS

_TASK_KEY = re.compile(r"[+~]*(task|arms|plugins)\b")
"""Beginnings of overrides that may name a split, a reward or a setting of the task."""

_SAFE_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""In C, where libyaml is there: ten times as fast."""

_REFUSALS = (ConfigCompositionException, HydraException, OmegaConfBaseException, ValueError, OverflowError)
"""Errors of a recipe; a ValueError of its list of defaults, an OverflowError of a number beyond floats."""

_MAPPINGS: tuple[str, ...] = ("arms.", "task.eval_sets", "task.exposure", "task.look.", "task.settings.")
_MAPPINGS += ("launcher.options.", "budget.eval.hands_of.")
"""Beginnings of keys inside mappings without fixed names."""


def load_recipe(
    recipe: str | Path,
    scale: str,
    overrides: Sequence[str] = (),
    launcher: str = "local",
    plugins: Sequence[str] = (),
) -> Recipe:
    """Compose a recipe at one scale.

    Args:
        recipe: Path of a recipe file, or the name of one that ships with the package.
        scale: One of `SCALES`.
        overrides: Hydra overrides (``budget.rl.lr=1e-5``).
        launcher: A file of ``configs/launcher``, or a launcher of a plug-in.
        plugins: Plug-ins beside those that the recipe names.

    Raises:
        SftrlError: for an unknown recipe, scale, launcher, key or value, naming the nearest right one.
    """
    path = find_recipe(recipe)
    if scale not in SCALES:
        raise unknown_name("scale", scale, SCALES)
    launchers = [path.stem for path in (configs_dir() / "launcher").glob("*.yaml")]
    group = launcher if launcher in launchers else "local"
    groups = [f"hydra.searchpath=[file://{configs_dir()}]", f"scale={scale}", f"+launcher={group}"]
    loaded = _compose(path, groups, overrides)
    found_plugins = [absolute_name(name, path.parent) for name in [*loaded.plugins, *plugins]]
    loaded.plugins = list(dict.fromkeys([*found_plugins, *inherited_plugins()]))
    load_plugins(loaded.plugins)
    if launcher not in launchers:
        _set_launcher(loaded, launcher, launchers)
    make_paths_absolute(loaded, path.parent)
    try:
        add_eval_sets(loaded)
    except SftrlError as error:
        raise SftrlError(f"{path}: {error}") from None
    _check(path, loaded)
    # The task's builders take a moment to import. What ships is right, as tests check.
    if plugins or path not in recipe_files().values() or any(_TASK_KEY.match(word) for word in overrides):
        with named(str(path)):
            check_task(loaded)
    return loaded


def _set_launcher(recipe: Recipe, name: str, configured: Sequence[str]) -> None:
    """Set a launcher that a plug-in has registered.

    Args:
        recipe: The recipe; it is changed.
        name: Name of the launcher.
        configured: Launchers of ``configs/launcher``.

    Raises:
        SftrlError: if there is no such launcher.
    """
    from sftrl_ext.experiments.cluster.launchers import LAUNCHERS

    if name not in LAUNCHERS:
        raise unknown_name("launcher", name, {*configured, *LAUNCHERS})
    recipe.launcher.name = name


def changed_recipe(path: Path, overrides: Sequence[str]) -> Recipe:
    """A stored recipe with other values.

    Args:
        path: File that `to_yaml` wrote.
        overrides: Hydra overrides.

    Raises:
        SftrlError: for an unknown key or value, naming the nearest right one.
    """
    # The file has no schema of its own: keys are added, and checked by the schema after.
    added = [word if word.startswith(("~", "+")) else f"++{word}" for word in overrides]
    loaded = _compose(path.resolve(), [], added)
    load_plugins(loaded.plugins)
    make_paths_absolute(loaded, Path.cwd())
    _check(path, loaded)
    if any(_TASK_KEY.match(word) for word in overrides):
        with named(str(path)):
            check_task(loaded)
    return loaded


def _compose(path: Path, groups: Sequence[str], overrides: Sequence[str]) -> Recipe:
    """Compose a recipe's file with its groups and overrides, by the schema."""
    _require_mapping(path)
    GlobalHydra.instance().clear()
    ConfigStore.instance().store(name="recipe_schema", node=ComposedRecipe, provider="sftrl_ext")
    # A key that such a mapping may have need not be in the recipe to be set.
    prefixed = [f"++{word}" if word.startswith(_MAPPINGS) else word for word in overrides]
    try:
        with initialize_config_dir(config_dir=str(path.parent), version_base="1.3"):
            composed = compose(config_name=path.name, overrides=[*groups, *prefixed])
        # Once more into the schema: an arm, or a key that was added with "+", is not checked before.
        plain = OmegaConf.create(OmegaConf.to_container(composed, resolve=True))
        loaded = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Recipe), plain))
    except RecursionError:
        raise SftrlError(f"{path}: a value in it holds itself (a YAML alias); expected none.") from None
    except MissingConfigException as error:
        raise SftrlError(f"{path}: {first_line(error)}") from None
    except AssertionError:  # omegaconf's, where a key lies below one that is null
        raise SftrlError(
            f"{path}: one of {', '.join(overrides)} sets a key of a group that is null in this recipe; "
            "expected the whole group, as in budget.dialogues={rows: 100, steps: 2, lr: 1e-3}."
        ) from None
    except OverrideParseException as error:
        raise SftrlError(
            f"{error.override.lstrip('+')}: found no override that can be read; expected key=value, with "
            "texts that hold signs such as = in quotes: 'launcher.slurm.options=[\"--constraint=h100\"]'."
        ) from None
    except _REFUSALS as error:
        raise SftrlError(_explain(path, error)) from None
    finally:
        GlobalHydra.instance().clear()
    assert isinstance(loaded, Recipe)
    return loaded


def find_recipe(recipe: str | Path) -> Path:
    """The file of a recipe given by path, by name, or by a name it has ``also``.

    Raises:
        SftrlError: if there is none, with the nearest name that ships.
    """
    given = Path(recipe)
    if given.suffix in (".yaml", ".yml") and given.is_file():
        return given.resolve()
    shipped = recipe_files()
    if given.stem in shipped and (given.parent == Path(".") or given.parent.name == "recipes"):
        return shipped[given.stem].resolve()
    raise unknown_name("recipe", str(recipe), shipped)


def recipe_files() -> dict[str, Path]:
    """Every name of a shipped recipe, those of ``also`` among them, to its file.

    The further names are files too, links to the recipe, so that each experiment is found in the folder.

    Raises:
        SftrlError: if two recipes have the same name.
    """
    paths = {path.stem: path for path in sorted(recipes_dir().glob("*.yaml"))}
    names = {path: _names_in(path, path.stat().st_mtime_ns) for path in paths.values()}
    # A link says whose name it is; so does its copy, where links were not kept.
    files = {name: path for name, path in paths.items() if names[path][0] in (None, name)}
    for path in list(files.values()):
        for name in names[path][1]:
            if name in files:
                raise SftrlError(f"{path}: also: {name!r} is the name of {files[name]} already.")
            files[name] = path
    return files


@lru_cache(maxsize=256)
def _names_in(path: Path, mtime_ns: int) -> tuple[str | None, tuple[str, ...]]:
    """Keys ``name`` and ``also`` of a recipe file; each version of it is read once."""
    content = yaml.load(path.read_text(encoding="utf-8"), _SAFE_LOADER) or {}
    return content.get("name"), tuple(content.get("also") or ())


def distinct_recipes() -> list[Path]:
    """The file of every shipped recipe, once: those of the paper by figure, then those beyond it."""

    def place(path: Path) -> tuple[int, int, str]:
        number = "".join(c for c in path.stem.partition("_")[0] if c.isdigit())
        return (0, int(number), path.stem) if number else (1, 0, path.stem)

    return sorted(set(recipe_files().values()), key=place)


def to_yaml(recipe: Recipe) -> str:
    """The composed recipe as YAML, as it is kept in the run folder."""
    return OmegaConf.to_yaml(OmegaConf.structured(recipe))


def from_yaml(path: Path, plugins: bool = True) -> Recipe:
    """Read back what `to_yaml` wrote; a list of arms, as older run folders have, is of arms named by kind.

    Args:
        path: The file.
        plugins: Import the plug-ins of the recipe.
    """
    _require_mapping(path)
    try:
        loaded: Any = OmegaConf.load(path)
        if OmegaConf.is_list(loaded.get("arms")):
            loaded.arms = {str(arm): {"kind": str(arm)} for arm in loaded.arms}
        merged = OmegaConf.merge(OmegaConf.structured(Recipe), loaded)
        recipe = OmegaConf.to_object(merged)
    except (OmegaConfBaseException, OverflowError) as error:
        raise SftrlError(_explain(path, error)) from None
    assert isinstance(recipe, Recipe)
    if plugins:
        load_plugins(recipe.plugins)
    return recipe


def _require_mapping(path: Path) -> None:
    """Refuse a recipe that is no YAML mapping; Hydra's own errors of it do not all name the file.

    Raises:
        SftrlError: naming the file and the position.
    """
    content = read_yaml(path)
    # Values are checked later, with the groups beside them.
    with yaml_errors(path), suppress(OmegaConfBaseException, RecursionError):
        OmegaConf.create(path.read_text(encoding="utf-8"))  # refuses a key that is there twice
    if not isinstance(content, dict):
        raise SftrlError(f"{path}: expected a mapping of a recipe's keys, found {type(content).__name__}.")
    defaults = content.get("defaults", [])
    if not isinstance(defaults, list):
        raise SftrlError(f"{path}: defaults: expected a list, found {type(defaults).__name__}.")


def _explain(path: Path, error: Exception) -> str:
    """Turn a composition error into one sentence with the nearest known key."""
    text = str(error)
    cause: BaseException | None = error
    while cause is not None:
        text = f"{text}\n{cause}"
        cause = cause.__cause__
    match = re.search(r"[Kk]ey '([^']+)' (?:is )?not in '([A-Za-z]+)'", text)
    if match:
        key, owner = match.groups()
        name = owner.replace("Composed", "")
        schema = getattr(schemas, name, None) or getattr(launcher_config, name, None) or Recipe
        owner = schema.__name__
        return f"{path}: {unknown_name(f'key of {owner}', key, OmegaConf.structured(schema))}"
    if re.search(r"override arms=\[", text):
        return (
            f"{path}: arms: found a list; expected names, each with what sets it apart. "
            "To leave out an arm: ~arms.rl"
        )
    missing = re.search(r"[Mm]issing mandatory value: (\S+)|Structured config of type .* missing", text)
    if missing:
        return f"{path}: the key {missing.group(1)} has no value; the recipe or its groups must set it."
    return f"{path}: {first_line(error)}"


def _check(path: Path, recipe: Recipe) -> None:
    """Refuse what composes but cannot run."""
    try:
        TASKS[recipe.task.kind]
    except SftrlError as error:
        raise SftrlError(f"{path}: task.kind: {error}") from None
    with named(str(path)):
        check_ranges(recipe)
        check_known_names(recipe)
    _check_role(path, recipe)
    _check_dialogues(path, recipe)
    _check_exposure(path, recipe)
    if recipe.scale.training_state not in TRAINING_STATES:
        nearest = unknown_name("training state", recipe.scale.training_state, TRAINING_STATES)
        raise SftrlError(f"{path}: scale.training_state: {nearest}")
    if recipe.scale.offload not in OFFLOADS:
        raise SftrlError(f"{path}: scale.offload: {unknown_name('offload', recipe.scale.offload, OFFLOADS)}")
    if recipe.rl_tokens not in RL_TOKENS:
        raise SftrlError(f"{path}: rl_tokens: {unknown_name('reading of D_RL', recipe.rl_tokens, RL_TOKENS)}")
    evaluation = recipe.budget.eval
    if evaluation.samples > 1 and evaluation.temperature == 0:
        raise SftrlError(
            f"{path}: budget.eval.samples: {evaluation.samples} at temperature 0; expected 1, as all "
            "episodes of an instance are the same."
        )
    longest = recipe.budget.rl.max_response_length
    if evaluation.max_turn_tokens is not None and not 0 < evaluation.max_turn_tokens <= longest:
        raise SftrlError(
            f"{path}: budget.eval.max_turn_tokens: {evaluation.max_turn_tokens}; expected 1 to {longest}, "
            "budget.rl.max_response_length."
        )
    for split in recipe.budget.eval.hands_of:
        if split not in recipe.task.eval_splits:
            raise SftrlError(
                f"{path}: budget.eval.hands_of: "
                f"{unknown_name('evaluated split', split, recipe.task.eval_splits)}"
            )
    try:
        check_attention(recipe)
    except SftrlError as error:
        raise SftrlError(f"{path}: {error}") from None
    try:
        check_names(recipe.trackers)
    except SftrlError as error:
        raise SftrlError(f"{path}: trackers: {error}") from None
    for number, entry in enumerate(recipe.expected):
        for key, value, choices in (("metric", entry.metric, METRICS), ("says", entry.says, SAYS)):
            if value not in choices:
                raise SftrlError(f"{path}: expected[{number}].{key}: {unknown_name(key, value, choices)}")
        for arm in entry.arms:
            if arm not in recipe.arms:
                raise SftrlError(f"{path}: expected[{number}].arms: {unknown_name('arm', arm, recipe.arms)}")
    check_mode(path, recipe)
    check_arms(path, recipe)
    size, ranks = recipe.budget.init.batch_size, recipe.scale.n_gpus_per_node * recipe.scale.nnodes
    if size % ranks:
        raise SftrlError(
            f"{path}: budget.init.batch_size: {size} cannot be divided evenly by {ranks} (ranks: {ranks})."
        )
    if recipe.model.path is None and recipe.model.package is None and recipe.budget.base is None:
        raise SftrlError(
            f"{path}: model.path is null and budget.base is null: name a model, or the steps to train one."
        )


def _check_dialogues(path: Path, recipe: Recipe) -> None:
    for name in ("dialogues", "init", "sft"):
        config = getattr(recipe.budget, name)
        if config is not None and config.dialogues:
            raise SftrlError(
                f"{path}: budget.{name}.dialogues: {config.dialogues}; expected 0, as it is of budget.base "
                "alone."
            )


def _check_exposure(path: Path, recipe: Recipe) -> None:
    """Refuse shares of pre-training where there is none, or that leave nothing else to read."""
    exposure = recipe.task.exposure
    if not any(exposure.values()):
        return
    if recipe.budget.base is None:
        raise SftrlError(
            f"{path}: task.exposure: {exposure}; expected none where budget.base is null, as nothing is "
            "pre-trained."
        )
    if sum(exposure.values()) > 1:
        raise SftrlError(f"{path}: task.exposure: {exposure}; expected shares with a sum of at most 1.")


def _check_role(path: Path, recipe: Recipe) -> None:
    """Refuse keys of a given init that contradict others."""
    model, budget = recipe.model, recipe.budget
    if model.role not in ROLES:
        raise SftrlError(f"{path}: model.role: {unknown_name('role of the model', model.role, ROLES)}")
    if model.role == "base":
        if model.init_tokens:
            raise SftrlError(
                f"{path}: model.init_tokens: {model.init_tokens}; has no effect without model.role=init."
            )
        return
    if model.init_tokens < 0:
        raise SftrlError(f"{path}: model.init_tokens: {model.init_tokens}; expected 0 or more.")
    if model.path is None:
        raise SftrlError(f"{path}: model.role: init, but model.path is null; expected the init's folder.")
    for key in ("base", "dialogues"):
        if getattr(budget, key) is not None:
            raise SftrlError(
                f"{path}: budget.{key}: expected null with model.role=init, which needs no base."
            )
