"""Critic of vision-language models: the backbone with one value per token.

verl makes a critic from transformers' token classifier, and there is none for the families of Qwen-VL and
Llama-3.2-Vision; without one verl needs a further package. These are added to transformers' own registry.

transformers renames weights of a stored Qwen2-VL or Qwen2.5-VL while it loads (``model.layers`` to
``model.language_model.layers``). The renaming is registered under the class of the generating model, so a
class of ours needs it under its own name too, or its language model would be initialized at random.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any


def register_critics(_: ModuleType) -> None:
    """Register a token classifier for each model that has none."""
    from torch import nn
    from transformers import AutoModelForTokenClassification
    from transformers.conversion_mapping import (
        get_checkpoint_conversion_mapping,
        register_checkpoint_conversion_mapping,
    )
    from transformers.modeling_outputs import TokenClassifierOutput
    from transformers.models.mllama import modeling_mllama as mllama
    from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl as qwen2_5
    from transformers.models.qwen2_vl import modeling_qwen2_vl as qwen2
    from transformers.models.qwen3_vl import modeling_qwen3_vl as qwen3

    from sftrl_ext.training.mllama_rows import MllamaModel

    def classifier(name: str, base: type, backbone: type, config_class: type) -> type:
        """Build a class with the backbone as ``model``, as in the generating model, and a linear head."""

        def __init__(self: Any, config: Any) -> None:
            super(built, self).__init__(config)  # type: ignore[arg-type]
            self.num_labels = config.num_labels
            self.model = backbone(config)
            self.score = nn.Linear(config.text_config.hidden_size, config.num_labels)
            self.post_init()

        def forward(self: Any, *args: Any, **kwargs: Any) -> TokenClassifierOutput:
            # The first output of every backbone is its last hidden state.
            hidden = self.model(*args, **kwargs)[0]
            return TokenClassifierOutput(logits=self.score(hidden))

        members = {"__init__": __init__, "forward": forward, "config_class": config_class}
        built = type(name, (base,), members)
        return built

    for name, module, backbone in (
        ("Qwen2VL", qwen2, qwen2.Qwen2VLModel),
        ("Qwen2_5_VL", qwen2_5, qwen2_5.Qwen2_5_VLModel),
        ("Qwen3VL", qwen3, qwen3.Qwen3VLModel),
        ("Mllama", mllama, MllamaModel),
    ):
        config_class = getattr(module, f"{name}Config")
        critic = classifier(
            f"{name}ForTokenClassification",
            getattr(module, f"{name}PreTrainedModel"),
            backbone,
            config_class,
        )
        renamed = get_checkpoint_conversion_mapping(f"{name}ForConditionalGeneration")
        if renamed is not None:  # else it is registered under the type of the model, for all of its classes
            register_checkpoint_conversion_mapping(critic.__name__, renamed, overwrite=True)
        AutoModelForTokenClassification.register(config_class, critic, exist_ok=True)
