"""Verbs of the command line that use one model: ``sftrl eval`` and ``sftrl serve``."""

from __future__ import annotations

import argparse
import json
import os
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from sftrl_ext.cli_plugin import add_plugin_option
from sftrl_ext.errors import SftrlError
from sftrl_ext.plugins import load_plugins

if TYPE_CHECKING:
    from sftrl_ext.experiments.evaluation.one_model.endpoint import EndpointOptions


def add_eval_verbs(verbs: Any) -> None:
    """Add the verbs to the parser."""
    local = argparse.ArgumentParser(add_help=False)
    local.add_argument("--engine", default="hf", help="hf or vllm")
    local.add_argument("--dtype", default="float32")
    local.add_argument(
        "--device", help="device of engine hf: cpu, cuda or cuda:<n> (default: a GPU if torch sees one)"
    )
    evaluate = verbs.add_parser(
        "eval", parents=[local], help="evaluate a local or served model on parquet files"
    )
    evaluate.add_argument(
        "model", nargs="?", help="Hugging Face folder, verl checkpoint folder, or hub name (owner/name)"
    )
    evaluate.add_argument(
        "--data", type=Path, nargs="+", required=True, help="parquet files from `sftrl data rl --eval`"
    )
    evaluate.add_argument("--limit", type=int, metavar="N", help="first N rows of each file (default: all)")
    evaluate.add_argument(
        "--temperature", type=float, help="sampling temperature; 0 is greedy (default: 0.2)"
    )
    evaluate.add_argument("--top-p", type=float, help="nucleus sampling threshold (default: 1)")
    evaluate.add_argument(
        "--generation-config",
        action="store_true",
        help="use temperature, top-p and top-k of the model's generation_config.json",
    )
    evaluate.add_argument("--max-turn-tokens", type=int, help="token limit of one response (default: 512)")
    evaluate.add_argument("--batch-size", type=int, help="concurrent episodes of a local model")
    evaluate.add_argument("--seed", type=int)
    evaluate.add_argument("--out", type=Path, help="append one JSON line per data file to this file")
    evaluate.add_argument(
        "--episodes",
        type=Path,
        help="store finished episodes in this file, so that rerunning the command resumes it "
        "(default: a file in evals/ for an endpoint, none for a local model)",
    )
    evaluate.add_argument(
        "--any-template",
        action="store_true",
        help="also play rows whose prompts are of another template than the model was trained with",
    )
    served = evaluate.add_argument_group("served model (OpenAI-compatible)")
    served.add_argument("--endpoint", metavar="URL", help="base URL, as in http://localhost:8000/v1")
    served.add_argument(
        "--model", dest="served_model", help="name of the model, if the endpoint serves several"
    )
    served.add_argument(
        "--key-variable",
        metavar="NAME",
        help="environment variable that holds the key (default: OPENAI_API_KEY)",
    )
    served.add_argument("--concurrency", type=int, help="maximum number of requests in flight")
    served.add_argument("--retries", type=int, help="retries of a failed request")
    served.add_argument(
        "--timeout",
        dest="timeout_s",
        metavar="SECONDS",
        type=float,
        help="time limit of one attempt, from connecting to the last byte",
    )
    served.add_argument(
        "--extra",
        action="append",
        default=[],
        metavar="KEY=JSON",
        help="add a key to every request, or remove one with null: seed=null",
    )
    served.add_argument("--price-in", type=float, help="price per million prompt tokens")
    served.add_argument("--price-out", type=float, help="price per million completion tokens")
    add_plugin_option(evaluate)
    evaluate.set_defaults(run=_eval)

    serve = verbs.add_parser(
        "serve", parents=[local], help="serve a local model as OpenAI-compatible chat completions"
    )
    serve.add_argument("model", help="Hugging Face folder, verl checkpoint folder, or hub name (owner/name)")
    serve.add_argument("--name", help="model name in requests (default: the model argument)")
    serve.add_argument("--host", default="127.0.0.1", help="address to serve at (default: this machine only)")
    serve.add_argument("--port", type=int, default=8000)
    serve.add_argument(
        "--api-key-variable", metavar="NAME", help="environment variable that holds the key clients must send"
    )
    serve.add_argument("--insecure", action="store_true", help="serve other machines (--host) without a key")
    serve.set_defaults(run=_serve)


def _eval(args: argparse.Namespace, console: Console) -> None:
    from sftrl_ext.experiments.evaluation.one_model.console_tables import Prices
    from sftrl_ext.experiments.evaluation.one_model.evaluate_one import append_records, evaluate_model
    from sftrl_ext.experiments.evaluation.one_model.request import EvalRequest

    load_plugins(args.plugins)
    if args.model and args.served_model:
        raise SftrlError(f"found two models, {args.model} and --model {args.served_model}; expected one.")
    if args.generation_config and (args.temperature is not None or args.top_p is not None):
        raise SftrlError(
            "--generation-config is given beside --temperature or --top-p; expected either, not both."
        )
    if args.endpoint is None:
        from sftrl_ext.experiments.runner import require_training

        require_training()
    request = EvalRequest(
        model=args.model or args.served_model,
        files=args.data,
        endpoint=_endpoint(args),
        prices=Prices(args.price_in, args.price_out),
        **_given(args, EvalRequest),
    )
    if args.out:
        _check_out(args.out)
    records = evaluate_model(request, console)
    if args.out:
        append_records(args.out, records)


def _check_out(path: Path) -> None:
    """Refuse a file that cannot be written before the hours of an evaluation."""
    folder = path.parent
    if path.is_dir() or not folder.is_dir() or not os.access(path if path.exists() else folder, os.W_OK):
        raise SftrlError(f"--out {path}: found no file that can be written there; expected one in a folder.")


def _endpoint(args: argparse.Namespace) -> EndpointOptions | None:
    """Options of the endpoint; None for a local model."""
    if args.endpoint is None:
        return None
    from sftrl_ext.experiments.evaluation.one_model.endpoint import EndpointOptions

    extra: dict[str, object] = {}
    for pair in args.extra:
        key, equals, value = pair.partition("=")
        try:
            extra[key] = json.loads(value)
        except ValueError:
            extra[key] = value
        if not key or not equals:
            raise SftrlError(f"--extra {pair}: expected key=value, as in seed=null.")
    return EndpointOptions(args.endpoint, **(_given(args, EndpointOptions) | {"extra": extra}))


def _given(args: argparse.Namespace, options: type) -> dict[str, Any]:
    """Arguments that are fields of a dataclass of options; those not given keep its defaults."""
    names = {field.name for field in fields(options)} - {"model", "endpoint"}
    return {name: value for name, value in vars(args).items() if name in names and value is not None}


def _serve(args: argparse.Namespace, console: Console) -> None:
    from sftrl_ext.experiments.runner import require_training

    require_training()
    from sftrl_ext.backends.openai_server import bind, key_of, serve
    from sftrl_ext.experiments.evaluation.engines import open_engine
    from sftrl_ext.experiments.evaluation.one_model.request import check_device, local_model, torch_device
    from sftrl_ext.experiments.evaluation.one_model.trained_template import template_of_folder

    name = args.name or args.model
    check_device(args.device, args.engine)
    device = torch_device(args.device) if args.engine == "hf" else "cpu"
    key = key_of(args.api_key_variable, args.host, args.insecure)
    with bind(args.host, args.port) as bound, local_model(args.model, args.dtype) as folder:
        engine = open_engine(args.engine, folder, dtype=args.dtype, rows=256, device=device)
        port = bound.getsockname()[1]
        console.print(f"{name} at http://{args.host}:{port}/v1; Ctrl-C stops it.", highlight=False)
        with suppress(KeyboardInterrupt):  # the usual way to stop the server
            trained = template_of_folder(folder)
            serve(engine, name, bound, key, None if trained is None else trained.name)
