import pytest

from ffaa_core.printable import printable, spreadsheet_cell


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Grüße, 顔 🙂", "Grüße, 顔 🙂"),
        ("two\nlines\tand a tab", "two lines and a tab"),
        ("\x1b[2Jgone", "\ufffd[2Jgone"),
        ("\x9b31m", "\ufffd31m"),
        ("gpj.\u202eexe", "gpj.\ufffdexe"),
        ("lone \udcff byte", "lone \ufffd byte"),
    ],
)
def test_text_is_shown_in_one_line_without_control_characters(text, shown):
    assert printable(text) == shown


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\t=1", " =1"])
def test_no_cell_is_a_formula(text):
    assert spreadsheet_cell(text).startswith("'")


def test_other_cells_stay_as_they_are():
    assert spreadsheet_cell("s3://in/a=b.jpg") == "s3://in/a=b.jpg"
