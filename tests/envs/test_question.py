"""Episodes of one question: attempts, feedback, and their end."""

from __future__ import annotations

import pytest

from sftrl_ext.envs.base import Verdict
from sftrl_ext.envs.question import QuestionEpisode


class Echo(QuestionEpisode):
    def question(self):
        return f"Say {self.facts['word']}."

    def grade(self, response):
        right = response == self.facts["word"]
        return Verdict("correct", 1.0, "") if right else Verdict("wrong", -1.0, f"Not {response}.")


def test_a_wrong_answer_is_followed_by_feedback_until_none_is_left():
    episode = Echo({"word": "yes", "max_attempts": 2})
    first = episode.submit("no")
    assert (first.reward, first.done, first.reply) == (-1.0, False, "Not no.")
    roles = [(message["role"], message["content"]) for message in episode.messages()]
    assert roles == [("user", "Say yes."), ("assistant", "no"), ("user", "Not no.")]
    last = episode.submit("no")
    assert last.truncated and not last.terminated and last.reply is None
    assert episode.metrics() == {"solved": 0.0, "attempts": 2.0}
    with pytest.raises(RuntimeError, match="over"):
        episode.submit("yes")


def test_a_right_answer_ends_it():
    episode = Echo({"word": "yes", "max_attempts": 2})
    step = episode.submit("yes")
    assert step.terminated and not step.truncated and episode.solved and episode.done


def test_one_attempt_is_the_default():
    assert Echo({"word": "yes"}).submit("no").truncated
