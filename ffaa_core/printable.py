"""Text from outside, such as answers and object names, made safe to show."""

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
FORMULA_STARTS = ("=", "+", "-", "@")


def printable(text: str) -> str:
    """The text in one line without control, escape or direction characters, which could steer a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c.isspace() else REPLACEMENT for c in text)


def spreadsheet_cell(text: str) -> str:
    """The printable text, quoted where a spreadsheet would take it for a formula."""
    safe = printable(text)
    return f"'{safe}" if safe.lstrip().startswith(FORMULA_STARTS) else safe
