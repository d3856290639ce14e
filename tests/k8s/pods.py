"""Pods as machines of this one: what a manifest says of commands, variables, volumes and hooks is done.

A pod's root is this machine's, read-only, with the volumes in their places. Its processes are root's, for
nobody else may be allowed to read this machine's Python. The image's tini is left out.
"""

import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.fixtures.machines import Machine, Network
from tests.fixtures.processes import die_with_parent, wait_until
from tests.k8s.manifests import ROOT, Manifest, Pod, Rendered, expanded

OF_THE_IMAGE = {
    "PATH": f"{Path(sys.executable).parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONUNBUFFERED": "1",
}
OWN_ROOT = """
set -e
mount -t tmpfs none /mnt
mkdir -p /mnt/root {points}
mount -t overlay none -o lowerdir=/mnt/points:/ /mnt/root
for part in /dev /proc /sys; do mount --rbind $part /mnt/root$part; done
mount -t tmpfs none /mnt/root/dev/shm
{volumes}
mkdir -p /mnt/root{repository}
mount --bind {repository} /mnt/root{repository}
mount -o remount,bind,ro /mnt/root{repository}
"""


class RunningPod:
    """A pod whose init containers and then its container run.

    Args:
        line: what the container runs, where the manifest leaves that to others.
        given: variables that the manifests leave to others, and values of those that it takes from a pod's
            fields.
        mounts: folders by where they are in the pod, beside the volumes of the manifest.
    """

    def __init__(
        self,
        network: Network,
        rendered: Rendered,
        pod: Pod,
        folder: Path,
        *,
        line: Sequence[str] = (),
        given: Mapping[str, str],
        mounts: Mapping[str, Path] | None = None,
    ) -> None:
        folder.mkdir(parents=True)
        self.pod, self.folder = pod, folder
        self._rendered, self._given = rendered, given
        self._container = pod.spec["containers"][0]
        self._hook: subprocess.Popen[bytes] | None = None
        self._told_to_end = False
        steps = [self._own_root(mounts or {})]
        for container in pod.spec.get("initContainers", []):
            steps.append(shlex.join(["chroot", "/mnt/root", *self._line(container)]))
        steps.append(shlex.join(["exec", "chroot", "/mnt/root", *self._line(self._container, line)]))
        self.machine: Machine = network.add(
            ["bash", "-c", "\n".join(steps)], OF_THE_IMAGE, self.folder / "said"
        )

    @property
    def said(self) -> str:
        return (self.folder / "said").read_text(errors="replace")

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self.machine.started.poll()

    def start_ending(self) -> None:
        """What Kubernetes does first to a pod that is deleted: start its hook. Done once."""
        if self._hook:
            return
        hook = self._container.get("lifecycle", {}).get("preStop")
        line = self._line(self._container, hook["exec"]["command"] if hook else ["true"])
        with (self.folder / "hook").open("wb") as said:
            self._hook = subprocess.Popen(
                self.machine.command(*line), stdout=said, stderr=said, preexec_fn=die_with_parent
            )

    def has_ended(self) -> bool:
        """Go on with ending it: once the hook is done, SIGTERM."""
        assert self._hook
        if self._hook.poll() is not None and not self._told_to_end:
            self._told_to_end = True
            if self.exit_code is None:
                self.machine.first.send_signal(signal.SIGTERM)
        return self.exit_code is not None

    def await_hook(self, limit_s: float) -> int:
        """Wait until the hook that was started is done; its exit code."""
        assert self._hook
        return self._hook.wait(limit_s)

    def _own_root(self, mounts: Mapping[str, Path]) -> str:
        volumes = {volume["name"]: volume for volume in self.pod.spec.get("volumes", [])}
        folders = dict(mounts)
        for mount in self._container.get("volumeMounts", []):
            folders[mount["mountPath"]] = self._filled(volumes[mount["name"]])
        return OWN_ROOT.format(
            points=shlex.join(f"/mnt/points{path}" for path in folders),
            volumes="\n".join(
                shlex.join(["mount", "--bind", str(folder), f"/mnt/root{path}"])
                for path, folder in folders.items()
            ),
            repository=shlex.quote(str(ROOT)),
        )

    def _filled(self, volume: Manifest) -> Path:
        folder = self.folder / volume["name"]
        folder.mkdir()
        if "configMap" in volume:
            values = self._rendered.named("ConfigMap", volume["configMap"]["name"])
            assert values
            for name, text in values["data"].items():
                (folder / name).write_text(text)
        else:
            assert "emptyDir" in volume
        return folder

    def _line(self, container: Manifest, line: Sequence[str] = ()) -> list[str]:
        variables = {**OF_THE_IMAGE, **self._rendered.environment(container), **self._given}
        words = line or [*container.get("command", []), *container.get("args", [])]
        return [
            *("env", "-i", "-C", "/tmp"),
            *(f"{name}={value}" for name, value in variables.items()),
            *(expanded(word, variables) for word in words),
        ]


def end(pods: Sequence[RunningPod]) -> None:
    """Delete pods at the same time, and wait until all have ended; fail where one takes its grace period."""
    for pod in pods:
        pod.start_ending()
    grace = max((pod.pod.spec.get("terminationGracePeriodSeconds", 30) for pod in pods), default=0)
    left = list(pods)

    def have_ended() -> bool:
        left[:] = [pod for pod in left if not pod.has_ended()]
        return not left

    wait_until(have_ended, grace, lambda: [pod.pod.name for pod in left])
