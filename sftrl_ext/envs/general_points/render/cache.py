"""A memory of images with a bound in bytes: pictures of one size may be a thousand times those of another."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock

from PIL import Image


class ImageCache:
    """Remembers what functions draw; forgets the least recently used images above a number of bytes.

    Attributes:
        at_most: Most bytes of pixels to keep.
        size: Bytes of pixels kept now.
    """

    def __init__(self, at_most: int) -> None:
        self.at_most = at_most
        self.size = 0
        self._images: OrderedDict[Hashable, Image.Image] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._images)

    def get(self, make: Callable[..., Image.Image], *args: Hashable) -> Image.Image:
        """What ``make(*args)`` draws. It is shared: copy it before drawing on it."""
        key = (make, args)
        with self._lock:
            image = self._images.get(key)
            if image is not None:
                self._images.move_to_end(key)
                return image
        image = make(*args)
        with self._lock:
            if key not in self._images and memory(image) <= self.at_most:
                self._images[key] = image
                self.size += memory(image)
            while self.size > self.at_most:
                self.size -= memory(self._images.popitem(last=False)[1])
        return image


def memory(image: Image.Image) -> int:
    """Bytes of the pixels of an RGB or RGBA image; Pillow stores both in four bytes a pixel."""
    return 4 * image.width * image.height
