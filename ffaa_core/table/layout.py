"""Where things lie in a verdict table: the keys of its objects, relative to its root."""

MARKER = "ffaa-table.json"
RUNS = "runs/"


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
    """The shard whose commit marker has this key."""
    return int(commit_key.rpartition("/")[2].removesuffix(".json"))


def manifest(run: int) -> str:
    """All commits of a closed run in one object."""
    return f"{RUNS}{run}/manifest.parquet"


def summary(run: int) -> str:
    """What a closed run came to; a run is closed once this exists."""
    return f"{RUNS}{run}/summary.json"
