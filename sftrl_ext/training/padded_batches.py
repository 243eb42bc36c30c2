"""Micro-batches of padded rows: rows of similar length together, the token cap counted with the padding.

verl cuts a batch into micro-batches by its real tokens and mixes long rows with short ones to balance them.
Packed rows want that. Padded rows (``use_remove_padding=false``) are as long as the longest of their
micro-batch, so a cap on real tokens bounds neither memory nor time: 9 rows of 100 tokens beside one of 1000
are 1,900 tokens, and 10,000 on the device. verl 0.9.1 has no setting for it; `cap_padded_rows` replaces the
function in `verl.workers.engine.utils` for padded rows and leaves packed rows to verl. `entropy_row_by_row`
does for them what ``entropy_from_logits_with_chunking`` does for packed rows only.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

from sftrl_ext.errors import SftrlError
from sftrl_ext.verl_version import check_verl_version

_FEATURE = "training on padded rows"


def runs_by_length(lengths: Sequence[int], parts: int) -> list[list[int]]:
    """Cut rows, ordered by length, into runs whose largest padded size is minimal.

    Args:
        lengths: Tokens of each row.
        parts: Number of runs, at most ``len(lengths)``; none is empty.

    Returns:
        The indices of each run, longest rows first. More runs never make the largest one larger.
    """
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    # Bisection for the smallest cap that needs no more than that number of runs.
    low, high = lengths[order[0]] - 1, lengths[order[0]] * len(order)  # too small, large enough
    while high - low > 1:
        cap = (low + high) // 2
        if len(_greedy(lengths, order, cap)) <= parts:
            high = cap
        else:
            low = cap
    runs = _greedy(lengths, order, high)
    # Ranks need equal numbers of runs: halve the largest ones that have two rows or more.
    while len(runs) < parts:
        index = max(range(len(runs)), key=lambda i: (len(runs[i]) > 1, padded_tokens(lengths, runs[i])))
        run = runs[index]
        runs[index : index + 1] = [run[: len(run) // 2], run[len(run) // 2 :]]
    return runs


def count_runs(lengths: Sequence[int], cap: int) -> int:
    """Smallest number of runs, of rows ordered by length, within ``cap`` tokens with their padding."""
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    return len(_greedy(lengths, order, cap))


def padded_tokens(lengths: Sequence[int], rows: Sequence[int]) -> int:
    """Tokens of rows that are padded to the longest of them."""
    return len(rows) * max(lengths[row] for row in rows)


def _greedy(lengths: Sequence[int], order: Sequence[int], cap: int) -> list[list[int]]:
    """Fill run after run up to ``cap``; the first row of each is its longest."""
    runs: list[list[int]] = []
    for row in order:
        if runs and (len(runs[-1]) + 1) * lengths[runs[-1][0]] <= cap:
            runs[-1].append(row)
        else:
            runs.append([row])
    return runs


def padded_micro_batches(batch: Any, max_token_len: int, dp_group: Any = None) -> tuple[list[Any], list[Any]]:
    """Split a batch of jagged rows into micro-batches of at most ``max_token_len`` tokens, padding included.

    All ranks of ``dp_group`` get the same number of micro-batches, longest rows first on each, so that they
    wait little for each other.

    Args:
        batch: TensorDict with jagged ``input_ids``.
        max_token_len: Tokens of a micro-batch at most, with its padding.
        dp_group: Ranks that step through their micro-batches together.

    Returns:
        The micro-batches, and for each the indices of its rows.

    Raises:
        SftrlError: if a row is longer than the cap, or a rank needs more micro-batches than another has rows.
    """
    from verl.utils import tensordict_utils

    lengths = batch["input_ids"].offsets().diff().tolist()
    longest, parts, rows = max(lengths), count_runs(lengths, max_token_len), len(lengths)
    if dp_group is not None:
        longest, parts, rows = _agreed(longest, parts, rows, dp_group)
    if longest > max_token_len:
        raise SftrlError(
            f"a row has {longest} tokens, and a micro-batch at most {max_token_len} "
            "(max_token_len_per_gpu); raise the budget's micro_batch_size or micro_tokens."
        )
    if parts > rows:
        raise SftrlError(
            f"a rank needs {parts} micro-batches of {max_token_len} tokens, and another has {rows} rows; "
            "raise the budget's micro_batch_size or micro_tokens."
        )
    runs = runs_by_length(lengths, parts)
    return [tensordict_utils.index_select_tensor_dict(batch, run) for run in runs], runs


def _agreed(longest: int, parts: int, rows: int, dp_group: Any) -> tuple[int, int, int]:
    """Longest row, largest number of micro-batches and smallest number of rows over all ranks."""
    import torch
    from verl.utils.device import get_device_name

    # One reduction: the minimum of the rows is the maximum of their negative.
    values = torch.tensor([longest, parts, -rows], device=get_device_name())
    torch.distributed.all_reduce(values, op=torch.distributed.ReduceOp.MAX, group=dp_group)
    longest, parts, rows = values.tolist()
    return longest, parts, -rows


def cap_padded_rows(module: ModuleType) -> None:
    """``rearrange_micro_batches`` in ``verl.workers.engine.utils``: padded rows go by length.

    Raises:
        SftrlError: if another verl is installed than the one whose function this is.
    """
    check_verl_version(_FEATURE)
    packed = module.rearrange_micro_batches

    def rearrange_micro_batches(
        batch: Any,
        max_token_len: int,
        dp_group: Any = None,
        num_batches_divided_by: int | None = None,
        same_micro_num_in_dp: bool = True,
        min_num_micro_batch: int | None = None,
        use_dynamic_bsz_balance: bool = True,
        force_group_size: int = 1,
    ) -> tuple[list[Any], list[Any]]:
        from verl.utils import tensordict_utils

        plain = num_batches_divided_by is None and min_num_micro_batch is None and force_group_size == 1
        packs = tensordict_utils.get_non_tensor_data(data=batch, key="use_remove_padding", default=True)
        if plain and not packs:
            return padded_micro_batches(batch, max_token_len, dp_group if same_micro_num_in_dp else None)
        return packed(
            batch,
            max_token_len,
            dp_group=dp_group,
            num_batches_divided_by=num_batches_divided_by,
            same_micro_num_in_dp=same_micro_num_in_dp,
            min_num_micro_batch=min_num_micro_batch,
            use_dynamic_bsz_balance=use_dynamic_bsz_balance,
            force_group_size=force_group_size,
        )

    module.rearrange_micro_batches = rearrange_micro_batches  # type: ignore[attr-defined]


def entropy_row_by_row(module: ModuleType) -> None:
    """``entropy_from_logits`` in ``verl.utils.torch_functional``: one padded row after the other.

    On logits ``[rows, tokens, vocabulary]`` of a micro-batch its probabilities and products take twice
    the memory of the logits.

    Raises:
        SftrlError: if another verl is installed than the one whose function this is.
    """
    import torch

    check_verl_version(_FEATURE)
    original = module.entropy_from_logits

    def entropy_from_logits(logits: torch.Tensor) -> torch.Tensor:
        if logits.dim() != 3:
            return original(logits)
        return torch.stack([original(row) for row in logits])

    module.entropy_from_logits = entropy_from_logits  # type: ignore[attr-defined]
