"""Nights of an overlay on machines within this one.

The CronJob's pod runs `ffaa nightly`, which creates RayJobs; each becomes a Ray cluster, which runs the
entrypoint against an S3 server. Stand-ins are Kubernetes' API, its Job controller and KubeRay's operator.
"""

import ssl
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from ffaa_core.table import VerdictTable
from ray_jobs.nightly.kubernetes import ACCOUNT
from tests.fixtures.machines import Network
from tests.fixtures.processes import wait_until
from tests.fixtures.s3 import S3Server
from tests.k8s.kuberay import RayCluster, Site
from tests.k8s.manifests import Manifest, Rendered
from tests.k8s.nights import job_tries_again
from tests.k8s.pods import RunningPod, end
from tests.ray_jobs.nightly.kubernetes_api import TOKEN, RayJobApi, serving

CREATED_S = 120
"""How long `ffaa nightly` may take until it has created a RayJob, or ended."""
MOVES_S = 900
"""How long a cluster may take to the next commit or its end, where nodes are lost and models load."""

Incident = Callable[[RayCluster], None]


class Rehearsal:
    """An overlay at a site of its own.

    Args:
        values: what the site says in the overlay's values.
        settings: what it adds to `score.yaml`, by section.
        server: where the network's machines find S3.
    """

    def __init__(
        self,
        rendered: Rendered,
        network: Network,
        server: S3Server,
        folder: Path,
        *,
        values: dict[str, str],
        settings: dict[str, dict[str, int]],
    ) -> None:
        self._begun = time.monotonic()
        _config_map(rendered, "ffaa-nightly").update(values)
        score = _config_map(rendered, "ffaa-score")
        sections = yaml.safe_load(score["score.yaml"])
        for name, section in settings.items():
            sections.setdefault(name, {}).update(section)
        score["score.yaml"] = yaml.safe_dump(sections)
        self.output = values["FFAA_OUTPUT"]
        self.api = RayJobApi(rendered.template)
        self._rendered, self._network, self._folder = rendered, network, folder
        self._site = Site(rendered, network, folder, server.environment())

    def tell(self, line: str) -> None:
        """Say to a person what happens."""
        print(f"{time.monotonic() - self._begun:6.0f} s  {line}", flush=True)

    def n_committed(self) -> int:
        """Shards of the last run that are committed."""
        if not VerdictTable.exists(self.output):
            return 0
        runs = VerdictTable.open(self.output).runs()
        return len(list(runs[-1].commits())) if runs else 0

    def await_commits(self, count: int, cluster: RayCluster) -> None:
        """Wait until so many shards are committed."""
        wait_until(lambda: self.n_committed() >= count, MOVES_S, lambda: cluster.driver_log)

    def night(self, scheduled: int, *incidents: Incident) -> list[int]:
        """A night as the CronJob makes it at this time, in minutes since 1970, of one pod after the other.

        Args:
            incidents: what befalls the first RayJob, the second, ..., while its job runs.

        Returns:
            The exit codes of the pods.
        """
        job = self._rendered.cronjob["spec"]["jobTemplate"]["spec"]
        codes: list[int] = []
        while True:
            befalls = incidents[len(codes)] if len(codes) < len(incidents) else None
            codes.append(self._pod(f"ffaa-nightly-{scheduled}", len(codes) + 1, befalls))
            if codes[-1] == 0 or not job_tries_again(job, codes[-1]) or len(codes) > job["backoffLimit"]:
                return codes
            self.tell("that is to be tried again, says the Job's podFailurePolicy")

    def _pod(self, job: str, number: int, incident: Incident | None) -> int:
        place = self._folder / f"{job}-pod-{number}"
        n_created = len(self.api.created)
        with self._kubernetes(place.with_name(f"{place.name}-account")) as (host, port, account):
            given = {
                "JOB_NAME": job,
                "JOB_UID": str(uuid.uuid4()),
                "KUBERNETES_SERVICE_HOST": host,
                "KUBERNETES_SERVICE_PORT": str(port),
            }
            nightly = self._rendered.nightly
            mounts = {str(ACCOUNT): account}
            pod = RunningPod(self._network, self._rendered, nightly, place, given=given, mounts=mounts)
            try:
                self.tell(f"Job {job} starts its pod {number}, which runs `ffaa nightly`")
                wait_until(
                    lambda: len(self.api.created) > n_created or pod.exit_code is not None,
                    CREATED_S,
                    lambda: pod.said,
                )
                if len(self.api.created) > n_created:
                    self._run(self.api.created[-1], incident)
                wait_until(lambda: pod.exit_code is not None, CREATED_S, lambda: pod.said)
            finally:
                if pod.exit_code is None:
                    end([pod])
        self.tell(f"`ffaa nightly` has ended with {pod.exit_code}, and said:")
        for line in pod.said.splitlines():
            self.tell(f"    {line}")
        assert pod.exit_code is not None
        return pod.exit_code

    def _run(self, rayjob: Manifest, incident: Incident | None) -> None:
        name = rayjob["metadata"]["name"]
        rayjob["status"] = {"jobDeploymentStatus": "Initializing"}
        self.tell(f"RayJob {name}: its cluster starts")
        cluster = RayCluster(self._site, rayjob)
        try:
            cluster.start()
            cluster.submit()
            self.tell(f"RayJob {name}: submitted {rayjob['spec']['entrypoint']}")
            rayjob["status"] = cluster.status()
            if incident:
                incident(cluster)
            wait_until(lambda: _ended(rayjob["status"]) or self._look(rayjob, cluster), MOVES_S)
        finally:
            for line, _ in groupby(cluster.driver_log.splitlines()):
                self.tell(f"    {line}")
            begun = time.monotonic()
            cluster.close()
            self.tell(f"RayJob {name}: its cluster was deleted in {time.monotonic() - begun:.0f} s")

    def _look(self, rayjob: Manifest, cluster: RayCluster) -> bool:
        time.sleep(1)
        rayjob["status"] = cluster.status()
        return _ended(rayjob["status"])

    @contextmanager
    def _kubernetes(self, account: Path) -> Iterator[tuple[str, int, Path]]:
        """Kubernetes' API for a pod: host, port, and the account that it has there."""
        account.mkdir()
        certificate, key = account / "ca.crt", account.parent / f"{account.name}.key"
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
                *("-subj", "/CN=kubernetes", "-addext", f"subjectAltName=IP:{self._network.this_machine}"),
                *("-keyout", key, "-out", certificate),
            ],
            check=True,
            capture_output=True,
        )
        (account / "token").write_text(TOKEN)
        (account / "namespace").write_text("ffaa")
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate, key)
        with serving(self.api, self._network.this_machine, tls):
            place = urlsplit(self.api.url)
            assert place.hostname
            assert place.port
            yield place.hostname, place.port, account


def _config_map(rendered: Rendered, name: str) -> dict[str, str]:
    found = rendered.named("ConfigMap", name)
    assert found
    return found["data"]


def _ended(status: Manifest) -> bool:
    return status["jobDeploymentStatus"] in ("Complete", "Failed")
