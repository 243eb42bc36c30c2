"""Responses held to a JSON schema: at every place only tokens that valid JSON can go on with are left.

The grammar and its masks are llguidance's.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sftrl_ext.errors import SftrlError

MAX_SCHEMA = 100_000
"""Most characters of a schema; compiling one takes time."""


class JsonAnswers:
    """Constraints for one tokenizer.

    Args:
        tokenizer: A fast tokenizer.
        stops: Tokens that end a response.
    """

    def __init__(self, tokenizer: Any, stops: Iterable[int]) -> None:
        if importlib.util.find_spec("llguidance") is None:
            raise SftrlError("response_format: llguidance is missing; expected `pip install llguidance`.")
        from llguidance.hf import from_tokenizer

        self._tokenizer = from_tokenizer(tokenizer, eos_token=sorted(stops))

    def constraint(self, schema: dict[str, Any]) -> JsonConstraint:
        """Hold one response to a JSON schema.

        Raises:
            SftrlError: if the schema is too long, or no grammar can be made of it.
        """
        from llguidance import LLMatcher

        text = json.dumps(schema)
        if len(text) > MAX_SCHEMA:
            raise SftrlError(
                f"response_format: a schema of {len(text)} characters; expected at most {MAX_SCHEMA}."
            )
        try:
            matcher = LLMatcher(self._tokenizer, LLMatcher.grammar_from_json_schema(text))
        except ValueError as error:
            raise _refusal(error) from None
        if matcher.is_error():
            raise _refusal(matcher.get_error())
        return JsonConstraint(matcher, self._tokenizer.vocab_size)


class JsonConstraint:
    """State of one response; see `sftrl_ext.backends.hf.sampling.Constraint`."""

    def __init__(self, matcher: Any, vocab_size: int) -> None:
        self._matcher = matcher
        self._vocab_size = vocab_size

    def allowed(self) -> Tensor:
        """Mask over the tokenizer's vocabulary of the tokens that may come next."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        return torch.from_numpy(np.unpackbits(bits, count=self._vocab_size, bitorder="little").astype(bool))

    def accept(self, token: int) -> None:
        """Go on by a token that was sampled."""
        self._matcher.consume_token(token)


def _refusal(reason: Any) -> SftrlError:
    return SftrlError(
        f"response_format: no grammar can be made of the schema: {' '.join(str(reason).split())}"
    )
