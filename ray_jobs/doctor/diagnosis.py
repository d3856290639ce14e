"""All that the doctor looks at, in the order in which a run would need it."""

from collections.abc import Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice

from ffaa_core.bundle import Bundle
from ffaa_core.diversion import libraries_diverted
from ffaa_core.errors import FFAAError
from ffaa_core.settings import fingerprint
from ffaa_core.table import PlannedImage
from ray_jobs.doctor.estimate import judge_shard, speed
from ray_jobs.doctor.finding import Finding, Level, error, guarded, ok, warning
from ray_jobs.doctor.inputs import check_input
from ray_jobs.doctor.memory import check_memory
from ray_jobs.doctor.models import check_bundle, check_fit, check_table
from ray_jobs.doctor.nodes import ask_nodes, judge_nodes, judge_ray_settings, resources_line
from ray_jobs.doctor.output import Probes, check_output, probes
from ray_jobs.doctor.trial import try_shard
from ray_jobs.score.cluster import Shares, cluster
from ray_jobs.score.config import ScoreConfig
from ray_jobs.score.inputs import require_apart
from ray_jobs.score.inventory import newest_report
from ray_jobs.score.ray_settings import ray_settings


@dataclass(kw_only=True)
class Diagnosis:
    """What is to be looked at, and what is known so far.

    `quick` leaves out the shard that is scored, and with it the engine. Prices are dollars an hour for all
    machines together.
    """

    config: ScoreConfig
    input_uri: str
    output_uri: str
    quick: bool = False
    price_per_hour: float | None = None
    verbose: bool = False
    _errors: int = field(default=0, init=False)
    _images: list[PlannedImage] = field(default_factory=list, init=False)
    _bundle: Bundle | None = field(default=None, init=False)

    def findings(self) -> Generator[Finding, None, None]:
        """Every finding, as soon as it is there. Nothing is left in OUTPUT once the last was taken."""
        for finding in self._all():
            self._errors += finding.level is Level.ERROR
            yield finding

    def _all(self) -> Iterator[Finding]:
        yield from guarded("input", self._look_at_input())
        yield from guarded("bundle", self._look_at_bundle())
        try:
            require_apart(self.input_uri, self.output_uri)
            with probes(self.output_uri) as place:
                yield from guarded("output", check_output(place))
                if self._bundle:
                    found = check_table(place.store, self.config, self.input_uri, self._bundle)
                    yield from guarded("table", found)
                yield from guarded("ray", self._look_at_cluster(place))
        except FFAAError as failure:
            yield error("output", str(failure))

    def _look_at_input(self) -> Iterator[Finding]:
        if (report := newest_report(self.input_uri)) != self.input_uri:
            yield ok("input", f"{self.input_uri} is an S3 Inventory; its newest report is {report}")
            self.input_uri = report
        self._images = yield from check_input(self.input_uri, self.output_uri, self.config)

    def _look_at_bundle(self) -> Iterator[Finding]:
        self._bundle = yield from check_bundle(self.config)
        yield from guarded("adapter", check_fit(self._bundle))

    def _look_at_cluster(self, place: Probes) -> Iterator[Finding]:
        import ray

        with ExitStack() as stack:
            stack.enter_context(libraries_diverted(verbose=self.verbose))
            shares = stack.enter_context(cluster(self.config, verbose=self.verbose))
            resources = ray.cluster_resources()  # type: ignore[no-untyped-call]
            answers = ask_nodes(self._must_see(place))
            yield ok("ray", resources_line(resources, len(answers)), cpus=resources.get("CPU", 0))
            yield from judge_nodes(answers, gpus_wanted=shares.answer_gpus > 0)
            if len(answers) > 1:
                yield from judge_ray_settings(ray_settings())
            if self._bundle:
                nodes = [facts for facts, _ in answers]
                yield from guarded("memory", check_memory(self._bundle, self.config, shares, nodes))
            if not self.quick:
                yield from guarded("shard", self._try_shard(place, shares, resources.get("CPU", 0)))

    def _try_shard(self, place: Probes, shares: Shares, cpus: float) -> Iterator[Finding]:
        if self._errors or not self._bundle or not place.deletable:
            yield warning(
                "shard", "no shard was tried, because of what is said above", "put that right and ask again"
            )
            return
        marked = fingerprint(self.config.scoring, self._bundle.digests)
        timed = try_shard(self.config, place.table_uri, marked, self._bundle.location, self._images, shares)
        reckoned = speed(timed, shares, cpus)
        yield from judge_shard(timed, reckoned, self.config, self.price_per_hour)

    def _must_see(self, place: Probes) -> list[str]:
        """What every node of the cluster must be able to read: an image, OUTPUT and the bundle."""
        must_see = [image.image_uri for image in self._images[:1]]
        if self._bundle:
            must_see.append(f"{self._bundle.location}/bundle.json")
        if not self._errors:
            must_see += [probe.uri for probe in islice(place.store.list(place.prefix), 1)]
        return must_see
