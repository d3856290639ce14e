"""The RayService of an overlay without Kubernetes: what KubeRay starts, and how, on machines of namespaces.

Each pod is a machine; `ray start` has the options and variables of the manifest and those that KubeRay adds,
the configuration is put to the dashboard as KubeRay does, and Redis is that of `k8s/redis`. The models are
scripted.
"""

import os
import shlex
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import httpx
import yaml

from ffaa_core.bundle import Bundle
from serve.keys import digest
from tests.fixtures.machines import START_S, Machine, Network
from tests.fixtures.nodes import AGENT_PORTS, FIRST_PROCESS, OBJECT_STORE, PATIENT, ROOT
from tests.fixtures.processes import wait_until
from tests.k8s.manifests import Manifest, Pod, Rendered

KEY, PASSWORD = "a key", "a password"
PREFIX = "10.78.0"
IDLE = ("sleep", "infinity")
REFUSING_ONCE = """#!/bin/sh
if [ "$1" = drain-node ] && ! [ -e {refused} ]; then
    touch {refused}
    exit 1
fi
PATH={path} exec ray "$@"
"""
BY_KUBERAY_TO_ALL = {
    "RAY_timeout_ms_task_wait_for_death_info": "0",
    "RAY_gcs_server_request_timeout_seconds": "5",
    "RAY_SERVE_KV_TIMEOUT_S": "5",
}
BY_KUBERAY_TO_WORKERS = {"RAY_gcs_rpc_server_reconnect_timeout_s": "600"}


class RayService:
    """A head, pods of either group as many as asked for, and Redis."""

    def __init__(self, rendered: Rendered, bundle: Bundle, folder: Path) -> None:
        self._rendered, self._folder = rendered, folder
        self._network = Network(PREFIX)
        self._started: list[subprocess.Popen[bytes]] = []
        self._environment = (
            dict(os.environ)
            | PATIENT
            | BY_KUBERAY_TO_ALL
            | {
                "RAY_AUTH_MODE": "token",
                "RAY_AUTH_TOKEN": uuid.uuid4().hex,
                "PYTHONPATH": str(ROOT),
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "FFAA_BUNDLE": str(bundle.path),
                "FFAA_API_KEYS": digest(KEY),
            }
        )
        self._head_pod, *groups = rendered.service_pods()
        self._group_pods = {pod.group: pod for pod in groups}
        self.pods: dict[str, list[Machine]] = {"gateway": [], "engine": []}
        self.refused = folder / "refusing" / "refused"
        """There as soon as a hook was refused."""

    def start(self, gateways: int, engines: int) -> None:
        """Start all of it, and wait until it takes requests."""
        redis = self._folder / "redis"
        redis.mkdir()
        self._network.add(
            self._redis_line(redis), self._environment | {"REDIS_PASSWORD": PASSWORD}, redis / "said"
        )
        self._network.join_this_machine()
        self.head = self._machine()
        self.start_head()
        for group, count in (("gateway", gateways), ("engine", engines)):
            for _ in range(count):
                self._start_worker(group)
        self.apply(yaml.safe_load(self._rendered.service["spec"]["serveConfigV2"]))
        wait_until(self.is_running, START_S, self.status)
        wait_until(lambda: self.is_ready(self.pods["gateway"][0]), START_S, self.status)

    def start_head(self) -> None:
        """As KubeRay starts one, the first and any later one."""
        environment = self._environment | {
            "RAY_REDIS_ADDRESS": f"{PREFIX}.1:6379",
            "REDIS_PASSWORD": PASSWORD,
            "RAY_external_storage_namespace": "the cluster's uid",
        }
        options = {"head": None, "redis-password": PASSWORD, "dashboard-port": "8265"}
        self._ray_start(self.head, self._head_pod, environment, options)

    def kill_head(self) -> None:
        """All of its processes at once; its machine stays, for the next one at the same address."""
        idle = self.head.processes(" ".join(IDLE))
        for process in self.head.processes():
            if process not in idle:
                process.kill()

    def apply(self, configuration: Manifest) -> None:
        """Put the configuration, with scripted models, to the head as KubeRay does."""
        configuration["applications"][0]["import_path"] = "tests.serve.scripted:build"
        self._api("PUT", json=configuration).raise_for_status()

    def status(self) -> Any:
        """What the head says of the application."""
        try:
            return self._api("GET").json()["applications"].get("ffaa", {})
        except (httpx.HTTPError, ValueError) as error:
            return {"status": str(error)}

    def is_running(self) -> bool:
        return bool(self.status().get("status") == "RUNNING")

    def is_ready(self, pod: Machine) -> bool:
        """Whether requests that come to this pod are taken."""
        try:
            return httpx.get(f"http://{pod.address}:8000/readyz", timeout=10).status_code == 200
        except httpx.TransportError:
            return False

    def score(self, pod: Machine, image: bytes) -> httpx.Response:
        """Ask the service through this pod."""
        return httpx.post(
            f"http://{pod.address}:8000/v1/score",
            headers={"Authorization": f"Bearer {KEY}"},
            files={"file": image},
            timeout=120,
        )

    def replicas(self, deployment: str) -> dict[int, str]:
        """The processes of a deployment's replicas, and their pods' addresses."""
        pods = [self.head, *self.pods["gateway"], *self.pods["engine"]]
        return {
            process.pid: pod.address
            for pod in pods
            for process in pod.processes(f"ray::ServeReplica:ffaa:{deployment}")
        }

    def hook(self, group: str, pod: Machine) -> "subprocess.Popen[bytes]":
        """Run what Kubernetes runs in a pod of the group that is to end. Its first draining is refused."""
        container = self._group_pods[group].spec["containers"][0]
        path = self._environment["PATH"]
        ray = self.refused.with_name("ray")
        ray.parent.mkdir()
        ray.write_text(REFUSING_ONCE.format(refused=self.refused, path=path))
        ray.chmod(0o755)
        return subprocess.Popen(
            pod.command(*container["lifecycle"]["preStop"]["exec"]["command"]),
            env=self._environment
            | {"RAY_ADDRESS": f"{self.head.address}:6379", "PATH": f"{ray.parent}:{path}"},
            stdout=subprocess.DEVNULL,
        )

    def close(self) -> None:
        self._network.close()
        for process in self._started:
            process.wait(30)

    def _redis_line(self, folder: Path) -> list[str]:
        """The manifest's own command, of Redis in the place of Valkey."""
        manifest = yaml.safe_load_all((ROOT / "k8s" / "redis" / "redis.yaml").read_text())
        [container] = next(manifest)["spec"]["template"]["spec"]["containers"]
        script = container["command"][-1].replace("valkey-server", "redis-server")
        assert script.count("/data") == 1
        return [
            "bash",
            "-c",
            '"$@"; exit',
            "bash",
            *container["command"][:-1],
            script.replace("/data", str(folder)),
        ]

    def _machine(self) -> Machine:
        place = self._folder / self._network.next_address
        place.mkdir()
        Path("/tmp/ray").mkdir(exist_ok=True)
        line = ["bash", "-c", FIRST_PROCESS, str(place), *IDLE]
        return self._network.add(line, self._environment, place / "said")

    def _start_worker(self, group: str) -> None:
        pod, machine = self._group_pods[group], self._machine()
        limits = pod.spec["containers"][0]["resources"]["limits"]
        options = {"num-cpus": str(limits["cpu"]), "num-gpus": str(limits.get("nvidia.com/gpu", 0))}
        options["address"] = f"{self.head.address}:6379"
        self._ray_start(machine, pod, self._environment | BY_KUBERAY_TO_WORKERS, options)
        self.pods[group].append(machine)

    def _ray_start(
        self, machine: Machine, pod: Pod, environment: dict[str, str], options: dict[str, str | None]
    ) -> None:
        """`ray start` as KubeRay puts it together; the manifest's rayStartParams come last and so prevail."""
        given = {**options, "node-ip-address": machine.address, **self._start_params(pod)}
        for entry in pod.spec["containers"][0]["env"]:
            if "value" in entry and entry["name"].startswith("RAY_"):
                environment[entry["name"]] = entry["value"]
        words = [word for name, value in given.items() for word in (f"--{name}", value) if word is not None]
        ports = [f"{option}={port}" for option, port in AGENT_PORTS.items()]
        said = self._folder / machine.address / f"said-{len(self._started)}"
        with said.open("wb") as file:
            self._started.append(
                subprocess.Popen(
                    machine.command(
                        *("ray", "start", "--block", "--disable-usage-stats", *words, *ports),
                        *("--object-store-memory", str(OBJECT_STORE)),
                    ),
                    env=environment,
                    stdout=file,
                    stderr=file,
                )
            )
        wait_until(lambda: "Ray runtime started" in said.read_text(), START_S, said.read_text)

    def _start_params(self, pod: Pod) -> dict[str, str]:
        cluster = self._rendered.clusters["service"]
        group = (
            cluster["headGroupSpec"] if pod.group == "head" else self._rendered.service_groups[str(pod.group)]
        )
        return {name: shlex.split(value)[0] for name, value in group["rayStartParams"].items()}

    def _api(self, method: str, **options: Any) -> httpx.Response:
        token = {"Authorization": f"Bearer {self._environment['RAY_AUTH_TOKEN']}"}
        address = f"http://{self.head.address}:8265/api/serve/applications/"
        return httpx.request(method, address, headers=token, timeout=30, **options)
