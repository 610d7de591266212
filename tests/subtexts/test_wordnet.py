"""Questions to WordNet, with the real database where there is one, with a tiny one, and with none."""

from __future__ import annotations

import logging
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from hf_ta_cleaner.subtexts import wordnet


needs_wordnet = pytest.mark.skipif(
    not wordnet.available(), reason="WordNet is not installed (python -m nltk.downloader wordnet)"
)


@pytest.fixture
def places(monkeypatch):
    """Sets where WordNet is looked for, and forgets it afterwards."""

    def look_in(*folders: Path) -> None:
        monkeypatch.setattr(wordnet, "_places", lambda: iter(folders))
        wordnet.forget()

    yield look_in
    monkeypatch.undo()
    wordnet.forget()


def write_database(folder: Path) -> Path:
    """dog, domestic dog < animal; cats < animal; wet ! dry; damp & wet. No `lexnames` file, as Debian ships it."""
    folder.mkdir(parents=True, exist_ok=True)
    senses = {
        "noun": [
            ("n", ["animal", "beast"], []),
            ("n", ["dog", "domestic_dog"], [("@", "n", 0, "0000")]),
            ("n", ["cat"], [("@", "n", 0, "0000")]),
        ],
        "adj": [
            ("a", ["wet"], [("!", "a", 1, "0101"), ("&", "a", 2, "0000")]),
            ("a", ["dry"], [("!", "a", 0, "0101")]),
            ("s", ["damp(p)"], [("&", "a", 0, "0000")]),
        ],
        "verb": [],
        "adv": [],
    }
    for name, entries in senses.items():

        def lines(offsets: list[int], entries=entries) -> list[str]:
            return [
                f"{offsets[i]:08d} 03 {pos} {len(words):02x} {' '.join(f'{w} 0' for w in words)} {len(pointers):03d} "
                + "".join(f"{symbol} {offsets[to]:08d} {p} {ends} " for symbol, p, to, ends in pointers)
                + "| a gloss  \n"
                for i, (pos, words, pointers) in enumerate(entries)
            ]

        header = "  1 This software and database is provided by nobody\n"
        sizes = [len(line) for line in lines([0] * len(entries))]
        offsets = [len(header) + sum(sizes[:i]) for i in range(len(entries))]
        (folder / f"data.{name}").write_text(header + "".join(lines(offsets)))
        index = [
            f"{word.split('(')[0]} {pos.replace('s', 'a')} 1 0 1 0 {offsets[i]:08d}  \n"
            for i, (pos, words, _) in enumerate(entries)
            for word in words
        ]
        (folder / f"index.{name}").write_text(header + "".join(index))
        (folder / f"{name}.exc").write_text("beesties beast\n" if name == "noun" else "")
    return folder


@pytest.fixture(params=["folder", "zip"])
def small_wordnet(request, places, tmp_path):
    folder = write_database(tmp_path / "wordnet")
    if request.param == "zip":
        with zipfile.ZipFile(tmp_path / "wordnet.zip", "w") as archive:
            for file in folder.iterdir():
                archive.write(file, f"wordnet/{file.name}")
        places(tmp_path / "nowhere", tmp_path / "wordnet.zip")
    else:
        places(tmp_path / "nowhere", folder)


def test_reads_database_files(small_wordnet):
    assert wordnet.available()
    assert wordnet.synonyms("dog") == ["domestic dog"]
    assert wordnet.synonyms("Dogs", "n") == ["domestic dog"]
    assert wordnet.synonyms("cat") == []
    assert wordnet.related("dog", "animal")
    assert wordnet.related("beast", "domestic dog")
    assert not wordnet.related("dog", "cat")
    assert wordnet.related("damp", "wet")
    assert not wordnet.related("damp", "dry")
    assert wordnet.antonyms("wet") == ["dry"]
    assert wordnet.antonyms("damp") == []
    assert wordnet.is_kind_of("dog", "animal")
    assert not wordnet.is_kind_of("animal", "dog")
    assert [wordnet.lemma(word) for word in ("Dogs", "beesties", "unicorns")] == ["dog", "beast", "unicorns"]


def test_without_wordnet_nothing_is_known_and_one_line_says_so(places, caplog):
    places()
    with caplog.at_level(logging.WARNING):
        assert not wordnet.available()
        assert wordnet.synonyms("dog") == []
        assert wordnet.antonyms("wet") == []
        assert not wordnet.related("dog", "animal")
        assert not wordnet.is_kind_of("dog", "animal")
        assert wordnet.lemma("Dogs") == "dogs"
    assert len(caplog.records) == 1
    assert "nltk.downloader wordnet" in caplog.text


def test_a_database_installed_later_is_found(places, tmp_path):
    places(tmp_path / "wordnet")
    assert not wordnet.available()
    write_database(tmp_path / "wordnet")
    wordnet.forget()
    assert wordnet.related("dog", "animal")


def test_import_loads_nothing():
    code = (
        "import sys, hf_ta_cleaner.subtexts.wordnet, hf_ta_cleaner.views.augment;"
        "print(sorted({'nltk', 'textblob', 'torch', 'datasets'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stdout.strip() == "[]"


ROOT = Path(__file__).resolve().parents[2]


@needs_wordnet
@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("dog", "animal", True),
        ("animal", "dog", True),
        ("couch", "sofa", True),
        ("man", "person", True),
        ("big", "large", True),
        ("dog", "cat", False),
        ("man", "woman", False),
        ("kettle", "umbrella", False),
        ("big", "small", False),
        ("qwerty", "asdf", False),
    ],
)
def test_related(a, b, expected):
    assert wordnet.related(a, b) is expected


@needs_wordnet
def test_real_database():
    assert "couch" in wordnet.synonyms("sofa")
    assert wordnet.synonyms("big", "a")[0] == "large"
    assert "sofa" not in wordnet.synonyms("sofas")
    assert "closed" in wordnet.antonyms("open")
    assert wordnet.antonyms("wet") == ["dry"]
    assert [wordnet.lemma(w) for w in ("leaves", "geese", "glass", "fire hydrants")] == [
        "leaf", "goose", "glass", "fire hydrant",
    ]  # fmt: skip
    assert wordnet.lemma("running", "v") == "run"
    assert wordnet.is_kind_of("teacher", "person")
    assert not wordnet.is_kind_of("cat", "person")
    assert wordnet.synonyms("") == []
    assert wordnet.lemma("") == ""
