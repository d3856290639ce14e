"""Long lists of tensor names told shortly: names that differ in one number become one line."""

import re
from collections.abc import Iterable

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


def fold(lines: Iterable[str]) -> list[str]:
    """Lines that differ in the first number between two dots only, as one: `layers.{0..3,7}.weight (4, 4)`.

    Every line given can be read off those that come back; they keep the order of their first lines.
    """
    numbers: dict[tuple[str, str], list[int]] = {}
    for line in lines:
        match = _NUMBER.search(line)
        before, after = (line[: match.start()], line[match.end() :]) if match else (line, "")
        numbers.setdefault((before, after), []).extend([int(match[0])] if match else [])
    return [before + _ranges(sorted(its)) + after for (before, after), its in numbers.items()]


def _ranges(numbers: list[int]) -> str:
    """`5` as it is, several as `{0..3,7}`, none as nothing."""
    if len(numbers) < 2:
        return "".join(map(str, numbers))
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return "{" + ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}..{run[-1]}" for run in runs) + "}"
