"""What one timed shard says of a whole run: its speed, its tokens, and its price."""

from collections.abc import Iterator
from dataclasses import dataclass

from ffaa_core.table import Counts
from ray_jobs.doctor.finding import Finding, ok, warning
from ray_jobs.doctor.trial import Timed
from ray_jobs.score.cluster import Shares
from ray_jobs.score.config import ScoreConfig
from ray_jobs.score.end_to_end import exit_code

SHARD = "shard"


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Images a second: with one shard at a time on each engine, and at most, when the stages overlap.

    `slowest` is the stage that bounds the latter.
    """

    least: float
    most: float
    slowest: str


def speed(timed: Timed, shares: Shares, cpus: float) -> Speed:
    """What the whole cluster would do, reckoned from one shard."""
    held = shares.answer_actors * shares.answer_cpus + shares.judge_actors * shares.judge_cpus
    fetchers = max(1, int((cpus - held) // shares.fetch_cpus))
    shards_a_second = {
        "fetch and crop": fetchers / timed.fetching,
        "answer": shares.answer_actors / timed.answering,
        "judge": shares.judge_actors / timed.judging,
    }
    slowest = min(shards_a_second, key=lambda stage: shards_a_second[stage])
    most = shards_a_second[slowest]
    least = min(most, shares.answer_actors / timed.seconds)
    images = timed.counts.images
    return Speed(least=least * images, most=most * images, slowest=slowest)


def judge_shard(
    timed: Timed, reckoned: Speed, config: ScoreConfig, price_per_hour: float | None
) -> Iterator[Finding]:
    """Findings on the shard: what came of it, how fast, its tokens, and what a million images would cost."""
    counts = timed.counts
    yield _loaded(timed)
    yield _outcome(counts, config.run.max_failure_rate)
    if not counts.faces:
        yield warning(
            SHARD,
            f"no face in {counts.images} images: nothing is known of the engine's speed",
            "ask again with an INPUT that has faces",
        )
        return
    faces = reckoned.least * counts.faces / counts.images
    yield ok(
        SHARD,
        f"{reckoned.least:.2f} images/s, {faces:.2f} faces/s with one shard at a time on each engine; at "
        f"most {reckoned.most:.2f} images/s with the stages overlapping, of which {reckoned.slowest} is the "
        f"slowest. Of {timed.seconds:.1f} s fetch and crop took {timed.fetching:.1f}, answer "
        f"{timed.answering:.1f}, judge {timed.judging:.1f}",
        images_per_second_least=reckoned.least,
        images_per_second_most=reckoned.most,
        faces_per_second=faces,
    )
    yield _tokens(timed)
    if price_per_hour is not None:
        dear, cheap = (price_per_hour / 3600 / rate * 1e6 for rate in (reckoned.least, reckoned.most))
        yield ok(
            "price",
            f"${cheap:,.2f} to ${dear:,.2f} a million images at ${price_per_hour:g} an hour",
            dollars_per_million_least=cheap,
            dollars_per_million_most=dear,
        )


def _outcome(counts: Counts, max_failure_rate: float) -> Finding:
    told = ", ".join(f"{number} {status}" for status, number in counts.statuses.items())
    text = f"{counts.images} images, {counts.faces} faces: {told}"
    if exit_code(counts.statuses, {}, 0, max_failure_rate):
        advice = (
            f"a run with so many failures ends with exit code 3 (--max-failure-rate {max_failure_rate:g})"
        )
        return warning(SHARD, text, advice)
    return ok(SHARD, text, images=counts.images, faces=counts.faces)


def _loaded(timed: Timed) -> Finding:
    how = timed.engine["environment"]["adapter"]
    applied = (
        "the engine needs none" if how == "none" else f"the engine applies it ({how}) and answers otherwise"
    )
    text = f"{applied}; the models load in {timed.loading:.0f} s"
    return ok("adapter", text, loading_seconds=timed.loading)


def _tokens(timed: Timed) -> Finding:
    prompt, cached, generated = (
        timed.engine[name] for name in ("prompt_tokens", "cached_tokens", "generated_tokens")
    )
    share = cached / prompt if prompt else 0.0
    text = (
        f"{prompt:,} tokens of prompts, {share:.0%} of them cached; {generated:,} generated, "
        f"{generated / timed.answering:.0f} a second"
    )
    if prompt and not cached:
        return warning(SHARD, text, "a face's image tokens are computed three times: prefix caching is off")
    return ok(SHARD, text, cached_share=share, generated_per_second=generated / timed.answering)
