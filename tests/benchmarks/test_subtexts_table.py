"""What sub-texts are made of: the figures by hand, the file of captions, the sample."""

from __future__ import annotations

import json

import pytest

from benchmarks import subtexts
from benchmarks.subtexts import Bigrams, main, original_of, rate, read
from hf_ta_cleaner.subtexts import SubText


def write(folder, lines):
    file = folder / "captions.tsv"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def test_rates_by_hand():
    assert rate(5, 10) == {"value": 50.0, "interval95": [23.66, 76.34], "n": 10}  # Wilson
    assert rate(0, 0)["value"] is None


def test_a_bigram_model_prefers_what_it_has_read():
    model = Bigrams(["a dog runs", "a dog sits", "a cat sits"])
    assert model.score("a dog sits") > model.score("a cat runs") > model.score("runs a cat")
    negative = SubText("a cat sits", frozenset({"cat", "sit"}), swapped="cat", original="dog", kind="noun")
    assert original_of(negative) == "a dog sits"


def test_captions_by_picture(tmp_path):
    file = write(tmp_path, ["0\ta dog", "0\ta puppy", "1\ta cat", "2\ta horse"])
    assert read(file) == {0: ["a dog", "a puppy"], 1: ["a cat"], 2: ["a horse"]}
    assert set(read(file, 1, 2)) == {1}
    with pytest.raises(SystemExit, match=r":2 should be the number of a picture"):
        read(write(tmp_path, ["0\ta dog", "a cat"]))


def test_the_command_prints_figures_and_writes_a_sample(tmp_path, capsys, monkeypatch):
    nouns, places = ("dog", "cat", "horse", "cow", "bird"), ("house", "tree", "car", "boat")
    lines = [f"{i}\ta small {nouns[i % 5]} sits near a {places[i % 4]}" for i in range(40)]
    file, sample = write(tmp_path, lines), tmp_path / "sample.tsv"
    monkeypatch.setattr(subtexts, "HERE", tmp_path)
    line = [str(file), "--no_spacy", "--from_picture", "10", "--sample", str(sample), "--write"]
    main(line)
    figures = json.loads(capsys.readouterr().out)
    assert figures["captions"] == figures["pictures"] == 30 and figures["without_parts"]["value"] == 0
    assert sum(figures["negatives"].values()) > 20 and "wrong_heads" not in figures
    rows = [row.split("\t") for row in sample.read_text().splitlines()]
    assert len(rows) == 30 and all(len(row) == 4 for row in rows)
    written = json.loads((tmp_path / "subtexts.json").read_text())
    assert "--from_picture 10" in written["supersense_kept"]["command"]
    with pytest.raises(SystemExit):
        main(line)
    assert "sample.tsv exists" in capsys.readouterr().err
