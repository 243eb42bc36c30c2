"""Play one episode by messages, for an engine whose interface takes no tokens.

Such an engine gets the whole dialogue at every turn. The episode knows it (`Episode.messages`), whether it
grew by a response and its feedback or the prompt was written anew, so nothing about it is kept here. The
model's tokens are the server's affair: there are counts of them, but no masks, and nothing can be trained on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sftrl_ext.envs.base import Episode
from sftrl_ext.rollout.player import PlayedEpisode
from sftrl_ext.rollout.tokens import with_images

TEMPLATE_KEY = "sftrl_template"
"""Key of an entry in a server's list of models: the prompt template that the model was trained with."""


@dataclass(frozen=True)
class Completion:
    """Response of an engine.

    Attributes:
        text: The model's text; empty if there was none.
        cut: It reached the limit of a turn.
        prompt_tokens: Tokens of the dialogue before it, as the engine counted them.
        completion_tokens: Tokens of the answer, hidden ones included.
        extra: Further information, for `PlayedEpisode.extra`.
    """

    text: str
    cut: bool = False
    prompt_tokens: int = 0
    completion_tokens: int = 0
    extra: Mapping[str, Any] = field(default_factory=dict)


class DialogueTooLong(Exception):
    """Raised if a dialogue does not fit into the model's context; it ends the episode, not the evaluation."""


Complete = Callable[[list[dict[str, Any]], int], Awaitable[Completion]]
"""``await complete(messages, turn)``; messages as `with_images` gives them, turns count from 0."""


async def play_messages(episode: Episode, complete: Complete) -> PlayedEpisode:
    """Play an episode to its end.

    A dialogue that is too long ends this episode, as in `sftrl_ext.rollout.player.play`. In the result
    ``prompt_tokens`` counts each prompt that was begun, and ``prefill_tokens`` what all requests together
    sent.

    Args:
        episode: A fresh episode; it is played in place.
        complete: The engine.

    Raises:
        Exception: any other of ``complete`` or of the task: a fault is no result of the model.
    """
    played = PlayedEpisode()
    # True while the next request begins a new prompt; later turns repeat its tokens.
    begun = True
    try:
        while not episode.done:
            completion = await complete(with_images(episode.messages(), episode.images()), len(played.steps))
            played.messages = [*episode.messages(), {"role": "assistant", "content": completion.text}]
            played.prompt_tokens += completion.prompt_tokens if begun else 0
            played.prefill_tokens += completion.prompt_tokens
            played.generated_tokens += completion.completion_tokens
            played.cut_turns += completion.cut
            played.extra.append(completion.extra)
            played.steps.append(episode.submit(completion.text))
            begun = played.steps[-1].new_prompt
    except DialogueTooLong as error:
        # As for tokens: a first prompt that does not fit is an error, a later one ends the episode.
        played.out_of_tokens = bool(played.steps)
        played.error = None if played.out_of_tokens else str(error)
    played.solved = episode.solved
    played.metrics = episode.metrics()
    return played
