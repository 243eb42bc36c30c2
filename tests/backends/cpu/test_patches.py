"""The patches that can be tested alone; the rest is exercised by the end-to-end tests."""

import pytest


def test_the_policy_before_an_update_is_kept_as_a_copy():
    torch = pytest.importorskip("torch")
    pytest.importorskip("verl")
    import importlib.util

    import torch.distributed as dist
    from torch.distributed.fsdp import fully_shard

    from sftrl_ext.backends.cpu.patches import verl_utils_fsdp_utils_sharded_save_to_cpu

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
