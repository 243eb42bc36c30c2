"""Image processors without torchvision: what transformers 5 needs before it loads a Qwen-VL processor.

Torchvision has no build for the CPU's torch. Transformers falls back to Pillow for images, but a Qwen-VL
processor also owns a video processor, of which there is none without torchvision. A stand-in of the same name
lets the processor load, and a folder saved with it loads anywhere; only asking for a video fails.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

from sftrl_ext.after_import import after_import

_MODELS = ("Qwen2VLConfig", "Qwen2_5_VLConfig", "Qwen3VLConfig")


def allow_no_torchvision() -> None:
    """Arrange for processors to load without torchvision; nothing happens where it is installed."""
    after_import("transformers.models.auto.processing_auto", _register)


def _register(module: ModuleType) -> None:
    from transformers.utils import is_torchvision_available

    if is_torchvision_available():
        return
    import transformers
    from transformers.models.auto.video_processing_auto import AutoVideoProcessor
    from transformers.video_processing_utils import BaseVideoProcessor

    class Qwen2VLVideoProcessor(BaseVideoProcessor):
        """Stands where a video processor has to be; the name is the one saved in model folders."""

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            raise ImportError("videos need torchvision, which is not installed.")

    class Qwen3VLVideoProcessor(Qwen2VLVideoProcessor):
        """As above, for Qwen3-VL."""

    # What the package exports in its place cannot even be subclassed.
    setattr(transformers, "BaseVideoProcessor", BaseVideoProcessor)  # noqa: B010
    for name in _MODELS:
        kind = Qwen3VLVideoProcessor if name.startswith("Qwen3") else Qwen2VLVideoProcessor
        AutoVideoProcessor.register(getattr(transformers, name), kind, exist_ok=True)
