"""The verdict table: exactly one row per image and fingerprint, on local disk or S3, whatever fails."""

from ffaa_core.table.plan import PlannedImage
from ffaa_core.table.records import Commit, Counts, Plan, Summary
from ffaa_core.table.run import Outcome, Run
from ffaa_core.table.verdict_table import VerdictTable

__all__ = ["Commit", "Counts", "Outcome", "Plan", "PlannedImage", "Run", "Summary", "VerdictTable"]
