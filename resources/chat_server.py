"""The child process that serves the embedded chat model on loopback; started by `resources.chat`.

    python -m resources.chat_server        one line of JSON on standard input says what and where

It lives as long as its standard input is open: the parent closes it when it is done, and the system closes it
when the parent dies, however it dies.
"""

import json
import os
import sys
from typing import Any

from resources.servers import LOOPBACK, end_with_parent


def parameters(told: dict[str, Any]) -> Any:
    """What the server runs with: so many slots, each with its own context, and the chat interface alone."""
    from xllamacpp.xllamacpp import CommonParams  # a compiled module

    serving = CommonParams()
    serving.model.path = told["weights"]
    serving.hostnames = [LOOPBACK]
    serving.port = told["port"]
    serving.api_keys = [told["key"]]
    serving.n_parallel = told["slots"]
    serving.n_ctx = told["slots"] * told["context"]
    serving.kv_unified = False
    serving.cpuparams.n_threads = told["threads"]
    serving.cpuparams_batch.n_threads = told["threads"]
    serving.n_gpu_layers = 0
    serving.ctx_shift = False
    serving.endpoint_slots = False
    serving.ui = False
    serving.use_jinja = True
    serving.warmup = False  # the first answer warms it as well
    serving.verbosity = 1
    return serving


def main() -> None:
    end_with_parent()
    told = json.loads(sys.stdin.readline())
    from xllamacpp.xllamacpp import Server

    server = Server(parameters(told))
    print(f"serving on {server.listening_address}", flush=True)
    sys.stdin.read()  # until the parent is done or gone
    os._exit(0)  # answers under way are nobody's any more


if __name__ == "__main__":
    main()
