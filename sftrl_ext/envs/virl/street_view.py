"""Street views: what a camera at a panorama's place sees in one direction, and in four in one picture.

A folder of panoramas holds ``<id>.jpg``, the whole sphere with the longitude along the width and the
latitude along the height, and ``<id>.metadata.json`` with ``rotation``: the column of north is at
``rotation / 360`` of the width. Nothing is ever fetched from a network.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from sftrl_ext.envs.base import is_number
from sftrl_ext.envs.cache import ByteCache
from sftrl_ext.envs.picture_file import picture_errors
from sftrl_ext.envs.virl.geo import shown
from sftrl_ext.envs.virl.panoramas import check_pano_id
from sftrl_ext.errors import Registry, SftrlError
from sftrl_ext.files import read_json

Pixels = npt.NDArray[np.uint8]
Packed = npt.NDArray[np.uint32]
"""RGB pixels, each in one number."""

GRIDS: Registry[tuple[float, float, float, float]] = Registry("profile")
"""Profile to the headings of the four views of a grid, in degrees from straight ahead, row by row."""

GRIDS.add("exact", (0.0, 90.0, 180.0, -90.0))
GRIDS.add("authors", (-135.0, -45.0, 45.0, 135.0))

VIEW_SIZES = (8, 4096)
"""Least and greatest side of a view or grid, in pixels."""

FOV = 90.0
"""The field of view of every view in a grid, in degrees."""

# Rows of a view that are sliced at once, which bounds the temporary arrays.
_ROWS = 32
# A panorama at an eighth of its size has still two rows to mix.
_LEAST_SIDE = 16
_PAIR = np.uint32(0x00FF00FF)
_BYTE = np.uint32(8)


@dataclass(frozen=True, eq=False)
class Panorama:
    """A panorama that is ready to be sliced.

    Attributes:
        packed: One 32-bit number per pixel, flat; each row is followed by a copy of its first pixel.
        width: Columns.
        height: Rows.
        rotation: Degrees from the first column to north, to the right.
    """

    packed: Packed
    width: int
    height: int
    rotation: float

    @classmethod
    def pack(cls, picture: Image.Image | Pixels, rotation: float) -> Panorama:
        """Make one from a picture of the whole sphere, or from its pixels of shape (height, width, 3)."""
        pixels = np.asarray(picture.convert("RGB")) if isinstance(picture, Image.Image) else picture
        height, width = pixels.shape[:2]
        line = np.empty(pixels.size + 1, np.uint8)
        line[:-1] = pixels.reshape(-1)
        line[-1] = 0
        # Read four bytes at every third: the fourth belongs to the next pixel and is never shown.
        packed = np.empty((height, width + 1), np.uint32)
        packed[:, :-1] = np.ndarray((height, width), np.uint32, line.data, strides=(3 * width, 3))
        packed[:, -1] = packed[:, 0]
        return cls(packed.reshape(-1), width, height, rotation)

    def view(self, heading: float, fov: float = FOV, pitch: float = 0.0, size: int = 640) -> Image.Image:
        """The square picture of a pinhole camera; see `slice_view`."""
        _check(fov, pitch, size)
        if not math.isfinite(heading):
            raise SftrlError(f"the heading of a view must be a number of degrees, found {heading!r}.")
        # Positions are kept for a camera that looks at the middle column; turning it only shifts the columns.
        # A level camera has the same columns in every row, of shape (1, size).
        columns, rows, down = _sampling(size, fov, pitch, self.width, self.height)
        ahead = ((heading - 180) % 360 + self.rotation) % 360
        across = columns + np.float32(ahead / 360 * self.width)
        across -= np.float32(self.width) * (across >= self.width)
        # Rounding of float32 may give the width itself; the copy of the first pixel after each row is its
        # neighbour.
        left = np.minimum(across.astype(np.int64), self.width - 1)
        right = ((across - left) * 256).astype(np.uint32)
        stride = self.width + 1
        view = np.empty((size, size), np.uint32)
        for top in range(0, size, _ROWS):
            part = slice(top, top + _ROWS)
            here = part if len(left) > 1 else slice(None)
            index = rows[part] + left[here]
            near, far = self.packed, self.packed[stride:]
            upper = mix_pixels(near.take(index, mode="clip"), near[1:].take(index, mode="clip"), right[here])
            lower = mix_pixels(far.take(index, mode="clip"), far[1:].take(index, mode="clip"), right[here])
            view[part] = mix_pixels(upper, lower, down[part])
        return Image.frombuffer("RGBX", (size, size), view.view(np.uint8), "raw", "RGBX", 0, 1).convert("RGB")

    def grid(
        self, heading: float, profile: str = "exact", size: int = 1200, pitch: float = 0.0
    ) -> Image.Image:
        """Four views in one picture with black lines between, 5 pixels wide in a picture of 1200.

        Each view is sliced at the size it has in the picture, not resized from 640.

        Args:
            heading: Where the traveller looks, in degrees clockwise from north.
            profile: A name of `GRIDS`. "exact": front, right, back, left; "authors": -135, -45, 45 and 135
                degrees from ahead.
            size: Side of the picture in pixels.
            pitch: Degrees upwards.
        """
        _check(FOV, pitch, size)
        line = max(1, round(size / 240))
        side = (size - line + 1) // 2
        picture = Image.new("RGB", (size, size))
        for index, turn in enumerate(GRIDS[profile]):
            corner = index % 2 * (size - side), index // 2 * (size - side)
            picture.paste(self.view(heading + turn, FOV, pitch, side), corner)
        low, high = (size - line) // 2, (size - line) // 2 + line - 1
        pen = ImageDraw.Draw(picture)
        pen.rectangle((low, 0, high, size), (0, 0, 0))
        pen.rectangle((0, low, size, high), (0, 0, 0))
        return picture


def slice_view(
    panorama: Pixels,
    heading: float,
    rotation: float = 0.0,
    fov: float = FOV,
    pitch: float = 0.0,
    size: int = 640,
) -> Pixels:
    """View of a pinhole camera inside a panorama.

    The focal length is ``size / 2 / tan(fov / 2)`` pixels and the camera looks at the longitude
    ``((heading - 180) mod 360 + rotation) mod 360``, where 0 is the middle column. Pixels are mixed from
    their four neighbours.

    Args:
        panorama: The whole sphere, of shape (height, width, 3).
        heading: Degrees clockwise from north.
        rotation: Degrees from the first column to north.
        fov: Field of view across and down, in degrees.
        pitch: Degrees upwards.
        size: Side of the view in pixels.

    Returns:
        The view, of shape (size, size, 3).

    Raises:
        SftrlError: if the panorama has another shape or type, or a number is out of its range.
    """
    shape = panorama.shape
    if len(shape) != 3 or shape[2] != 3 or min(shape) < 2 or panorama.dtype != np.uint8:
        raise SftrlError(
            f"a panorama must be of shape (height, width, 3), at least 2 x 2, and type uint8; found {shape} "
            f"of {panorama.dtype}."
        )
    return np.asarray(Panorama.pack(panorama, rotation).view(heading, fov, pitch, size))


class StreetViews:
    """The panoramas of a folder, as views and grids.

    A panorama is decoded once for each size class of views while the cache holds it: for small views the
    decoder halves it up to three times, which is faster and smoother.
    """

    def __init__(self, folder: Path | str, at_most: int = 256 << 20) -> None:
        """Open a folder.

        Args:
            folder: Where the panoramas are.
            at_most: Most bytes of decoded panoramas to keep.

        Raises:
            SftrlError: if there is no such folder.
        """
        self.folder = Path(folder)
        self.cache: ByteCache[Panorama] = ByteCache(at_most, lambda panorama: panorama.packed.nbytes)
        self._widths: dict[str, int] = {}
        if not self.folder.is_dir():
            raise SftrlError(f"{self.folder}: no such folder of panoramas (street_views).")

    def __contains__(self, pano_id: str) -> bool:
        return self._path(pano_id, ".jpg").is_file()

    def rotation(self, pano_id: str) -> float:
        """Degrees from the first column of a panorama to north, read from its metadata.

        Raises:
            SftrlError: if the file is missing or broken.
        """
        path = self._path(pano_id, ".metadata.json")
        if not path.is_file():
            raise SftrlError(f"{path}: no such file; it tells where north is in {pano_id}.jpg.")
        metadata = read_json(path)
        rotation = metadata.get("rotation") if isinstance(metadata, dict) else None
        if rotation is None or not is_number(rotation):
            raise SftrlError(f'{path}: expected "rotation", a number of degrees, found {shown(rotation)}.')
        return float(rotation)

    def panorama(self, pano_id: str, reduced: int = 1) -> Panorama:
        """A panorama, decoded at a whole part of its size: 1, 2, 4 or 8.

        Raises:
            SftrlError: if one of its files is missing or broken.
        """
        return self.cache.get(self._read, pano_id, reduced)

    def check(self, pano_id: str) -> None:
        """Read both files of a panorama, the picture at an eighth of its size, and keep nothing.

        Raises:
            SftrlError: if one of them is missing or broken.
        """
        self._read(pano_id, 8)

    def view(
        self, pano_id: str, heading: float, size: int = 640, fov: float = FOV, pitch: float = 0.0
    ) -> Image.Image:
        """The view in one direction: ``size`` x ``size`` pixels.

        Raises:
            SftrlError: if a file of the panorama is missing or broken, or a number is out of its range.
        """
        _check(fov, pitch, size)
        return self.panorama(pano_id, self._reduction(pano_id, size, fov)).view(heading, fov, pitch, size)

    def grid(
        self, pano_id: str, heading: float, profile: str = "exact", size: int = 1200, pitch: float = 0.0
    ) -> Image.Image:
        """Four views in one picture; see `Panorama.grid`.

        Raises:
            SftrlError: if a file of the panorama is missing or broken, or an argument is out of its range.
        """
        _check(FOV, pitch, size)
        panorama = self.panorama(pano_id, self._reduction(pano_id, size // 2, FOV))
        return panorama.grid(heading, profile, size, pitch)

    def _path(self, pano_id: str, ending: str) -> Path:
        check_pano_id(pano_id, f"{self.folder}: a view")
        return self.folder / f"{pano_id}{ending}"

    @contextmanager
    def _open(self, pano_id: str) -> Iterator[Image.Image]:
        """Open a panorama; an error of reading it names the file."""
        path = self._path(pano_id, ".jpg")
        with picture_errors(path, "an image of the whole sphere"), Image.open(path) as image:
            if min(image.size) < _LEAST_SIDE:
                size = f"{image.width}x{image.height}"
                raise SftrlError(f"{path}: {size} pixels; expected {_LEAST_SIDE} or more in each direction.")
            yield image

    def _reduction(self, pano_id: str, size: int, fov: float) -> int:
        """Factor by which a panorama can shrink for a view of a size: a power of two up to 8."""
        focal = size / 2 / math.tan(math.radians(fov / 2))
        if pano_id not in self._widths:
            with self._open(pano_id) as image:
                self._widths[pano_id] = image.width
        # Pixels per radian of the panorama over those of the view at its centre.
        times = self._widths[pano_id] / (2 * math.pi * focal)
        return 2 ** min(3, max(0, round(math.log2(times))))

    def _read(self, pano_id: str, reduced: int) -> Panorama:
        with self._open(pano_id) as image:
            width, height = image.size
            wanted = width // reduced, height // reduced
            # Pillow's JPEG decoder scales by 1/2, 1/4 or 1/8 at most as far as the wanted size, and other
            # formats not at all; sizes are rounded up, so the box leaves out the part of the last pixels
            # beyond the picture.
            image.draft("RGB", wanted)
            halved = round(width / image.width)
            pixels = image.convert("RGB")
        if pixels.size != wanted:
            box = 0, 0, width / halved, height / halved
            pixels = pixels.resize(wanted, Image.Resampling.BOX, box)
        return Panorama.pack(pixels, self.rotation(pano_id))


def _check(fov: float, pitch: float, size: int) -> None:
    if not VIEW_SIZES[0] <= size <= VIEW_SIZES[1]:
        raise SftrlError(
            f"the side of a view must be {VIEW_SIZES[0]} to {VIEW_SIZES[1]} pixels, found {size!r}."
        )
    if not 1 <= fov <= 170:
        raise SftrlError(f"the field of view must be 1 to 170 degrees, found {fov!r}.")
    if not -90 <= pitch <= 90:
        raise SftrlError(f"the pitch must be -90 to 90 degrees, found {pitch!r}.")


def mix_pixels(a: Packed, b: Packed, weight: Packed) -> Packed:
    """Mix pixels, two channels at a time; a weight is 0 for ``a`` to 256 for ``b``."""
    # Channels 0 and 2 lie in one masked number with eight free bits above each, 1 and 3 in the other: a
    # product of at most 255 * 256 does not spill into the next channel.
    other = np.uint32(256) - weight
    low = (a & _PAIR) * other + (b & _PAIR) * weight
    high = ((a >> _BYTE) & _PAIR) * other + ((b >> _BYTE) & _PAIR) * weight
    return ((low >> _BYTE) & _PAIR) | (high & ~_PAIR)


@lru_cache(maxsize=8)
def _sampling(
    size: int, fov: float, pitch: float, width: int, height: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32], Packed]:
    """Positions of a view's pixels in a panorama.

    Returns:
        The columns for a camera that looks at the middle one, of shape (1, size) if it is level and else
        (size, size); where the upper row of each pixel starts in the packed panorama; and the weight of the
        lower row.
    """
    focal = size / 2 / math.tan(math.radians(fov / 2))
    # Pinhole camera: a pixel's ray is (x, y, focal) with x to the right and y down, turned about the x axis
    # by the pitch. Its longitude and latitude give the column and the line; pixel centres are at halves.
    steps = np.arange(size) - (size - 1) / 2
    x = steps[None, :]
    if pitch:
        cos, sin = math.cos(math.radians(pitch)), math.sin(math.radians(pitch))
        y, z = steps[:, None] * cos - focal * sin, steps[:, None] * sin + focal * cos
    else:
        y, z = steps[:, None], np.full((1, 1), focal)
    columns = ((np.arctan2(x, z) / (2 * math.pi) + 0.5) * width - 0.5) % width
    lines = np.clip((np.arctan2(y, np.hypot(x, z)) / math.pi + 0.5) * height - 0.5, 0, height - 1)
    upper = np.minimum(lines.astype(np.int32), height - 2)
    return columns.astype(np.float32), upper * np.int32(width + 1), ((lines - upper) * 256).astype(np.uint32)
