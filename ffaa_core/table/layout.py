"""Where things lie in a verdict table: the keys of its objects, relative to its root."""

import re

from ffaa_core.errors import CorruptTableError

MARKER = "ffaa-table.json"
RUNS = "runs/"
PROBES = "ffaa-doctor-"
"""Begins the keys of what `ffaa doctor` writes beside a table and deletes again; they are no part of it."""
DATA_FILE = re.compile(r"runs/(\d+)/verdicts/(\d{6,})-[0-9a-f]{32}\.parquet")
KNOWN_FILE = re.compile(r"runs/\d+/known/[0-9a-f]{64}\.parquet")


def run(run: int) -> str:
    """The folder of a run."""
    return f"{RUNS}{run}/"


def plan(run: int) -> str:
    """The seal of a run."""
    return f"{RUNS}{run}/plan.json"


def plan_part(run: int, planner: str, number: int) -> str:
    """One file of planned images, below the uuid of who planned them."""
    return f"{RUNS}{run}/plan/{planner}/{number:06d}.parquet"


def data_files(run: int) -> str:
    """The folder of a run's data files."""
    return f"{RUNS}{run}/verdicts/"


def data_file(run: int, shard: int, uuid: str) -> str:
    """The rows of a shard, as one attempt to commit it wrote them."""
    return f"{data_files(run)}{shard:06d}-{uuid}.parquet"


def whose_data(key: str) -> tuple[int, int] | None:
    """The run and the shard whose data file has this key; None if no data file has such a key."""
    found = DATA_FILE.fullmatch(key)
    return (int(found[1]), int(found[2])) if found else None


def commits(run: int) -> str:
    """The folder of a run's commit markers."""
    return f"{RUNS}{run}/commits/"


def commit(run: int, shard: int) -> str:
    """The commit marker of a shard: whichever data file it names holds the shard's rows."""
    return f"{commits(run)}{shard:06d}.json"


def shard_of(commit_key: str) -> int:
    """The shard whose commit marker has this key.

    Raises:
        CorruptTableError: no commit marker has such a key.
    """
    name = commit_key.rpartition("/")[2]
    number = name.removesuffix(".json")
    if not (number.isdecimal() and name == f"{int(number):06d}.json"):
        raise CorruptTableError(f"{commit_key} is no commit marker: whoever put it there should remove it")
    return int(number)


def known_files(run: int) -> str:
    """The folder of a run's known rows."""
    return f"{RUNS}{run}/known/"


def known(run: int, sha256: str) -> str:
    """What planning needs of all rows of a closed run, if its summary names this sha256."""
    return f"{known_files(run)}{sha256}.parquet"


def is_known(key: str) -> bool:
    """Whether known rows have such a key."""
    return KNOWN_FILE.fullmatch(key) is not None


def manifest(run: int) -> str:
    """All commits of a closed run in one object."""
    return f"{RUNS}{run}/manifest.parquet"


def summary(run: int) -> str:
    """What a closed run came to; a run is closed once this exists."""
    return f"{RUNS}{run}/summary.json"
