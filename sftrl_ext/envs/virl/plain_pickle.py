"""Read a pickle that holds plain data, without running it.

A pickle is a program: the usual reader imports and calls whatever the file says. Here nothing but the
instructions that make dicts, tuples, lists, numbers, strings, truth values and None are understood; any other
is refused by name. Nothing is imported or called, whatever the file holds, and the memory used is in
proportion to the length of the file.
"""

from __future__ import annotations

import pickletools
from typing import Any

from sftrl_ext.errors import SftrlError

_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_VALUES = frozenset(
    {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
    | {"STRING", "BINSTRING", "SHORT_BINSTRING"}
    | {"UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"}
)
_PUT = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})
_GET = frozenset({"GET", "BINGET", "LONG_BINGET"})
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_IGNORED = frozenset({"PROTO", "FRAME"})
_INT_BITS = 4096
_MARK = object()


def load_plain(data: bytes, where: str) -> Any:
    """The value that a pickle of plain data holds.

    Tuples may hold numbers and strings only; integers may have up to 4096 bits.

    Args:
        data: The pickle.
        where: Name of the file, for errors.

    Raises:
        SftrlError: if it holds anything else, is cut off, or is no pickle.
    """
    try:
        return _Machine(where).run(data)
    except SftrlError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, MemoryError) as error:
        # what pickletools and the stack raise for bytes that are no pickle
        raise SftrlError(f"{where}: not a pickle of plain data ({type(error).__name__}: {error}).") from None


class _Machine:
    """The stack that a pickle's instructions work on."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, data: bytes) -> Any:
        for code, argument, place in pickletools.genops(data):
            name = code.name
            if name == "STOP":
                value = self.stack.pop()
                if self.stack or value is _MARK:
                    raise SftrlError(f"{self.where}: not a pickle of plain data (more than one value).")
                return value
            if name in _VALUES:
                if isinstance(argument, int) and argument.bit_length() > _INT_BITS:
                    raise SftrlError(f"{self.where}: a number of more than {_INT_BITS} bits at byte {place}.")
                self.stack.append(argument)
            elif name in _CONSTANTS:
                self.stack.append(_CONSTANTS[name])
            elif name not in _IGNORED:
                self._do(name, argument, place)
        raise SftrlError(f"{self.where}: a pickle without an end; is the file cut off?")

    def _do(self, name: str, argument: Any, place: int | None) -> None:
        stack, memo = self.stack, self.memo
        if name == "MARK":
            stack.append(_MARK)
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in _PUT:
            memo[argument] = stack[-1]
        elif name in _GET:
            stack.append(memo[argument])
        elif name in _TUPLES:
            size = _TUPLES[name]
            items = [stack.pop() for _ in range(size)][::-1]
            stack.append(self._tuple(items, place))
        elif name == "TUPLE":
            stack.append(self._tuple(self._marked(), place))
        elif name in ("EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE"):
            stack.append({"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}[name]())
        elif name == "LIST":
            stack.append(self._marked())
        elif name == "DICT":
            items = self._marked()
            stack.append(dict(zip(items[::2], items[1::2], strict=True)))
        elif name == "SETITEM":
            value, key = stack.pop(), stack.pop()
            self._expect(dict)[key] = value
        elif name == "SETITEMS":
            items = self._marked()
            self._expect(dict).update(zip(items[::2], items[1::2], strict=True))
        elif name == "APPEND":
            value = stack.pop()
            self._expect(list).append(value)
        elif name == "APPENDS":
            items = self._marked()
            self._expect(list).extend(items)
        else:
            at = f" at byte {place}" if place is not None else ""
            raise SftrlError(
                f"{self.where}: refused: the pickle's instruction {name}{at} makes something other than "
                "dicts, tuples, lists, numbers and strings, and could run foreign code."
            )

    def _marked(self) -> list[Any]:
        """Take what was put on the stack since the last mark."""
        start = len(self.stack) - 1
        while self.stack[start] is not _MARK:
            start -= 1
            if start < 0:
                raise ValueError("no mark")
        items = self.stack[start + 1 :]
        del self.stack[start:]
        return items

    def _expect(self, kind: type) -> Any:
        if type(self.stack[-1]) is not kind:
            raise TypeError(f"expected a {kind.__name__}, found {type(self.stack[-1]).__name__}")
        return self.stack[-1]

    def _tuple(self, items: list[Any], place: int | None) -> tuple[Any, ...]:
        for item in items:
            if item is _MARK or isinstance(item, (tuple, list, dict)):
                raise SftrlError(
                    f"{self.where}: a tuple at byte {place} holds more than numbers and strings; expected "
                    "(latitude, longitude)."
                )
        return tuple(items)
