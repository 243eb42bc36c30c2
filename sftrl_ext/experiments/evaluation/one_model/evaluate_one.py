"""Evaluate one model, in a folder, on the hub or behind an endpoint, on parquet files, outside any run."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.evaluation.evaluate import summarise
from sftrl_ext.experiments.evaluation.one_model.console_tables import (
    city_table,
    remarks,
    success_table,
    usage_of,
    usage_table,
)
from sftrl_ext.experiments.evaluation.one_model.endpoint import Endpoint, EndpointOptions, Unanswered
from sftrl_ext.experiments.evaluation.one_model.episode_log import EpisodeLog, Place, describe_data, open_log
from sftrl_ext.experiments.evaluation.one_model.players import endpoint_player, local_player, play_places
from sftrl_ext.experiments.evaluation.one_model.request import EvalRequest, local_model
from sftrl_ext.experiments.evaluation.one_model.trained_template import (
    TrainedTemplate,
    check_template,
    template_of_folder,
)
from sftrl_ext.experiments.evaluation.targets import EvalSet, load_eval_set
from sftrl_ext.experiments.start_models.model_source import find_model, is_hub_name
from sftrl_ext.rollout.player import PlayedEpisode

ENDPOINT = "endpoint"
"""Stands for the engine in the records of a served model."""


def evaluate_model(request: EvalRequest, console: Console) -> list[dict[str, Any]]:
    """Play every row of every file and show the success of each.

    Returns:
        One record per file, as in a run's ``records.jsonl``.

    Raises:
        SftrlError: if the input is wrong, or an endpoint left episodes unanswered.
        KeyboardInterrupt: if interrupted; its text says how to go on.
    """
    sets = [
        replace(chosen, facts=chosen.facts[: request.limit])
        for chosen in (load_eval_set(path) for path in request.files)
    ]
    if request.model is None:
        if request.endpoint is None:
            raise SftrlError("no model is named; expected a folder, a name of the hub, or --endpoint.")
        request = replace(request, model=asyncio.run(_served_model(request.endpoint)))
    if not request.any_template:
        check_template(_trained_template(request), sets)
    request = request.with_own_sampling()
    settings = {**_settings(request), "data": describe_data(sets)}
    path = request.episodes
    if path is None and request.endpoint is not None:
        path = Path("evals") / _file_name(settings)
    if path is None:
        done: dict[Place, PlayedEpisode] = {}
        failed = _play(request, sets, done, done.__setitem__, console)
    else:
        with open_log(path, sets, settings) as log:
            done = log.done
            try:
                failed = _play(request, sets, done, log.add, console)
            except SftrlError as error:
                raise SftrlError(f"{error} {_kept(log)}" if done else str(error)) from None
            except KeyboardInterrupt:
                raise KeyboardInterrupt(_kept(log)) from None
    records = []
    for number, chosen in enumerate(sets):
        rows = [index for index in range(len(chosen.facts)) if (number, index) in done]
        played = [done[number, index] for index in rows]
        records.append(
            _record(request, replace(chosen, facts=[chosen.facts[index] for index in rows]), played)
        )
    _show(records, console)
    if path is not None:
        console.print(f"every episode: {path}", markup=False, highlight=False, soft_wrap=True)
    if failed:
        raise SftrlError(
            f"{len(failed)} episodes got no answer and are not counted ({failed[-1]}) "
            f"The others are kept{'' if path is None else f' in {path}'}; the same command tries these again."
        )
    return records


def _kept(log: EpisodeLog) -> str:
    return f"{len(log.done)} finished episodes are kept in {log.path}; the same command goes on from there."


def _play(
    request: EvalRequest,
    sets: Sequence[EvalSet],
    done: Mapping[Place, PlayedEpisode],
    keep: Callable[[Place, PlayedEpisode], None],
    console: Console,
) -> list[Unanswered]:
    """Play what is not done; return why some episodes could not be played."""
    places = [(s, i) for s, chosen in enumerate(sets) for i in range(len(chosen.facts))]
    todo = [key for key in places if key not in done]
    if done:
        console.print(f"{len(done)} of {len(places)} episodes were played before.", highlight=False)
    if not todo:
        return []
    with ExitStack() as stack:
        if request.endpoint is None:
            folder = stack.enter_context(local_model(str(request.model), request.dtype))
            player, at_once = local_player(request, sets, folder), request.batch_size
        else:
            player, at_once = endpoint_player(request, request.endpoint, sets), request.endpoint.concurrency
        progress = stack.enter_context(Progress(console=console, transient=True))
        task = progress.add_task("evaluate", total=len(places), completed=len(done))

        def finish(key: Place, played: PlayedEpisode) -> None:
            keep(key, played)
            progress.advance(task)

        return asyncio.run(play_places(player, todo, finish, at_once))


async def _served_model(options: EndpointOptions) -> str:
    async with Endpoint(options, None) as endpoint:
        return await endpoint.served_model()


def _trained_template(request: EvalRequest) -> TrainedTemplate | None:
    """The template that a model was trained with, if its run or its server says so."""
    model = str(request.model)
    if request.endpoint is not None:
        return asyncio.run(_served_template(request.endpoint, model))
    return None if is_hub_name(model) else template_of_folder(find_model(Path(model)))


async def _served_template(options: EndpointOptions, model: str) -> TrainedTemplate | None:
    async with Endpoint(options, model) as endpoint:
        name = await endpoint.template()
    return None if name is None else TrainedTemplate(name, options.url)


def _settings(request: EvalRequest) -> dict[str, Any]:
    """Settings that a file of episodes must have to be resumed, apart from the data."""
    model = str(request.model)
    play = {
        **request.sampling,
        "max_turn_tokens": request.max_turn_tokens,
        "seed": request.seed,
    }
    if request.endpoint is not None:
        # Not the address: a server may come back at another one.
        return {"model": model, "engine": ENDPOINT, **play, "extra": dict(request.endpoint.extra)}
    model = model if is_hub_name(model) else str(find_model(Path(model)).resolve())
    return {"model": model, "engine": request.engine, "dtype": request.dtype, **play}


def _file_name(settings: Mapping[str, Any]) -> str:
    """One name for one evaluation: the same command finds its file again."""
    model = re.sub(r"[^\w.-]+", "-", settings["model"]).strip("-.") or "model"
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    return f"{model}-{digest[:8]}.jsonl"


def _record(request: EvalRequest, chosen: EvalSet, played: Sequence[PlayedEpisode]) -> dict[str, Any]:
    """The numbers of one set."""
    record = {"model": str(request.model), **summarise(chosen, played), **request.sampling}
    if request.endpoint is None:
        return {**record, "engine": request.engine}
    # What a server counts as feedback cannot be told apart from the rest of a prompt.
    for name in ("prompt_tokens", "generated_tokens", "feedback_tokens"):
        del record[name]
    usage = usage_of(played, request.prices)
    return {**record, "engine": ENDPOINT, "endpoint": request.endpoint.url, "usage": usage}


def _show(records: Sequence[dict[str, Any]], console: Console) -> None:
    console.print(success_table(records))
    for record in records:
        if "by_city" in record:
            console.print(city_table(record))
    if any("usage" in record for record in records):
        console.print(usage_table(records))
    for sentence in remarks(records):
        console.print(sentence, markup=False, highlight=False)


def append_records(path: Path, records: Sequence[dict[str, Any]]) -> None:
    """Append one JSON line per record."""
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)
