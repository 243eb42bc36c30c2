"""Tokenizers and an episode small enough to read, for the tests of the rollout and of training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sftrl_ext.envs.base import Attempt, Episode, Message, Step, Verdict

SPECIAL = ["<pad>", "<s>", "<end>", "<|system|>", "<|user|>", "<|assistant|>"]
PLAIN = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<end>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
"""No text between messages: a model that stops at ``<end>`` has written all of its turn."""
CHATML = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '<end>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
"""A newline after every ``<end>``, which the model never writes."""
HEADED = (
    "{{ '<s>' }}{% for m in messages %}"
    "{{ '<|' + m['role'] + '|>\n\n' + (m['content'] | trim) + '<end>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n\n' }}{% endif %}"
)
"""A start token before the first message, and contents stripped."""
TEMPLATES = {"plain": PLAIN, "chatml": CHATML, "headed": HEADED}


def tiny_tokenizer(template: str = "plain") -> Any:
    """A byte-level tokenizer without merges: 256 bytes and six special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *alphabet])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="<end>")
    tokenizer.add_special_tokens({"additional_special_tokens": SPECIAL[3:]})
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    tokenizer.chat_template = TEMPLATES[template]
    return tokenizer


def builder_for(tokenizer: Any) -> Any:
    """verl's continuous-token builder for a Llama."""
    from verl.utils.tokenizer.continuous_token_wiring import create_continuous_token_builder

    return create_continuous_token_builder(tokenizer, hf_model_type="llama")


class Guess(Episode):
    """Say the word; wrong tries are answered with a hint. -1 for a wrong try, +5 for the right one."""

    def __init__(self, word: str = "yes", max_attempts: int = 3, system: bool = True) -> None:
        self.word, self.max_attempts = word, max_attempts
        self.attempts: list[Attempt] = []
        first: list[Message] = [{"role": "system", "content": "Play."}] if system else []
        self._dialogue: list[Message] = [*first, {"role": "user", "content": "Say the word!"}]

    def messages(self) -> list[Message]:
        return list(self._dialogue)

    def submit(self, response: str) -> Step:
        if response.strip() == "crash":
            raise RuntimeError("the verifier crashed")
        right = response.strip() == self.word
        verdict = Verdict(
            "correct" if right else "wrong", 5.0 if right else -1.0, f"no, not {response!r}. Again!"
        )
        self.attempts.append(Attempt(response, verdict))
        over = len(self.attempts) >= self.max_attempts
        reply = None if right or over else verdict.feedback
        self._dialogue.append({"role": "assistant", "content": response})
        if reply is not None:
            self._dialogue.append({"role": "user", "content": reply})
        return Step(self.attempts[-1], verdict.reward, right, over and not right, reply)

    @property
    def solved(self) -> bool:
        return any(attempt.verdict.correct for attempt in self.attempts)

    @property
    def done(self) -> bool:
        return self.solved or len(self.attempts) >= self.max_attempts

    def metrics(self) -> dict[str, float]:
        return {"solved": float(self.solved), "attempts": float(len(self.attempts))}


class Walk(Episode):
    """Three points, one right word each; the prompt is written anew at each point, as a route's is."""

    words = ("a", "b", "c")

    def __init__(self) -> None:
        self.attempts: list[Attempt] = []
        self.point = 0
        self._failed: list[Message] = []
        self.lost = False

    def messages(self) -> list[Message]:
        return [{"role": "user", "content": f"point {self.point}"}, *self._failed]

    def submit(self, response: str) -> Step:
        right = response == self.words[self.point]
        self.attempts.append(
            Attempt(response, Verdict("correct" if right else "wrong", 1.0 if right else -1.0, "no"))
        )
        if right:
            self.point += 1
            self._failed = []
            return Step(self.attempts[-1], 1.0, self.solved, False, new_prompt=not self.solved)
        if self._failed:
            self.lost = True
            return Step(self.attempts[-1], -1.0, False, True)
        self._failed = [{"role": "assistant", "content": response}, {"role": "user", "content": "no"}]
        return Step(self.attempts[-1], -1.0, False, False, reply="no")

    @property
    def solved(self) -> bool:
        return self.point == len(self.words)

    @property
    def done(self) -> bool:
        return self.solved or self.lost

    def metrics(self) -> dict[str, float]:
        return {"solved": float(self.solved)}


class Script:
    """An engine that says what it is told, byte by byte, and ends each turn; cut where the limit is."""

    def __init__(self, tokenizer: Any, says: Sequence[str], logprob: float | None = -0.5) -> None:
        self.tokenizer, self.says, self.logprob = tokenizer, list(says), logprob
        self.prompts: list[list[int]] = []
        self.params: list[Mapping[str, Any]] = []

    async def __call__(self, prompt_ids: list[int], sampling_params: dict[str, Any], images: Any = ()) -> Any:
        from sftrl_ext.rollout.player import Generation

        self.prompts.append(prompt_ids)
        self.params.append(sampling_params)
        text = self.says[len(self.prompts) - 1]
        ids = self.tokenizer.encode(text, add_special_tokens=False) + [self.tokenizer.eos_token_id]
        ids = ids[: sampling_params["max_tokens"]]
        return Generation(
            ids, None if self.logprob is None else [self.logprob] * len(ids), {"turn": len(self.prompts)}
        )
