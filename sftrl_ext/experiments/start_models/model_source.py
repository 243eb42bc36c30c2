"""Finds the model that a path or a hub name stands for: a folder, a checkpoint of verl, or a hub snapshot."""

from __future__ import annotations

import re
from pathlib import Path

from sftrl_ext.errors import SftrlError, first_line
from sftrl_ext.experiments.start_models.model_files import SMALL_FILES, stored_weights
from sftrl_ext.runs.checkpoints import list_checkpoints, model_folder

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_NOT_NEEDED = ("*/*", "consolidated*")
"""Second copies of the weights in formats that are not read here, often in folders (``original/*.pth``)."""


def is_hub_name(name: str) -> bool:
    """True for a name of a hub model (``owner/name``) that is no folder here."""
    return not Path(name).exists() and _HUB_NAME.fullmatch(name) is not None


def find_model(path: Path) -> Path:
    """The Hugging Face folder meant by a path: itself, or the newest checkpoint of a verl folder.

    Raises:
        SftrlError: if there is none.
    """
    if (path / "config.json").is_file():
        return path
    if model_folder(path).is_dir():
        return model_folder(path)
    checkpoints = list_checkpoints(path)
    if checkpoints:
        return checkpoints[-1].folder
    raise SftrlError(
        f"{path}: neither a Hugging Face folder (config.json) nor checkpoints of verl (global_step_<n>)."
    )


def source_folder(name: str) -> Path:
    """The folder of a model: that of a path, or the snapshot of a hub name in the hub's cache.

    Raises:
        SftrlError: if there is no such folder, or the hub's model cannot be had.
    """
    return hub_snapshot(name) if is_hub_name(name) else find_model(Path(name))


def hub_snapshot(name: str) -> Path:
    """Download a model of the hub into the hub's cache, or find it there; only the files that are needed.

    Args:
        name: ``owner/name``.

    Returns:
        The snapshot's folder, whose files are links into the cache.

    Raises:
        SftrlError: if there is no such model, its terms are not accepted, or the hub cannot be reached and
            the cache does not have it.
    """
    folder = _download(name, (*SMALL_FILES, "*.safetensors"))
    if not stored_weights(folder):
        folder = _download(name, (*SMALL_FILES, "*.bin"))
    return folder


def _download(name: str, patterns: tuple[str, ...]) -> Path:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        return Path(snapshot_download(name, allow_patterns=[*patterns], ignore_patterns=[*_NOT_NEEDED]))
    except GatedRepoError:
        problem = (
            "its licence must be accepted first: do so on the model's page, and set HF_TOKEN to a token of "
            "that account"
        )
    except RepositoryNotFoundError:
        problem = "there is no such model, or it is private and HF_TOKEN is not a token that may read it"
    except LocalEntryNotFoundError as error:
        mode = first_line(error).rstrip(".")
        if constants.HF_HUB_OFFLINE:
            mode = "offline mode is on (HF_HUB_OFFLINE)"
        problem = (
            f"not all of it is in the hub's cache ({constants.HF_HUB_CACHE}; moved by HF_HOME), and {mode}; "
            f"download it where there is a network (`hf download {name}`), or name a folder"
        )
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        problem = first_line(error).rstrip(".")
    raise SftrlError(f"{problem}.")


def family_settings(model_type: str | None) -> dict[str, str]:
    """Keys of ``scale`` that a family of models needs, by ``model_type`` of its ``config.json``."""
    # vLLM does not serve Llama-3.2-Vision, and its rows cannot be packed.
    return {"engine": "hf", "attention": "sdpa"} if model_type == "mllama" else {}
