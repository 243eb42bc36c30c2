"""Gymnasium spaces of text environments: any text, any dialogue, and pictures of one size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from gymnasium import spaces

from sftrl_ext.envs.base import Message

if TYPE_CHECKING:
    from PIL.Image import Image

T = TypeVar("T")

_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789 +-*/()=.,:{}[]\"'"
_LONGEST_SAMPLE = 64


class _ObjectSpace(spaces.Space[T]):
    """Space of Python objects; two of them are equal if their representations are."""

    def __init__(self, seed: int | None = None) -> None:
        super().__init__(shape=None, dtype=None, seed=seed)

    @property
    def is_np_flattenable(self) -> bool:
        """False: the objects have no fixed size."""
        return False

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))


class TextSpace(_ObjectSpace[str]):
    """Every text of every length. Samples are short and of plain characters."""

    def sample(self, mask: Any | None = None, probability: Any | None = None) -> str:
        """Draw a short text; ``mask`` and ``probability`` are not supported."""
        length = self.np_random.integers(_LONGEST_SAMPLE + 1)
        return "".join(_LETTERS[i] for i in self.np_random.integers(len(_LETTERS), size=length))

    def contains(self, x: Any) -> bool:
        """True if ``x`` is a text."""
        return isinstance(x, str)

    def __repr__(self) -> str:
        return "TextSpace()"


class MessagesSpace(_ObjectSpace[list[Message]]):
    """Every non-empty dialogue: a list of ``{"role": ..., "content": ...}`` messages."""

    def __init__(
        self, roles: Sequence[str] = ("system", "user", "assistant"), seed: int | None = None
    ) -> None:
        self.roles = tuple(roles)
        self._text = TextSpace(seed)
        super().__init__(seed)

    def seed(self, seed: int | None = None) -> Any:
        """Seed the roles and the texts of samples."""
        self._text.seed(seed)
        return super().seed(seed)

    def sample(self, mask: Any | None = None, probability: Any | None = None) -> list[Message]:
        """Draw a short dialogue; ``mask`` and ``probability`` are not supported."""
        count = int(self.np_random.integers(1, 4))
        picks = self.np_random.integers(len(self.roles), size=count)
        return [{"role": self.roles[pick], "content": self._text.sample()} for pick in picks]

    def contains(self, x: Any) -> bool:
        """True if ``x`` is a dialogue of the known roles."""
        return (
            isinstance(x, (list, tuple))
            and len(x) > 0
            and all(
                isinstance(message, dict)
                and set(message) == {"role", "content"}
                and message["role"] in self.roles
                and isinstance(message["content"], str)
                for message in x
            )
        )

    def __repr__(self) -> str:
        return f"MessagesSpace({self.roles})"


class ImagesSpace(_ObjectSpace["list[Image]"]):
    """A list of RGB pictures of Pillow, all of one size. Samples are of one colour each.

    Args:
        width: In pixels.
        height: In pixels.
        count: How many pictures.
        seed: Seed of samples.
    """

    def __init__(self, width: int, height: int, count: int = 1, seed: int | None = None) -> None:
        self.width, self.height, self.count = width, height, count
        super().__init__(seed)

    def sample(self, mask: Any | None = None, probability: Any | None = None) -> list[Image]:
        """Draw pictures of random colours; ``mask`` and ``probability`` are not supported."""
        from PIL import Image

        colours = self.np_random.integers(256, size=(self.count, 3)).tolist()
        return [Image.new("RGB", (self.width, self.height), (r, g, b)) for r, g, b in colours]

    def contains(self, x: Any) -> bool:
        """True if ``x`` is that many RGB pictures of that size."""
        from PIL import Image

        return (
            isinstance(x, (list, tuple))
            and len(x) == self.count
            and all(
                isinstance(image, Image.Image)
                and image.mode == "RGB"
                and image.size == (self.width, self.height)
                for image in x
            )
        )

    def __repr__(self) -> str:
        return f"ImagesSpace({self.width}, {self.height}, {self.count})"
