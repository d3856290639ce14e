"""What the service tells Prometheus, under names with `ray_` before them, at the metrics port of each node.

Every replica tells what it does itself: counters stay until its node goes, gauges go with its process. Gauges
and tokens are told when Ray Serve asks whether the replica is well. docs/metrics.md explains all of them.
"""

from http import HTTPStatus

from ray.util.metrics import Counter, Gauge, Histogram

from ffaa_core.engine.base import EngineFigures
from serve.logs import RequestRecord

BOUNDS_S = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120)
"""Of the histogram's buckets."""

WHOLE = "whole"
"""The stage that is all of a request."""


class PartMetrics:
    """That a process was started for a part of the service."""

    def __init__(self, part: str) -> None:
        self._starts = Counter("ffaa_service_starts_total", "Processes started, by part.", ("part",))
        self._starts.inc(1, {"part": part})


class GatewayMetrics(PartMetrics):
    """Requests, and the images in them."""

    def __init__(self) -> None:
        super().__init__("gateway")
        self._requests = Counter("ffaa_service_requests_total", "Requests that ended.", ("route", "status"))
        self._unavailable = Counter(
            "ffaa_service_unavailable_total", "Requests answered with 503, by why.", ("reason",)
        )
        self._images = Counter("ffaa_service_images_total", "Images scored or tried, by status.", ("status",))
        self._seconds = Histogram(
            "ffaa_service_seconds",
            "How long requests took that were answered with 200, by stage.",
            list(BOUNDS_S),
            ("route", "stage"),
        )
        self._admitted = Gauge("ffaa_service_admitted_requests", "Requests that a gateway works on.")
        self._ready = Gauge("ffaa_service_ready", "1 where a gateway takes images, else 0.")
        self.now(admitted=0, ready=False)

    def ended(self, request: RequestRecord) -> None:
        """A request has ended."""
        status = request.status or HTTPStatus.INTERNAL_SERVER_ERROR
        self._requests.inc(1, {"route": request.route, "status": str(int(status))})
        for image in request.statuses:
            self._images.inc(1, {"status": image})
        if status == HTTPStatus.SERVICE_UNAVAILABLE and request.problem:
            self._unavailable.inc(1, {"reason": request.problem})
        if status == HTTPStatus.OK:
            for stage, seconds in (request.stages | {WHOLE: request.seconds}).items():
                self._seconds.observe(seconds, {"route": request.route, "stage": stage})

    def now(self, *, admitted: int, ready: bool) -> None:
        """How many requests are under way, and whether more are taken."""
        self._admitted.set(admitted)
        self._ready.set(int(ready))


class EngineMetrics(PartMetrics):
    """Tokens, and what is under way in an engine."""

    def __init__(self) -> None:
        super().__init__("engine")
        self._tokens = Counter(
            "ffaa_service_tokens_total",
            "Tokens of requests that vLLM ended: of prompts, computed or cached, and generated.",
            ("kind",),
        )
        self._images = Gauge(
            "ffaa_service_engine_images", "Images and conversations that an engine works on."
        )
        self._told = EngineFigures()
        self._images.set(0)

    def now(self, figures: EngineFigures, images: int) -> None:
        """What was done since the start, and how many images and conversations are under way."""
        cached = figures.cached_tokens - self._told.cached_tokens
        prompt = figures.prompt_tokens - self._told.prompt_tokens
        generated = figures.generated_tokens - self._told.generated_tokens
        self._told = figures
        kinds = {"prompt_computed": prompt - cached, "prompt_cached": cached, "generated": generated}
        for kind, tokens in kinds.items():
            if tokens:  # Ray's counters refuse 0
                self._tokens.inc(tokens, {"kind": kind})
        self._images.set(images)


class MemoryMetrics(PartMetrics):
    """What is remembered."""

    def __init__(self) -> None:
        super().__init__("memory")
        self._images = Gauge("ffaa_service_remembered_images", "Images that conversations can refer to.")

    def now(self, images: int) -> None:
        """So many images are remembered."""
        self._images.set(images)
