"""Updates that hold a number of responses instead of a number of episodes (config key ``sftrl.responses``).

The paper counts an update in responses: each of its 8 GPUs plays on until its buffer of 256 is full. Here
episodes are generated in waves until an update has at least that many. The first wave is sized by the mean
responses per episode of the update before, a little above what is needed, because every further wave waits
for its slowest episode. Episodes stay whole; the authors cut theirs at the buffer's end, and bootstrap there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import transfer_queue as tq
from omegaconf import DictConfig, OmegaConf, open_dict
from transfer_queue import KVBatchMeta

from sftrl_ext.errors import SftrlError
from sftrl_ext.files import read_json, write_json

RESPONSES_FILE = "sftrl_responses.json"
"""Counts of the last update, in a checkpoint's folder, so that a resumed run sizes its next wave the same."""

MARGIN = 1.03
"""Responses that a wave aims for, as a multiple of those still missing."""

MAX_WAVES = 20
"""Waves of one update; more mean that episodes have no responses."""


Sample = tuple[KVBatchMeta, dict[str, Any]]
"""Rows of an update, and metrics of the sampling."""


class Sampler(Protocol):
    """Interface of verl's replay buffer."""

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> Sample:
        """Wait for this many finished prompts and return their rows."""
        ...


class WaveSizes:
    """Sizes of the waves of an update.

    Args:
        responses: Responses an update must have.
        prompts: Prompts of the very first wave, before any episode was counted.
        group: Episodes per prompt.
    """

    def __init__(self, responses: int, prompts: int, group: int) -> None:
        self.responses = responses
        self.prompts = prompts
        self.group = group
        self.last: dict[str, int] = {"responses": 0, "episodes": 0}

    def prompts_for(self, missing: int, responses: int, episodes: int) -> int:
        """Prompts expected to bring the missing responses, if episodes are as long as those counted."""
        if responses < 1:
            return self.prompts
        return max(1, math.ceil(MARGIN * missing * episodes / responses / self.group))

    def first_wave(self) -> int:
        """Prompts of an update's first wave."""
        return self.prompts_for(self.responses, **self.last)


class ResponseBuffer:
    """verl's replay buffer, which for training samples waves of prompts until there are enough responses.

    Validation and all other methods are the wrapped buffer's.

    Args:
        inner: verl's replay buffer.
        sizes: Sizes of the waves.
        generate: Fetches this many prompts and submits them to the rollout.
    """

    def __init__(self, inner: Sampler, sizes: WaveSizes, generate: Callable[[int], int]) -> None:
        self._inner = inner
        self._sizes = sizes
        self._generate = generate
        self._submitted = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def first_wave(self) -> int:
        """Prompts to fetch for the update that begins."""
        self._submitted = self._sizes.first_wave()
        return self._submitted

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> Sample:
        """Wait for the first wave, top up until there are enough responses, and return all rows.

        Rows come in the order of their keys, so that the same episodes make the same update.

        Raises:
            SftrlError: if `MAX_WAVES` waves do not bring enough.
        """
        if partition_id != "train":
            return self._inner.sample(global_steps, partition_id, batch_size)
        rows: dict[str, dict[str, Any]] = {}
        metrics: dict[str, Any] = {}
        responses, prompts, waves, wave = 0, 0, 0, self._submitted
        while True:
            batch, metrics = self._inner.sample(global_steps, partition_id, wave)
            rows.update(zip(batch.keys, batch.tags, strict=True))
            responses, prompts, waves = responses + count_responses(batch), prompts + wave, waves + 1
            # Without any response all episodes failed: the trainer reports their error.
            if responses >= self._sizes.responses or responses == 0:
                break
            if waves == MAX_WAVES:
                raise SftrlError(
                    f"sftrl.responses: {waves} waves of {prompts} prompts in all had {responses} responses; "
                    f"expected {self._sizes.responses}."
                )
            missing = self._sizes.responses - responses
            wave = self._generate(self._sizes.prompts_for(missing, responses, prompts * self._sizes.group))
        # Failed episodes count too: the next wave must expect as many.
        episodes = prompts * self._sizes.group
        self._sizes.last = {"responses": responses, "episodes": episodes}
        metrics |= {"episode/responses": responses, "episode/waves": waves, "episode/played": episodes}
        keys = sorted(rows)
        return KVBatchMeta(partition_id=partition_id, keys=keys, tags=[rows[key] for key in keys]), metrics

    def save(self, folder: str) -> None:
        """Write the counts of the last update into a checkpoint's folder."""
        write_json(_file(folder), self._sizes.last)

    def load(self, folder: str) -> None:
        """Restore the counts; a checkpoint of a run that counted episodes has none."""
        if _file(folder).is_file():
            self._sizes.last = dict(read_json(_file(folder)))


def _file(folder: str) -> Path:
    return Path(folder) / RESPONSES_FILE


def count_responses(batch: KVBatchMeta) -> int:
    """Responses in the rows of a batch, padding left out."""
    keys = [key for key, tag in zip(batch.keys, batch.tags, strict=True) if not tag.get("is_padding", False)]
    if not keys:
        return 0
    data = tq.kv_batch_get(keys=keys, partition_id=batch.partition_id, select_fields=["num_turns"])
    return sum(int(count) for count in data["num_turns"])


def requested_responses(config: DictConfig) -> int | None:
    """Read the config key ``sftrl.responses``; None: an update is a number of episodes.

    Raises:
        SftrlError: if it is not a positive number.
    """
    value = OmegaConf.select(config, "sftrl.responses")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise SftrlError(f"sftrl.responses: {value!r}; expected a number of responses above 0, or null.")
    return value


def fetch_single_prompts(config: DictConfig) -> None:
    """Have verl's loader give prompts one by one, so that waves of any size can be fetched.

    Raises:
        SftrlError: if the config sets another number.
    """
    configured = config.data.get("gen_batch_size")
    if configured not in (None, 1):
        raise SftrlError(f"data.gen_batch_size: {configured} beside sftrl.responses; expected null or 1.")
    # verl's config is closed to new keys.
    with open_dict(config):
        config.data.gen_batch_size = 1


def response_buffer(
    config: DictConfig, inner: Sampler, generate: Callable[[int], int]
) -> ResponseBuffer | None:
    """Create the buffer of a trainer whose updates count responses; None if they count episodes.

    Raises:
        SftrlError: for a trainer mode that does not generate an update at a time.
    """
    responses = requested_responses(config)
    if responses is None:
        return None
    if config.trainer.v1.trainer_mode != "sync":
        raise SftrlError(
            f"sftrl.responses: {responses} with an asynchronous trainer, which has no updates of its own "
            "episodes; expected null, or the synchronous trainer."
        )
    group = int(config.actor_rollout_ref.rollout.n)
    sizes = WaveSizes(responses, int(config.data.train_batch_size), group)
    return ResponseBuffer(inner, sizes, generate)
