"""`ta-cleaner subtexts`: parts and sub-texts of any caption."""

from __future__ import annotations

import pytest

from hf_ta_cleaner.commands import main as program
from hf_ta_cleaner.commands.subtexts import main


def test_parts_and_sub_texts_are_printed(tmp_path, capsys):
    file = tmp_path / "captions.txt"
    file.write_text("a small cat sleeps under a table\na big horse runs over a hill\n\na tiny cow walks over a road\n")
    program(["subtexts", "A small dog sits on a chair.", "--captions", str(file), "--draws", "4"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "A small dog sits on a chair."
    assert "  noun phrase  dog  (small)" in lines and "  relation     dog sits on chair" in lines
    assert sum(line.startswith("  true") for line in lines) == 4
    swaps = {line.split("(")[1] for line in lines if line.startswith("  false") and "(" in line}
    assert swaps and all(" -> " in swap for swap in swaps)


def test_the_sandbox_gives_words_where_no_file_is_named(capsys, monkeypatch):
    monkeypatch.setattr("hf_ta_cleaner.commands.subtexts.SANDBOX_CAPTIONS", 60)
    main(["a red car", "12345"])
    out = capsys.readouterr().out
    assert "noun phrase  car  (red)" in out and "no sub-text" in out


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["a dog", "--draws", "0"], "at least 1"),
        (["a dog", "--captions", "nowhere.txt"], "no file nowhere.txt"),
        ([], "caption"),
    ],
)
def test_bad_input(line, words, capsys):
    with pytest.raises(SystemExit) as stop:
        main(line)
    assert stop.value.code == 2 and words in capsys.readouterr().err


def test_a_file_that_is_no_text(tmp_path, capsys):
    (tmp_path / "x.bin").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SystemExit):
        main(["a dog", "--captions", str(tmp_path / "x.bin")])
    assert "not a text in UTF-8" in capsys.readouterr().err
