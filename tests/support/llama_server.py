"""llama.cpp's OpenAI-compatible server (package xllamacpp) in its own process, because Python can't stop it."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator

MODEL = "smollm2-135m"


@contextlib.contextmanager
def llama_server(context: int = 4096, parallel: int = 2, key: str | None = None, model: str = MODEL) -> Iterator[str]:
    """Serves an asset's weights (the 135M ones) on loopback; yields the base URL. `context` tokens per request."""
    settings = {"context": context, "parallel": parallel, "key": key, "model": model}
    # the server ends when standard input closes, also when the tests are killed
    process = subprocess.Popen(
        [sys.executable, __file__, json.dumps(settings)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield f"{next(line for line in process.stdout if line.startswith('http')).strip()}/v1"
    finally:
        process.stdin.close()
        process.wait(timeout=10)
        process.stdout.close()


def _serve(context: int, parallel: int, key: str | None, model: str) -> None:
    import xllamacpp

    from pld.config.assets import asset_folder_or_file

    params = xllamacpp.CommonParams()
    params.model.path = str(asset_folder_or_file(f"asset:{model}"))
    params.model_alias = {model}
    params.n_ctx = context * parallel
    params.n_parallel = parallel
    params.n_gpu_layers = 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.warmup = False
    params.verbosity = 0
    params.hostnames = ["127.0.0.1"]
    params.port = 0  # any that is free
    if key is not None:
        params.api_keys = [key]
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    _serve(**json.loads(sys.argv[1]))
