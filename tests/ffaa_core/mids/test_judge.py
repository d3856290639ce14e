"""The judge: crops and answers in, logits out, and one face's failure stays that face's."""

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from sentencepiece import SentencePieceProcessor
from transformers import CLIPImageProcessor

from ffaa_core.bundle import Bundle
from ffaa_core.mids import Judge
from ffaa_core.mids.judge import normalise
from ffaa_core.mids.loading import tokenize
from tests.ffaa_core.mids import drawn


@pytest.fixture(scope="module")
def judge(demo_bundle: Bundle) -> Judge:
    return Judge.load(demo_bundle, "cpu", batch_size=4)


def test_logits_come_in_the_order_of_faces_and_answers_whatever_the_batch_size(
    judge: Judge, demo_bundle: Bundle
) -> None:
    crops, answers = drawn.faces(9)
    in_fours = judge.logits(crops, answers)
    in_one = Judge.load(demo_bundle, "cpu", batch_size=16).logits(crops, answers)
    assert all(face is not None and face.shape == (3, 4) and face.dtype == np.float64 for face in in_fours)
    np.testing.assert_allclose(in_fours, in_one, atol=1e-4)
    backwards = judge.logits(crops[::-1], [of_face[::-1] for of_face in answers[::-1]])
    # Answers are padded to the longest of the three whatever their order, so order changes nothing else.
    np.testing.assert_allclose(np.array(backwards)[::-1, ::-1], in_fours, atol=1e-4)


def test_no_more_faces_than_the_batch_size_are_computed_at_once(judge: Judge) -> None:
    sizes: list[int] = []
    hook = judge.network.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    judge.logits(*drawn.faces(9))
    hook.remove()
    assert sizes == [4, 4, 1]


def test_a_face_that_fails_is_none_and_the_others_keep_their_logits(
    judge: Judge, caplog: pytest.LogCaptureFixture
) -> None:
    crops, answers = drawn.faces(6)
    expected = judge.logits(crops, answers)
    crops[2] = np.zeros((100, 336, 3), np.uint8)
    with caplog.at_level(logging.WARNING):
        found = judge.logits(crops, answers)
    assert [face is None for face in found] == [False, False, True, False, False, False]
    for i in (0, 1, 3, 4, 5):
        np.testing.assert_allclose(found[i], expected[i], atol=1e-4)
    assert "(100, 336, 3)" in caplog.text


def test_logits_that_are_not_finite_fail_their_face_only(judge: Judge) -> None:
    def poison(module: object, inputs: object, output: torch.Tensor) -> torch.Tensor:
        output[1] = torch.nan
        return output

    hook = judge.network.register_forward_hook(poison)
    found = judge.logits(*drawn.faces(3))
    hook.remove()
    assert [face is None for face in found] == [False, True, False]


def test_a_lost_device_is_no_faces_fault_and_is_raised(judge: Judge) -> None:
    def lose(module: object, inputs: object) -> None:
        raise torch.AcceleratorError("device lost")

    hook = judge.network.register_forward_pre_hook(lose)
    with pytest.raises(torch.AcceleratorError):
        judge.logits(*drawn.faces(2))
    hook.remove()


def test_several_threads_may_ask_at_once(judge: Judge) -> None:
    asked = [drawn.faces(2, seed=seed) for seed in range(6)]
    expected = [judge.logits(*faces) for faces in asked]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda faces: judge.logits(*faces), asked))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_no_faces_give_no_logits(judge: Judge) -> None:
    assert judge.logits([], []) == []


def test_crops_are_normalised_as_clips_image_processor_does() -> None:
    crop = drawn.faces(1)[0][0]
    processor = CLIPImageProcessor(size={"shortest_edge": 336}, crop_size=336)
    expected = processor(crop, return_tensors="pt", input_data_format="channels_last")["pixel_values"][0]
    torch.testing.assert_close(normalise(crop), expected, atol=1e-6, rtol=0)


def test_texts_are_tokenised_as_sentencepiece_does_and_cut_at_512(judge: Judge, demo_bundle: Bundle) -> None:
    reference = SentencePieceProcessor(model_file=str(Path(demo_bundle.text) / "spiece.model"))
    texts = [
        "Image description: a woman\nForgery reasoning: soft  seams,  waxy\tskin. ",
        "ﬁne ½ é\u00a0x 漢字 🙂",
        "<extra_id_0> <image>",
        "",
        "the skin " * 400,
    ]
    ids, mask = tokenize(judge.tokenizer, [texts])
    assert ids.shape == mask.shape == (1, len(texts), 512)
    for text, row, row_mask in zip(texts, ids[0], mask[0], strict=True):
        end = [reference.eos_id()]
        assert row[row_mask.bool()].tolist() == reference.encode(text)[:511] + end
