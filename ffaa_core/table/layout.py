"""Where things lie in a verdict table: the keys of its objects, relative to its root."""

from ffaa_core.errors import CorruptTableError

MARKER = "ffaa-table.json"
RUNS = "runs/"


def run(run: int) -> str:
    """The folder of a run."""
    return f"{RUNS}{run}/"


def plan(run: int) -> str:
    """The seal of a run."""
    return f"{RUNS}{run}/plan.json"


def plan_part(run: int, planner: str, number: int) -> str:
    """One file of planned images, below the uuid of who planned them."""
    return f"{RUNS}{run}/plan/{planner}/{number:06d}.parquet"


def data_file(run: int, shard: int, uuid: str) -> str:
    """The rows of a shard, as one attempt to commit it wrote them."""
    return f"{RUNS}{run}/verdicts/{shard:06d}-{uuid}.parquet"


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


def manifest(run: int) -> str:
    """All commits of a closed run in one object."""
    return f"{RUNS}{run}/manifest.parquet"


def summary(run: int) -> str:
    """What a closed run came to; a run is closed once this exists."""
    return f"{RUNS}{run}/summary.json"
