"""What of the patches is plain arithmetic; the rest is exercised by the end-to-end tests."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftrl_ext.backends.patches import partitions_by_length


@given(st.lists(st.integers(1, 500), min_size=1, max_size=60), st.data())
def test_micro_batches_hold_every_row_once_and_go_by_length(costs, data):
    parts = data.draw(st.integers(1, len(costs)))
    found = partitions_by_length(costs, parts)
    assert len(found) == parts and all(found)
    assert sorted(row for part in found for row in part) == list(range(len(costs)))
    for shorter, longer in zip(found, found[1:], strict=False):
        assert max(costs[row] for row in shorter) <= min(costs[row] for row in longer)


def test_equal_rows_are_cut_into_equal_parts():
    assert [len(part) for part in partitions_by_length([7] * 12, 4)] == [3, 3, 3, 3]


def test_the_policy_before_an_update_is_kept_as_a_copy():
    torch = pytest.importorskip("torch")
    pytest.importorskip("verl")
    import importlib.util

    import torch.distributed as dist
    from torch.distributed.fsdp import fully_shard

    from sftrl_ext.backends.patches import verl_utils_fsdp_utils_sharded_save_to_cpu

    spec = importlib.util.find_spec("verl.utils.fsdp_utils")
    module = importlib.util.module_from_spec(spec)  # a copy of its own, to be patched here only
    spec.loader.exec_module(module)
    verl_utils_fsdp_utils_sharded_save_to_cpu(module)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        model = fully_shard(torch.nn.Linear(2, 2, bias=False), mesh=dist.init_device_mesh("cpu", (1,)))
        before = model.weight.full_tensor().detach().clone()
        state, sharding = module.fsdp2_sharded_save_to_cpu(model)
        with torch.no_grad():
            model.weight += 1.0
        module.fsdp2_sharded_load_from_cpu(model, state, sharding)
        assert torch.equal(model.weight.full_tensor(), before)
    finally:
        dist.destroy_process_group()
