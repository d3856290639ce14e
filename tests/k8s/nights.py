"""How a night starts, how large it may get, and how it ends."""

import re
from collections.abc import Iterator
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import yaml

from ffaa_core.settings import from_mapping
from ray_jobs.score.config import ScoreConfig
from tests.k8s.manifests import Manifest, Rendered

QUEUE = "kueue.x-k8s.io/queue-name"
FACTORS = {"m": 1e-3, "": 1, "Mi": 2**20, "Gi": 2**30}


def schedule_problems(rendered: Rendered) -> Iterator[str]:
    """Nights that overlap, pile up, or start at no time."""
    spec = rendered.cronjob["spec"]
    if spec.get("concurrencyPolicy") != "Forbid":
        yield "concurrencyPolicy is not Forbid"
    if not re.fullmatch(r"[-*/,\d]+( [-*/,\d]+){4}", spec["schedule"]):
        yield f"{spec['schedule']!r} is no schedule"
    try:
        ZoneInfo(spec.get("timeZone", ""))
    except (ZoneInfoNotFoundError, ValueError):
        yield f"{spec.get('timeZone')!r} is no time zone"
    if not rendered.template["spec"].get("suspend"):
        yield "the template is not suspended: it would scan at once"
    for limit in ("successfulJobsHistoryLimit", "failedJobsHistoryLimit"):
        if not spec.get(limit):
            yield f"{limit} is not given: an ended night is gone at once, or never"


def exit_code_problems(rendered: Rendered) -> Iterator[str]:
    """Exit codes after which the Job does other than the exit code says."""
    job = rendered.cronjob["spec"]["jobTemplate"]["spec"]
    if job["template"]["spec"]["restartPolicy"] != "Never":
        yield "restartPolicy is not Never: kubelet would start the command again whatever its exit code"
    if not job.get("backoffLimit"):
        yield "backoffLimit is 0: nothing is tried again"
    for code in (1, 2, 3, 75, 127, 137):
        again = job_tries_again(job, code)
        if again != (code == 75):
            yield f"after exit code {code} the Job {'tries again' if again else 'has failed'}"
    if not job_tries_again(job, 143, evicted=True):
        yield "an eviction counts as a failure"


def job_tries_again(job: Manifest, code: int, *, evicted: bool = False) -> bool:
    """What Kubernetes does by a Job's podFailurePolicy: the first rule that fits holds."""
    for rule in job.get("podFailurePolicy", {}).get("rules", []):
        conditions = [condition["type"] for condition in rule.get("onPodConditions", [])]
        exits = rule.get("onExitCodes")
        fits = evicted and "DisruptionTarget" in conditions
        if exits:
            fits = (code in exits["values"]) == (exits["operator"] == "In")
        if fits:
            return bool(rule["action"] != "FailJob")
    return True


def grace_problems(rendered: Rendered) -> Iterator[str]:
    """Grace periods that cut short what lies within them."""
    text = (rendered.named("ConfigMap", "ffaa-score") or {"data": {}})["data"]["score.yaml"]
    grace = from_mapping(ScoreConfig, yaml.safe_load(text)).run.grace_seconds
    for pod in rendered.ray_pods():
        container = pod.spec["containers"][0]
        hook = container["lifecycle"]["preStop"]["exec"]["command"]
        head_waits = rendered.environment(container).get("RAY_JOB_STOP_WAIT_TIME_S", 0)
        waits = float(head_waits if pod.group == "head" else hook[1])
        if not grace < waits < pod.spec.get("terminationGracePeriodSeconds", 30):
            yield f"{pod.name}: not run.grace_seconds < what its hook waits < terminationGracePeriodSeconds"
    head = rendered.ray_pods()[0].spec["containers"][0]
    if rendered.template["spec"].get("jobId") not in head["lifecycle"]["preStop"]["exec"]["command"]:
        yield "head: preStop stops another job than jobId"
    if not rendered.template["spec"]["entrypoint"].startswith("exec "):
        yield "entrypoint: no exec, so that its shell ends before ffaa does and Ray waits for a zombie"


def size_problems(rendered: Rendered) -> Iterator[str]:
    """Work on the head, workers that do not come from zero, containers without bounds."""
    for cluster in rendered.clusters.values():
        start = cluster["headGroupSpec"]["rayStartParams"]
        if (start.get("num-cpus"), start.get("num-gpus")) != ("0", "0"):
            yield "the head takes work"
    for name, group in rendered.groups.items():
        if (group["minReplicas"], group["replicas"]) != (0, 0):
            yield f"{name}: does not start from zero"
    for pod in rendered.pods():
        for container in pod.containers:
            for bound in ("requests", "limits"):
                missing = {"cpu", "memory"} - container.get("resources", {}).get(bound, {}).keys()
                if missing:
                    yield f"{pod.name}/{container['name']}: no {bound} of {', '.join(sorted(missing))}"
    for name in ("crop", "engine"):
        if not rendered.groups.get(name):
            yield f"there is no worker group {name}"
    if (
        "nvidia.com/gpu"
        in rendered.groups["crop"]["template"]["spec"]["containers"][0]["resources"]["limits"]
    ):
        yield "crop has GPUs"


def queue_problems(rendered: Rendered) -> Iterator[str]:
    """A Kueue that would never admit tonight's RayJob; none where there is no queue."""
    label = rendered.tonight["metadata"]["labels"].get(QUEUE)
    queue = rendered.named("LocalQueue", label or "")
    if label is None:
        if rendered.of_kind("LocalQueue"):
            yield "there is a queue, and RayJobs do not ask for it"
        return
    if queue is None:
        yield f"there is no LocalQueue {label}"
        return
    if rendered.cluster.get("enableInTreeAutoscaling"):
        yield "Kueue does not admit a RayJob with an autoscaler"
    cluster_queue = rendered.named("ClusterQueue", queue["spec"]["clusterQueue"])
    if cluster_queue is None:
        yield f"there is no ClusterQueue {queue['spec']['clusterQueue']}"
        return
    quotas: dict[str, float] = {}
    for group in cluster_queue["spec"]["resourceGroups"]:
        for flavor in group["flavors"]:
            if rendered.named("ResourceFlavor", flavor["name"]) is None:
                yield f"there is no ResourceFlavor {flavor['name']}"
            for resource in flavor["resources"]:
                quotas[resource["name"]] = quotas.get(resource["name"], 0) + amount(resource["nominalQuota"])
    for name, needed in _requests(rendered.tonight).items():
        if needed > quotas.get(name, 0):
            yield f"a night needs {needed:g} of {name}, its queue has {quotas.get(name, 0):g}"


def _requests(rayjob: Manifest) -> dict[str, float]:
    cluster = rayjob["spec"]["rayClusterSpec"]
    pods = [(1, cluster["headGroupSpec"])]
    pods += [(group["replicas"], group) for group in cluster["workerGroupSpecs"]]
    total: dict[str, float] = {}
    for count, group in pods:
        for container in group["template"]["spec"]["containers"]:
            for name, value in container["resources"]["requests"].items():
                total[name] = total.get(name, 0) + count * amount(value)
    return total


def amount(quantity: str | int) -> float:
    """A quantity of Kubernetes as a number: cores, bytes, pieces."""
    number, unit = re.fullmatch(r"([\d.]+)(\w*)", str(quantity)).groups()  # type: ignore[union-attr]
    return float(number) * FACTORS[unit]
