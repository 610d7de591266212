"""The collator: the exact layout of a batch, and views that depend on (seed, epoch, sample) alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image
from torch.utils.data import DataLoader

from hf_ta_cleaner.data.sampling import CleaningPairs, CleaningSampler
from hf_ta_cleaner.subtexts import SubText, SubTextMap, Vocabulary, parse
from hf_ta_cleaner.views.collator import DataCollatorForTACleaner, also_true


CAPTIONS = [
    "A red dog sits on the green grass.",
    "Two cats sleep under a wooden table",
    "a man in a blue shirt rides a horse",
    "a yellow bus on a wet street",
    "an old woman holding a small umbrella",
    "a black bird flying over the lake",
    "a white plate with three apples",
    "a boy playing with a big ball",
]


class TwoTruthsAndALie:
    """Stands in for a vocabulary: fixed sub-texts for two captions, and it notes what it was asked."""

    table = {
        CAPTIONS[0]: (["a dog", "red dog"], ["a cat"]),
        CAPTIONS[1]: (["two cats"], []),
    }

    def __init__(self):
        self.asked = []

    def sub_texts(self, parts, r, num_positive, num_negative, swap):
        self.asked.append((parts.caption, num_positive, num_negative, swap))
        return tuple(
            [SubText(text, frozenset(text.split()) - {"a", "two"}) for text in texts[:n]]
            for texts, n in zip(self.table[parts.caption], (num_positive, num_negative), strict=True)
        )


def example(image, caption, sample_id=0, epoch=0, chosen=False) -> dict:
    return {
        "image": image,
        "caption": caption,
        "parts": parse(caption).to_row(),
        "sample_id": sample_id,
        "epoch": epoch,
        "chosen": chosen,
    }


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary.from_parts([parse(caption).to_row() for caption in CAPTIONS])


@pytest.fixture
def examples(photos):
    """Eight examples in one epoch, every other one chosen."""

    def make(epoch: int = 0) -> list[dict]:
        return [example(photos[i], CAPTIONS[i], i, epoch, chosen=i % 2 == 0) for i in range(8)]

    return make


@pytest.fixture
def texts_of(tiny_processor):
    """The texts of a batch, read back from its tokens."""

    def read(batch) -> list[str]:
        return [
            tiny_processor.tokenizer.decode(row[mask.bool()], skip_special_tokens=True).strip()
            for row, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
        ]

    return read


def pixels_of(processor, image) -> torch.Tensor:
    """What the processor itself makes of a picture, before rescaling and normalization."""
    return processor.image_processor(
        image, do_rescale=False, do_normalize=False, return_tensors="pt"
    ).pixel_values[0].round()  # fmt: skip


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for key in a:
        assert torch.equal(a[key], b[key]), key


# --- Layout ----------------------------------------------------------------------------------------------------------


def test_layout_of_three_examples(tiny_processor, photos, texts_of):
    vocabulary = TwoTruthsAndALie()
    collate = DataCollatorForTACleaner(tiny_processor, vocabulary=vocabulary, num_positive=2, num_negative=1)
    batch = collate(
        [
            example(photos[0], CAPTIONS[1], 11, chosen=True),
            example(photos[1], CAPTIONS[2], 12),
            example(photos[2], CAPTIONS[0], 13, chosen=True),
        ]
    )
    assert batch["pixel_values"].dtype == torch.uint8
    assert batch["pixel_values"].shape == (6, 3, 32, 32)
    for i in range(3):
        difference = batch["pixel_values"][i].int() - pixels_of(tiny_processor, photos[i]).int()
        assert difference.abs().max() <= 1
    texts = texts_of(batch)
    lower = [caption.lower().replace(".", " .") for caption in CAPTIONS]
    assert texts[:3] == [lower[1], lower[2], lower[0]]
    for changed, original in zip(texts[3:6], texts[:3], strict=True):
        assert changed and changed != original
    # Positives sample by sample, then negatives; a slot without a sub-text repeats the caption.
    assert texts[6:10] == ["two cats", lower[1], "a dog", "red dog"]
    assert texts[10:] == [lower[1], "a cat"]
    assert batch["chosen"].tolist() == [0, 2]
    assert batch["positive_valid"].tolist() == [[True, False], [True, True]]
    assert batch["negative_valid"].tolist() == [[False], [True]]
    assert batch["positive_words"].shape == (2, 2, 16) and batch["caption_words"].shape == (2, 48)
    assert {batch[key].dtype for key in ("input_ids", "attention_mask", "positive_words", "chosen")} == {torch.int64}
    assert vocabulary.asked == [
        (CAPTIONS[1], 2, 1, ("noun", "relation", "attribute")),
        (CAPTIONS[0], 2, 1, ("noun", "relation", "attribute")),
    ]


@pytest.mark.parametrize("augment", [True, False])
@pytest.mark.parametrize(("positives", "negatives"), [(1, 1), (3, 2), (2, 0)])
def test_sizes(tiny_processor, vocabulary, examples, augment, positives, negatives):
    collate = DataCollatorForTACleaner(
        tiny_processor, augment, vocabulary, num_positive=positives, num_negative=negatives
    )
    batch = collate(examples())
    views = 2 if augment else 1
    assert batch["pixel_values"].shape == (8 * views, 3, 32, 32)
    assert len(batch["input_ids"]) == len(batch["attention_mask"]) == 8 * views + 4 * (positives + negatives)
    assert batch["chosen"].tolist() == [0, 2, 4, 6]
    assert batch["positive_valid"].shape == (4, positives) and batch["negative_valid"].shape == (4, negatives)
    assert batch["positive_valid"][:, 0].all()


def test_second_views_differ_from_the_originals_and_change_with_nothing_else(tiny_processor, vocabulary, examples):
    with_views = DataCollatorForTACleaner(tiny_processor, True, vocabulary)(examples())
    without = DataCollatorForTACleaner(tiny_processor, False, vocabulary)(examples())
    assert torch.equal(with_views["pixel_values"][:8], without["pixel_values"])
    changed = (with_views["pixel_values"][8:] != without["pixel_values"]).flatten(1).any(1)
    assert changed.sum() >= 6  # a policy may do nothing to a picture
    for key in ("chosen", "positive_valid", "negative_valid", "positive_words", "caption_words"):
        assert torch.equal(with_views[key], without[key])


@pytest.mark.parametrize("why", ["nobody is chosen", "no vocabulary"])
def test_without_sub_texts(tiny_processor, vocabulary, examples, why):
    rows = examples()
    if why == "nobody is chosen":
        rows = [{**row, "chosen": False} for row in rows]
    else:
        vocabulary = None
    batch = DataCollatorForTACleaner(tiny_processor, vocabulary=vocabulary)(rows)
    assert batch.keys() == {"pixel_values", "input_ids", "attention_mask"}
    assert len(batch["input_ids"]) == 16


def test_swap_is_handed_on(tiny_processor, vocabulary, examples, texts_of):
    collate = DataCollatorForTACleaner(tiny_processor, False, vocabulary, swap=("attribute",))
    nouns = {noun for caption in CAPTIONS for phrase in parse(caption).phrases for noun in phrase.noun.split()}
    for epoch in range(5):
        rows = examples(epoch)
        batch = collate(rows)
        negatives = texts_of(batch)[12:]
        for row, negative, valid in zip(rows[::2], negatives, batch["negative_valid"][:, 0], strict=True):
            # With attributes alone swapped, all nouns of a false text are the caption's own.
            if valid:
                assert nouns & set(negative.split()) <= set(row["caption"].lower().rstrip(".").split())


# --- Draws -----------------------------------------------------------------------------------------------------------


def test_views_are_drawn_anew_each_epoch_and_alike_within_one(tiny_processor, vocabulary, examples, texts_of):
    collate = DataCollatorForTACleaner(tiny_processor, vocabulary=vocabulary)
    first, again, second = collate(examples(0)), collate(examples(0)), collate(examples(1))
    assert_same(first, again)
    assert torch.equal(first["pixel_values"][:8], second["pixel_values"][:8])
    assert not torch.equal(first["pixel_values"][8:], second["pixel_values"][8:])
    ours, theirs = texts_of(first), texts_of(second)
    assert ours[:8] == theirs[:8]
    for start, stop in ((8, 16), (16, 20), (20, 24)):  # rewritten captions, positives, negatives
        assert ours[start:stop] != theirs[start:stop]
    other_seed = DataCollatorForTACleaner(tiny_processor, vocabulary=vocabulary, seed=1)(examples(0))
    assert torch.equal(first["pixel_values"][:8], other_seed["pixel_values"][:8])
    assert not torch.equal(first["pixel_values"][8:], other_seed["pixel_values"][8:])


def test_a_sample_has_its_views_whatever_the_company(tiny_processor, vocabulary, examples, texts_of):
    collate = DataCollatorForTACleaner(tiny_processor, vocabulary=vocabulary)
    rows = examples(3)
    whole, two = collate(rows), collate([rows[6], rows[2]])
    assert torch.equal(two["pixel_values"], whole["pixel_values"][[6, 2, 14, 10]])
    texts = texts_of(whole)
    assert texts_of(two) == [texts[i] for i in (6, 2, 14, 10, 19, 17, 23, 21)]


@pytest.mark.parametrize("epoch", [0, 2])
def test_workers_draw_the_same(tiny_processor, vocabulary, photos, epoch):
    data = Dataset.from_dict({"image": photos * 2, "caption": CAPTIONS * 2}).map(SubTextMap(), batched=True)
    collate = DataCollatorForTACleaner(tiny_processor, vocabulary=vocabulary)
    sampler = CleaningSampler([True] * 16, batch_size=4, fraction=0.5, seed=0)
    sampler.set_epoch(epoch)
    here, there = (
        list(DataLoader(CleaningPairs(data), 4, sampler=sampler, collate_fn=collate, num_workers=workers))
        for workers in (0, 2)
    )
    assert len(here) == len(there) == 4
    for a, b in zip(here, there, strict=True):
        assert_same(a, b)


# --- Texts -----------------------------------------------------------------------------------------------------------


def test_trimming_changes_no_embedding(tiny_clip, tiny_processor, vocabulary, examples):
    embeddings = {}
    for trim in (True, False):
        batch = DataCollatorForTACleaner(tiny_processor, vocabulary=vocabulary, trim=trim)(examples())
        length = batch["input_ids"].shape[1]
        assert length == (batch["attention_mask"].sum(1).max() if trim else 77)
        with torch.no_grad():
            embeddings[trim] = tiny_clip(
                pixel_values=batch["pixel_values"] / 255.0,
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
            ).text_embeds
    assert torch.allclose(embeddings[True], embeddings[False], atol=1e-5)
    assert embeddings[True].std(0).max() > 1e-3  # the embeddings do tell texts apart


def test_long_captions_keep_their_end_token(tiny_processor, photos):
    tokenizer = tiny_processor.tokenizer
    long = " ".join(["a very long caption"] * 10)
    rows = [example(photos[0], long, 0), example(photos[1], "short", 1)]
    ids = DataCollatorForTACleaner(tiny_processor, augment=False)(rows)["input_ids"]
    assert ids.shape == (2, 77)
    assert ids[0, 0] == tokenizer.bos_token_id and ids[0, -1] == tokenizer.eos_token_id


@pytest.mark.parametrize("caption", ["", "...", "1234", "!?", "ÄÖÜ 你好"])
def test_captions_without_anything_to_say(tiny_processor, photos, vocabulary, caption):
    collate = DataCollatorForTACleaner(tiny_processor, vocabulary=vocabulary)
    batch = collate([example(photos[0], caption, 0, chosen=True), example(photos[1], CAPTIONS[1], 1, chosen=True)])
    assert batch["pixel_values"].shape == (4, 3, 32, 32)
    assert len(batch["input_ids"]) == 4 + 2 + 2
    if not parse(caption).eligible:
        assert not batch["positive_valid"][0].any() and not batch["negative_valid"][0].any()
    assert batch["positive_valid"][1].all()


# --- Pictures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "CMYK", "I;16"])
@pytest.mark.parametrize("size", [(32, 32), (31, 47), (200, 9), (1, 1)])
def test_any_picture_becomes_a_square_of_bytes(tiny_processor, mode, size):
    picture = Image.new("I;16", size, 40000) if mode == "I;16" else Image.new("RGB", size, (200, 80, 30)).convert(mode)
    batch = DataCollatorForTACleaner(tiny_processor)([example(picture, "a thing")])
    assert batch["pixel_values"].shape == (2, 3, 32, 32)
    assert batch["pixel_values"].dtype == torch.uint8
    original = batch["pixel_values"][0].flatten(1)
    if mode == "RGBA":
        assert original.unique(dim=1).tolist() == [[200], [80], [30]]
    if mode in ("L", "LA", "1", "I;16"):
        assert torch.equal(original[0], original[1]) and torch.equal(original[0], original[2])


def test_transparency_is_white(tiny_processor):
    picture = Image.new("RGBA", (40, 40), (10, 20, 30, 0))
    picture.paste((10, 20, 30, 255), (0, 0, 20, 40))
    square = DataCollatorForTACleaner(tiny_processor, augment=False)([example(picture, "half")])["pixel_values"][0]
    assert square[:, 16, 4].tolist() == [10, 20, 30]
    assert square[:, 16, 28].tolist() == [255, 255, 255]


def test_the_picture_itself_is_left_alone(tiny_processor, photos):
    before = np.array(photos[0])
    DataCollatorForTACleaner(tiny_processor)([example(photos[0], CAPTIONS[0])])
    assert np.array_equal(np.array(photos[0]), before)


# --- also_true -------------------------------------------------------------------------------------------------------


def test_also_true_by_hand():
    dog, red, grass, cat = 5, 7, 11, 2**62 + 3
    positives = torch.tensor(
        [
            [[dog, 0, 0], [dog, red, 0]],  # "a dog", "a red dog"
            [[dog, red, grass], [cat, 0, 0]],  # "a red dog, grass", "a cat"
        ]
    )
    captions = torch.tensor([[red, dog, 0, 0], [grass, cat, dog, red]])
    assert also_true(positives, captions).tolist() == [
        [[True, True], [True, True]],
        [[False, True], [False, True]],
    ]
    assert also_true(positives[:, :, [2, 1, 0]], captions.flip(1)).tolist() == also_true(positives, captions).tolist()


def test_also_true_from_a_batch(tiny_processor, photos):
    class Vocabulary:
        words = {
            CAPTIONS[0]: ["dog", "dog red"],
            "a dog and a cat": ["dog", "cat"],
            "the cat sleeps": ["cat", "cat sleep"],
        }

        def sub_texts(self, parts, r, num_positive, num_negative, swap):
            return [SubText(text, frozenset(text.split())) for text in self.words[parts.caption]], []

    rows = [example(photos[i], caption, i, chosen=True) for i, caption in enumerate(Vocabulary.words)]
    batch = DataCollatorForTACleaner(tiny_processor, vocabulary=Vocabulary(), num_positive=2)(rows)
    shared = also_true(batch["positive_words"], batch["caption_words"])
    assert shared.tolist() == [
        [[True, True, False], [True, False, False]],
        [[True, True, False], [False, True, True]],
        [[False, True, True], [False, False, True]],
    ]


def test_real_positives_are_true_of_their_own_caption(tiny_processor, vocabulary, examples):
    collate = DataCollatorForTACleaner(tiny_processor, vocabulary=vocabulary, num_positive=3)
    for epoch in range(10):
        batch = collate(examples(epoch))
        own = also_true(batch["positive_words"], batch["caption_words"])[range(4), :, range(4)]
        assert own.all()


# --- Perturbed first views and special sub-texts -------------------------------------------------------------------


def test_noise_and_erasing_change_a_share_of_the_first_views(tiny_processor, photos):
    rows = [example(photos[i % 8], CAPTIONS[i % 8], sample_id=i) for i in range(200)]
    plain = DataCollatorForTACleaner(tiny_processor, augment=True)(rows)["pixel_values"]
    for options in ({"noise": 0.5}, {"erase": 0.5}):
        pixels = DataCollatorForTACleaner(tiny_processor, augment=True, **options)(rows)["pixel_values"]
        assert torch.equal(pixels[200:], plain[200:])  # second views are made from the picture as it is
        changed = (pixels[:200] != plain[:200]).flatten(1).float().mean(1)
        assert 70 < (changed > 0).sum() < 130
        assert (changed > 0.5).any() == ("noise" in options)
    again = DataCollatorForTACleaner(tiny_processor, augment=False, noise=0.5, erase=0.5)
    assert torch.equal(again(rows)["pixel_values"], again(rows)["pixel_values"])
    later = [{**row, "epoch": 1} for row in rows]
    assert not torch.equal(again(rows)["pixel_values"], again(later)["pixel_values"])


def test_without_positives_the_caption_itself_is_the_true_text(tiny_processor, vocabulary, photos):
    collate = DataCollatorForTACleaner(tiny_processor, False, vocabulary, num_positive=0, num_negative=2)
    batch = collate([example(photos[i], CAPTIONS[i], sample_id=i, chosen=i < 4) for i in range(8)])
    assert batch["positive_valid"].shape == (4, 1) and batch["positive_valid"].all()
    assert torch.equal(batch["input_ids"][8:12], batch["input_ids"][:4])
    assert batch["negative_valid"].shape == (4, 2)
    assert not torch.equal(batch["input_ids"][12], batch["input_ids"][0])
    # Each caption is true of its own sample only: their words differ.
    assert torch.equal(also_true(batch["positive_words"], batch["caption_words"])[:, 0], torch.eye(4).bool())


def test_excluded_words_stand_in_no_sub_text(tiny_processor, vocabulary, photos):
    rows = [example(photos[i], CAPTIONS[i], sample_id=i, chosen=True) for i in range(8)]
    texts = {}
    for words in (frozenset(), frozenset({"dog", "bus", "red"})):
        collate = DataCollatorForTACleaner(
            tiny_processor, False, vocabulary, num_positive=2, num_negative=2, exclude=words
        )
        found = []
        for epoch in range(6):
            batch = collate([{**row, "epoch": epoch} for row in rows])
            valid = torch.cat([batch["positive_valid"].flatten(), batch["negative_valid"].flatten()])
            ids = batch["input_ids"][8:][valid]
            found += [tiny_processor.tokenizer.decode(row, skip_special_tokens=True) for row in ids]
        texts[words] = found
    assert any({"dog", "bus", "red"} & set(text.split()) for text in texts[frozenset()])
    (kept,) = [found for words, found in texts.items() if words]
    assert kept and not any({"dog", "bus", "red"} & set(text.split()) for text in kept)
