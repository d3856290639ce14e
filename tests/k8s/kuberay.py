"""What KubeRay's operator makes of a RayJob: a cluster of Ray, a job in it, and a status that tells of it.

There are all pods that the autoscaler may ask for, from the beginning on.
"""

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from tests.fixtures.machines import START_S, Network
from tests.fixtures.nodes import AGENT_PORTS, OBJECT_STORE, PATIENT
from tests.fixtures.processes import wait_until
from tests.k8s.manifests import STORAGE, Manifest, Pod, Rendered
from tests.k8s.nights import amount
from tests.k8s.pods import RunningPod, end

GCS_PORT, DASHBOARD_PORT = 6379, 8265
HEAD = "head"
DEPLOYMENT_STATUS = {"SUCCEEDED": "Complete", "STOPPED": "Complete", "FAILED": "Failed"}


@dataclass(frozen=True)
class Site:
    """Where RayJobs run: the overlay as rendered, the network, where pods keep what they write, and what the
    Secret of storage's keys has.
    """

    rendered: Rendered
    network: Network
    folder: Path
    secret: dict[str, str]

    @property
    def applied(self) -> Rendered:
        """The overlay, with the Secret."""
        secret = {"kind": "Secret", "metadata": {"name": STORAGE}, "stringData": self.secret}
        return Rendered([*self.rendered.manifests, secret])


class RayCluster:
    """The pods of one RayJob, by group."""

    def __init__(self, site: Site, rayjob: Manifest) -> None:
        self._site, self._rayjob = site, rayjob
        self._token = uuid.uuid4().hex
        self._name = rayjob["metadata"]["name"]
        self.pods: dict[str, RunningPod] = {}

    @property
    def head(self) -> RunningPod:
        return self.pods[HEAD]

    @property
    def driver_log(self) -> str:
        """All that the job's command has said."""
        logs = self.head.folder.glob(f"tmp/ray/session_2*/logs/job-driver-{self._job}.log")
        return "".join(log.read_text(errors="replace") for log in logs)

    def start(self) -> None:
        """Start the head, then the worker groups."""
        cluster = self._rayjob["spec"]["rayClusterSpec"]
        self.add(HEAD, cluster["headGroupSpec"])
        for group in cluster["workerGroupSpecs"]:
            for _ in range(group["maxReplicas"]):
                self.add(group["groupName"], group)

    def add(self, name: str, group: Manifest | None = None) -> None:
        """Start a pod of a group, in the place of the one that was there, and wait until Ray runs in it."""
        if group is None:
            groups = self._rayjob["spec"]["rayClusterSpec"]["workerGroupSpecs"]
            group = next(group for group in groups if group["groupName"] == name)
        address = self._site.network.next_address
        head = address if name == HEAD else self.head.machine.address
        given = {
            **PATIENT,
            **self._authentication,
            "RAY_ADDRESS": f"{'127.0.0.1' if name == HEAD else head}:{GCS_PORT}",
        }
        pod = RunningPod(
            self._site.network,
            self._site.applied,
            Pod(name, group["template"], name),
            self._site.folder / f"{self._name}-{name}-{address}",
            line=["bash", "-c", "--", self._ray_start(name, group, address, head)],
            given=given,
        )
        self.pods[name] = pod
        wait_until(
            lambda: "Ray runtime started" in pod.said or pod.exit_code is not None, START_S, lambda: pod.said
        )
        assert pod.exit_code is None, pod.said

    def submit(self) -> None:
        """Submit the job. `ray job submit` takes words and quotes them, so a shell gets the entrypoint."""
        done = subprocess.run(
            [
                *(str(Path(sys.executable).with_name("ray")), "job", "submit", "--no-wait"),
                *("--address", self._dashboard, "--submission-id", self._job),
                *("--", "exec", "sh", "-c", self._rayjob["spec"]["entrypoint"]),
            ],
            env=os.environ | self._authentication,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def status(self) -> dict[str, Any]:
        """The RayJob's, as its job says it. A head that is gone is not waited for, as KubeRay would."""
        request = Request(
            f"{self._dashboard}/api/jobs/{self._job}", headers={"Authorization": f"Bearer {self._token}"}
        )
        try:
            with urlopen(request, timeout=60) as answer:
                job = json.load(answer)
        except OSError:
            if self.head.exit_code is None:
                raise
            return {"jobDeploymentStatus": "Failed", "reason": "JobStatusCheckTimeoutExceeded"}
        status = {
            "jobStatus": job["status"],
            "jobDeploymentStatus": DEPLOYMENT_STATUS.get(job["status"], "Running"),
            "message": job["message"] or "",
        }
        return status | ({"reason": "AppFailed"} if job["status"] == "FAILED" else {})

    def holding(self, actor: str) -> str | None:
        """The group whose pod has this actor's process."""
        return next(
            (name for name, pod in self.pods.items() if name != HEAD and pod.machine.processes(actor)), None
        )

    @contextmanager
    def suspended(self, actor: str) -> Iterator[None]:
        """As long as this lasts the actor's process and what it started compute nothing; then they go on."""
        group = self.holding(actor)
        assert group
        (process,) = self.pods[group].machine.processes(actor)
        family = [process, *process.children(recursive=True)]
        for each in family:
            each.suspend()
        try:
            yield
        finally:
            for each in family:
                each.resume()

    def close(self) -> None:
        """Delete the cluster: all its pods at once."""
        end([pod for pod in self.pods.values() if pod.exit_code is None])

    @property
    def _job(self) -> str:
        return str(self._rayjob["spec"]["jobId"])

    @property
    def _dashboard(self) -> str:
        return f"http://{self.head.machine.address}:{DASHBOARD_PORT}"

    @property
    def _authentication(self) -> dict[str, str]:
        return {
            "RAY_AUTH_MODE": self._rayjob["spec"]["rayClusterSpec"]["authOptions"]["mode"],
            "RAY_AUTH_TOKEN": self._token,
        }

    def _ray_start(self, name: str, group: Manifest, address: str, head: str) -> str:
        """The command line of a pod, whose `rayStartParams` the shell parses."""
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        options = {
            "num-cpus": f"{amount(limits['cpu']):g}",
            "memory": f"{amount(limits['memory']):.0f}",
            **({} if name == HEAD else {"address": f"{head}:{GCS_PORT}"}),
            **group["rayStartParams"],
            **{option.removeprefix("--"): str(port) for option, port in AGENT_PORTS.items()},
            "metrics-export-port": "8080",
            "node-ip-address": address,  # its machine has no way out by which Ray would find it
            "object-store-memory": str(OBJECT_STORE),
        }
        flags = ["--block", *(["--head", "--no-monitor"] if name == HEAD else [])]
        return " ".join(
            [
                "ulimit -n 65536; ray start",
                *flags,
                *(f"--{option}={value}" for option, value in options.items()),
            ]
        )
