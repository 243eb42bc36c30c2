"""The optimizer that the GPU configs ask for, built by verl and stepped on sharded float32 weights."""

import pytest
from omegaconf import OmegaConf

from sftrl_ext.experiments.plan import make_plan
from sftrl_ext.experiments.recipe.recipe_files import load_recipe


@pytest.fixture
def one_rank(tmp_path):
    dist = pytest.importorskip("torch.distributed")
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'rank'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_the_fused_step_is_the_plain_one(one_rank, tmp_path):
    """verl builds it from the composed config; on shards of FSDP2 it gives what the plain one gives."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("verl")
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from verl.utils.config import omega_conf_to_dataclass
    from verl.workers.config.optimizer import build_optimizer

    from tests.experiments.recipe.composing import config_of

    stages = make_plan(load_recipe("fig6_gp_l", "gpu"), tmp_path)
    rl = config_of(next(stage for stage in stages if stage.kind == "rl").command)
    sft = config_of(next(stage for stage in stages if stage.kind == "sft").command)
    for config in (rl.actor_rollout_ref.actor.optim, rl.critic.optim, sft.optim):
        assert config.override_optimizer_config == {"fused": True}
        weights = []
        for fused in (True, False):
            torch.manual_seed(0)
            model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 4))
            fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
            chosen = OmegaConf.merge(config, {"override_optimizer_config": {"fused": fused}})
            settings = omega_conf_to_dataclass(chosen)
            optimizer = build_optimizer(model.parameters(), settings)
            for _ in range(3):
                optimizer.zero_grad()
                model(torch.ones(2, 8)).square().sum().backward()
                optimizer.step()
            assert optimizer.defaults["fused"] is fused
            weights.append([parameter.full_tensor() for parameter in model.parameters()])
        for fast, plain in zip(*weights, strict=True):
            torch.testing.assert_close(fast, plain)
