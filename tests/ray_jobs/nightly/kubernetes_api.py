"""A stand-in for the API of Kubernetes and KubeRay: RayJobs in a dictionary, which end as a script says."""

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar

TOKEN = "a service account's token"
PATH = "/apis/ray.io/v1/namespaces/ffaa/rayjobs"

RUNNING = {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}
SUCCEEDED = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}


def failed(code: int) -> dict[str, str]:
    """The status of a RayJob whose command exited so, as KubeRay copies it from Ray."""
    log = "ffaa: Job entrypoint command failed with exit code 0, says a line of the log"
    return {
        "jobDeploymentStatus": "Failed",
        "jobStatus": "FAILED",
        "reason": "AppFailed",
        "message": f"Job entrypoint command failed with exit code {code}, last available logs:\n{log}",
    }


class RayJobApi:
    """`rayjobs` by name, the template and those that are `created`. Their status is for others to write."""

    def __init__(self, template: dict[str, Any]) -> None:
        self.rayjobs = {template["metadata"]["name"]: template}
        self.created: list[dict[str, Any]] = []
        self.refusals: list[int] = []
        self.url = ""

    def get(self, name: str) -> tuple[int, dict[str, Any]]:
        if name not in self.rayjobs:
            return 404, {"message": f"{name} not found"}
        return 200, self.rayjobs[name]

    def create(self, rayjob: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        name = rayjob["metadata"]["name"]
        if name in self.rayjobs:
            return 409, {"message": f"{name} already exists"}
        self.rayjobs[name] = rayjob
        self.created.append(rayjob)
        return 201, rayjob

    def answer(self, method: str, path: str, token: str | None, body: bytes) -> tuple[int, dict[str, Any]]:
        if token != f"Bearer {TOKEN}":
            return 401, {"message": "Unauthorized"}
        if self.refusals:
            code = self.refusals.pop(0)
            return code, {"message": f"refused with {code}"}
        if method == "POST" and path == PATH:
            return self.create(json.loads(body))
        if method == "GET" and path.startswith(f"{PATH}/"):
            return self.get(path.removeprefix(f"{PATH}/"))
        return 404, {"message": "the server could not find the requested resource"}


class KubernetesApi(RayJobApi):
    """RayJobs that are created get a next status with each GET, and end as `ends` say, one after the other.
    `when_followed` is called at each such GET.
    """

    def __init__(self, template: dict[str, Any], *ends: dict[str, str]) -> None:
        super().__init__(template)
        self.when_followed: Callable[[], object] = lambda: None
        self._ends = list(ends)
        self._scripts: dict[str, list[dict[str, str]]] = {}

    def get(self, name: str) -> tuple[int, dict[str, Any]]:
        if name in self.rayjobs and name in self._scripts:
            self.when_followed()
            self.rayjobs[name]["status"], *rest = self._scripts[name]
            self._scripts[name] = rest or [self.rayjobs[name]["status"]]
        return super().get(name)

    def create(self, rayjob: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        name = rayjob["metadata"]["name"]
        if name not in self.rayjobs:
            if not self._ends:
                return 422, {"message": f"{name} is one RayJob more than the test expects"}
            self._scripts[name] = [{}, RUNNING, self._ends.pop(0)]
        return super().create(rayjob)


Api = TypeVar("Api", bound=RayJobApi)


@contextmanager
def serving(api: Api, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> Iterator[Api]:
    """The API on a port of this machine for the duration of the block."""
    server = ThreadingHTTPServer((host, 0), _handler(api.answer))
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    api.url = f"{'https' if tls else 'http'}://{host}:{server.server_port}"
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(answer: Callable[..., tuple[int, dict[str, Any]]]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length)
            code, content = answer(self.command, self.path, self.headers.get("Authorization"), body)
            data = json.dumps(content).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(data)))
            with suppress(BrokenPipeError):  # of a client that was stopped meanwhile
                self.end_headers()
                self.wfile.write(data)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    return Handler
