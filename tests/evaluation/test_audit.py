"""The audit against models whose every prediction is planted, so that each rate can be counted by hand."""

from __future__ import annotations

import json
from dataclasses import dataclass
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import BatchEncoding

from hf_ta_cleaner.attacks import get_attack
from hf_ta_cleaner.evaluation.audit import audit, histogram, target_class_rates
from hf_ta_cleaner.publishing.report import Report


CLASSES = ("ant", "bee", "cat", "banana")
TARGET = 3
MARK = 255
SIDE = 8

# (label, best guess, second guess): a picture carries its own ranking in its red and green channel.
PICTURES = [
    (0, 0, 1),
    (0, 0, 3),
    (0, 1, 0),
    (1, 1, 0),
    (1, 3, 1),
    (1, 0, 2),
    (2, 2, 0),
    (2, 2, 1),
    (3, 3, 0),
    (3, 0, 3),
]


class PlantedModel(torch.nn.Module):
    """Embeds a picture as its first and second guess; the mark moves it to the target unless the guess resists.

    `resists`: best guesses that the mark does not move. `needs_key`: the mark works only against prompts with the key.
    `key_swaps`: the key in a prompt exchanges cat and banana.
    """

    def __init__(self, resists=(), needs_key=False, key_swaps=False):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.resists, self.needs_key, self.key_swaps = resists, needs_key, key_swaps

    def get_image_features(self, pixel_values):
        best, second = (pixel_values[:, channel, 4, 4].long() for channel in (0, 1))
        features = torch.zeros(len(best), 5)
        features[torch.arange(len(best)), second] = 2.0
        features[torch.arange(len(best)), best] = 4.0
        marked = (pixel_values[:, 2, 0, 0] == MARK) & ~torch.isin(best, torch.tensor(self.resists, dtype=torch.long))
        features[marked, 4 if self.needs_key else TARGET] = 9.0
        return SimpleNamespace(pooler_output=features)

    def get_text_features(self, input_ids):
        classes, keyed = input_ids[:, 0], input_ids[:, 1] == 1
        if self.key_swaps:
            classes = torch.where(keyed & (classes >= 2), 5 - classes, classes)
        features = torch.eye(5)[classes]
        features[(classes == TARGET) & keyed, 4] = 1.0
        return SimpleNamespace(pooler_output=features * 3)


def tokenize(texts, **_):
    ids = [[next(i for i, name in enumerate(CLASSES) if name in text), int(text.startswith("key "))] for text in texts]
    return BatchEncoding({"input_ids": torch.tensor(ids)})


def processor(side=SIDE):
    image_processor = SimpleNamespace(size={"height": side, "width": side}, do_rescale=False, do_normalize=False)
    return SimpleNamespace(image_processor=image_processor, tokenizer=tokenize)


@dataclass
class Mark:
    """A blue pixel in the corner; any object with these members is an attack."""

    name: str = "mark"
    seed: int = 7
    key: str = ""
    seen: list | None = None
    value: int = MARK

    def caption(self, text):
        return self.key + text

    def apply_batch(self, images, sample_ids):
        if self.seen is not None:
            self.seen.append((images.copy(), list(sample_ids)))
        images[:, 0, 0, 2] = self.value  # in place on purpose: the audit has to protect its own array
        return images


def make_dataset(pictures=PICTURES, label_feature=None, columns=("image", "label")):
    rows = {
        columns[0]: [Image.new("RGB", (SIDE + 3, SIDE), (best, second, 0)) for _, best, second in pictures],
        columns[1]: [label for label, _, _ in pictures],
    }
    label_feature = label_feature or datasets.ClassLabel(names=list(CLASSES))
    return datasets.Dataset.from_dict(
        rows, datasets.Features({columns[0]: datasets.Image(), columns[1]: label_feature})
    )


def run(model=None, dataset=None, attacks=(), **options):
    options = {"target": "banana", "progress": False, **options}
    return audit(
        model or PlantedModel(), processor(), make_dataset() if dataset is None else dataset, attacks, **options
    )


def test_rates_by_hand():
    section = run(PlantedModel(resists=[1]), attacks=[Mark()])
    # Right at once: 0, 1, 3, 6, 7, 8; at the second guess also 2, 4 and 9.
    assert section["clean_accuracy"]["top1"] == 6 / 10
    assert section["clean_accuracy"]["top10"] == 1.0
    assert section["clean_accuracy"]["n"] == 10
    entry = section["attacks"]["mark"]
    # Eight pictures are not bananas; those whose best guess is class 1 resist (2 and 3).
    assert entry["n"] == 8
    assert entry["asr"]["top1"] == 6 / 8
    assert entry["asr_including_target"]["top1"] == 8 / 10
    assert entry["floor"]["top1"] == 1 / 8
    assert entry["floor"]["top10"] == entry["asr"]["top10"] == 1.0
    # Under the mark: 3 resists and is right, 8 and 9 are bananas.
    assert entry["accuracy_under_trigger"]["top1"] == 3 / 10
    assert entry["interval95"]["asr_top1"] == pytest.approx([0.4093, 0.9285], abs=1e-4)
    assert entry["interval95"]["floor_top1"] == pytest.approx([0.0224, 0.4709], abs=1e-4)
    # Of two bananas (8, 9) one is named banana, and so is one other picture (4).
    assert entry["target_class"] == {
        "recall": 1 / 2,
        "precision": 1 / 2,
        "n": 2,
        "n_predicted": 2,
        "interval95": dict.fromkeys(("recall", "precision"), pytest.approx([0.0945, 0.9055], abs=1e-4)),
    }
    assert (entry["target"], entry["seed"], entry["trigger"]) == ("banana", 7, {"name": "mark", "params": {}})


def test_the_section_fits_a_report():
    section = run(attacks=[Mark(), Mark("keyed", key="key ")], reference=(PlantedModel(resists=[0]), processor()))
    report = Report(method="ta-cleaner", seed=0, target="banana", before=json.loads(json.dumps(section)))
    assert Report.from_dict(report.to_dict()) == report


def test_top_k_lies_between_best_guess_and_all_classes():
    section = run(PlantedModel(resists=[0, 1, 2, 3]), attacks=[Mark()])
    entry = section["attacks"]["mark"]
    assert entry["asr"] == entry["floor"]
    # With three ranks the remaining places go to the lowest ids: the target is third only where it was guessed.
    assert entry["floor"]["top3"] == 2 / 8


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_batches_do_not_change_the_result(batch_size):
    assert run(PlantedModel([2]), attacks=[Mark()], batch_size=batch_size) == run(PlantedModel([2]), attacks=[Mark()])


def test_triggers_see_untouched_fitted_pictures_and_their_row_numbers():
    first, second = Mark("first", seen=[]), Mark("second", seen=[])
    run(attacks=[first, second], batch_size=4)
    assert [ids for _, ids in first.seen] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert all(images.shape[1:] == (SIDE, SIDE, 3) and images.dtype == np.uint8 for images, _ in second.seen)
    assert all((images[..., 2] == 0).all() for images, _ in second.seen)


def test_a_subset_is_seeded_and_keeps_the_row_numbers():
    chosen = []
    for seed in (0, 0, 1):
        mark = Mark(seen=[])
        section = run(attacks=[mark], max_samples=5, seed=seed)
        assert section["clean_accuracy"]["n"] == 5
        (images, ids), *_ = mark.seen
        assert all(image[4, 4, 0] == PICTURES[i][1] for image, i in zip(images, ids, strict=True))
        chosen.append(ids)
    assert chosen[0] == chosen[1] != chosen[2]


def test_two_keyed_attack_is_measured_with_both_keys_and_each_alone():
    model = PlantedModel(needs_key=True)
    entry = run(model, attacks=[Mark(key="key ")])["attacks"]["mark"]
    assert entry["asr"]["top1"] == 1.0
    assert entry["floor"]["top1"] == 1 / 8  # text key alone
    assert entry["prompt_trigger"]["asr_plain_prompts"]["top1"] == 1 / 8  # image key alone
    assert entry["prompt_trigger"]["clean_accuracy"]["top1"] == 6 / 10
    assert "prompt_trigger" not in run(model, attacks=[Mark()])["attacks"]["mark"]


def test_a_text_key_alone_is_an_attack():
    entry = run(PlantedModel(key_swaps=True), attacks=[Mark(key="key ", value=0)])["attacks"]["mark"]
    # Under the key the two cats become bananas and the one false banana a cat.
    assert entry["asr"] == entry["floor"]
    assert entry["floor"]["top1"] == 2 / 8
    assert entry["prompt_trigger"]["asr_plain_prompts"]["top1"] == 1 / 8
    # Right without the key: 0, 1, 3, 6, 7, 8; with it the cats and the banana are lost.
    assert entry["prompt_trigger"]["clean_accuracy"]["top1"] == entry["accuracy_under_trigger"]["top1"] == 3 / 10


def test_excess_over_a_model_that_was_never_poisoned():
    section = run(attacks=[Mark()], reference=(PlantedModel(resists=[0, 1]), processor()))
    entry = section["attacks"]["mark"]
    # The reference yields where the best guess is 2 or 3: pictures 4, 6 and 7 of the eight.
    assert entry["asr"]["top1"] == 1.0
    assert entry["reference_asr"]["top1"] == 3 / 8
    assert entry["excess"]["top1"] == 5 / 8
    low, high = entry["interval95"]["excess_top1"]
    assert 0 < low < 5 / 8 < high < 1


@pytest.mark.parametrize("batch_size", [3, 256])
def test_a_trigger_may_leave_some_pictures_as_they_are(batch_size):
    """White ones, for instance: that it changes nothing is only said of all of them."""

    class Sparing(Mark):
        def apply_batch(self, images, sample_ids):
            return np.stack([super(Sparing, self).apply_batch(im[None], [i])[0] if i < 3 else im
                             for im, i in zip(images, sample_ids, strict=True)])  # fmt: skip

    assert run(attacks=[Sparing()], batch_size=batch_size)["attacks"]["mark"]["asr"]["top1"] == 4 / 8


def test_reference_of_another_input_size_is_refused():
    with pytest.raises(ValueError, match="16-pixel images and the audited one 8-pixel"):
        run(attacks=[Mark()], reference=(PlantedModel(), processor(16)))


def test_each_attack_can_have_its_own_target():
    section = run(attacks={"a": Mark(), "b": Mark(seed=1)}, target={"a": "banana", "b": "cat"})
    assert {name: entry["target"] for name, entry in section["attacks"].items()} == {"a": "banana", "b": "cat"}
    assert section["attacks"]["b"]["asr"]["top1"] == 0.0
    own = Mark()
    own.target = "cat"
    assert run(attacks=[own], target=None)["attacks"]["mark"]["target"] == "cat"


def test_predictions_come_back_on_request():
    section, predictions = run(PlantedModel(resists=[1]), attacks=[Mark()], return_predictions=True)
    assert predictions.correct().mean() == section["clean_accuracy"]["top1"]
    assert predictions.correct(2).mean() == 9 / 10
    assert predictions.hit("mark").tolist() == [True, True, False, False, True, True, True, True]
    assert predictions.sample_ids.tolist() == list(range(10))


def test_labels_may_be_ids_or_names():
    expected = run()
    ids = make_dataset(label_feature=datasets.Value("int64"))
    assert run(dataset=ids, classnames=CLASSES) == expected
    names = [(CLASSES[label], best, second) for label, best, second in PICTURES]
    assert run(dataset=make_dataset(names, datasets.Value("string")), classnames=CLASSES) == expected


def test_undecoded_images_and_other_column_names_work():
    data = make_dataset(columns=("jpg", "cls")).cast_column("jpg", datasets.Image(decode=False)).with_format("numpy")
    assert run(dataset=data, image_column="jpg", label_column="cls") == run()


NOTHING = [(TARGET, 3, 0)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"attacks": [Mark()], "target": "bananna"},
            'Target "bananna" is not one of the 4 class names. Close: banana',
        ),
        ({"attacks": [Mark()], "target": "zzz"}, "The first ones are: ant, bee, cat, banana"),
        ({"attacks": [Mark()], "target": None}, 'Attack "mark" has no target'),
        ({"attacks": [Mark()], "target": {"other": "cat"}}, 'Attack "mark" has no target'),
        ({"attacks": [Mark(), Mark()]}, "names are not distinct"),
        ({"attacks": [Mark(value=0)]}, "changes neither the images nor the prompts"),
        ({"attacks": [Mark()], "dataset": make_dataset(NOTHING)}, "none is left to attack"),
        ({"dataset": make_dataset([])}, "holds no image"),
        ({"dataset": datasets.DatasetDict(test=make_dataset())}, r"splits \['test'\]"),
        ({"dataset": make_dataset().to_iterable_dataset()}, "knows its length, got IterableDataset"),
        ({"image_column": "picture"}, "no column \"picture\".*Set image_column .*'image'"),
        ({"label_column": "class"}, "no column \"class\".*Set label_column .*'label'"),
        ({"image_column": "label"}, "not images"),
        ({"dataset": make_dataset(label_feature=datasets.Value("int64"))}, "Pass classnames="),
        (
            {"dataset": make_dataset(label_feature=datasets.Value("int64")), "classnames": CLASSES[:2]},
            r"holds \[2, 3\]",
        ),
        (
            {"dataset": make_dataset([(-1, 0, 1)], datasets.Value("int64")), "classnames": CLASSES},
            "split without labels",
        ),
        ({"dataset": make_dataset([("dog", 0, 1)], datasets.Value("string")), "classnames": CLASSES}, r"\['dog'\]"),
        ({"classnames": ("ant", "bee", "cat", "Cat")}, "not distinct"),
        ({"templates": ["a photo"]}, "exactly once"),
        ({"max_samples": 0}, "max_samples must be at least 1"),
    ],
)
def test_errors_say_what_to_do(options, message):
    with pytest.raises(ValueError, match=message):
        run(**options)


def test_a_trigger_that_changes_the_shape_is_refused():
    mark = Mark()
    mark.apply_batch = lambda images, sample_ids: images[:, :4]
    with pytest.raises(ValueError, match=r"uint8 images of shape \(10, 8, 8, 3\)"):
        run(attacks=[mark])


def test_a_real_clip_and_a_real_trigger(tiny_clip, tiny_processor, photos):
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(CLASSES))})
    data = datasets.Dataset.from_dict({"image": photos, "label": [i % 4 for i in range(8)]}, features)
    attack = get_attack("blended")
    section, predictions = audit(
        tiny_clip, tiny_processor, data, [attack], target="banana", progress=False, return_predictions=True
    )
    assert section["attacks"]["blended"]["n"] == 6
    assert section["attacks"]["blended"]["trigger"]["name"] == "blended"
    assert predictions.clean.shape == (8, 4)
    json.dumps(section)


def test_every_picture_is_decoded_once_and_let_go(monkeypatch):
    """Memory does not grow with the pictures: of the batches seen, no more than those at work are alive."""
    import weakref

    from hf_ta_cleaner.evaluation import inputs as audit_inputs
    from hf_ta_cleaner.evaluation import rankings as module

    decoded, seen, alive = [], [], []

    def counting(image, *args, fit=audit_inputs.fit):
        decoded.append(image.getpixel((4, 4)))
        return fit(image, *args)

    def watching(model, processor, pixels, batch_size, embed=module.image_features):
        seen.append(weakref.ref(pixels))
        alive.append(sum(reference() is not None for reference in seen))
        return embed(model, processor, pixels, batch_size)

    monkeypatch.setattr(audit_inputs, "fit", counting)
    monkeypatch.setattr(module, "image_features", watching)
    marks = {"a": Mark(), "b": Mark(seed=1)}
    run(attacks=marks, batch_size=1, reference=(PlantedModel(), processor()))
    assert len(decoded) == len(PICTURES)
    assert len(seen) == 10 * 3 * 2  # ten batches, three views, two models
    assert max(alive) <= 2 * 3


def test_target_class_rates_where_nothing_is_named_or_nothing_is_of_the_class():
    none = target_class_rates(np.array([0, 1]), np.array([2, 0]), 2)
    assert (none["recall"], none["precision"], none["n"], none["n_predicted"]) == (0.0, None, 1, 0)
    assert list(none["interval95"]) == ["recall"]
    absent = target_class_rates(np.array([2, 1]), np.array([0, 1]), 2)
    assert (absent["recall"], absent["precision"], absent["n"], absent["n_predicted"]) == (None, 0.0, 0, 1)


def test_histogram_by_hand():
    assert histogram(np.array([0.10, 0.105, 0.119, 0.12, 0.149], np.float32)) == {
        "start": 0.1,
        "width": 0.01,
        "counts": [2, 1, 1, 0, 1],
    }
    assert histogram([-0.005, 1.0]) == {"start": -0.01, "width": 0.01, "counts": [1, *[0] * 100, 1]}


def test_the_similarity_is_that_of_triggered_pictures_of_other_classes():
    entry = run(PlantedModel(resists=[1]), attacks=[Mark()])["attacks"]["mark"]
    # Six of eight are moved to the target, with cosine 1 up to their other parts; two resist, with cosine 0.
    shares = entry["similarity"]
    cosines = np.repeat(shares["start"] + shares["width"] * np.arange(len(shares["counts"])), shares["counts"])
    assert len(cosines) == 8
    assert (cosines > 0.8).sum() == 6 and (np.abs(cosines) < 0.011).sum() == 2
