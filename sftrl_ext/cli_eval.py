"""The verbs ``sftrl eval`` and ``sftrl serve``."""

from __future__ import annotations

import argparse
import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from sftrl_ext.errors import SftrlError

if TYPE_CHECKING:
    from sftrl_ext.experiments.endpoint import EndpointOptions


def add_eval_verbs(verbs: Any) -> None:
    """Add both to the subparsers of the command line."""
    evaluate = verbs.add_parser("eval", help="evaluate a model, here or served, on parquet files")
    evaluate.add_argument(
        "model", nargs="?", help="an HF folder, a checkpoint folder of verl, or a hub name (owner/name)"
    )
    evaluate.add_argument(
        "--data", type=Path, nargs="+", required=True, help="files of `sftrl data rl --eval`"
    )
    evaluate.add_argument("--engine", default="hf", help="hf or vllm")
    evaluate.add_argument("--dtype", default="float32")
    evaluate.add_argument(
        "--device", help="of engine hf: cpu, cuda or cuda:<n> (default: a GPU where torch sees one)"
    )
    evaluate.add_argument("--temperature", type=float, help="0 takes the most probable token (default: 0.2)")
    evaluate.add_argument(
        "--top-p", type=float, help="share of the probability that is drawn from (default: 1)"
    )
    evaluate.add_argument(
        "--generation-config",
        action="store_true",
        help="temperature, top-p and top-k of the model's generation_config.json",
    )
    evaluate.add_argument("--max-turn-tokens", type=int, default=512, help="of one answer (default: 512)")
    evaluate.add_argument(
        "--batch-size", type=int, default=256, help="episodes played at the same time by a model here"
    )
    evaluate.add_argument("--seed", type=int, default=2501)
    evaluate.add_argument("--out", type=Path, help="append one JSON line per file here")
    evaluate.add_argument(
        "--episodes",
        type=Path,
        help="keep every finished episode in this file, so that the same command goes on after a stop "
        "(default: a file in evals/ for an endpoint, none for a model here)",
    )
    served = evaluate.add_argument_group("a model that is served (OpenAI-compatible)")
    served.add_argument("--endpoint", metavar="URL", help="its address, as in http://localhost:8000/v1")
    served.add_argument("--model", dest="served_model", help="its name there, if several are served")
    served.add_argument(
        "--key-variable",
        default="OPENAI_API_KEY",
        metavar="NAME",
        help="environment variable that holds the key (default: OPENAI_API_KEY)",
    )
    served.add_argument("--concurrency", type=int, default=8, help="most requests in flight")
    served.add_argument("--retries", type=int, default=6, help="how often a failed request is tried again")
    served.add_argument("--timeout", type=float, default=600.0, help="seconds that one try may take")
    served.add_argument(
        "--extra",
        action="append",
        default=[],
        metavar="KEY=JSON",
        help="a further key of every request, or null to leave one out: seed=null",
    )
    served.add_argument("--price-in", type=float, help="price of a million prompt tokens")
    served.add_argument("--price-out", type=float, help="price of a million completion tokens")
    evaluate.set_defaults(run=_eval)

    serve = verbs.add_parser("serve", help="serve a model folder by OpenAI's chat completions")
    serve.add_argument("model", help="an HF folder, a checkpoint folder of verl, or a hub name (owner/name)")
    serve.add_argument("--name", help="what requests call the model (default: as given)")
    serve.add_argument("--host", default="127.0.0.1")
    serve.add_argument("--port", type=int, default=8000)
    serve.add_argument("--engine", default="hf", help="hf or vllm")
    serve.add_argument(
        "--device", help="of engine hf: cpu, cuda or cuda:<n> (default: a GPU where torch sees one)"
    )
    serve.add_argument("--dtype", default="float32")
    serve.set_defaults(run=_serve)


def _eval(args: argparse.Namespace, console: Console) -> None:
    from sftrl_ext.experiments.eval_request import EvalRequest
    from sftrl_ext.experiments.eval_tables import Prices
    from sftrl_ext.experiments.evaluate_one import append_records, evaluate_model

    if args.model and args.served_model:
        raise SftrlError(f"two models: {args.model} and --model {args.served_model}; expected one.")
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
        engine=args.engine,
        dtype=args.dtype,
        device=args.device,
        temperature=0.2 if args.temperature is None else args.temperature,
        top_p=1.0 if args.top_p is None else args.top_p,
        generation_config=args.generation_config,
        max_turn_tokens=args.max_turn_tokens,
        batch_size=args.batch_size,
        seed=args.seed,
        endpoint=_endpoint(args),
        prices=Prices(args.price_in, args.price_out),
        episodes=args.episodes,
    )
    records = evaluate_model(request, console)
    if args.out:
        append_records(args.out, records)


def _endpoint(args: argparse.Namespace) -> EndpointOptions | None:
    """The endpoint that the options describe; None if the model is here."""
    if args.endpoint is None:
        return None
    from sftrl_ext.experiments.endpoint import EndpointOptions

    extra: dict[str, object] = {}
    for word in args.extra:
        key, equals, value = word.partition("=")
        try:
            extra[key] = json.loads(value)
        except ValueError:
            extra[key] = value
        if not key or not equals:
            raise SftrlError(f"--extra {word}: expected key=value, as in seed=null.")
    return EndpointOptions(
        args.endpoint, args.key_variable, args.concurrency, args.retries, args.timeout, extra
    )


def _serve(args: argparse.Namespace, console: Console) -> None:
    from sftrl_ext.experiments.runner import require_training

    require_training()
    from sftrl_ext.backends.openai_server import serve
    from sftrl_ext.experiments.eval_request import check_device, local_model, torch_device
    from sftrl_ext.experiments.stages import open_engine

    name = args.name or args.model
    check_device(args.device, args.engine)
    device = torch_device(args.device) if args.engine == "hf" else "cpu"
    with local_model(args.model, args.dtype) as folder:
        engine = open_engine(args.engine, folder, dtype=args.dtype, rows=256, device=device)
        console.print(f"{name} at http://{args.host}:{args.port}/v1; Ctrl-C ends it.", highlight=False)
        with suppress(KeyboardInterrupt):  # the ordinary end
            serve(engine, name, args.host, args.port)
