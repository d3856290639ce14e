"""MIDS: which of a face's answers fits its picture best."""

from ffaa_core.mids.judge import Judge
from ffaa_core.mids.loading import load
from ffaa_core.mids.network import MidsConfig, MidsNetwork

__all__ = ["Judge", "MidsConfig", "MidsNetwork", "load"]
