"""Many faces and their masked answers to MIDS's logits, in batches, each failure kept to its own face."""

import logging
from collections.abc import Sequence
from threading import Lock
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ffaa_core.bundle.bundle import Bundle
from ffaa_core.mids.loading import load, tokenize
from ffaa_core.mids.network import MidsNetwork
from ffaa_core.settings import CROP_SIZE

Crop = NDArray[np.uint8]
Logits = NDArray[np.float64]

log = logging.getLogger(__name__)


class Judge:
    """MIDS, ready to be asked, by several threads if need be: they take turns."""

    def __init__(
        self, network: MidsNetwork, tokenizer: PreTrainedTokenizerBase, *, batch_size: int = 8
    ) -> None:
        """`batch_size` caps the faces computed at once; the logits do not depend on it."""
        self.network = network
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self.device = network.classifier.weight.device
        self._turn = Lock()

    @classmethod
    def load(cls, bundle: Bundle, device: str | None = None, *, batch_size: int = 8) -> Self:
        """The bundle's MIDS on `device`, by default the GPU where there is one.

        Raises:
            BundleError: a part cannot be read, or its weights do not fit its config.
        """
        network, tokenizer = load(bundle, device or ("cuda" if torch.cuda.is_available() else "cpu"))
        return cls(network, tokenizer, batch_size=batch_size)

    def logits(self, crops: Sequence[Crop], masked_answers: Sequence[Sequence[str]]) -> list[Logits | None]:
        """What MIDS says of each face's answers; None for a face it fails on, which is logged.

        Args:
            crops: n RGB faces, each (336, 336, 3) uint8.
            masked_answers: for each its A masked answers, in whatever order the logits are wanted.

        Returns:
            n arrays of (A, 4), float64.

        Raises:
            torch.AcceleratorError: the device is gone, which is no face's fault.
        """
        faces = list(zip(crops, masked_answers, strict=True))
        results: list[Logits | None] = []
        for start in range(0, len(faces), self.batch_size):
            with self._turn:  # the tokenizer refuses two threads at once
                results += self._batch(faces[start : start + self.batch_size])
        return results

    def _batch(self, faces: list[tuple[Crop, Sequence[str]]]) -> list[Logits | None]:
        """The logits of a batch; if it fails, of each face alone, so that only the faulty one is lost."""
        try:
            computed = self._compute(faces)
        except torch.AcceleratorError:
            raise
        except Exception as error:
            if len(faces) == 1:
                log.warning("MIDS failed on a face: %s: %s", type(error).__name__, error)
                return [None]
            return [result for face in faces for result in self._batch([face])]
        return [_finite(of_face) for of_face in computed]

    def _compute(self, faces: list[tuple[Crop, Sequence[str]]]) -> Logits:
        crops, answers = zip(*faces, strict=True)
        pixel_values = torch.stack([normalise(crop) for crop in crops])
        ids, mask = tokenize(self.tokenizer, [list(texts) for texts in answers])
        with torch.inference_mode():
            logits = self.network(pixel_values.to(self.device), ids.to(self.device), mask.to(self.device))
        return logits.cpu().numpy().astype(np.float64)  # type: ignore[no-any-return]


def normalise(crop: Crop) -> Tensor:
    """A crop as CLIP's image processor hands it on: (336, 336, 3) uint8 RGB to (3, 336, 336) float32."""
    if crop.shape != (CROP_SIZE, CROP_SIZE, 3) or crop.dtype != np.uint8:
        raise ValueError(
            f"a crop must be {CROP_SIZE} x {CROP_SIZE} RGB of uint8, not {crop.shape} of {crop.dtype}"
        )
    scaled = torch.from_numpy(crop.astype(np.float32) / 255)
    mean, std = torch.tensor(OPENAI_DATASET_MEAN), torch.tensor(OPENAI_DATASET_STD)
    return ((scaled - mean) / std).permute(2, 0, 1)


def _finite(logits: Logits) -> Logits | None:
    if np.isfinite(logits).all():
        return logits
    log.warning("MIDS failed on a face: its logits are not finite")
    return None
