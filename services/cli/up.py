"""`echomesh up`: the whole mesh on this machine, until Ctrl-C."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from echomesh import Client
from services.cli.doctor import OLLAMA, find_ollama
from services.cli.files import read_credentials
from services.cli.guarded_folder import check_ports, held
from services.cli.local_model import OFFER, local_model, require_model_file
from services.cli.offer import agreed, on_terminal
from services.cli.plan import GATEWAY, PUBLIC, SERVICES, Layout, Plan
from services.cli.progress import StartProgress
from services.cli.sample import play
from services.cli.stack import Stack

# Services whose `echomesh up` was killed are gone after this.
_LEFTOVER_S = 20.0


@dataclass(frozen=True)
class UpOptions:
    """The options of `echomesh up`; `leave` stops it once the sample has been played."""

    data: Path
    port_base: int
    sample: bool
    leave: bool
    openai_url: str
    openai_model: str
    model: Path | None = None
    local_model: bool = False


async def run_up(options: UpOptions) -> None:
    """Start, say where everything is, stay, and stop in order; raises CommandError."""
    console = Console(highlight=False, soft_wrap=True)
    layout = Layout(options.data.resolve())
    model = await _model_file(console, options)
    plan = Plan(
        layout,
        options.port_base,
        options.openai_url,
        options.openai_model,
        model,
        mutual_tls=layout.certs.exists(),
    )
    stopping = asyncio.Event()
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(signum, stopping.set)
    with held(layout):
        patience_s = _LEFTOVER_S if layout.mesh_file.exists() else 0.0
        if not await _unless(stopping, check_ports(plan.addresses(), patience_s)):
            return
        console.print(f"Starting the mesh in {layout.data} ...")
        if plan.mutual_tls:
            _renew_certificates(console, plan)
        progress = StartProgress(console)
        stack = Stack(plan, progress.say, progress.waiting)
        with progress:
            if not await _unless(stopping, stack.start()):
                return
        try:
            console.print(f"Up in {progress.elapsed_s:.1f} s")
            await _unless(stopping, _tell(console, plan, options))
            if not options.leave:
                await stopping.wait()
        finally:
            console.print("Stopping ...")
            await stack.stop()


def _renew_certificates(console: Console, plan: Plan) -> None:
    # Imported only where certificates are: most meshes of one machine have none.
    from services.cli.certs_folder import Certs

    if Certs(plan.layout.certs).renew(datetime.now(UTC)):
        console.print("The services' certificates were made anew")


async def _model_file(console: Console, options: UpOptions) -> Path | None:
    if options.model:
        return require_model_file(options.model)
    if options.local_model or (_may_offer(console, options) and await agreed(console, OFFER)):
        return await local_model(console.print)
    return None


def _may_offer(console: Console, options: UpOptions) -> bool:
    """Whether somebody sits there who looks around for the first time and brought no model."""
    wanted = options.sample and not (options.leave or options.openai_url)
    return wanted and not Layout(options.data).credentials.exists() and on_terminal(console)


async def _unless(stopping: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Do the work, but drop it when a stop is asked for; whether it was done."""
    task = asyncio.ensure_future(work)
    stop = asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
            return False
        task.result()
        return True
    finally:
        stop.cancel()


async def _tell(console: Console, plan: Plan, options: UpOptions) -> None:
    show_addresses(console, plan)
    if options.sample:
        key = read_credentials(plan.layout.data).api_key
        async with Client(plan.address("routing", "public"), api_key=key) as client:
            writes = bool(options.openai_url or plan.model_file)
            await play(client, console, writes=writes)
    await show_next(console, plan, options)


def show_addresses(console: Console, plan: Plan) -> None:
    """Where each service listens, and where the data lies."""
    for name in SERVICES:
        public = f"public {plan.address(name, 'public')}  " if name in PUBLIC else ""
        public = f"{plan.http_url}  " if name == GATEWAY else public
        metrics = f"http://{plan.address(name, 'metrics')}/metrics"
        console.print(f"  {name:11} {public}mesh {plan.address(name, 'mesh')}  {metrics}")
    if plan.model_file:
        console.print(f"  model       {plan.model_file.name}, by llama.cpp")
    console.print(f"  data        {plan.layout.data}")


async def show_next(console: Console, plan: Plan, options: UpOptions) -> None:
    """What to try now."""
    data = f" --data {plan.layout.data}"
    command = Path(sys.argv[0]).name if sys.argv else "echomesh"
    echomesh = ".venv/bin/echomesh" if command != "echomesh" else str(_shown(sys.argv[0]))
    console.print("\nTry next:")
    console.print(f"  {echomesh} chat{data}")
    console.print(f"  {echomesh} import YOUR_HISTORY.jsonl{data}")
    console.print(f"  {echomesh} doctor{data}")
    console.print(f"In a browser: {plan.http_url}/")
    console.print(f"OpenAI clients: base URL {plan.http_url}/v1, model echomesh")
    console.print(f"  both with the API key in {plan.layout.credentials}")
    if not (options.openai_url or plan.model_file):
        found = await find_ollama()
        url, model = (f"{OLLAMA}/v1", found) if found else ("http://HOST:PORT/v1", "MODEL")
        what = "the local Ollama that was found" if found else "any OpenAI-compatible address"
        console.print(
            f"Answers are quotations until you add a language model; for {what}, stop and"
        )
        console.print(f"  {echomesh} up{data} --openai-url {url} --openai-model {model}")
        console.print("or serve a GGUF file here, or a small one that is fetched (132 MB):")
        console.print(f"  {echomesh} up{data} --model FILE.gguf")
        console.print(f"  {echomesh} up{data} --local-model")
    if not options.leave:
        console.print("Ctrl-C stops everything.")


def _shown(program: str) -> Path:
    """The command as the user can type it here."""
    path = Path(program)
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
