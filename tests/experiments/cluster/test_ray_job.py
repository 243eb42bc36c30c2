"""A real ``ray job submit``: which variables of the job, the driver and the stage reach the workers."""

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("verl")

from tests.backends.two_nodes import LocalCluster

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.nightly]

ASK = """
import json, os, ray
ray.init(runtime_env={"env_vars": {"TOKENIZERS_PARALLELISM": "true", "VERL_PLATFORM": "cpu"}})  # as verl does
names = ["VERL_PLATFORM", "SFTRL_FREEZE", "WANDB_API_KEY", "JOBS_OWN", "TOKENIZERS_PARALLELISM"]
seen = ray.get(ray.remote(lambda: {name: os.environ.get(name) for name in names}).remote())
print("seen:" + json.dumps(seen), flush=True)
"""


def test_variables_of_job_and_stage_reach_the_workers_and_secrets_do_not(tmp_path):
    with LocalCluster(tmp_path, dashboard=True) as cluster:
        cluster.add()
        stage = ["VERL_PLATFORM=cpu", "SFTRL_FREEZE=vision", "TOKENIZERS_PARALLELISM=false"]
        stage.append("WANDB_API_KEY=secret")
        driver = ["env", *stage, sys.executable, "-m", "sftrl_ext.experiments.cluster.on_cluster"]
        driver += ["--nodes", "1", "--gpus", "1", "--cpus", "10", "--shared", str(tmp_path), "--"]
        runtime = {"env_vars": {"JOBS_OWN": "kept", "VERL_PLATFORM": "cpu"}}
        submit = [sys.executable, "-c", "from ray.scripts.scripts import main; main()", "job", "submit"]
        submit += ["--address", cluster.jobs, "--runtime-env-json", json.dumps(runtime), "--"]
        env = {**cluster.env, "RAY_ADDRESS": cluster.address, "RAY_JOB_START_TIMEOUT_SECONDS": "900"}
        done = subprocess.run(
            [*submit, *driver, sys.executable, "-c", ASK],
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            timeout=1800,
        )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("seen:")]
    seen = json.loads(line.removeprefix("seen:"))
    assert seen == {
        "VERL_PLATFORM": "cpu",
        "SFTRL_FREEZE": "vision",
        "WANDB_API_KEY": None,
        "JOBS_OWN": "kept",
        "TOKENIZERS_PARALLELISM": "true",
    }
