"""Composes the config of a training command as verl does, for tests.

verl's config is composed once for each set of keys and groups; the values of each command are then put in.
"""

from __future__ import annotations

import copy

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from sftrl_ext.paths import configs_dir

GROUPS = ("backend", "algorithm", "mode", "sft_backend")
DEAD = ("custom_reward_function", "reward_model")
"""Keys that verl composes and ignores."""

_composed = {}


def overrides_of(command):
    """Name of the config and key to value of a training command; each key once."""
    start = command.index("--config-name")
    assert command[command.index("--config-path") + 1] == str(configs_dir())
    parsed = OverridesParser.create().parse_overrides(list(command[start + 2 :]))
    values = {one.key_or_group: one.value() for one in parsed if not one.key_or_group.startswith("hydra.")}
    assert len(values) == len([one for one in parsed if not one.key_or_group.startswith("hydra.")])
    return command[start + 1], values


def config_of(command):
    """The config verl would run with: composed with its own schema, values put in, resolved."""
    name, values = overrides_of(command)
    groups = {key: value for key, value in values.items() if key in GROUPS}
    plain = {key: value for key, value in values.items() if key not in GROUPS}
    assert not {key.split(".")[0] for key in plain} & set(DEAD)
    shape = (name, *sorted(groups.items()), *sorted(plain))
    if shape not in _composed:
        with initialize_config_dir(config_dir=str(configs_dir()), version_base=None):
            # Hydra refuses a key that neither verl nor our own groups have.
            words = [*(f"{k}={v}" for k, v in groups.items()), *(f"{key}=null" for key in plain)]
            _composed[shape] = compose(config_name=name, overrides=words)
    config = copy.deepcopy(_composed[shape])
    for key, value in plain.items():
        OmegaConf.update(config, key, value)
    OmegaConf.resolve(config)
    return config
