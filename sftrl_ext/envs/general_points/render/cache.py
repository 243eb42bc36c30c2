"""A memory of images with a bound in bytes."""

from __future__ import annotations

from PIL import Image

from sftrl_ext.envs.cache import ByteCache


class ImageCache(ByteCache[Image.Image]):
    """Remembers the images that functions draw."""

    def __init__(self, at_most: int) -> None:
        super().__init__(at_most, memory)


def memory(image: Image.Image) -> int:
    """Bytes of the pixels of an RGB or RGBA image; Pillow stores both in four bytes a pixel."""
    return 4 * image.width * image.height
