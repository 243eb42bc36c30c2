"""Training engine: verl's FSDP engine with frozen parts of the model and further losses of SFT.

It is registered with verl under a vendor name, which the variables of `sftrl_ext.training.engine_settings`
select. verl's SFT trainer has no setting for its loss; it hands the
engine a function for every micro-batch, and this engine puts another in its place. A loss with an anchor
needs the start model: the engine holds a second, frozen copy of the weights the stage starts from, sharded
like the first, and runs it on every micro-batch. Weights of a resumed stage are loaded into the first only.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sftrl_ext.errors import SftrlError
from sftrl_ext.training.engine_settings import VENDOR, TrainEngineSettings
from sftrl_ext.training.freezing import freeze_parts
from sftrl_ext.training.sft_losses import batch_loss, token_kl

if TYPE_CHECKING:
    from torch import nn

METRICS = ("train/nll", "train/kl_start")
"""Metrics beside the loss: the negative log-likelihood, and the divergence from the start model."""

_KL = "sftrl_kl"
"""Key of a micro-batch's divergence among the model's outputs."""


def shifted_mask(loss_mask: Tensor) -> Tensor:
    """Mask of the positions of a packed batch that predict a token with loss.

    Args:
        loss_mask: ``[rows, tokens]``, jagged: 1 for a token with loss, never at a row's first.

    Returns:
        ``[all tokens]`` bool, aligned with the log-probabilities of each position's next token.
    """
    # The roll crosses row boundaries, which is harmless: a row's first token never carries loss.
    return torch.roll(loss_mask.values(), shifts=-1, dims=0).bool()


def packed_logits(logits: Tensor, offsets: Tensor) -> Tensor:
    """Concatenate the logits of all rows, without padding.

    Args:
        logits: ``[1, all tokens and padding at the end, vocabulary]``, or ``[rows, longest, vocabulary]``.
        offsets: ``[rows + 1]``, where each row begins.

    Returns:
        ``[all tokens, vocabulary]``.
    """
    lengths, total = offsets.diff(), int(offsets[-1])
    if logits.shape[0] == 1 and logits.shape[1] >= total:
        return logits[0, :total]
    columns = torch.arange(logits.shape[1], device=logits.device)
    return logits[columns < lengths.to(logits.device).unsqueeze(1)]


def sft_loss(
    settings: TrainEngineSettings, model_output: dict[str, Any], data: Any, dp_group: Any = None
) -> tuple[Tensor, dict[str, float]]:
    """Loss of one micro-batch, with the signature that verl's engines call.

    Args:
        settings: Which loss.
        model_output: ``log_probs``, jagged ``[rows, tokens]``, and the divergence if the loss is anchored.
        data: The micro-batch: jagged ``loss_mask``, and the whole batch's ``batch_num_tokens``, ``dp_size``.
        dp_group: Not used.

    Returns:
        The loss, and metrics: parts that add up to the batch's mean over micro-batches.
    """
    log_prob = model_output["log_probs"].values()[shifted_mask(data["loss_mask"])]
    kl = model_output.pop(_KL, None)
    # FSDP averages gradients over ranks, hence the factor dp_size.
    scale = data["dp_size"] / data["batch_num_tokens"]
    metrics = {METRICS[0]: -log_prob.detach().sum().item() * scale}
    if kl is not None:
        metrics[METRICS[1]] = kl.detach().sum().item() * scale
    return batch_loss(log_prob, settings, kl) * scale, metrics


def engine_class(base: type[Any]) -> type[Any]:
    """Derive the training engine from verl's FSDP engine for language models."""

    class PostTrainingEngine(base):
        """verl's FSDP engine for language models, with a frozen part and a choice of the loss of SFT."""

        def _build_module(self) -> nn.Module:
            model: nn.Module = super()._build_module()
            if (freeze := TrainEngineSettings.from_environment().freeze) is not None:
                freeze_parts(model, freeze)
            return model

        def initialize(self) -> None:
            """Build the model, and the start model where the loss needs it."""
            self.sft = TrainEngineSettings.from_environment()
            if self.sft.anchored:
                self._require_logits()
            super().initialize()
            self.start_module: nn.Module | None = None
            if self.sft.anchored:
                # Built and sharded like the model, before a resumed stage loads its weights.
                start = self._build_module().requires_grad_(False)
                self.start_module = self._build_fsdp_module(start).eval()

        def _require_logits(self) -> None:
            if self.ulysses_sequence_parallel_size > 1:
                raise SftrlError(f"loss {self.sft.loss!r}: not with sequence parallelism; set it to 1.")
            if self.model_config.get("use_fused_kernels", False):
                raise SftrlError(f"loss {self.sft.loss!r}: not with fused kernels, which give no logits.")

        def prepare_model_inputs(self, micro_batch: Any) -> tuple[dict[str, Any], dict[str, Any]]:
            """As verl's; the inputs are kept for the start model."""
            inputs, further = super().prepare_model_inputs(micro_batch)
            if self.start_module is not None:
                further["sftrl_inputs"] = inputs
            return inputs, further

        def prepare_model_outputs(
            self, output: Any, output_args: dict[str, Any], micro_batch: Any, logits_processor_func: Any
        ) -> dict[str, Any]:
            """As verl's, with the divergence from the start model at the tokens that carry loss."""
            kl = None
            if self.start_module is not None:
                # The same inputs, without gradients: the anchor is a constant.
                with torch.no_grad():
                    start = self.start_module(**output_args.pop("sftrl_inputs"), use_cache=False)
                offsets = micro_batch["input_ids"].offsets()
                learned = shifted_mask(micro_batch["loss_mask"])
                packed = (packed_logits(result.logits, offsets)[learned] for result in (output, start))
                kl = token_kl(*packed)
            outputs: dict[str, Any] = super().prepare_model_outputs(
                output, output_args, micro_batch, logits_processor_func
            )
            if kl is not None:
                outputs[_KL] = kl
            return outputs

        def forward_backward_batch(
            self, data: Any, loss_function: Callable[..., Any] | None, forward_only: bool = False
        ) -> Any:
            """As verl's; each metric becomes one number for all micro-batches and ranks."""
            output = super().forward_backward_batch(data, loss_function, forward_only)
            for name in METRICS:
                if name in output["metrics"]:
                    output["metrics"][name] = self._mean_over_ranks(sum(output["metrics"][name]))
            return output

        def _mean_over_ranks(self, value: float) -> float:
            ranks = self.get_data_parallel_size()
            if ranks == 1:
                return value
            total = torch.tensor(value, device=next(self.module.parameters()).device)
            torch.distributed.all_reduce(total, group=self.get_data_parallel_group())
            return total.item() / ranks

        def forward_step(
            self, micro_batch: Any, loss_function: Callable[..., Any] | None, forward_only: bool
        ) -> Any:
            """As verl's, with the configured loss."""
            settings = self.sft
            if loss_function is not None and settings.loss != "nll":

                def selected_loss(**arguments: Any) -> tuple[Tensor, dict[str, float]]:
                    return sft_loss(settings, **arguments)

                return super().forward_step(micro_batch, selected_loss, forward_only)
            return super().forward_step(micro_batch, loss_function, forward_only)

    return PostTrainingEngine


@cache
def register_engine(module: Any) -> None:
    """Register the engine once verl's module of FSDP engines is imported; a second call does nothing."""
    from verl.workers.engine.base import EngineRegistry

    EngineRegistry.register(
        model_type="language_model", backend=["fsdp", "fsdp2"], device=["cuda", "npu"], vendor=VENDOR
    )(engine_class(module.FSDPEngineWithLMHead))
