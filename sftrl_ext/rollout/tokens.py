"""Token stream of a dialogue: tokens of the template and of the model, none of them ever re-encoded.

verl's continuous-token builder renders the first prompt and every later message; this module keeps its masks
and log-probabilities aligned, and closes a model turn the way the chat template would. A model stops at its
end-of-turn token, or is cut before it; the tokens that the template puts after a turn and the model did not
write (a newline, the end-of-turn token itself) are added without loss. So the stream equals the chat
template's encoding of the full dialogue whenever the model's own tokens do.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftrl_ext.envs.base import IMAGE_MARKER, Message, count_markers
from sftrl_ext.errors import SftrlError

if TYPE_CHECKING:
    from PIL.Image import Image

FEEDBACK = 0
"""The turn number of tokens that the model did not write."""

CACHED_RENDERINGS = 1024
"""Most encoded messages that a chat template keeps: prompts of a group's episodes, and repeated feedback."""


CACHED_CHARACTERS = 20_000
"""Most characters of messages that are kept: longer ones come from strangers to `sftrl serve`."""


class ChatTokens:
    """Tokenizer and chat template as needed to extend dialogues; shared by all dialogues of a model.

    Args:
        builder: A verl continuous-token builder (`create_continuous_token_builder`).
    """

    def __init__(self, builder: Any) -> None:
        self.builder = builder
        if builder.supports_multimodal():
            # The template has written the special tokens, and a processor would add them once more.
            builder.mm_processor_kwargs = {**builder.mm_processor_kwargs, "add_special_tokens": False}
        _cache_renderings(builder)
        self.tokenizer = builder.tokenizer
        self.template = self.tokenizer.chat_template
        self.eos = _eos_ids(self.tokenizer)
        self.closing = self._closing_ids()
        self.stops = self.eos | frozenset(self.closing[:1])

    def _closing_ids(self) -> list[int]:
        """Tokens that the template writes between a model turn's text and the next user message."""
        question: Message = {"role": "user", "content": "a"}
        reply: Message = {"role": "user", "content": "b"}
        builder = self.builder
        rendered = [
            builder.build_initial_tokens([question, {"role": "assistant", "content": text}, reply])
            for text in ("x", "y")
        ]
        # Two renderings that differ in the turn's text: their common suffix is the closing and the reply.
        after = _common_suffix(*rendered)
        answer: Message = {"role": "assistant", "content": "x"}
        appended = builder.tokenize_context_incremental_messages(
            [question, answer], [question, answer, reply]
        )
        if after[len(after) - len(appended) :] != appended:
            raise SftrlError(
                "the chat template writes a user message differently inside a dialogue than after it, so a "
                f"multi-turn episode cannot be encoded piece by piece: found {after[-len(appended) :]}, "
                f"expected {appended} (token ids of the message 'b' and the generation prompt)."
            )
        return after[: len(after) - len(appended)]

    def missing_closing(self, ids: Sequence[int]) -> list[int]:
        """Tokens of the template's turn ending that ``ids``, the tokens of a model turn, lack."""
        closing = self.closing
        # The longest part of the closing that the turn ends with.
        for present in range(min(len(closing), len(ids)), 0, -1):
            if list(ids[-present:]) == closing[:present]:
                return closing[present:]
        if ids and ids[-1] in self.eos:
            return closing[1:]
        return list(closing)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of a model turn, as the verifier reads it."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))


# Kept because the closing takes several renderings, and every episode asks for it anew.
_recent: deque[ChatTokens] = deque(maxlen=8)


def chat_tokens(builder: Any) -> ChatTokens:
    """The `ChatTokens` of a builder's tokenizer and options, shared with other builders of the same."""
    for chat in _recent:
        if (
            chat.tokenizer is builder.tokenizer
            and chat.template == builder.tokenizer.chat_template
            and type(chat.builder) is type(builder)
            and chat.builder.chat_template_kwargs == builder.chat_template_kwargs
        ):
            return chat
    chat = ChatTokens(builder)
    _recent.append(chat)
    return chat


def load_chat_tokens(folder: Path) -> ChatTokens:
    """The chat template of a model folder as tokens, built as the rollout builds it.

    Raises:
        SftrlError: if the folder holds no tokenizer, or no chat template that writes dialogues.
    """
    from transformers import AutoConfig
    from verl.utils.tokenizer.continuous_token_wiring import create_continuous_token_builder

    from sftrl_ext.hf_folder import folder_errors, load_processor, load_tokenizer

    tokenizer, processor = load_tokenizer(folder), load_processor(folder)
    with folder_errors(folder, "chat template"):
        model_type = AutoConfig.from_pretrained(folder).model_type
        return chat_tokens(
            create_continuous_token_builder(tokenizer, hf_model_type=model_type, processor=processor)
        )


def with_images(messages: Sequence[Message], images: Sequence[Image]) -> list[dict[str, Any]]:
    """Convert messages to a processor's format: every marker becomes a content block with its picture.

    Raises:
        SftrlError: if there are not as many markers as pictures.
    """
    markers = count_markers(messages)
    if markers != len(images):
        raise SftrlError(f"the prompt has {markers} image markers for {len(images)} images.")
    if not images:
        return [dict(message) for message in messages]
    rest = iter(images)
    shown: list[dict[str, Any]] = []
    for message in messages:
        content: str | list[dict[str, Any]] = message["content"]
        if message["role"] != "assistant" and IMAGE_MARKER in message["content"]:
            content = []
            for index, text in enumerate(message["content"].split(IMAGE_MARKER)):
                if index:
                    content.append({"type": "image", "image": next(rest)})
                if text:
                    content.append({"type": "text", "text": text})
        shown.append({"role": message["role"], "content": content})
    return shown


@dataclass
class Dialogue:
    """One dialogue as tokens: a prompt, then model turns and feedback in turn.

    Attributes:
        prompt_ids: The encoded first messages, with the generation prompt.
        response_mask: Per token after the prompt, 1 if the model wrote it.
        turn_ids: Per token after the prompt, the turn (1, 2, ..) that wrote it, or 0 for everything else.
        logprobs: Per token after the prompt, the log-probability under the model that wrote it, 0.0 for
            other tokens; None if the engine gives none.
        images: Images of the prompt's image markers, in order.
        features: Kept part of the processor's tensors of the prompt.
    """

    chat: ChatTokens
    messages: list[Message]
    prompt_ids: list[int]
    ids: list[int]
    response_mask: list[int] = field(default_factory=list)
    turn_ids: list[int] = field(default_factory=list)
    logprobs: list[float] | None = field(default_factory=list)
    turns: int = 0
    images: Sequence[Image] = ()
    features: dict[str, Any] | None = None

    @classmethod
    def start(
        cls,
        chat: ChatTokens,
        messages: Sequence[Message],
        images: Sequence[Image] = (),
        keep: Callable[[dict[str, Any]], dict[str, Any] | None] | None = None,
    ) -> Dialogue:
        """Encode the first messages, ready for the model's first turn.

        Args:
            chat: Tokens of the model's chat template.
            messages: They may hold image markers.
            images: The pictures the markers stand for, in order.
            keep: Selects `features` from the processor's tensors; None keeps nothing.

        Raises:
            SftrlError: if markers and pictures are not as many, or the model sees none.
        """
        if images and not chat.builder.supports_multimodal():
            raise SftrlError("the prompt shows an image, but the model has no image processor.")
        blocks = with_images(messages, images)
        shown: dict[str, Any] | None = None if keep is None or not images else {}
        prompt = list(
            chat.builder.build_initial_tokens(blocks, images=list(images) or None, mm_inputs_out=shown)
        )
        features = keep(shown) if keep is not None and shown is not None else None
        return cls(chat, list(messages), prompt, list(prompt), images=tuple(images), features=features)

    @property
    def response_ids(self) -> list[int]:
        """Everything after the prompt."""
        return self.ids[len(self.prompt_ids) :]

    def add_turn(self, ids: Sequence[int], logprobs: Sequence[float] | None) -> str:
        """Append a generated turn, and return its text.

        Args:
            ids: The generated token ids, the stop token included if it was generated.
            logprobs: One per token, or None; one turn without them leaves the whole dialogue without.
        """
        if logprobs is None:
            self.logprobs = None
        self.turns += 1
        merge = self.chat.builder.merge_assistant_tokens(self.ids, list(ids))
        self._apply(merge, self.turns, None if self.logprobs is None else list(logprobs or ()))
        text = self.chat.decode(ids)
        self.messages = [*self.messages, {"role": "assistant", "content": text}]
        return text

    def feedback_ids(self, reply: str) -> Feedback:
        """Encode the verifier's message as the next user turn, without appending it yet."""
        closing = self.chat.missing_closing(self.response_ids)
        updated = [*self.messages, {"role": "user", "content": reply}]
        merge = self.chat.builder.merge_context_tokens(self.messages, updated, [*self.ids, *closing])
        return Feedback(
            messages=updated, closing=closing, merge=merge, added=len(merge.token_ids) - len(self.ids)
        )

    def add_feedback(self, feedback: Feedback) -> None:
        """Append an encoded verifier message."""
        self._extend(len(feedback.closing))
        self._apply(feedback.merge, FEEDBACK, None)
        self.messages = feedback.messages

    def _extend(self, count: int) -> None:
        self.response_mask += [0] * count
        self.turn_ids += [FEEDBACK] * count
        if self.logprobs is not None:
            self.logprobs += [0.0] * count

    def _apply(self, merge: Any, turn: int, logprobs: list[float] | None) -> None:
        """Apply a builder's edit of the stream to the tokens, mask, turns and log-probabilities."""
        self.response_mask, self.logprobs = self.chat.builder.align_response_metadata(
            merge, self.response_mask, self.logprobs, assistant_logprobs=logprobs
        )
        # The builder may have replaced the last tokens of the stream.
        if merge.removed_prefix_token_count:
            del self.turn_ids[-merge.removed_prefix_token_count :]
        self.turn_ids += [FEEDBACK] * len(merge.inserted_token_ids) + [turn] * merge.appended_token_count
        self.ids = list(merge.token_ids)


@dataclass(frozen=True)
class Feedback:
    """Verifier message as tokens, not yet appended: its size is first checked against the budget."""

    messages: list[Message]
    closing: list[int]
    merge: Any
    added: int


def _cache_renderings(builder: Any) -> None:
    """Let a builder keep the tokens of the texts it has rendered.

    Every feedback message renders the same two messages before it, and the episodes of a group share their
    prompt.
    """
    render = builder._render_tokens

    @lru_cache(maxsize=CACHED_RENDERINGS)
    def cached(messages: tuple[tuple[tuple[str, str], ...], ...], add_generation_prompt: bool) -> list[int]:
        rendered = [dict(message) for message in messages]
        return list(render(rendered, add_generation_prompt=add_generation_prompt))

    def _render_tokens(
        messages: Sequence[Message], *, add_generation_prompt: bool, tools: Any = None
    ) -> list[int]:
        contents = [message["content"] for message in messages]
        plain = tools is None and all(isinstance(content, str) for content in contents)
        if not plain or sum(map(len, contents)) > CACHED_CHARACTERS:
            return list(render(messages, add_generation_prompt=add_generation_prompt, tools=tools))
        key = tuple([tuple(message.items()) for message in messages])
        return list(cached(key, add_generation_prompt))

    builder._render_tokens = _render_tokens


def _common_suffix(first: Sequence[int], second: Sequence[int]) -> list[int]:
    count = 0
    while count < min(len(first), len(second)) and first[-1 - count] == second[-1 - count]:
        count += 1
    return list(first[len(first) - count :])


def _eos_ids(tokenizer: Any) -> frozenset[int]:
    eos: int | Sequence[int] | None = getattr(tokenizer, "eos_token_id", None)
    if eos is None:
        return frozenset()
    return frozenset([eos]) if isinstance(eos, int) else frozenset(eos)
