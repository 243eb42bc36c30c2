"""Load a pickle of plain data without running the code it may hold.

A pickle is a program: the usual reader imports and calls whatever the file names. This loader accepts only
the instructions that make dicts, lists, flat tuples, numbers, strings, booleans and None; imports are refused
again in `find_class`. The memory used is in proportion to the length of the file.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from typing import Any, NoReturn

from sftrl_ext.errors import SftrlError

_SCALARS = frozenset(
    {"NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"}
    | {"FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING"}
    | {"UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"}
)
_CONTAINERS = frozenset(
    {"MARK", "EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "LIST", "DICT"}
    | {"SETITEM", "SETITEMS", "APPEND", "APPENDS"}
)
_PUT = frozenset({"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"})
_GET = frozenset({"GET", "BINGET", "LONG_BINGET"})
_TUPLES = {"TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_IGNORED = frozenset({"PROTO", "FRAME", "STOP"})
_INT_BITS = 4096
_BAD_PICKLE = (
    *(pickle.UnpicklingError, EOFError, ValueError, LookupError, TypeError, AttributeError),
    *(OverflowError, MemoryError),
)
"""Raised by pickletools and the unpickler for bytes that are no pickle."""


def load_plain(data: bytes, where: str) -> Any:
    """Load the value of a pickle that holds plain data.

    Tuples may hold numbers and strings only; integers may have up to 4096 bits.

    Args:
        data: The pickle.
        where: Name of the file, for errors.

    Raises:
        SftrlError: if it holds anything else, is cut off, or is no pickle.
    """
    try:
        _check_instructions(data, where)
        return _PlainUnpickler(io.BytesIO(data), encoding="latin-1").load()
    except _BAD_PICKLE as error:
        raise SftrlError(f"{where}: not a pickle of plain data ({type(error).__name__}: {error}).") from None


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it imports {module}.{name}")


def _check_instructions(data: bytes, where: str) -> None:
    """Refuse instructions and arguments that are not plain data, before anything is built.

    Nested tuples are refused because hashing a deep one overflows the C stack, and far memo entries because
    the unpickler allocates all entries below them.
    """
    marks: list[int] = []  # depths of the stack
    depth = 0
    memo: dict[int, bool] = {}  # entry -> is it a scalar?
    scalars = 0  # on top of the stack, one after the other
    only_scalars = False  # since the last mark
    for code, argument, position in pickletools.genops(data):
        name, before, after = code.name, code.stack_before, code.stack_after
        if name == "MARK":
            marks.append(depth)
        # It takes all that is above the mark, and the items that ``before`` lists ahead of the mark.
        elif pickletools.markobject in before:
            depth = marks.pop() + len(after) - before.index(pickletools.markobject)
        elif name == "STOP" and depth != 1:
            raise ValueError(f"{depth} values")
        else:
            depth += len(after) - len(before)
        if name in _PUT:
            index = len(memo) if name == "MEMOIZE" else int(argument or 0)
            if not 0 <= index <= len(data):
                raise ValueError(f"memo entry {index} at byte {position}")
            memo[index] = scalars > 0
        elif name in _SCALARS or (name in _GET and memo.get(int(argument or 0))):
            if isinstance(argument, int) and argument.bit_length() > _INT_BITS:
                raise SftrlError(f"{where}: a number of more than {_INT_BITS} bits at byte {position}.")
            scalars += 1
        elif name in _TUPLES:
            if not (only_scalars if name == "TUPLE" else scalars >= _TUPLES[name]):
                raise SftrlError(
                    f"{where}: a tuple at byte {position} holds more than numbers and strings; expected "
                    "(latitude, longitude)."
                )
            scalars, only_scalars = 0, False
        elif name in _CONTAINERS or name in _GET:
            scalars, only_scalars = 0, name == "MARK"
        elif name not in _IGNORED:
            raise SftrlError(
                f"{where}: refused: the pickle's instruction {name} at byte {position} makes something other "
                "than dicts, tuples, lists, numbers and strings, and could run foreign code."
            )
