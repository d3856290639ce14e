"""What is read as JSON, and what is refused before it can do harm."""

import base64
import resource

import pytest

from serve.body import MOST_VALUES, PIECE, decoded, decoded_size, parse
from serve.problems import ProblemError


def test_json_is_read() -> None:
    assert parse('{"a": [1, 2.5, "é\\ud83d\\ude00", null, true]}'.encode()) == {
        "a": [1, 2.5, "é😀", None, True]
    }


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b'"\xff"', b'"\\ud800"', b'{"\\ud800": 1}', b"NaN", b"1" * 5000, b"[" * 5000, b"{} {}"],
)
def test_what_is_no_json_for_everybody_is_refused(content: bytes) -> None:
    with pytest.raises(ProblemError) as error:
        parse(content)
    assert (error.value.status, error.value.kind) == (400, "malformed")
    assert len(error.value.detail.encode()) < 200


def test_a_body_of_very_many_values_is_refused_without_taking_memory_for_them() -> None:
    content = b"[" + b"[]," * (20 * 2**20) + b"[]]"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ProblemError, match=f"more than {MOST_VALUES:,} values"):
        parse(content)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB; its lists take 1.3 GB


@pytest.mark.parametrize("size", [0, 1, PIECE * 3 // 4 - 1, PIECE * 3 // 4, PIECE * 3 // 4 + 1, 3 * PIECE])
def test_base64_of_any_length_is_read(size: int) -> None:
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    text = base64.b64encode(data).decode()
    assert decoded(text) == data
    assert 0 <= decoded_size(len(text)) - size <= 2


@pytest.mark.parametrize(
    "text", ["a b=", "YQ", "YQ==YQ==", "é", "A" * (PIECE - 4) + "YQ==" + "YQ==", "A" * PIECE + "A"]
)
def test_what_is_no_base64_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"padding|base64|ASCII"):
        decoded(text)
