"""SFT over two Ray nodes that see each other only through a network, the second in a namespace of its own."""

import subprocess
import sys

import pytest

from sftrl_ext.experiments.verl_commands import CPU_ENV
from sftrl_ext.files import read_jsonl
from sftrl_ext.paths import configs_dir

pytest.importorskip("verl")

from data_prep.build import build_file
from data_prep.options import DataOptions
from tests.backends.namespaces import Network, can_be_made
from tests.backends.two_nodes import LocalCluster
from tests.training.tiny_start import write_tiny_llama

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.nightly,
    pytest.mark.skipif(not can_be_made(), reason="no network namespaces here"),
]


def test_two_nodes_train_over_a_network(tmp_path):
    write_tiny_llama(tmp_path / "model")
    build_file(DataOptions("sft", tmp_path / "sft.parquet", template="compact", max_attempts=3, rows=16))
    overrides = {
        "sft_backend": "cpu",
        "model.path": tmp_path / "model",
        "data.train_files": tmp_path / "sft.parquet",
        "data.train_batch_size": 8,
        "data.micro_batch_size_per_gpu": 4,
        "data.use_dynamic_bsz": "false",
        "data.max_length": 512,
        "optim.lr": 1e-3,
        "trainer.nnodes": 2,
        "trainer.n_gpus_per_node": 1,
        "trainer.total_epochs": 1,
        "trainer.total_training_steps": 2,
        "trainer.save_freq": 2,
        "trainer.default_local_dir": tmp_path / "sft",
        "hydra.run.dir": tmp_path,
    }
    command = [sys.executable, "-m", "sftrl_ext.experiments.cluster.on_cluster"]
    command += ["--nodes", "2", "--gpus", "1", "--cpus", "10", "--shared", str(tmp_path)]
    command += [
        "--",
        sys.executable,
        "-m",
        "verl.trainer.sft_trainer_ray",
        "--config-path",
        str(configs_dir()),
    ]
    command += ["--config-name", "sft", *(f"{key}={value}" for key, value in overrides.items())]
    with Network() as network, LocalCluster(tmp_path, network=network) as cluster:
        cluster.add()
        cluster.add()
        run = {"RAY_ADDRESS": cluster.address, "VERL_FILE_LOGGER_PATH": str(tmp_path / "m.jsonl")}
        done = subprocess.run(
            command,
            env={**cluster.env, **CPU_ENV, **run},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=1800,
        )
    assert done.returncode == 0, done.stdout[-4000:]
    assert "ip=10.77.0.2" in done.stdout  # a worker of the other machine said something
    losses = [line["data"]["train/loss"] for line in read_jsonl(tmp_path / "m.jsonl")]
    assert len(losses) == 2 and losses[1] < losses[0]
    shards = {path.name for path in (tmp_path / "sft/global_step_2").glob("model_world_size_2_rank_*.pt")}
    assert shards == {"model_world_size_2_rank_0.pt", "model_world_size_2_rank_1.pt"}
