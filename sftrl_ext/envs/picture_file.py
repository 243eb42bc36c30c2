"""Errors of reading pictures, as users see them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sftrl_ext.errors import SftrlError


@contextmanager
def picture_errors(where: object, expected: str = "a PNG or JPEG file") -> Iterator[None]:
    """Turn whatever Pillow raises for a broken picture into an error that names it.

    Its decoders raise errors of a dozen types: of struct and zlib, SyntaxError, EOFError, KeyError ..

    Args:
        where: The file, or the row and column.
        expected: Kind of the file.

    Raises:
        SftrlError: if Pillow cannot read it.
    """
    try:
        yield
    except SftrlError:
        raise
    except FileNotFoundError:
        raise SftrlError(f"{where}: no such file; expected {expected}.") from None
    except Exception as error:
        cause = f"{type(error).__name__}: {error}"
        raise SftrlError(f"{where}: cannot be read ({cause}); expected {expected}.") from error
