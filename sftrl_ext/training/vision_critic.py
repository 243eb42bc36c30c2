"""A critic for vision-language models: the backbone with one value per token.

transformers has no token classifier for the families of Qwen-VL and Llama-3.2-Vision, which is what verl
looks for when it makes a critic; without one verl needs a further package. These are filed in transformers'
own registry.

transformers renames weights of a stored Qwen2-VL or Qwen2.5-VL while it loads (``model.layers`` to
``model.language_model.layers``). It files the renaming under the class of the generating model, so a class of
ours needs it filed under its name too, or its whole language model would be newly drawn.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any


def register_critics(_: ModuleType) -> None:
    """File a token classifier for each model that has none."""
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
        """The backbone under the name ``model``, as in the generating model, and a linear layer on top."""

        def __init__(self: Any, config: Any) -> None:
            super(made, self).__init__(config)  # type: ignore[arg-type]
            self.num_labels = config.num_labels
            self.model = backbone(config)
            self.score = nn.Linear(config.text_config.hidden_size, config.num_labels)
            self.post_init()

        def forward(self: Any, *args: Any, **kwargs: Any) -> TokenClassifierOutput:
            hidden = self.model(*args, **kwargs)[0]
            return TokenClassifierOutput(logits=self.score(hidden))

        members = {"__init__": __init__, "forward": forward, "config_class": config_class}
        made = type(name, (base,), members)
        return made

    for name, module, backbone in (
        ("Qwen2VL", qwen2, qwen2.Qwen2VLModel),
        ("Qwen2_5_VL", qwen2_5, qwen2_5.Qwen2_5_VLModel),
        ("Qwen3VL", qwen3, qwen3.Qwen3VLModel),
        ("Mllama", mllama, MllamaModel),
    ):
        config_class = getattr(module, f"{name}Config")
        made = classifier(
            f"{name}ForTokenClassification",
            getattr(module, f"{name}PreTrainedModel"),
            backbone,
            config_class,
        )
        renamed = get_checkpoint_conversion_mapping(f"{name}ForConditionalGeneration")
        if renamed is not None:  # else it is filed under the type of the model, for all of its classes
            register_checkpoint_conversion_mapping(made.__name__, renamed, overwrite=True)
        AutoModelForTokenClassification.register(config_class, made, exist_ok=True)
