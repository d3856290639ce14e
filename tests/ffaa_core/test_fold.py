"""Long lists of names are told shortly, and every name can be read off what is told."""

import re

from hypothesis import given
from hypothesis import strategies as st

from ffaa_core.fold import fold


def test_names_that_differ_in_one_number_become_one() -> None:
    names = [f"model.layers.{i}.mlp.up_proj.weight" for i in (0, 1, 2, 5, 7, 8)]

    assert fold([*names, "model.norm.weight"]) == [
        "model.layers.{0..2,5,7..8}.mlp.up_proj.weight",
        "model.norm.weight",
    ]


def test_a_lone_number_stays_as_it_is() -> None:
    assert fold(["mm_projector.0.weight", "mm_projector.0.bias"]) == [
        "mm_projector.0.weight",
        "mm_projector.0.bias",
    ]


@given(
    st.sets(st.tuples(st.integers(0, 12), st.sampled_from(["q", "k.3.w", "w (4, 4)"]), st.sampled_from("ab")))
)
def test_nothing_is_lost(parts: set[tuple[int, str, str]]) -> None:
    names = {f"{stem}.{number}.{rest}" for number, rest, stem in parts}

    assert {name for line in fold(names) for name in unfolded(line)} == names


def unfolded(line: str) -> list[str]:
    match = re.search(r"\{(.*?)\}", line)
    if not match:
        return [line]
    ends = [[int(end) for end in run.split("..")] for run in match[1].split(",")]
    numbers = [number for run in ends for number in range(run[0], run[-1] + 1)]
    return [line[: match.start()] + str(number) + line[match.end() :] for number in numbers]
