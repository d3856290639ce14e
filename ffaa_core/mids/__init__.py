"""MIDS: which of a face's answers fits its picture best.

`Judge` takes crops and texts. For anything else `load(bundle)` gives the network and its tokenizer, ready to
use, and `MidsNetwork.forward(pixel_values, input_ids, attention_mask)` the logits of each answer.
"""

from ffaa_core.mids.judge import Judge
from ffaa_core.mids.loading import load
from ffaa_core.mids.network import MidsConfig, MidsNetwork

__all__ = ["Judge", "MidsConfig", "MidsNetwork", "load"]
