"""The demo bundle: every part small and with random weights, so that everything runs with no download."""

from pathlib import Path

from ffaa_core.bundle.bundle import Bundle, write_bundle_json

WARNING = "this is the demo bundle, its weights are random: its verdicts mean nothing"

README = """\
# FFAA demo bundle

Random weights in the layouts of the real ones, to try the software without a download.
**Its verdicts, scores and descriptions mean nothing.**

Made by `ffaa bundle demo`.
"""


def write_demo_bundle(directory: Path, seed: int = 0) -> Bundle:
    """Write all parts to `directory`; the same seed gives the same digests."""
    from ffaa_core.bundle.demo_mids import write_demo_mids
    from ffaa_core.bundle.demo_mllm import write_demo_mllm

    directory.mkdir(parents=True, exist_ok=True)
    write_demo_mllm(directory / "mllm", directory / "adapter", seed)
    write_demo_mids(directory / "mids", directory / "vision", directory / "text", seed)
    (directory / "README.md").write_text(README, encoding="utf-8")
    return write_bundle_json(
        directory, provenance={"made_by": "ffaa bundle demo", "seed": seed}, warning=WARNING
    )
