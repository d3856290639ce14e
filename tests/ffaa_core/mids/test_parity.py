"""MIDS converted from the published files gives the logits of an independent reading of the published."""

import shutil
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ffaa_core.bundle.bundle import Bundle, write_bundle_json
from ffaa_core.convert.mids import MidsSource
from ffaa_core.convert.text import TextSource
from ffaa_core.convert.vision import VisionSource
from ffaa_core.mids import MidsNetwork, load
from ffaa_core.mids.loading import tokenize
from tests.ffaa_core.convert import published_files
from tests.ffaa_core.convert.published_files import FULL, Sizes
from tests.ffaa_core.mids import drawn
from tests.ffaa_core.mids.published import PublishedMids


@dataclass(frozen=True)
class Pair:
    """The same weights twice: in the published files as the published code reads them, and converted."""

    published: PublishedMids
    network: MidsNetwork
    tokenizer: PreTrainedTokenizerBase

    @torch.inference_mode()
    def ours(self, pixels: list[Tensor], answers: list[list[str]], batch: int) -> Tensor:
        found = []
        for start in range(0, len(pixels), batch):
            of_batch = slice(start, start + batch)
            ids, mask = tokenize(self.tokenizer, answers[of_batch])
            found.append(self.network(torch.cat(pixels[of_batch]), ids, mask))
        return torch.cat(found)

    def theirs(self, pixels: list[Tensor], answers: list[list[str]], *, drop_padding: bool = False) -> Tensor:
        faces = zip(pixels, answers, strict=True)
        return torch.stack([self.published.logits(*face, drop_padding=drop_padding) for face in faces])

    def in_float64(self) -> "Pair":
        doubled = deepcopy(self)
        doubled.network.double()
        doubled.published.double()
        return doubled


@pytest.fixture(scope="module")
def pair(demo_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return converted(Sizes(), demo_bundle, tmp_path_factory.mktemp("published"))


def converted(sizes: Sizes, demo_bundle: Bundle, folder: Path) -> Pair:
    """Published files of `sizes`, and a bundle with them in the place of the demo bundle's MIDS."""
    clip, t5, mids_pth, bundle = (folder / name for name in ("clip", "t5", "mids.pth", "bundle"))
    published_files.write_clip(clip, sizes)
    published_files.write_t5(t5, sizes)
    published_files.write_mids(mids_pth, sizes)
    shutil.copytree(demo_bundle.mllm, bundle / "mllm")
    vision, text = VisionSource(clip), TextSource(t5)
    mids = MidsSource(mids_pth, vision, text)
    vision.write(bundle / "vision")
    text.write(bundle / "text")
    mids.write(bundle / "mids")
    opened = write_bundle_json(bundle, provenance={})
    return Pair(PublishedMids(mids_pth, clip, t5), *load(opened))


def faces(pair: Pair, n: int) -> tuple[list[Tensor], list[list[str]]]:
    crops, answers = drawn.faces(n, seed=1)
    return [pair.published.pixels(Image.fromarray(crop)) for crop in crops], answers


def far(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_logits_equal_an_independent_reading_of_the_published_model(pair: Pair, batch: int) -> None:
    pixels, answers = faces(pair, 8)
    assert len({len(pair.published.token_ids(text)) for of_face in answers for text in of_face}) > 12
    theirs = pair.theirs(pixels, answers)
    assert far(pair.ours(pixels, answers, batch), theirs) < 1e-4
    assert theirs.std(dim=0).min() > 0.1, "logits that hardly differ from face to face would prove little"


def test_what_differs_is_rounding_alone(pair: Pair) -> None:
    pixels, answers = faces(pair, 3)
    pixels, pair = [of_face.double() for of_face in pixels], pair.in_float64()
    assert far(pair.ours(pixels, answers, 3), pair.theirs(pixels, answers)) < 1e-11


def test_padding_up_to_a_faces_longest_answer_takes_part(pair: Pair) -> None:
    pixels, answers = faces(pair, 3)
    assert far(pair.ours(pixels, answers, 3), pair.theirs(pixels, answers, drop_padding=True)) > 1e-2


def test_both_image_states_equal_those_of_transformers_clip(pair: Pair) -> None:
    pixels, _ = faces(pair, 1)
    last, next_to_last = pair.published.image_states(pixels[0])
    with torch.inference_mode():
        our_last, our_next_to_last = pair.network._image_states(pixels[0])
    assert far(our_last[0], last) < 1e-4
    assert far(our_next_to_last[0], next_to_last) < 1e-4
    assert far(last, next_to_last) > 1e-2


def test_tokens_equal_those_of_the_published_tokenizer(pair: Pair) -> None:
    _, answers = faces(pair, 8)
    for text in (text for of_face in answers for text in of_face):
        ids, _ = tokenize(pair.tokenizer, [[text]])
        assert ids.flatten().tolist() == pair.published.token_ids(text)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_at_full_size_logits_equal_those_of_the_independent_reading(
    demo_bundle: Bundle, tmp_path: Path
) -> None:
    pair = converted(FULL, demo_bundle, tmp_path)
    pixels, answers = faces(pair, 8)
    difference = far(pair.ours(pixels, answers, 3), pair.theirs(pixels, answers))
    print(f"ViT-L/14-336 and T5-base, 8 faces x 3 answers: largest difference {difference:.1e}")
    assert difference < 1e-4
