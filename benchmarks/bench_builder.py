"""Rows per second and peak memory of the builders: ``python benchmarks/bench_builder.py [rows]``.

Each kind is built in a process of its own, so that the peak is its own. Prints one JSON object with the
measured numbers beside their floors; exits with 1 if one is missed.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import sys
import tempfile
import time
from pathlib import Path

AT_LEAST_ROWS_PER_S = {"rl": 50_000, "sft": 40_000, "reasoned": 40_000, "suboptimal": 18_000}
"""Floors, per second of processor time: a million rows in well under a minute."""


def build(kind: str, rows: int, template: str) -> dict[str, float]:
    from data_prep.hand_rows import HandRows
    from data_prep.sources import Source
    from data_prep.writer import write_rows
    from sftrl_ext.envs.general_points.episode import PlaySettings
    from sftrl_ext.envs.task_config import TaskConfig

    source = Source("id", settings=PlaySettings(template=template))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.parquet"
        wall, cpu = time.perf_counter(), time.process_time()
        write_rows(path, HandRows(TaskConfig(), Path(folder)).build(kind, source, rows))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        size = path.stat().st_size / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "rows": rows,
        "wall_s": round(wall, 2),
        "cpu_s": round(cpu, 2),
        "rows_per_s": round(rows / wall),
        "rows_per_cpu_s": round(rows / cpu),
        "peak_mb": round(peak),
        "file_mb": round(size, 1),
    }


def main() -> int:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    context = multiprocessing.get_context("spawn")
    results = {}
    for template in ("compact", "default"):
        for kind in AT_LEAST_ROWS_PER_S:
            with context.Pool(1) as pool:
                results[f"{kind}_{template}"] = pool.apply(build, (kind, rows, template))
            print(json.dumps({f"{kind}_{template}": results[f"{kind}_{template}"]}), flush=True)
    missed = [
        name for name, r in results.items() if r["rows_per_cpu_s"] < AT_LEAST_ROWS_PER_S[name.split("_")[0]]
    ]
    print(json.dumps({"at_least_rows_per_cpu_s": AT_LEAST_ROWS_PER_S, "missed": missed}))
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
