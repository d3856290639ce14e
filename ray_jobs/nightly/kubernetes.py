"""The RayJobs of this pod's namespace, read and created over Kubernetes' API with the pod's own account."""

import json
import os
import ssl
import time
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from ffaa_core.errors import ConfigurationError, JobError
from ray_jobs.nightly.night import Manifest

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TIMEOUT_S = 30.0
PATIENCE_S = 600.0
"""For so long a request is made again that the server does not answer, or answers with 429 or 5xx."""
PAUSE_S = 5.0


class Kubernetes:
    """The RayJobs of one namespace. `account` is a folder with a `token`, which is renewed now and then."""

    def __init__(
        self,
        server: str,
        namespace: str,
        account: Path,
        context: ssl.SSLContext | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._rayjobs = f"{server}/apis/ray.io/v1/namespaces/{namespace}/rayjobs"
        self._account = account
        self._context = context
        self._patience_s = patience_s

    @classmethod
    def in_cluster(cls, account: Path = ACCOUNT) -> "Kubernetes":
        """For a process in a pod.

        Raises:
            ConfigurationError: this is none, or one without an account's token.
        """
        try:
            host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
            namespace = (account / "namespace").read_text(encoding="utf-8").strip()
            context = ssl.create_default_context(cafile=account / "ca.crt")
        except (KeyError, OSError) as error:
            raise ConfigurationError(
                f"this is no pod of Kubernetes with a service account's token ({error}): `ffaa nightly` is "
                "for the CronJob of an overlay. Elsewhere use `ffaa score`"
            ) from error
        server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
        return cls(server, namespace, account, context)

    def get(self, name: str) -> Manifest | None:
        """The RayJob of this name; None if there is none.

        Raises:
            ConfigurationError: the account may not read it.
            JobError: Kubernetes does not answer.
        """
        try:
            found: Manifest = self._ask("GET", f"{self._rayjobs}/{name}")
            return found
        except HTTPError as error:
            if error.code == 404:
                return None
            raise _refused(f"read RayJob {name}", error) from error

    def create(self, rayjob: Manifest) -> None:
        """Create a RayJob; one of this name that is there already stays as it is.

        Raises:
            ConfigurationError: the account may not, or Kubernetes takes it for wrong.
            JobError: Kubernetes does not answer.
        """
        try:
            self._ask("POST", self._rayjobs, rayjob)
        except HTTPError as error:
            if error.code != 409:  # made by a request whose answer got lost
                raise _refused(f"create RayJob {rayjob['metadata']['name']}", error) from error

    def _ask(self, method: str, url: str, body: Manifest | None = None) -> Any:
        """Raises HTTPError for what another request would not change."""
        deadline = time.monotonic() + self._patience_s
        while True:
            token = (self._account / "token").read_text(encoding="utf-8").strip()
            request = Request(
                url,
                method=method,
                data=None if body is None else json.dumps(body).encode(),
                headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
            )
            try:
                with urlopen(request, timeout=TIMEOUT_S, context=self._context) as response:
                    return json.load(response)
            except HTTPError as error:
                if error.code < 500 and error.code != 429:
                    raise
                failure: Exception = error
            except (OSError, HTTPException, json.JSONDecodeError) as error:
                failure = error
            if time.monotonic() > deadline:
                raise JobError(
                    f"Kubernetes does not answer: {failure}. The same command goes on"
                ) from failure
            time.sleep(PAUSE_S)


def _refused(what: str, error: HTTPError) -> ConfigurationError:
    try:
        reason = json.load(error)["message"]
    except (OSError, ValueError, KeyError, TypeError):
        reason = error.reason
    return ConfigurationError(f"cannot {what}: Kubernetes says {error.code}: {reason}")
