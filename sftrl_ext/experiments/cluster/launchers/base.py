"""Shared by all launchers: jobs, submissions, templates, and the registry."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from rich.console import Console

from sftrl_ext.errors import Registry, SftrlError
from sftrl_ext.experiments.cluster.local_ray import local_ray_env
from sftrl_ext.experiments.plan import make_plan, select_stages
from sftrl_ext.experiments.recipe.launcher_config import LauncherConfig
from sftrl_ext.experiments.recipe.schema import Recipe, ScaleConfig
from sftrl_ext.experiments.stage_order import StageGroup, stage_groups
from sftrl_ext.experiments.verl_commands import CPUS_BESIDE_A_GPU
from sftrl_ext.files import write_text
from sftrl_ext.runs.layout import RunLayout
from sftrl_ext.templates import template_environment

NAME_LENGTH = 40
"""Most characters of a job's name; Kubernetes adds some of its own, up to 63."""


@dataclass(frozen=True)
class Job:
    """A run that is to be started elsewhere.

    Attributes:
        name: Of the recipe and scale, in small letters, digits and hyphens (Kubernetes allows no other).
        driver: The argument list that runs on the head node; started again, it goes on with the run.
        run_dir: The run folder, as the nodes see it.
        scale: How many nodes, and what is on each.
        config: The launcher's options.
        groups: The stages by what can run at the same time, for a launcher that makes jobs of them.
    """

    name: str
    driver: tuple[str, ...]
    run_dir: str
    scale: ScaleConfig
    config: LauncherConfig
    groups: tuple[StageGroup, ...] = ()

    @property
    def ray_cpus(self) -> int:
        """CPUs each node declares to Ray: enough for what verl asks for, whatever cores there are."""
        return CPUS_BESIDE_A_GPU * self.scale.n_gpus_per_node + 16

    def part(self, name: str, stages: str, uses_gpu: bool) -> Job:
        """A job of some stages of the run.

        Args:
            name: Of the job, after the run's.
            stages: Names or kinds of stages, or a word that the shell of the job replaces by some.
            uses_gpu: False for one node without GPUs.
        """
        scale = self.scale
        if not uses_gpu:
            scale = replace(scale, nnodes=1, backend="cpu", n_gpus_per_node=0)
        driver = (*self.driver, "--stages", stages)
        suffix = _job_name(name)[:20].strip("-")
        # Of a long name the end is left out, not what tells the jobs of a run apart.
        begin = self.name[: NAME_LENGTH - len(suffix) - 1].strip("-")
        return replace(self, name=f"{begin}-{suffix}", driver=driver, scale=scale, groups=())


@dataclass(frozen=True)
class Submission:
    """Files and a command that hand a job over; the files are written first.

    Attributes:
        command: The argument list.
        files: Texts by path.
        folders: Folders that must be there before.
        hint: What to do next, in words.
        program: What must be on the PATH; None: the command's first word.
    """

    command: tuple[str, ...]
    files: Mapping[Path, str] = field(default_factory=dict)
    folders: Sequence[Path] = ()
    hint: str = ""
    program: str | None = None

    def __str__(self) -> str:
        parts = [f"# {path}\n{text.rstrip()}\n" for path, text in self.files.items()]
        return "\n".join([*parts, shlex.join(self.command)])


STAGE_OF_TASK = '"$stage"'
"""Word of a driver that the job's script replaces by the stage of a task."""

LAUNCHERS: Registry[Callable[[Job], Submission]] = Registry("launcher")
"""Launchers by name. ``local`` is none of them: the run starts here."""


def make_job(
    recipe: Recipe,
    recipe_name: str,
    overrides: Sequence[str],
    run_dir: Path | None,
    stages: str | None = None,
) -> Job:
    """The job of a run.

    Args:
        recipe: The composed recipe.
        recipe_name: As the user named it; the nodes compose it again. A file must be there under this name.
        overrides: The user's overrides; those of the launcher are left out.
        run_dir: The run folder, as the nodes see it; null: below ``launcher.run_root``.
        stages: Names or kinds of the stages that run; None: all. Stages that use no GPU get one node without.
    """
    config = recipe.launcher
    if config.interface is not None:
        names = dict.fromkeys(("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME"), config.interface)
        config = replace(config, env={**names, **config.env})
    base = f"{recipe.name}-{recipe.scale.name}"
    folder = _run_dir(config, base, run_dir)
    kept = [word for word in overrides if not re.match(r"[+~]*launcher[.=]", word)]
    if config.run_root is None and Path(recipe_name).suffix in (".yaml", ".yml"):
        recipe_name = str(Path(recipe_name).resolve())
    driver = [*shlex.split(config.program), "run", recipe_name, "--scale", recipe.scale.name]
    driver += ["--run-dir", folder, "--or-resume", *kept]
    job = Job(_job_name(base), tuple(driver), folder, recipe.scale, config)
    plan = make_plan(recipe, Path(folder))
    selected = plan if stages is None else select_stages(plan, stages)
    groups = tuple(stage_groups(recipe, RunLayout(Path(folder)), selected))
    if stages is not None:
        job = job.part(stages.split(",")[0], stages, any(group.uses_gpu for group in groups))
    return replace(job, groups=groups)


def _job_name(words: str) -> str:
    """Words as a name of a job: Kubernetes takes small letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")[:NAME_LENGTH].strip("-")


def _run_dir(config: LauncherConfig, base: str, run_dir: Path | None) -> str:
    if run_dir is not None:
        folder = str(run_dir)
    elif config.run_root is not None:
        folder = str(PurePosixPath(config.run_root) / base)
    else:
        return str((Path("runs") / base).resolve())
    if PurePosixPath(folder).is_absolute():
        return folder
    if config.run_root is not None:
        raise SftrlError(
            f"--run-dir {folder}: the nodes of launcher {config.name!r} do not share this folder; "
            f"give an absolute path as they see it (their runs are below {config.run_root})."
        )
    return str(Path(folder).resolve())


def launch_file(job: Job, suffix: str) -> Path:
    """Path of the file that describes a job."""
    return Path("launch") / f"{job.name}.{suffix}"


def render(job: Job, template: str, **values: object) -> str:
    """Fill in a template of a launcher.

    Args:
        job: The job.
        template: File below ``templates``, named after its launcher's config group.
        values: Further names of the template.
    """
    environment = template_environment("sftrl_ext.experiments.cluster.launchers")
    environment.filters |= {
        "quote": shlex.quote,
        "join_words": shlex.join,
        "yaml": lambda value: json.dumps(value, ensure_ascii=False),  # JSON is YAML
    }
    driver = " ".join(word if word == STAGE_OF_TASK else shlex.quote(word) for word in job.driver)
    ray_start = f"--num-cpus={job.ray_cpus} --num-gpus={job.scale.n_gpus_per_node}"
    return environment.get_template(template).render(
        name=job.name,
        scale=job.scale,
        config=job.config,
        options=getattr(job.config, job.config.name),
        driver=driver,
        workers=job.scale.nnodes - 1,
        local_ray_env=local_ray_env(),
        ray_cpus=job.ray_cpus,
        ray_start=f"{ray_start} --disable-usage-stats --block",
        **values,
    )


def submit(submission: Submission, console: Console) -> None:
    """Write the files and run the command.

    Raises:
        SftrlError: if its program is not here, or it refuses.
    """
    for folder in submission.folders:
        folder.mkdir(parents=True, exist_ok=True)
    for path, text in submission.files.items():
        write_text(path, text)
        console.print(f"wrote {path}", highlight=False)
    program = submission.program or submission.command[0]
    if shutil.which(program) is None:
        raise SftrlError(
            f"{program!r} is not on this machine's PATH, so nothing was submitted. Where it is: "
            f"{shlex.join(submission.command)}"
        )
    done = subprocess.run(submission.command)
    if done.returncode != 0:
        raise SftrlError(f"{program} ended with status {done.returncode}: {shlex.join(submission.command)}")
    if submission.hint:
        console.print(submission.hint, highlight=False)
