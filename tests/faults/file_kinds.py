"""Kinds of files that users bring, each with an intact example and what reads it."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from rich.console import Console

from data_prep.build import build_file
from data_prep.options import GIVEN, IMPORT, DataOptions
from data_prep.row_files import RowsRequest, import_rows
from data_prep.validate import validate_file
from sftrl_ext.envs.task import make_episode
from sftrl_ext.envs.virl.city import build_city
from sftrl_ext.experiments.evaluation.one_model.episode_log import describe_data, open_log
from sftrl_ext.experiments.evaluation.targets import load_eval_set
from sftrl_ext.experiments.plan import make_plan
from sftrl_ext.experiments.recipe.recipe_files import from_yaml, load_recipe, to_yaml
from sftrl_ext.reports.analysis.run_analysis import analyse
from sftrl_ext.reports.episodes.dialogues import pick_side_by_side
from sftrl_ext.reports.episodes.sample_pictures import draw_samples
from sftrl_ext.reports.episodes.show import show_episodes
from sftrl_ext.reports.pages.render import report_pages
from sftrl_ext.reports.summary import summarize
from sftrl_ext.rollout.player import PlayedEpisode
from tests.faults.damage import HOSTILE, damaged_bytes, damaged_value
from tests.reports.synthetic_run import make_run

Damage = Callable[[random.Random, bytes], bytes]
"""A damaged copy of a file's content that still has the format's syntax."""


@dataclass(frozen=True)
class FileKind:
    """A kind of file.

    Attributes:
        name: Of the kind.
        path: An intact example; it may have further files beside it.
        read: Reads the example as the product does; ``out`` is a file that it may write.
        damage: Damage of its values; None: of bytes only.
        each: Damaged copies for one of the others: files that are read in a few milliseconds.
    """

    name: str
    path: Path
    read: Callable[[Path, Path], object]
    damage: Damage | None = None
    each: int = 1
    intact: bytes = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "intact", self.path.read_bytes())

    def damaged(self, source: random.Random) -> bytes:
        """A damaged copy of the content."""
        if self.damage is None or source.random() < 0.3:
            return damaged_bytes(source, self.intact)
        return self.damage(source, self.intact)


def json_damage(source: random.Random, data: bytes) -> bytes:
    """Damage of the values of a JSON file."""
    return json.dumps(damaged_value(source, json.loads(data))).encode()


def small_json_damage(source: random.Random, data: bytes) -> bytes:
    """Damage of the values of a JSON file, without large numbers: a model would be built of that size."""
    small = [value for value in HOSTILE if not isinstance(value, int) or value < 100]
    return json.dumps(damaged_value(source, json.loads(data), small)).encode()


def lines_damage(source: random.Random, data: bytes) -> bytes:
    """Damage of the values of one line of a JSON Lines file."""
    lines = data.splitlines()
    number = source.randrange(len(lines))
    lines[number] = json_damage(source, lines[number])
    return b"\n".join(lines) + b"\n" * (source.random() < 0.9)


def yaml_damage(source: random.Random, data: bytes) -> bytes:
    """Damage of the values of a YAML file."""
    damaged = damaged_value(source, yaml.safe_load(data))
    return yaml.safe_dump(damaged, allow_unicode=True).encode("utf-8", "surrogatepass")


def csv_damage(source: random.Random, data: bytes) -> bytes:
    """Damage of the values of a CSV file."""
    rows = damaged_value(source, list(csv.reader(io.StringIO(data.decode()))))
    text = io.StringIO()
    for row in rows if isinstance(rows, list) else [rows]:
        csv.writer(text).writerow(row if isinstance(row, list) else [row])
    return text.getvalue().encode("utf-8", "surrogatepass")


def parquet_damage(source: random.Random, data: bytes) -> bytes:
    """Damage of the values of a parquet file, whose types follow where they can."""
    table = pq.read_table(io.BytesIO(data))
    rows = damaged_value(source, table.to_pylist())
    for schema in (table.schema, None):
        try:
            file = io.BytesIO()
            pq.write_table(pa.Table.from_pylist(rows, schema=schema), file)
            return file.getvalue()
        except (pa.ArrowException, TypeError, ValueError, AttributeError, OverflowError):
            continue
    return damaged_bytes(source, data)


def file_kinds(root: Path) -> list[FileKind]:
    """All kinds, with their examples in folders of their own."""
    data = [replace(kind, each=10) for kind in _data_files(root)]
    return [*data, *_run_files(root), *_recipes(root), *_model_files(root)]


def _data_files(root: Path) -> list[FileKind]:
    def example(name: str, text: str) -> Path:
        path = root / name.replace(".", "-") / name
        path.parent.mkdir(parents=True)
        path.write_text(text, encoding="utf-8")
        return path

    def rows(kind: str, **options: Any) -> Path:
        path = root / f"{kind}-{options.get('task', 'cards')}" / "rows.parquet"
        build_file(DataOptions(kind, path, rows=4, template="compact", max_attempts=2, **options))
        return path

    routes = build_city(root / "city", routes=4, pictures=False)
    hands = [{"cards": "K 5 2 4", "target": 24, "rule": "face_10"}, {"cards": ["3", "3", "8", "8"]}]
    turns = [{"from": "human", "value": "Cards: K 5 A 4"}, {"from": "gpt", "value": _ANSWER}]
    listed = root / "hands-parquet" / "hands.parquet"
    listed.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist([{"cards": "K 5 2 4", "target": 24}] * 2), listed)
    return [
        FileKind("rows of SFT", rows("sft"), _read_sft, parquet_damage),
        FileKind("rows of RL", rows("rl"), _read_rl, parquet_damage),
        FileKind("rows of routes", rows("rl", task="virl", routes=routes), _read_rl, parquet_damage),
        FileKind("route_infos.json", routes, _read_routes, json_damage),
        FileKind("hands.json", example("hands.json", json.dumps(hands)), _read_hands, json_damage),
        FileKind(
            "hands.csv",
            example("hands.csv", "cards,target\nK 5 2 4,24\n3 3 8 8,24\n"),
            _read_hands,
            csv_damage,
        ),
        FileKind("hands.parquet", listed, _read_hands, parquet_damage),
        FileKind(
            "data.json",
            example("data.json", json.dumps([{"image": None, "conversations": turns}] * 2)),
            _read_authors,
            json_damage,
        ),
        _episode_log(root),
    ]


_HANDS = "cards,target\nK 5 2 4,24\n3 3 8 8,24\n"

_ANSWER = """{
 "cards": ['K', '5', 'A', '4'],
 "number": [13, 5, 1, 4],
 "formula": "(13-5)*(4-1)=24"
}"""


def _read_sft(path: Path, out: Path) -> None:
    validate_file(path)
    load_eval_set(path)
    import_rows(path, out, RowsRequest("sft", 6, load_recipe("fig6_gp_l", "smoke").task))


def _read_rl(path: Path, out: Path) -> None:
    for facts in load_eval_set(path).facts:
        make_episode(facts).messages()
    validate_file(path)


def _read_routes(path: Path, out: Path) -> None:
    build_file(DataOptions("rl", out, task="virl", rows=3, routes=path))


def _read_hands(path: Path, out: Path) -> None:
    build_file(DataOptions(GIVEN, out, split="id_mine", source=path))


def _read_authors(path: Path, out: Path) -> None:
    build_file(DataOptions(IMPORT, out, source=path))


def _episode_log(root: Path) -> FileKind:
    """The file of an evaluation that was stopped."""
    rows = root / "log" / "rows.parquet"
    build_file(DataOptions("rl", rows, rows=3, eval=True, max_attempts=2))
    sets = [load_eval_set(rows)]
    settings = {"model": "m", "data": describe_data(sets)}

    def read(path: Path, out: Path) -> None:
        # The file is repaired where a kill may have cut it, so a copy is opened.
        copy = out.with_suffix(".copy")
        copy.write_bytes(path.read_bytes())
        try:
            with open_log(copy, sets, settings):
                pass
        finally:
            copy.unlink()

    path = root / "log" / "episodes.jsonl"
    with open_log(path, sets, settings) as log:
        for index, facts in enumerate(sets[0].facts):
            episode, played = make_episode(facts), PlayedEpisode()
            while not episode.done:
                played.steps.append(episode.submit("[]"))
                played.extra.append({"finish_reason": "stop"})
            log.add((0, index), played)
    return FileKind("episodes of an evaluation", path, read, lines_damage)


def _run_files(root: Path) -> list[FileKind]:
    run = make_run(root / "run", points=2, splits=("id", "rule_ood"))

    def read(path: Path, out: Path) -> None:
        analysis = analyse(run)
        shown = pick_side_by_side(analysis)
        report_pages(analysis, [], shown, draw_samples(analysis.arms, shown, out.parent))
        json.dumps(summarize(analysis), allow_nan=False, default=str)
        show_episodes(run, Console(file=io.StringIO()))

    damages: Mapping[str, Damage] = {
        "state.json": json_damage,
        "recipe.yaml": yaml_damage,
        "eval/records.jsonl": lines_damage,
        "eval/episodes.jsonl": lines_damage,
        "stages/rl-s0/tokens.jsonl": lines_damage,
        "stages/rl-s0/metrics.jsonl": lines_damage,
    }
    return [FileKind(f"run: {name}", run / name, read, damage) for name, damage in damages.items()]


_RECIPE = """
defaults:
  [recipe_schema, {task: gp_l}, {scale: laptop}, {model: "${scale}"}, {budget: "gp_l/${scale}"}, _self_]
name: mine
title: two arms
arms:
  few: {kind: rl, title: 1 attempt, max_attempts: 1, times: {episodes: 3, updates: 0.6}}
  many: {kind: sft, title: other answers, rows: suboptimal, splits: [id]}
task: {target: 24, eval_splits: [id, rule_ood]}
"""


def _recipes(root: Path) -> list[FileKind]:
    folder = root / "recipes"
    folder.mkdir()
    user, stored = folder / "mine.yaml", folder / "recipe.yaml"
    recipe = load_recipe("fig6_gp_l", "smoke")
    user.write_text(_RECIPE)
    stored.write_text(to_yaml(recipe))

    def read_user(path: Path, out: Path) -> None:
        make_plan(load_recipe(path, "smoke"), root / "planned")

    def read_stored(path: Path, out: Path) -> None:
        make_plan(from_yaml(path), root / "planned")

    return [
        FileKind("a user's recipe", user, read_user, yaml_damage),
        FileKind("recipe.yaml of a run", stored, read_stored, yaml_damage),
    ]


def _model_files(root: Path) -> list[FileKind]:
    try:
        import torch

        from sftrl_ext.backends.hf.local_engine import load_chat_tokens
        from sftrl_ext.hf_folder import eos_token_ids, load_model, load_tokenizer
        from tests.backends.tiny import save_folder
    except ImportError:  # the base install reads no models
        return []
    folder = save_folder(root / "model")
    (folder / "generation_config.json").write_text('{"eos_token_id": 1}')

    def read(path: Path, out: Path) -> None:
        eos_token_ids(folder, load_tokenizer(folder))
        load_chat_tokens(folder)
        load_model(folder, torch.float32)

    names = ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json")
    kinds = [FileKind(f"model: {name}", folder / name, read, small_json_damage) for name in names]
    return [*kinds, FileKind("model: model.safetensors", folder / "model.safetensors", read)]
