"""Plain processes that average their gradients: the floor that distributed trainers are compared with."""

from __future__ import annotations

import json
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def spawn(work: Callable[..., Any], ranks: int, threads: int, *args: Any) -> list[Any]:
    """Results of ``work(rank, ranks, *args)`` in so many processes of so many threads, which must be JSON."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as out:
        mp.spawn(_rank, (work, ranks, threads, port, out, args), nprocs=ranks)
        return [json.loads(Path(out, f"{rank}.json").read_text(encoding="utf-8")) for rank in range(ranks)]


def _rank(
    rank: int, work: Callable[..., Any], ranks: int, threads: int, port: int, out: str, args: tuple[Any, ...]
) -> None:
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    if ranks > 1:
        dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=ranks)
    result = work(rank, ranks, *args)
    Path(out, f"{rank}.json").write_text(json.dumps(result), encoding="utf-8")
    if ranks > 1:
        dist.destroy_process_group()


def average_gradients(model: torch.nn.Module, ranks: int) -> None:
    """Average a model's gradients over all processes."""
    if ranks == 1:
        return
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    flat = torch.nn.utils.parameters_to_vector(gradients)
    dist.all_reduce(flat)
    torch.nn.utils.vector_to_parameters(flat / ranks, gradients)
