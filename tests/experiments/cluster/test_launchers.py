import json
import os
import shlex
import shutil
import signal
import stat
import subprocess
import time
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import jsonschema
import psutil
import pytest
import yaml
from rich.console import Console

from sftrl_ext.cli import main
from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.cluster.launchers import LAUNCHERS, make_job, submit
from sftrl_ext.experiments.cluster.launchers.base import Submission
from sftrl_ext.experiments.recipe.recipe_files import distinct_recipes, load_recipe
from sftrl_ext.experiments.recipe.schema import SCALES
from tests.experiments.cluster.launcher_schemas import RAYJOB, SKY_TASK

NEEDED = {
    "sky": ["launcher.sky.volume=runs"],
    "kuberay": ["launcher.kuberay.image=me/sftrl:1", "launcher.kuberay.volume_claim=runs"],
}
"""What a launcher does not do without."""
AWKWARD = ["sweep.seeds=[0,1]", 'title="it\'s $HOME & more"']


def submission(launcher, *overrides, scale="cluster", recipe="fig6_gp_l", run_dir=None, stages=None):
    words = [*AWKWARD, *overrides]
    loaded = load_recipe(recipe, scale, [*words, *NEEDED.get(launcher, [])], launcher)
    return LAUNCHERS[launcher](make_job(loaded, recipe, words, run_dir, stages))


def only_file(made):
    (text,) = made.files.values()
    return text


def driver_of(text):
    """The words of the line that runs the driver."""
    (line,) = [line for line in text.splitlines() if "sftrl run" in line]
    words = shlex.split(line)
    return words[words.index("sftrl") :]


@lru_cache
def options_of(launcher):
    """Those of a launcher, with what it does not do without; the same for every recipe."""
    return load_recipe("fig6_gp_l", "cluster", NEEDED.get(launcher, []), launcher).launcher


def driver_in(launcher, made):
    """The driver's words in a submission."""
    if launcher == "kuberay":
        return shlex.split(yaml.safe_load(only_file(made))["spec"]["entrypoint"])
    if launcher == "sky":
        return driver_of(yaml.safe_load(only_file(made))["run"])
    if launcher == "slurm":
        return driver_of(only_file(made))
    return list(made.command[made.command.index("--") + 1 :])


def bash_takes(text):
    checked = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True)
    assert checked.returncode == 0, checked.stderr
    if shutil.which("shellcheck"):
        linted = subprocess.run(
            ["shellcheck", "-S", "warning", "-"], input=text, text=True, capture_output=True
        )
        assert linted.returncode == 0, linted.stdout


@pytest.mark.parametrize("scale", ["node", "cluster"])
@pytest.mark.parametrize("launcher", ["ray", "slurm", "sky", "kuberay"])
def test_the_nodes_run_what_was_asked_for_word_for_word(launcher, scale):
    driver = driver_in(launcher, submission(launcher, "budget.rl.lr=2e-6", scale=scale))
    run_dir = f"/runs/fig6_gp_l-{scale}" if launcher != "slurm" else f"{Path.cwd()}/runs/fig6_gp_l-{scale}"
    head = ["sftrl", "run", "fig6_gp_l", "--scale", scale, "--run-dir", run_dir, "--or-resume"]
    assert driver == [*head, *AWKWARD, "budget.rl.lr=2e-6"]


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", [path.stem for path in distinct_recipes()])
def test_every_recipe_at_every_scale_can_be_handed_to_every_launcher(name, scale):
    loaded = load_recipe(name, scale)
    for launcher in LAUNCHERS:
        made = LAUNCHERS[launcher](
            make_job(replace(loaded, launcher=options_of(launcher)), name, AWKWARD, None)
        )
        if launcher == "slurm":
            bash_takes(only_file(made))
        elif launcher == "sky":
            task = yaml.safe_load(only_file(made))
            jsonschema.validate(task, SKY_TASK)
            bash_takes(task["run"])
        elif launcher == "kuberay":
            jsonschema.validate(yaml.safe_load(only_file(made)), RAYJOB)
        assert driver_in(launcher, made)[:5] == ["sftrl", "run", name, "--scale", scale]


def test_every_launcher_has_its_file_of_options():
    from sftrl_ext.paths import configs_dir

    files = {path.stem for path in (configs_dir() / "launcher").glob("*.yaml")}
    assert files == {*LAUNCHERS, "local"}
    for name in files:
        assert load_recipe("fig6_gp_l", "smoke", [], name).launcher.name == name


# ------------------------------------------------------------------ ray


def test_ray_sends_variables_and_folder_as_the_runtime_environment():
    options = ["+launcher.env.HF_HOME=/hf", "launcher.ray.working_dir=.", "launcher.ray.wait=false"]
    command = submission("ray", *options, "launcher.ray.address=http://head:8265").command
    assert command[:5] == ("ray", "job", "submit", "--address", "http://head:8265")
    runtime = json.loads(command[command.index("--runtime-env-json") + 1])
    assert runtime == {"env_vars": {"HF_HOME": "/hf"}, "working_dir": "."}
    assert "--no-wait" in command
    assert "launcher" not in " ".join(command[command.index("--") :])


def test_ray_itself_takes_the_command():
    pytest.importorskip("ray")
    from ray.dashboard.modules.job.cli import submit as ray_submit

    command = submission("ray", "+launcher.env.HF_HOME=/hf", "launcher.ray.wait=false").command
    context = ray_submit.make_context("submit", list(command[3:]), resilient_parsing=False)
    assert list(context.params["entrypoint"])[:3] == ["sftrl", "run", "fig6_gp_l"]
    assert json.loads(context.params["runtime_env_json"]) == {"env_vars": {"HF_HOME": "/hf"}}


# ------------------------------------------------------------------ slurm


@pytest.mark.parametrize("nodes", [1, 2, 16])
def test_the_batch_script_is_bash_and_names_its_nodes(nodes):
    text = only_file(submission("slurm", f"scale.nnodes={nodes}", "launcher.setup=[module load cuda/12]"))
    bash_takes(text)
    options = dict(
        line.removeprefix("#SBATCH --").partition("=")[::2] for line in text.splitlines() if "#SBATCH" in line
    )
    assert options["nodes"] == str(nodes) and options["gpus-per-node"] == "8"
    assert options["ntasks-per-node"] == "1" and "requeue" in options and "partition" not in options
    lines = text.splitlines()
    assert lines.index("module load cuda/12") < next(n for n, line in enumerate(lines) if "srun" in line)
    assert ("ray start" in text) == (nodes > 1)
    if nodes > 1:
        assert f"--nodes={nodes - 1} --ntasks={nodes - 1}" in text


def test_options_of_slurm_reach_the_script():
    chosen = ["partition=gpu", "account=me", "qos=high", "time=2-00:00:00", "cpus_per_node=64"]
    chosen += [
        "exclusive=false",
        "requeue=false",
        "options=['--constraint=h100']",
        "srun=['--container-image=a b']",
    ]
    text = only_file(submission("slurm", *(f"launcher.slurm.{option}" for option in chosen)))
    for option in ("partition=gpu", "account=me", "qos=high", "time=2-00:00:00", "cpus-per-task=64"):
        assert f"#SBATCH --{option}\n" in text
    assert "#SBATCH --constraint=h100\n" in text and "#SBATCH --no-requeue\n" in text
    assert "--exclusive" not in text and "'--container-image=a b'" in text
    bash_takes(text)


def test_the_job_is_queued_again_before_its_time_limit(tmp_path):
    calls = tmp_path / "calls.txt"
    fake(tmp_path, "scontrol", f'echo "scontrol $*" >> {calls}')
    driver = f"trap 'exit 0' TERM; echo up >> {calls}; sleep 2; echo done >> {calls}; exit 9"
    text = only_file(submission("slurm", scale="gpu", run_dir=tmp_path))
    assert "#SBATCH --signal=B:USR1@120\n" in text
    status, _ = run_script(tmp_path, driver=driver, end=signal.SIGUSR1)
    assert status == 9  # the driver's, which the signal does not end
    lines = calls.read_text().splitlines()
    assert lines == ["up", f"scontrol requeue test{os.getpid()}", "done"]
    for option in ("launcher.slurm.requeue=false", "launcher.slurm.signal_s=null"):
        plain = only_file(submission("slurm", option, scale="gpu", run_dir=tmp_path))
        assert "USR1" not in plain


@pytest.mark.parametrize("nodes", [1, 2])
def test_commands_run_in_a_container_and_on_an_interface(nodes, tmp_path):
    words = ["launcher.slurm.wrap=[apptainer,exec,--nv,/images/my sftrl.sif]", "launcher.interface=ib0"]
    text = only_file(submission("slurm", f"scale.nnodes={nodes}", *words, run_dir=tmp_path))
    bash_takes(text)
    wrap = "apptainer exec --nv '/images/my sftrl.sif'"
    assert f"{wrap} sftrl run" in text and text.count(f"{wrap} ray ") == (3 if nodes > 1 else 0)
    assert "export NCCL_SOCKET_IFNAME=ib0\n" in text and "export GLOO_SOCKET_IFNAME=ib0\n" in text
    assert ("address show dev ib0" in text) == (nodes > 1)
    kept = submission("ray", "launcher.interface=ib0", "+launcher.env.NCCL_SOCKET_IFNAME=ib1").command
    runtime = json.loads(kept[kept.index("--runtime-env-json") + 1])
    assert runtime["env_vars"] == {"NCCL_SOCKET_IFNAME": "ib1", "GLOO_SOCKET_IFNAME": "ib0"}


def test_the_examples_of_options_compose_as_printed():
    import re

    from sftrl_ext.experiments.recipe import launcher_config
    from sftrl_ext.paths import configs_dir

    text = Path(launcher_config.__file__).read_text()
    examples = re.findall(r"``(\+?launcher\.[a-z_.A-Z]+=[^`]+)``", text)
    assert len(examples) >= 8
    load_recipe("fig6_gp_l", "cluster", examples)
    for path in (configs_dir() / "launcher").glob("*.yaml"):
        lines = [line[2:] for line in path.read_text().splitlines() if line.startswith("# ") and "=" in line]
        words = [w for line in lines for w in shlex.split(line) if re.match(r"\+?launcher\.", w)]
        load_recipe("fig6_gp_l", "cluster", words, path.stem)


@pytest.mark.parametrize(("stages", "gpus"), [("data,model", False), ("train,eval", True), ("report", False)])
def test_stages_without_a_gpu_get_one_node_without(stages, gpus):
    text = only_file(submission("slurm", stages=stages))
    assert driver_of(text)[-2:] == ["--stages", stages]
    assert ("#SBATCH --gpus-per-node=8\n" in text, "#SBATCH --nodes=2\n" in text) == (gpus, gpus)
    assert f"#SBATCH --job-name=fig6-gp-l-cluster-{stages.split(',')[0]}\n" in text
    bash_takes(text)
    task = yaml.safe_load(only_file(submission("sky", stages=stages)))
    assert ("accelerators" in task["resources"], task["num_nodes"]) == (gpus, 2 if gpus else 1)


def test_an_array_has_a_task_for_every_arm_seed_and_rate(tmp_path):
    """The scripts as they are submitted and run, on a Slurm that only notes what it is asked."""
    words = ["launcher.slurm.array=true", "launcher.slurm.array_limit=3", "arms.rl.lrs=[1e-6,2e-6]"]
    made = submission("slurm", *words, scale="node", run_dir=tmp_path / "run")
    *scripts, jobs = made.files.values()
    for text in made.files.values():
        bash_takes(text)
    assert [driver_of(text)[-2:] for text in scripts] == [
        ["--stages", "data,model"],
        ["--stages", "init"],
        ["--stages", "$stage"],
        ["--stages", "eval"],
        ["--stages", "report"],
    ]
    gpus = ["#SBATCH --gpus-per-node=8\n" in text for text in scripts]
    assert gpus == [False, True, True, True, False]
    array = scripts[2]
    assert "#SBATCH --array=0-5%3\n" in array and "slurm-%A_%a.log" in array
    assert not any("--array" in text for text in (*scripts[:2], *scripts[3:]))

    calls = tmp_path / "calls.txt"
    fake(tmp_path, "sbatch", f'echo "$*" >> {calls}; echo "$(($(wc -l < {calls}) + 40));cluster"')
    fake(tmp_path, "srun", f'printf "%s\\n" "$@" > {tmp_path}/srun-$SLURM_ARRAY_TASK_ID.txt')
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    said = subprocess.run(["bash", "-c", jobs], env=env, capture_output=True, text=True, check=True).stdout
    paths = [str(path) for path in made.files][:-1]
    assert said.splitlines() == [f"{path}: job {41 + i}" for i, path in enumerate(paths)]
    after = [f"--dependency=afterok:{41 + i} --kill-on-invalid-dep=yes " for i in range(4)]
    assert calls.read_text().splitlines() == [
        f"--parsable {option}{path}" for option, path in zip(["", *after], paths, strict=True)
    ]
    stages = set()
    for task in range(6):
        task_env = {**env, "SLURM_ARRAY_TASK_ID": str(task), "SLURM_JOB_ID": str(90 + task)}
        # The last call of srun is the clean-up.
        text = array.replace("trap leave EXIT", "")
        subprocess.run(["bash", "-c", text], env=task_env, check=True, capture_output=True)
        words = (tmp_path / f"srun-{task}.txt").read_text().splitlines()
        assert words[words.index("--stages") - 1] == "arms.rl.lrs=[1e-6,2e-6]"
        stages.add(words[words.index("--stages") + 1])
    assert len(stages) == 6 and sum(stage.startswith("rl-lr") for stage in stages) == 4


def test_jobs_of_a_run_with_a_long_name_have_names_of_their_own():
    made = submission("slurm", "launcher.slurm.array=true", f"name={'long_' * 12}x")
    names = [
        line.partition("=")[2]
        for text in made.files.values()
        for line in text.splitlines()
        if "--job-name" in line
    ]
    assert len(made.files) == 6 and len(set(names)) == 5
    assert all(len(name) <= 40 and name.startswith("long-long-") for name in names)


def test_no_job_of_an_array_is_submitted_after_a_refused_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = submission("slurm", "launcher.slurm.array=true", scale="node", run_dir=tmp_path / "run")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    if shutil.which("sbatch") is None:
        with pytest.raises(SftrlError, match="'sbatch' is not on this machine's PATH"):
            submit(made, Console(quiet=True))
    fake(tmp_path, "sbatch", f'echo x >> {tmp_path}/calls; [ "$(wc -l < {tmp_path}/calls)" = 1 ] && echo 7')
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(SftrlError, match="sbatch ended with status 1: bash launch/"):
        submit(made, Console(quiet=True))
    assert (tmp_path / "calls").read_text() == "x\nx\n"


def test_a_text_that_needs_quotes_is_named_itself(capsys):
    word = "launcher.slurm.options=[--constraint=h100]"
    assert main(["plan", "fig6_gp_l", "--launcher", "slurm", word]) == 2
    message = " ".join(capsys.readouterr().err.split())
    assert f"error: {word}: found no override" in message and '["--constraint=h100"]' in message


def slurm_answers():
    programs = shutil.which("sbatch") and shutil.which("scontrol")
    return bool(programs) and subprocess.run(["scontrol", "ping"], capture_output=True).returncode == 0


@pytest.mark.skipif(not slurm_answers(), reason="no Slurm here")
def test_slurm_itself_takes_the_script(tmp_path):
    script = tmp_path / "job.sbatch"
    script.write_text(only_file(submission("slurm", run_dir=tmp_path)))
    tested = subprocess.run(["sbatch", "--test-only", str(script)], capture_output=True, text=True)
    assert tested.returncode == 0, tested.stderr


def fake(folder, name, text):
    path = folder / name
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IEXEC)


def test_the_script_starts_head_and_workers_before_the_driver(tmp_path):
    """The script as it runs, on a Slurm and a Ray that only note what they are asked."""
    calls = tmp_path / "calls.txt"
    note = f'echo "$(basename "$0") $*" >> {calls}'
    fake(tmp_path, "scontrol", "printf 'n1\\nn2\\nn3\\nn4\\n'")
    # Runs the command behind its options.
    fake(tmp_path, "srun", f'{note}; while [[ "$1" == -* ]]; do shift; done; exec "$@"')
    fake(tmp_path, "hostname", "echo 10.0.0.1 192.168.0.1")
    fake(tmp_path, "ray", f'{note} "[$RAY_ADDRESS $RAY_AUTH_MODE ${{#RAY_AUTH_TOKEN}}]"')
    # Head and workers start beside the driver, which outlasts their notes.
    joined = (
        f"until grep -q -e '^ray.*--head' {calls} && grep -q '^ray.*--address' {calls}; do sleep 0.05; done"
    )
    fake(tmp_path, "sftrl", f'{joined}; {note} "[$RAY_ADDRESS $HF_HOME]"; exit 7')
    text = only_file(submission("slurm", "scale.nnodes=4", "+launcher.env.HF_HOME=/h f", run_dir=tmp_path))
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_NODELIST": "n[1-4]", "SLURM_JOB_ID": "41234"}
    done = subprocess.run(["bash"], input=text, text=True, env=env, capture_output=True, timeout=60)
    assert done.returncode == 7, done.stderr
    said = calls.read_text().splitlines()
    here = [line for line in said if line.startswith(("ray", "sftrl"))]
    (driver,) = [line for line in here if line.startswith("sftrl")]
    assert driver.endswith("[10.0.0.1:21234 /h f]")
    (head,) = [line for line in here if "--head" in line]
    assert "--node-ip-address=10.0.0.1 --port=21234 --num-cpus=96 --num-gpus=8" in head
    assert head.endswith("[10.0.0.1:21234 token 48]")
    (worker,) = [line for line in here if "--address=10.0.0.1:21234" in line]
    assert "--num-cpus=96 --num-gpus=8" in worker
    steps = [line for line in said if line.startswith("srun")]
    assert any("--nodes=3 --ntasks=3 --exclude=n1" in step and "ray start" in step for step in steps)
    assert all("--nodelist=n1" in step for step in steps if "--exclude" not in step)
    cleaned = [step for step in steps if "rm -rf" in step]
    assert ["--exclude=n1" in step for step in cleaned] == [True, False]  # workers, then the head
    assert not any("ray stop" in line for line in said)


RAYLET = """\
mkdir -p "$RAY_TMPDIR/ray"
(exec -a "$RAY_TMPDIR/ray/session/raylet" sleep 97) > /dev/null 2>&1 &
echo $! > "$FOLDER/raylet"
"""
"""What a Ray of the job would leave: a folder, and a process that names it."""


def run_script(tmp_path, *options, driver="exit 7", end=None):
    """The script of one node as it runs, with a driver that leaves what Ray would.

    Returns:
        Its status, and the address and folder of Ray that the driver saw.
    """
    job, said = f"test{os.getpid()}", tmp_path / "said.txt"
    fake(tmp_path, "srun", 'while [[ "$1" == -* ]]; do shift; done; exec "$@"')
    fake(tmp_path, "sftrl", f'{RAYLET}\necho "$RAY_ADDRESS $RAY_TMPDIR" > {said}\n{driver}')
    text = only_file(submission("slurm", *options, scale="gpu", run_dir=tmp_path))
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": job, "FOLDER": str(tmp_path)}
    child = subprocess.Popen(["bash", "-c", text], env={**env, "RAY_ADDRESS": "10.9.9.9:6379"})
    if end is not None:
        until(lambda: said.is_file() and said.read_text())
        child.send_signal(end)
    status = child.wait(timeout=90)
    assert not Path(f"/tmp/sftrl-{job}").exists()
    raylet = int((tmp_path / "raylet").read_text())
    assert until(lambda: ended(raylet)), "a process of Ray was left"
    address, folder = said.read_text().split()
    assert folder == f"/tmp/sftrl-{job}"
    return status, address


def ended(pid):
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def until(ready, seconds=30):
    end = time.monotonic() + seconds
    while not ready() and time.monotonic() < end:
        time.sleep(0.05)
    return bool(ready())


def test_a_job_of_one_node_has_a_ray_and_a_temporary_folder_of_its_own(tmp_path):
    other = subprocess.Popen(["bash", "-c", "exec -a /tmp/sftrl-other/ray/session/raylet sleep 97"])
    try:
        # Not the cluster of the shell that called sbatch.
        assert run_script(tmp_path) == (7, "local")
        assert other.poll() is None  # the Ray of another job on this node
    finally:
        other.kill()
        other.wait()


def test_a_job_that_is_ended_leaves_no_ray_behind(tmp_path):
    status, _ = run_script(tmp_path, driver="sleep 3", end=signal.SIGTERM)
    assert status != 0


def test_launcher_variables_may_name_a_cluster(tmp_path):
    assert run_script(tmp_path, "+launcher.env.RAY_ADDRESS=10.0.0.5:6379") == (7, "10.0.0.5:6379")
    run = yaml.safe_load(only_file(submission("sky", scale="gpu")))["run"]
    assert run.startswith("export RAY_ADDRESS=local\n")
    other = submission("sky", "+launcher.env.RAY_ADDRESS=10.0.0.5:6379", scale="gpu")
    assert "RAY_ADDRESS=local" not in yaml.safe_load(only_file(other))["run"]


# ------------------------------------------------------------------ sky and kuberay


def test_the_sky_task_has_the_structure_of_one():
    options = ["launcher.sky.infra=k8s", "launcher.sky.cpus='64+'", "+launcher.env.HF_HOME=/hf"]
    task = yaml.safe_load(only_file(submission("sky", *options)))
    jsonschema.validate(task, SKY_TASK)
    assert task["num_nodes"] == 2 and task["resources"]["accelerators"] == "H100:8"
    assert task["volumes"] == {"/runs": "runs"} and task["envs"] == {"HF_HOME": "/hf"}
    bash_takes(task["run"])
    bash_takes(task["setup"])


@pytest.mark.parametrize("options", [[], ["launcher.sky.infra=k8s", "launcher.sky.cpus='64+'"]])
def test_sky_itself_takes_the_task(options):
    sky = pytest.importorskip("sky")
    task = sky.Task.from_yaml_config(yaml.safe_load(only_file(submission("sky", *options))))
    assert task.num_nodes == 2
    assert {resources.accelerators["H100"] for resources in task.resources} == {8}


def test_the_nodes_of_sky_agree_on_their_parts(tmp_path):
    """The run section on both ranks, with a Ray that notes what it is asked."""
    run = yaml.safe_load(only_file(submission("sky")))["run"]
    # Its cluster answers once the head has begun.
    status = f'[ "$SKYPILOT_NODE_RANK" = 1 ] || until grep -qs head {tmp_path}/ray-0; do sleep 0.05; done'
    start = f'echo "$*" >> {tmp_path}/ray-$SKYPILOT_NODE_RANK; sleep 2'
    fake(tmp_path, "ray", f'if [ "$1" = status ]; then {status}; else {start}; fi')
    fake(tmp_path, "sftrl", f"echo $RAY_ADDRESS >> {tmp_path}/driver-$SKYPILOT_NODE_RANK; exit 5")
    for rank, status in (("0", 5), ("1", 0)):
        env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SKYPILOT_NODE_RANK": rank}
        env["SKYPILOT_NODE_IPS"] = "10.0.0.1\n10.0.0.2"
        done = subprocess.run(["bash"], input=run, text=True, env=env, capture_output=True, timeout=60)
        assert done.returncode == status, done.stderr
    assert (tmp_path / "driver-0").read_text() == "10.0.0.1:6379\n"
    assert not (tmp_path / "driver-1").exists()
    assert "start --head --port=6379" in (tmp_path / "ray-0").read_text()
    assert "start --address=10.0.0.1:6379" in (tmp_path / "ray-1").read_text()


def test_secrets_of_sky_are_named_and_not_written():
    made = submission("sky", "launcher.sky.secrets=[HF_TOKEN,WANDB_API_KEY]")
    assert shlex.join(made.command).count("--secret HF_TOKEN --secret WANDB_API_KEY") == 1
    assert "HF_TOKEN" not in only_file(made)


def test_a_ray_job_has_the_name_that_is_given():
    command = submission("ray", "launcher.ray.submission_id=gp-l-1").command
    assert command[command.index("--submission-id") + 1] == "gp-l-1"


def test_managed_jobs_of_sky():
    assert submission("sky", "launcher.sky.managed=true").command[:3] == ("sky", "jobs", "launch")
    assert submission("sky").command[:2] == ("sky", "launch")


@pytest.mark.parametrize("nodes", [1, 4])
def test_the_rayjob_has_the_structure_of_one(nodes):
    options = [f"scale.nnodes={nodes}", "+launcher.env.HF_HOME=/hf", "launcher.kuberay.secrets=[wandb]"]
    options += ["launcher.kuberay.service_account=train", "launcher.kuberay.token_auth=true"]
    options += ["+launcher.kuberay.node_selector.gpu=h100"]
    made = yaml.safe_load(only_file(submission("kuberay", *options)))
    jsonschema.validate(made, RAYJOB)
    cluster = made["spec"]["rayClusterSpec"]
    groups = cluster["workerGroupSpecs"]
    assert sum(group["replicas"] for group in groups) == nodes - 1
    for pod in [cluster["headGroupSpec"], *groups]:
        (container,) = pod["template"]["spec"]["containers"]
        assert container["resources"]["limits"]["nvidia.com/gpu"] == 8
        assert container["env"] == [{"name": "HF_HOME", "value": "/hf"}]
        assert container["envFrom"] == [{"secretRef": {"name": "wandb"}}]
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["template"]["spec"]["volumes"]}


def test_pods_take_tolerations_pull_secrets_rdma_and_further_keys():
    options = [
        "launcher.kuberay.tolerations=[{key: nvidia.com/gpu, operator: Exists, effect: NoSchedule}]",
        "launcher.kuberay.pull_secrets=[registry]",
        "launcher.kuberay.rdma_resource=rdma/ib",
        "launcher.kuberay.rdma_count=8",
        "+launcher.kuberay.pod.priorityClassName=research",
    ]
    made = yaml.safe_load(only_file(submission("kuberay", *options)))
    jsonschema.validate(made, RAYJOB)
    cluster = made["spec"]["rayClusterSpec"]
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        pod = group["template"]["spec"]
        assert pod["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
        assert pod["imagePullSecrets"] == [{"name": "registry"}] and pod["priorityClassName"] == "research"
        assert pod["containers"][0]["resources"]["limits"]["rdma/ib"] == 8
        assert pod["containers"][0]["securityContext"]["capabilities"]["add"] == ["IPC_LOCK"]
    with pytest.raises(SftrlError, match="launcher.kuberay.pod: found volumes"):
        submission("kuberay", "+launcher.kuberay.pod.volumes=[]")


def test_a_schema_refuses_what_is_wrong():
    made = yaml.safe_load(only_file(submission("kuberay")))
    made["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["replica"] = 1
    with pytest.raises(jsonschema.ValidationError, match="replica"):
        jsonschema.validate(made, RAYJOB)


# ------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("launcher", "options", "said"),
    [
        ("kuberay", ["launcher.kuberay.image=null"], "launcher.kuberay.image is null"),
        ("kuberay", ["launcher.kuberay.volume_claim=null"], "launcher.kuberay.volume_claim is null"),
        ("kuberay", ["launcher.setup=[pip install x]"], "launcher.setup"),
        ("sky", ["launcher.sky.volume=null"], "launcher.sky.volume is null"),
    ],
)
def test_what_a_launcher_cannot_do_without_is_named(launcher, options, said, monkeypatch):
    loaded = load_recipe("fig6_gp_l", "cluster", [*NEEDED[launcher], *options], launcher)
    with pytest.raises(SftrlError, match=said):
        LAUNCHERS[launcher](make_job(loaded, "fig6_gp_l", [], None))


def test_wrong_names_get_the_nearest_right_one(capsys):
    assert main(["plan", "fig6_gp_l", "--launcher", "slrum"]) == 2
    assert "Did you mean 'slurm'" in capsys.readouterr().err
    assert main(["plan", "fig6_gp_l", "--launcher", "slurm", "launcher.slurm.partion=x"]) == 2
    assert "Did you mean 'partition'" in " ".join(capsys.readouterr().err.split())


def test_a_relative_run_folder_means_nothing_on_other_machines():
    with pytest.raises(SftrlError, match="absolute path"):
        submission("ray", run_dir=Path("runs/x"))


def test_plan_shows_what_run_submits(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fake(tmp_path, "sbatch", f'cp "$1" {tmp_path}/submitted; echo "Submitted batch job 1"')
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    words = ["fig6_gp_l", "--scale", "cluster", "--launcher", "slurm", "--seeds", "0,1"]
    assert main(["plan", *words]) == 0
    planned = capsys.readouterr().out
    assert not (tmp_path / "launch").exists()
    assert main(["run", *words]) == 0
    submitted = (tmp_path / "submitted").read_text()
    assert submitted in planned and "'sweep.seeds=[0,1]'" in submitted
    assert planned.rstrip().endswith("sbatch launch/fig6-gp-l-cluster.sbatch")
    assert (tmp_path / "runs/fig6_gp_l-cluster").is_dir()  # Slurm writes the log there


def test_a_missing_program_and_a_refusal_are_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    console = Console(quiet=True)
    with pytest.raises(SftrlError, match="no-such-program"):
        submit(Submission(("no-such-program", "x")), console)
    with pytest.raises(SftrlError, match="status 1"):
        submit(Submission(("false",)), console)
