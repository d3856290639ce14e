"""Memory and time of `ffaa score` on small and very large plans: neither may depend on the number of images.

Images are made up from fetch on (benchmarks/synthetic_ffaa.py); listing, plan, Ray Data, Parquet, commits and
close are real, on this machine's disk. After each run the second night is timed, on which nothing is to be
done, what `ffaa table` takes, and how soon a run goes on that was killed halfway.

  python -m benchmarks.big_plans --images 10000 1000000 --json big_plans.json --plot big_plans.png
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.footprint import Footprint, Sample
from ffaa_core.environment import environment
from ffaa_core.errors import JobError
from ffaa_core.table import VerdictTable
from ffaa_core.table.plan import SHARD_SIZE

ROOT = Path(__file__).parents[1]
PER_FOLDER = 1000
REAPED_S = 10
"""When what a killed command leaves of its Ray has ended."""
PIECES = 50
"""Pieces of a run whose pace is drawn."""
TABLE_COMMANDS = ("show", "verify", "gc")


@dataclass(frozen=True, kw_only=True)
class Took:
    """What one command took: seconds in all, and the most memory of its own process."""

    seconds: float
    peak_mib: float


@dataclass(frozen=True, kw_only=True)
class RunTook(Took):
    """What a run took, and its parts: up to the seal, to the first commit, to the last, to its summary.

    `driven` of its shards were committed by this command, the others before it.

    The times of an image are over the run's second part, from the first commit to the last: `ms_per_image`
    on the clock, `cpu_ms_per_image` of all cores together.
    """

    images: int
    shards: int
    driven: int
    plan_s: float
    start_s: float
    work_s: float
    close_s: float
    ms_per_image: float
    cpu_ms_per_image: float
    others_mib: dict[str, float]
    samples: list[Sample] = field(repr=False)
    commits_at: list[float] = field(repr=False)


def make_images(folder: Path, count: int) -> Path:
    """A folder of `count` empty files, a thousand to a folder."""
    for start in range(0, count, PER_FOLDER):
        below = folder / f"{start // PER_FOLDER:05}"
        below.mkdir(parents=True)
        for number in range(start, min(start + PER_FOLDER, count)):
            (below / f"{number:08}.jpg").touch()
    return folder


@contextmanager
def started(
    *arguments: str | Path, ends_with: int = 0
) -> Iterator[tuple[subprocess.Popen[bytes], Footprint]]:
    """A command, begun, and its footprint; what it prints is in the error if it ends otherwise."""
    with tempfile.TemporaryFile() as said:
        command = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.synthetic_ffaa", *map(str, arguments)],
            cwd=ROOT,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
        try:
            with Footprint(command) as footprint:
                yield command, footprint
            if command.wait() not in (ends_with, -signal.SIGKILL):
                said.seek(0)
                raise RuntimeError(said.read()[-4000:].decode(errors="replace"))
        finally:
            command.kill()
            command.wait()


def take(*arguments: str | Path) -> Took:
    """Run a command to its end."""
    begun = time.time()
    with started(*arguments) as (command, footprint):
        command.wait()
    return Took(seconds=time.time() - begun, peak_mib=footprint.peak_mib)


def score(images: Path, output: Path) -> RunTook:
    """Score a folder of images, or what is left of them to be scored in the run that is open."""
    begun = time.time()
    with started("score", images, output) as (command, footprint):
        command.wait()
    ended = time.time()
    run = output / "runs" / "1"
    committed_at = sorted(path.stat().st_mtime for path in (run / "commits").iterdir())
    commits_at = [at for at in committed_at if at > begun]
    sealed, closed = (run / "plan.json").stat().st_mtime, (run / "summary.json").stat().st_mtime
    n_images = json.loads((run / "summary.json").read_bytes())["counts"]["images"]
    first, last = commits_at[0], commits_at[-1]
    between = n_images / len(committed_at) * (len(commits_at) - 1)
    return RunTook(
        seconds=ended - begun,
        peak_mib=footprint.peak_mib,
        images=n_images,
        shards=len(committed_at),
        driven=len(commits_at),
        plan_s=max(sealed - begun, 0),
        start_s=first - max(sealed, begun),
        work_s=last - first,
        close_s=closed - last,
        ms_per_image=1000 * (last - first) / between,
        cpu_ms_per_image=1000 * (footprint.cpu_s_at(last) - footprint.cpu_s_at(first)) / between,
        others_mib=dict(footprint.others_mib),
        samples=footprint.samples,
        commits_at=commits_at,
    )


def begin(images: Path, output: Path) -> float:
    """Begin a run and kill it at its first commit; returns how long its plan took."""
    begun = time.time()
    with started("score", images, output) as (command, _):
        wait_for_commits(output / "runs" / "1" / "commits", 1, command)
        command.kill()
        command.wait()
    time.sleep(REAPED_S)
    return (output / "runs" / "1" / "plan.json").stat().st_mtime - begun


def fill(output: Path, left: int) -> None:
    """Commit open shards one after the other, without Ray, but for so many."""
    from benchmarks.synthetic_ffaa import made_up_rows

    run = VerdictTable.open(str(output)).open_run()
    if run is None:
        raise RuntimeError("there is no open run")
    shards = run.open_shards()
    for shard in shards[: len(shards) - left]:
        run.commit(shard, made_up_rows(run, shard), writer="benchmark", engine={"environment": environment()})


def resume(images: Path, output: Path) -> dict[str, float]:
    """Take back the second half of a run, as if it was killed there: what it takes to the next commit."""
    run = output / "runs" / "1"
    markers = sorted((run / "commits").iterdir())
    half = markers[: len(markers) // 2]
    for file in (run / "summary.json", run / "manifest.parquet", *markers[len(half) :]):
        file.unlink()
    begun = time.time()
    with started("score", images, output, ends_with=JobError.exit_code) as (command, footprint):
        wait_for_commits(run / "commits", len(half) + 1, command)
        first_commit_s = time.time() - begun
        command.send_signal(signal.SIGTERM)
        command.wait()
    return {"committed": len(half), "first_commit_s": first_commit_s, "peak_mib": footprint.peak_mib}


def wait_for_commits(commits: Path, wanted: int, command: subprocess.Popen[bytes]) -> None:
    """Wait until so many shards are committed."""
    while n_commits(commits) < wanted:
        if command.poll() is not None:
            raise RuntimeError(f"the command ended with {command.returncode} before {wanted} commits")
        time.sleep(0.2)


def n_commits(commits: Path) -> int:
    """Commit markers in a folder, which need not exist yet."""
    return len(os.listdir(commits)) if commits.exists() else 0


def measure(count: int, work: Path, driven: int | None) -> dict[str, Any]:
    """All figures of one size."""
    images, output = make_images(work / f"images-{count}", count), work / f"table-{count}"
    figures: dict[str, Any] = {}
    if driven is not None and driven * SHARD_SIZE < count:
        figures["plan_s"] = begin(images, output)
        fill(output, driven)
    figures["run"] = asdict(score(images, output))
    figures["second_night"] = asdict(take("score", images, output))
    for verb in TABLE_COMMANDS:
        figures[verb] = asdict(take("table", verb, output))
    figures["resume"] = resume(images, output)
    return figures


def plot(results: dict[str, dict[str, Any]], file: Path) -> None:
    """The driver's memory and the time of an image, as each run went on."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, (memory, pace) = plt.subplots(1, 2, figsize=(11, 4))
    for name, figures in results.items():
        run = figures["run"]
        commits_at, label = run["commits_at"], f"{int(name):,} images"
        span = commits_at[-1] - commits_at[0]
        shares = [(sample["at"] - commits_at[0]) / span for sample in run["samples"]]
        memory.plot(shares, [sample["rss_mib"] for sample in run["samples"]], label=label)
        pace.plot(*_pace(commits_at, run["images"] / run["shards"]), label=label)
    memory.set(xlabel="time: 0 is the first commit, 1 the last", ylabel="memory of the driver, MiB", ylim=0)
    pace.set(xlabel="share of the run that is committed", ylabel="ms per image", ylim=0)
    for axes in (memory, pace):
        axes.legend(loc="lower right")
        axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(file, dpi=120)


def _pace(commits_at: Sequence[float], shard_size: float) -> tuple[list[float], list[float]]:
    """Milliseconds per image in each of `PIECES` equal pieces of a run."""
    last = len(commits_at) - 1
    edges = sorted({round(i * last / PIECES) for i in range(PIECES + 1)})
    pairs = list(pairwise(edges))
    paces = [1000 * (commits_at[b] - commits_at[a]) / (b - a) / shard_size for a, b in pairs]
    return [b / last for _, b in pairs], paces


def told(results: dict[str, dict[str, Any]]) -> Iterator[str]:
    """The figures as lines of text."""
    for name, figures in results.items():
        run = figures["run"]
        yield (
            f"{int(name):,} images in {run['shards']:,} shards: {run['seconds']:.0f} s "
            f"(plan {run['plan_s'] or figures['plan_s']:.0f}, start {run['start_s']:.0f}, "
            f"work on {run['driven']:,} shards {run['work_s']:.0f}, close {run['close_s']:.0f}), "
            f"{run['ms_per_image']:.2f} ms an image, CPU {run['cpu_ms_per_image']:.2f} ms, "
            f"driver's peak {run['peak_mib']:.0f} MiB"
        )
        for what in ("second_night", *TABLE_COMMANDS):
            yield f"  {what}: {figures[what]['seconds']:.1f} s, {figures[what]['peak_mib']:.0f} MiB"
        yield "  resumed: " + ", ".join(f"{key} {value:.0f}" for key, value in figures["resume"].items())
        for process, mib in sorted(run["others_mib"].items(), key=lambda item: -item[1])[:8]:
            yield f"  {mib:6.0f} MiB  {process}"


def without_series(results: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The figures that fit a page: what was looked at all along a run is only drawn."""
    return {
        name: figures | {"run": {k: v for k, v in figures["run"].items() if not isinstance(v, list)}}
        for name, figures in results.items()
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every size, and write what was found."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.big_plans",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--images", type=int, nargs="+", default=[10_000, 1_000_000], metavar="N")
    parser.add_argument(
        "--driven",
        type=int,
        metavar="N",
        help="leave only N shards to the driver, after the run was begun, killed, and brought so far without "
        "Ray: in a tenth of the time, all figures but the driver's memory over a whole run",
    )
    parser.add_argument("--work", type=Path, metavar="FOLDER", help="where (default: a temporary folder)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures here")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw memory and time of an image here")
    args = parser.parse_args(arguments)
    results = {}
    with tempfile.TemporaryDirectory(prefix="ffaa-big-plans-", dir=args.work) as folder:
        for count in args.images:
            results[str(count)] = measure(count, Path(folder), args.driven)
            print(*told({str(count): results[str(count)]}), sep="\n", flush=True)
            if args.json:
                args.json.write_text(json.dumps(without_series(results), indent=1) + "\n")
    if args.plot:
        plot(results, args.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
