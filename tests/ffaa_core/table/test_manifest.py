"""All commits of a run in one object, of which few are held in memory at once."""

import tracemalloc
from collections.abc import Iterator

from ffaa_core.table import manifest
from ffaa_core.table.records import Commit, Counts

ENGINE = {"seconds": 1.5, "environment": {f"package {i}": f"version {i}" for i in range(40)}}


def commits(n: int) -> Iterator[Commit]:
    for shard in range(n):
        yield Commit(
            run=1,
            shard=shard,
            file=f"file {shard}" if shard else None,
            sha256="0" * 64 if shard else None,
            size_bytes=shard,
            writer="w",
            counts=Counts(images=1, statuses={"scored": 1}, verdicts={}, contested=0, faces=shard),
            engine={name: f"{value}" for name, value in ENGINE.items()} | {"shard": shard},
        )


def test_a_manifest_gives_back_the_commits_it_was_made_of() -> None:
    for n in (0, 1, manifest.AT_ONCE, 2 * manifest.AT_ONCE + 1):
        assert list(manifest.decode(manifest.encode(commits(n)))) == list(commits(n))


def test_the_memory_a_manifest_is_made_and_read_in_does_not_grow_with_its_commits() -> None:
    def peak(n: int) -> int:
        tracemalloc.start()
        for _ in manifest.decode(manifest.encode(commits(n))):
            pass
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    assert peak(8 * manifest.AT_ONCE) < 3 * peak(manifest.AT_ONCE)
