"""The commit protocol under a crash or stall at every storage call, and whatever hypothesis thinks of."""

import inspect
import itertools
import random
import sys
import textwrap
from collections import Counter, defaultdict
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from pyarrow.parquet import ParquetWriter

from ffaa_core.errors import (
    AlreadyExistsError,
    CorruptTableError,
    RunAbandonedError,
    RunConflictError,
    TableError,
)
from ffaa_core.storage import Store
from ffaa_core.table import PlannedImage, Run, VerdictTable, data_files, garbage, known, layout, plan
from ffaa_core.table.garbage import collect_garbage
from ffaa_core.table.verify import verify
from ffaa_core.verdict import MAX_ATTEMPTS, TRANSIENT
from tests.ffaa_core.table.shards import rows_of
from tests.ffaa_core.table.simulation import Actor, Fate, MemoryStore

URIS = [f"s3://in/{i}.jpg" for i in range(5)]
FINGERPRINTS = ["fast", "slow"]
STEPS = st.sampled_from([0, 1, 2, 3, 4, 8, 64])
FATES = st.sampled_from([Fate.GO, Fate.GO, Fate.DIE_BEFORE, Fate.DIE_AFTER, Fate.LOSE_ANSWER])


class World:
    """One table, what its actors do, and what must be true of it at every moment and in the end."""

    def empty(self, fingerprints=FINGERPRINTS):
        self.store = MemoryStore()
        self.fingerprints = fingerprints
        self.versions = dict.fromkeys(URIS, 1)
        self.actors: list[Actor] = []
        self.runs: list[Run] = []
        self.wins: Counter[tuple[int, int]] = Counter()
        self.seen: dict[tuple[int, int], str | None] = {}

    def begin_with_a_loser(self):
        """An open run with a shard that two committed, and one that nobody did."""
        planned = self.plan(self.store, FINGERPRINTS[0])
        for _ in range(2):
            self.work(planned, 0, None)

    def score(self, store):
        self.drive(store, FINGERPRINTS[0], None)

    def drive(self, store, fingerprint, randomness):
        """What `ffaa score` does: plan or continue, commit every open shard, close."""
        planned = self.plan(store, fingerprint)
        if planned is None:
            return
        shards = planned.open_shards()
        if randomness:
            randomness.shuffle(shards)
        for shard in shards:
            self.work(planned, shard, randomness)
        planned.close(0)

    def plan(self, store, fingerprint) -> Run | None:
        table = VerdictTable.on(store, create=True)
        listing = [PlannedImage(image_uri=u, planned_version=str(v)) for u, v in self.versions.items()]
        planned = table.plan(listing, fingerprint=fingerprint, settings={}, shard_size=2)
        if planned is not None:
            self.runs.append(planned)
        return planned

    def work(self, planned, shard, randomness):
        def outcome(row):
            fails = randomness is not None and randomness.random() < 0.4
            return {"status": "fetch_failed", "verdict": None} if fails else {}

        commit, won = planned.commit(shard, rows_of(planned, shard, outcome), writer="w", engine={})
        self.wins[planned.ordinal, shard] += won
        self.see(planned.ordinal, shard, commit.file)

    def abandon(self, store):
        """What `ffaa table abandon` does."""
        if run := VerdictTable.on(store, create=True).open_run():
            run.abandon()

    def collect_garbage(self, store):
        """What `ffaa table gc` does."""
        list(collect_garbage(VerdictTable.on(store, create=True)))

    def read(self, table, latest):
        rows = defaultdict(list)
        for batch in table.rows(latest=latest, columns=["run", "shard", "image_uri", "fingerprint"]):
            for row in batch.to_pylist():
                rows[row["run"], row["shard"]].append(row)
        if latest:
            images = Counter((r["image_uri"], r["fingerprint"]) for shard in rows.values() for r in shard)
            assert not images or max(images.values()) == 1
        else:
            for (ordinal, shard), found in rows.items():
                planned = Run.load(self.store, ordinal).plan_rows(shard)["image_uri"].to_pylist()
                assert [row["image_uri"] for row in found] == planned, "a reader saw part of a shard"
        for each in table.runs():
            for commit in each.commits():
                self.see(each.ordinal, commit.shard, commit.file)

    def see(self, ordinal, shard, file):
        """That a shard is committed as `file`, or abandoned if that is None."""
        assert self.seen.setdefault((ordinal, shard), file) == file, "a committed shard changed"

    def open_fingerprints(self):
        return [r.fingerprint for r in VerdictTable.on(self.store, create=True).runs() if r.summary() is None]

    def check_that_nothing_is_lost_or_doubled(self):
        table = VerdictTable.on(self.store)
        problems = [finding.text for finding in verify(table) if finding.problem]
        assert not problems
        assert not [r for r in table.runs() if r.summary() is None], "a run is left open"
        for each in table.runs():
            for commit in each.markers():
                self.see(each.ordinal, commit.shard, commit.file)
                assert commit.file or each.summary().abandoned, "an abandoned run passes for finished"
        files = {key for key in self.store.objects if "/verdicts/" in key}
        assert files == {file for file in self.seen.values() if file}, "garbage is left"
        known_rows = {key for key in self.store.objects if "/known/" in key}
        named = {layout.known(each.ordinal, each.summary().known_sha256) for each in table.runs()}
        assert known_rows == named, "known rows are lost, or garbage is left"
        assert not self.wins or max(self.wins.values()) <= 1, "two writers were told that they had won"

        history = defaultdict(list)
        for batch in table.rows(latest=False):
            for row in batch.to_pylist():
                history[row["image_uri"], row["fingerprint"], row["image_version"]].append(row)
        for uri, version in self.versions.items():
            for fingerprint in self.fingerprints:
                assert history[uri, fingerprint, str(version)], "an image is lost"
        for rows in history.values():
            settled = [row for row in rows if row["status"] not in TRANSIENT]
            assert len(settled) <= 1, "an image is doubled"
            assert [row["attempts"] for row in rows] == list(range(1, len(rows) + 1))
            assert settled == rows[-1:] or len(rows) in range(1, MAX_ATTEMPTS + 1)
        latest = [(r["image_uri"], r["fingerprint"]) for batch in table.rows() for r in batch.to_pylist()]
        assert sorted(latest) == sorted((u, f) for u in URIS for f in self.fingerprints)

    def finish(self):
        """Let everybody come to an end, zombies too, and then score what is left without interference."""
        for actor in self.actors:
            actor.finish()
        for fingerprint in dict.fromkeys([*self.open_fingerprints(), *self.fingerprints]):
            for _ in range(2):  # what is open, and what that left undone
                Actor(self.store, lambda s, f=fingerprint: self.drive(s, f, None)).finish()
        self.collect_garbage(self.store)
        self.check_that_nothing_is_lost_or_doubled()


DEEDS = {"score": World.score, "abandon": World.abandon, "collect garbage": World.collect_garbage}


class Protocol(World, RuleBasedStateMachine):
    """Drivers, workers, closers and readers on one table, each stepped by its storage calls."""

    @initialize(begun=st.booleans())
    def begin(self, begun):
        self.empty()
        if begun:
            self.plan(self.store, FINGERPRINTS[0])

    @precondition(lambda self: len(self.actors) < 6)
    @rule(fingerprint=st.sampled_from([FINGERPRINTS[0], *FINGERPRINTS]), seed=st.integers(0, 99))
    def start_driver(self, fingerprint, seed):
        tolerated = (RunConflictError, RunAbandonedError)
        self.start(lambda store: self.drive(store, fingerprint, random.Random(seed)), tolerated)

    @precondition(lambda self: any(not actor.finished for actor in self.actors))
    @rule(fingerprint=st.sampled_from(FINGERPRINTS))
    def drive_at_once(self, fingerprint):
        """A whole run between two calls of everybody else."""
        tolerated = (RunConflictError,)
        Actor(self.store, lambda store: self.drive(store, fingerprint, None), tolerated=tolerated).finish()

    @precondition(lambda self: self.runs and len(self.actors) < 6)
    @rule(which=st.integers(0, 99), shard=st.integers(0, 4), seed=st.integers(0, 99), calls=STEPS, fate=FATES)
    def start_worker(self, which, shard, seed, calls, fate):
        """Also on a run long closed: a zombie."""
        known = self.runs[which % len(self.runs)]
        shard %= known.n_shards
        zombie = random.Random(seed)
        self.start(lambda store: self.work(Run(store, known.plan), shard, zombie), (RunAbandonedError,))
        self.move(self.actors[-1], calls, fate)

    @precondition(lambda self: self.runs and len(self.actors) < 6)
    @rule(which=st.integers(0, 99), calls=STEPS, fate=FATES)
    def start_closer(self, which, calls, fate):
        known = self.runs[which % len(self.runs)]
        self.start(lambda store: Run(store, known.plan).close(0), (TableError,))
        self.move(self.actors[-1], calls, fate)

    @precondition(lambda self: self.runs and len(self.actors) < 6)
    @rule(calls=STEPS, fate=FATES)
    def start_abandoning(self, calls, fate):
        self.start(self.abandon)
        self.move(self.actors[-1], calls, fate)

    @precondition(lambda self: self.runs and len(self.actors) < 6)
    @rule(calls=STEPS, fate=FATES)
    def start_collecting_garbage(self, calls, fate):
        self.start(self.collect_garbage)
        self.move(self.actors[-1], calls, fate)

    @precondition(lambda self: any(not actor.finished for actor in self.actors))
    @rule(deed=st.sampled_from([World.abandon, World.collect_garbage]))
    def tidy_at_once(self, deed):
        Actor(self.store, lambda store: deed(self, store)).finish()

    @precondition(lambda self: self.runs and len(self.actors) < 6)
    @rule(latest=st.booleans())
    def start_reader(self, latest):
        self.start(lambda store: self.read(VerdictTable.on(store), latest))

    @rule(uri=st.sampled_from(URIS))
    def upload_another_image_under_the_same_name(self, uri):
        self.versions[uri] += 1

    @precondition(lambda self: self.actors)
    @rule(moves=st.lists(st.tuples(st.integers(0, 5), STEPS, FATES), min_size=1, max_size=10))
    def play(self, moves):
        """Let an actor make some calls, and one more that meets its fate; then another, and so on."""
        for which, steps, fate in moves:
            self.move(self.actors[which % len(self.actors)], steps, fate)

    def teardown(self):
        if not hasattr(self, "store"):
            return
        try:
            self.finish()
        finally:
            for actor in self.actors:
                actor.kill()

    def start(self, body, tolerated=()):
        self.actors = [actor for actor in self.actors if not actor.finished]
        self.actors.append(Actor(self.store, body, tolerated=tolerated))

    def move(self, actor, steps, fate):
        for _ in range(steps):
            actor.step()
        actor.step(fate)


SETTINGS = settings(
    max_examples=60,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)


HUNT = settings(SETTINGS, max_examples=500, phases=[Phase.generate])


@pytest.fixture(autouse=True)
def _small_plan_parts(monkeypatch):
    monkeypatch.setattr(plan, "SHARDS_PER_PART", 2)


@pytest.fixture(autouse=True)
def _one_call_at_a_time(monkeypatch):
    """Calls made ahead, by threads, would not wait for their actor's turn."""
    monkeypatch.setattr(data_files, "ahead", lambda call, items, most: map(call, items))


class EachItsOwn(ParquetWriter):
    """Writes no file twice, as if every closer were another version."""

    versions = itertools.count()

    def close(self):
        if self.is_open:
            self.add_key_value_metadata({"version": str(next(self.versions))})
        super().close()


@pytest.fixture(autouse=True)
def _closers_of_many_versions(monkeypatch):
    monkeypatch.setattr(known, "pq", SimpleNamespace(ParquetWriter=EachItsOwn))


def die_at_every_call(deed="score"):
    """Whoever does it dies after the k-th storage call, for every k, and others go on."""
    meddle_at_every_call(deed, lambda world, actor: actor.step(Fate.DIE_AFTER))


def be_overtaken_at_every_call(deed="score", other="score"):
    """Whoever does it stands still at the k-th storage call, for every k, while the other is done whole."""

    def overtake(world, _):
        Actor(world.store, lambda store: DEEDS[other](world, store)).finish()

    meddle_at_every_call(deed, overtake)


def meddle_at_every_call(deed, meddle):
    for k in itertools.count():
        world = World()
        world.empty(FINGERPRINTS[:1])
        if deed != "score":
            world.begin_with_a_loser()
        actor = Actor(
            world.store, lambda store, w=world: DEEDS[deed](w, store), tolerated=(RunAbandonedError,)
        )
        world.actors.append(actor)
        for _ in range(k):
            actor.step()
        if actor.finished:
            return
        try:
            meddle(world, actor)
            world.finish()
        finally:
            actor.kill()


@pytest.mark.parametrize("deed", DEEDS)
def test_a_crash_at_any_storage_call_loses_and_doubles_nothing(deed):
    die_at_every_call(deed)


@pytest.mark.parametrize("other", DEEDS)
@pytest.mark.parametrize("deed", DEEDS)
def test_being_overtaken_at_any_storage_call_loses_and_doubles_nothing(deed, other):
    be_overtaken_at_every_call(deed, other)


def play_at_random(effort=HUNT):
    run_state_machine_as_test(Protocol, settings=effort)


def test_no_interleaving_or_crash_loses_or_doubles_an_image():
    play_at_random(SETTINGS)


def test_a_writer_whose_answer_got_lost_knows_that_it_won():
    store = MemoryStore()
    planned = VerdictTable.on(store, create=True).plan(
        [PlannedImage(image_uri=URIS[0])], fingerprint="fast", settings={}
    )
    outcomes = []

    def commit(stepped):
        mine = Run(stepped, planned.plan)
        outcomes.append(mine.commit(0, rows_of(mine, 0), writer="w", engine={}))

    actor = Actor(store, commit)
    while not actor.finished:
        actor.step(Fate.LOSE_ANSWER)
    assert [outcome.won for outcome in outcomes] == [True]


LATER = """type('Later', (), {
    'read': self._store.read, 'write': lambda self, key, path: setattr(self, 'put', (key, path.read_bytes()))
})()"""

SEEDED_BUGS = {
    "the store overwrites": (MemoryStore.create, {"if key in self.objects:": "if False:"}, play_at_random),
    "the marker comes before the data": (
        Run.commit,
        {
            "self._store.write(file, path)": "data = path.read_bytes()",
            "return Outcome(mine, True)": "self._store.write(file, data); return Outcome(mine, True)",
        },
        die_at_every_call,
    ),
    "the loser believes it has won": (Run.commit, {"winner.file == file": "True"}, play_at_random),
    "a shard is committed to without looking who was first": (
        Run.commit,
        {"self._store.create(key, encode(mine))": "self._store.write(key, encode(mine))"},
        play_at_random,
    ),
    "a run is closed too early": (
        Run.close,
        {"if missing := len(self.open_shards()):": "if False:"},
        play_at_random,
    ),
    "a run is planned beside an open one": (
        VerdictTable.plan,
        {"summary is None": "False"},
        be_overtaken_at_every_call,
    ),
    "who loses an ordinal takes the next with a stale plan": (
        VerdictTable._seal_next,
        {
            "return Run.load(self.store, ordinal)": "plan = Plan(**{**vars(plan), 'run': ordinal + 1}); "
            "self.store.create(layout.plan(ordinal + 1), encode(plan))"
        },
        be_overtaken_at_every_call,
    ),
    "a tombstone replaces a commit": (
        Store.create_missing,
        {"self.create(key, data)": "self.write(key, data)"},
        lambda: be_overtaken_at_every_call("abandon", "score"),
    ),
    "an abandoned run passes for finished": (
        Run.close,
        {"ABANDONED if any(c.file is None for c in manifest.decode(data)) else exit_code": "exit_code"},
        lambda: die_at_every_call("abandon"),
    ),
    "known rows are named before they are there": (
        Run.close,
        {
            "write_known(self._store,": f"write_known(later := {LATER},",
            "self._store.create_missing([(summary_key, encode(mine))])": "self._store.create_missing("
            "[(summary_key, encode(mine))]); self._store.write(*later.put)",
        },
        die_at_every_call,
    ),
    "known rows are not of all shards": (
        Run.close,
        {"self.ordinal, manifest.decode(data))": "self.ordinal, list(manifest.decode(data))[1:])"},
        die_at_every_call,
    ),
    "known rows of an open run are taken for garbage": (
        garbage._lost_known,
        {"return []": "return list(store.list(layout.known_files(run.ordinal)))"},
        lambda: be_overtaken_at_every_call("score", "collect garbage"),
    ),
    "the known rows that count are taken for garbage": (
        garbage._lost_known,
        {" and info.key != named": ""},
        lambda: die_at_every_call("collect garbage"),
    ),
    "known rows of a closer that lost stay": (
        garbage._lost_known,
        {" and info.key != named": " and False"},
        die_at_every_call,
    ),
    "the rows of an open shard are taken for garbage": (
        garbage._lost_files,
        {"whose[1] in committed and committed[whose[1]] != key": "committed.get(whose[1]) != key"},
        lambda: be_overtaken_at_every_call("score", "collect garbage"),
    ),
    "the winner of a shard is taken for garbage": (
        garbage._lost_files,
        {" and committed[whose[1]] != key": ""},
        lambda: die_at_every_call("collect garbage"),
    ),
    "garbage is found before the commits are read": (
        garbage._lost_files,
        {
            "committed = {": "listed = list(store.list(layout.data_files(run.ordinal))); committed = {",
            "store.list(layout.data_files(run.ordinal))}": "listed}",
        },
        lambda: be_overtaken_at_every_call("collect garbage", "score"),
    ),
}
"""What is wrong: the function, its sound text and the broken one instead, and who must find it."""


@pytest.mark.parametrize("bug", SEEDED_BUGS)
def test_a_seeded_bug_is_found(bug, monkeypatch):
    method, changes, find = SEEDED_BUGS[bug]
    source = textwrap.dedent(inspect.getsource(method))
    for sound, broken in changes.items():
        assert sound in source
        source = source.replace(sound, broken)
    compiled = {}
    exec(compile(source, f"<{bug}>", "exec"), method.__globals__, compiled)
    owner_name = method.__qualname__.rpartition(".")[0]
    owner = method.__globals__[owner_name] if owner_name else sys.modules[method.__module__]
    monkeypatch.setattr(owner, method.__name__, compiled[method.__name__])
    with pytest.raises((AssertionError, CorruptTableError, AlreadyExistsError, ExceptionGroup)):
        find()
