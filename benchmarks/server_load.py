"""Load the model server with Locust: throughput and latency of a plain and a hardened network.

    python benchmarks/server_load.py --users 4 --seconds 15

exports a small network, hardened, and the same network by Keras alone, serves both in one
process by KServe and asks with a fixed number of users who do not pause. The plain network is
served by the bare minimum: no checks, one endpoint.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

LOCUST = """
import json, os
from locust import FastHttpUser, constant, task

PATH, BODY = os.environ["ASK_PATH"], open(os.environ["ASK_BODY"], "rb").read()

class Client(FastHttpUser):
    wait_time = constant(0)

    @task
    def ask(self):
        self.client.post(PATH, data=BODY, headers={"content-type": "application/json"})
"""
JSON = {"content-type": "application/json"}
PATHS = {
    "plain, by Keras": "/v1/models/plain:predict",
    "hardened": "/v1/models/net:predict",
    "hardened, explain": "/v1/models/net:explain",
}


def serve(folder: Path, port: int) -> None:
    """Serve the hardened network, and the plain one beside it."""
    import kserve
    import numpy as np
    import tensorflow as tf
    import uvicorn

    from keras_jsigr.serving.server import ModelServer

    server = ModelServer(folder / "net")
    function = tf.saved_model.load(str(folder / "plain")).signatures["serving_default"]

    class Plain(kserve.Model):
        async def predict(self, payload: Any, *args: Any, **kwargs: Any) -> Any:
            def answer() -> Any:
                x = tf.constant(np.asarray(payload["inputs"], "float32"))
                return {n: v.numpy() for n, v in function(x).items()}

            return {"outputs": await asyncio.to_thread(answer)}

    plain = Plain("plain")
    plain.ready = True
    server.repository.update(plain)
    uvicorn.run(server.app(), host="127.0.0.1", port=port, log_level="warning")


def export(folder: Path) -> None:
    """Write the network twice: by `keras.Model.export`, and hardened."""
    import keras
    from networks import reference_net

    import keras_jsigr as kj

    net = keras.Sequential([reference_net("silu", 0), keras.layers.Softmax()])
    net.export(folder / "plain", verbose=False)
    kj.harden(net, epsilon=0.1, verbose=0).export(folder / "net" / "1", verbose=0)


def load(port: int, path: str, body: Path, users: int, seconds: int) -> dict[str, float]:
    """Ask as so many users; return requests per second and percentiles in milliseconds."""
    file = body.with_name("locustfile.py")
    file.write_text(LOCUST)
    out = body.with_name("stats")
    command = [sys.executable, "-m", "locust", "--headless", "--only-summary", "-f", str(file)]
    command += ["--host", f"http://127.0.0.1:{port}", "--users", str(users), "--csv", str(out)]
    command += ["--spawn-rate", str(users), "--run-time", f"{seconds}s", "--loglevel", "ERROR"]
    environment = {"ASK_PATH": path, "ASK_BODY": str(body), "PATH": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"Locust failed: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    with open(f"{out}_stats.csv", encoding="utf-8") as stats:
        row = next(each for each in csv.DictReader(stats) if each["Name"] == "Aggregated")
    if int(row["Failure Count"]):
        raise RuntimeError(f"{row['Failure Count']} requests failed.")
    return {
        "requests/s": float(row["Requests/s"]),
        **{name: float(row[name]) for name in ("50%", "95%", "99%")},
    }


def main() -> None:
    """Print a table of throughput and latency."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--users", type=int, default=4)
    parser.add_argument("--seconds", type=int, default=15)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--serve", nargs=2, metavar=("FOLDER", "PORT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(Path(options.serve[0]), int(options.serve[1]))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        export(folder)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, __file__, "--serve", str(folder), str(port)]
        server = subprocess.Popen(command)
        try:
            while True:
                with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                if server.poll() is not None:
                    raise RuntimeError("The server did not start.")
                time.sleep(0.2)
            print("| batch | network | requests/s | p50, ms | p95, ms | p99, ms |")
            print("| --- | --- | --- | --- | --- | --- |")
            body = folder / "body.json"
            for batch in options.batches:
                x = [[[[round(0.01 * (i % 97), 2)] for i in range(28)]] * 28] * batch
                body.write_text(json.dumps({"inputs": x}))
                for name, path in PATHS.items():
                    url = f"http://127.0.0.1:{port}{path}"
                    first = urllib.request.Request(url, body.read_bytes(), JSON)
                    urllib.request.urlopen(first).read()  # it is slower
                    found = load(port, path, body, options.users, options.seconds)
                    told = " | ".join(f"{value:.0f}" for value in found.values())
                    print(f"| {batch} | {name} | {told} |", flush=True)
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
