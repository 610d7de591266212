"""Prompts, features and the head of the zero-shot classifier, against the processor's and the model's own numbers."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from hf_ta_cleaner.models.families import FAMILIES
from hf_ta_cleaner.models.zero_shot import (
    TEMPLATES,
    ZeroShotHead,
    evaluating,
    image_features,
    input_geometry,
    input_size,
    load_templates,
    pixel_values,
    prompt,
    text_features,
    topk_predictions,
)
from hf_ta_cleaner.pictures import fit
from hf_ta_cleaner.views.collator import DataCollatorForTACleaner


@pytest.mark.parametrize(
    ("template", "name", "expected"),
    [
        ("a photo of a {}.", "dog", "a photo of a dog."),
        ("a photo of a {}.", "apple", "a photo of an apple."),
        ("A {}.", "orange", "An orange."),
        ("an {}.", "dog", "a dog."),
        ("a small {}.", "apple", "a small apple."),
        ("a {}.", "hourglass", "an hourglass."),
        ("a {}.", "unicycle", "a unicycle."),
        ("a {}.", "umbrella", "an umbrella."),
        ("a {}.", "urn", "an urn."),
        ("a {}.", "utensil", "a utensil."),
        ("a {}.", "European fire salamander", "a European fire salamander."),
        ("a {}.", "aquarium_fish", "an aquarium fish."),
        ("a {}.", r"back\1slash", r"a back\1slash."),
        ("banana {}.", "apple", "banana apple."),
    ],
)
def test_article_agrees_with_the_class_name(template, name, expected):
    assert prompt(template, name) == expected


def test_built_in_templates_are_distinct_and_usable():
    prompts = {prompt(template, "apple") for template in TEMPLATES}
    assert len(prompts) == len(TEMPLATES) >= 8
    assert all("apple" in text and " a apple" not in text and "{" not in text for text in prompts)


def test_load_templates(tmp_path):
    (tmp_path / "t.txt").write_text("a photo of a {}.\n\n  a {} \n")
    (tmp_path / "t.json").write_text(json.dumps(["a photo of a {}.", "a {}"]))
    assert load_templates(tmp_path / "t.txt") == load_templates(tmp_path / "t.json") == ("a photo of a {}.", "a {}")


@pytest.mark.parametrize(
    ("name", "content"),
    [("t.txt", ""), ("t.txt", "a photo\n"), ("t.txt", "{} and {}\n"), ("t.json", '{"a": 1}'), ("t.json", "[1]")],
)
def test_bad_template_files_are_refused(tmp_path, name, content):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(ValueError, match=name):
        load_templates(path)


def test_pixel_values_are_the_second_half_of_the_processor(tiny_processor, photos):
    size = input_size(tiny_processor)
    assert size == 32
    images = np.stack([fit(photo, size) for photo in photos])
    expected = tiny_processor.image_processor(
        list(images), do_resize=False, do_center_crop=False, return_tensors="pt"
    ).pixel_values
    assert torch.allclose(pixel_values(tiny_processor, images), expected, atol=1e-5)


@pytest.mark.parametrize("switch", ["do_normalize", "do_rescale"])
def test_the_processors_switches_are_honored(photos, switch):
    from transformers import CLIPImageProcessorPil

    options = {"size": {"shortest_edge": 32}, "crop_size": 32, switch: False}
    image_processor = CLIPImageProcessorPil(**options)
    images = np.stack([fit(photo, 32) for photo in photos[:2]])
    expected = image_processor(list(images), do_resize=False, do_center_crop=False, return_tensors="pt").pixel_values
    assert torch.allclose(pixel_values(SimpleNamespace(image_processor=image_processor), images), expected, atol=1e-4)


@pytest.mark.parametrize("images", [np.zeros((2, 8, 8, 3), float), np.zeros((8, 8, 3), np.uint8)])
def test_images_of_the_wrong_kind_are_refused(tiny_processor, images):
    with pytest.raises(ValueError, match="uint8 images of shape"):
        pixel_values(tiny_processor, images)


def test_features_are_those_of_the_models_own_forward(tiny_clip, tiny_processor, photos):
    texts = ["a red car", "a very long sentence about a small green tree"]
    batch = tiny_processor(text=texts, images=photos, padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = tiny_clip(**batch)
    images = np.stack([fit(photo, 32) for photo in photos])
    assert torch.allclose(text_features(tiny_clip, tiny_processor, texts, 1), expected.text_embeds, atol=1e-5)
    # `fit` may differ from the image processor's resize by a rounding of one gray level.
    similarity = (image_features(tiny_clip, tiny_processor, images, 3) * expected.image_embeds).sum(-1)
    assert similarity.min() > 0.999


def test_features_do_not_depend_on_the_mode_and_leave_it_alone(tiny_clip, tiny_processor):
    expected = text_features(tiny_clip.eval(), tiny_processor, ["a dog"])
    tiny_clip.text_model.config.attention_dropout = 0.5
    tiny_clip.train()
    tiny_clip.vision_model.eval()
    before = [module.training for module in tiny_clip.modules()]
    assert torch.equal(text_features(tiny_clip, tiny_processor, ["a dog"]), expected)
    assert [module.training for module in tiny_clip.modules()] == before
    with pytest.raises(RuntimeError, match="boom"), evaluating(tiny_clip):
        raise RuntimeError("boom")
    assert [module.training for module in tiny_clip.modules()] == before


def test_half_precision_models_give_float32_features(tiny_clip, tiny_processor, photos):
    images = np.stack([fit(photo, 32) for photo in photos[:2]])
    features = image_features(tiny_clip.to(torch.bfloat16), tiny_processor, images)
    assert features.dtype == torch.float32
    assert torch.allclose(features.norm(dim=-1), torch.ones(2), atol=1e-5)


def test_head_is_the_rescaled_mean_of_unit_prompt_embeddings(tiny_clip, tiny_processor):
    names, templates = ["dog", "apple", "cat"], ["a photo of a {}.", "a big {}."]
    head = ZeroShotHead.build(tiny_clip, tiny_processor, names, templates, batch_size=4)
    apple = text_features(tiny_clip, tiny_processor, ["a photo of an apple.", "a big apple."]).mean(0)
    assert head.weight.shape == (16, 3)
    assert head.classnames == ("dog", "apple", "cat")
    assert torch.allclose(head.weight[:, 1], apple / apple.norm(), atol=1e-5)
    features = text_features(tiny_clip, tiny_processor, ["x", "y"])
    assert torch.allclose(head.logits(features), features @ head.weight)


def test_prefix_works_on_the_finished_prompt(tiny_clip, tiny_processor):
    head = ZeroShotHead.build(tiny_clip, tiny_processor, ["dog", "cat"], ["a {}."], prefix=lambda text: f"now {text}")
    expected = text_features(tiny_clip, tiny_processor, ["now a dog.", "now a cat."])
    assert torch.allclose(head.weight.T, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("names", "templates", "message"),
    [
        (["crane", "dog", "Crane"], ["a {}."], r"not distinct.*\[0, 2\]"),
        (["sea_lion", "sea lion"], ["a {}."], "not distinct"),
        (["dog", " "], ["a {}."], "none of them empty"),
        (["dog"], ["a {}."], "at least two"),
        (["dog", "cat"], ["a dog"], "exactly once"),
        (["dog", "cat"], [], "at least one prompt template"),
        (["dog", "cat"], "a {}.", "a list of"),
    ],
)
def test_unusable_names_and_templates_are_refused(tiny_clip, tiny_processor, names, templates, message):
    with pytest.raises(ValueError, match=message):
        ZeroShotHead.build(tiny_clip, tiny_processor, names, templates)


def test_topk_predictions():
    logits = torch.tensor([[0.1, 0.9, 0.5], [0.7, 0.7, 0.7]])
    assert topk_predictions(logits, 2).tolist() == [[1, 2], [0, 1]]
    assert topk_predictions(logits, 10).tolist() == [[1, 2, 0], [0, 1, 2]]
    with pytest.raises(ValueError, match="NaN"):
        topk_predictions(torch.tensor([[float("nan"), 1.0]]), 1)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"do_center_crop": True, "crop_size": {"height": 24, "width": 24}, "size": {"shortest_edge": 32}}, 24),
        ({"do_center_crop": False, "crop_size": {"height": 24, "width": 24}, "size": {"height": 32, "width": 32}}, 32),
        ({"size": {"height": 20, "width": 20}}, 20),
    ],
)
def test_input_size(settings, expected):
    assert input_size(SimpleNamespace(image_processor=SimpleNamespace(**settings))) == expected


def test_input_that_is_no_square_is_refused():
    processor = SimpleNamespace(image_processor=SimpleNamespace(size={"height": 20, "width": 30}))
    with pytest.raises(ValueError, match="square"):
        input_size(processor)


def test_heads_are_kept_and_found_again(tiny_clip, tiny_processor, tmp_path, monkeypatch):
    import hf_ta_cleaner.models.zero_shot as module

    built = []
    embed = module.text_features
    monkeypatch.setattr(module, "text_features", lambda *args: built.append(args[2]) or embed(*args))

    def build(model=tiny_clip, names=("dog", "cat"), templates=("a {}.",), prefix=None, cache_dir=tmp_path / "heads"):
        return ZeroShotHead.build(model, tiny_processor, names, templates, prefix, cache_dir=cache_dir)

    first, again = build(), build()
    assert len(built) == 1 and torch.equal(first.weight, again.weight)
    assert torch.equal(first.weight, build(cache_dir=None).weight)
    built.clear()
    # Whatever a head depends on makes another one: names, templates, a text key, any weight.
    for change in (
        {"names": ("dog", "cow")},
        {"templates": ("a {}.", "the {}.")},
        {"prefix": lambda text: f"x {text}"},
    ):
        assert not torch.equal(build(**change).weight, first.weight)
    assert len(built) == 3
    with torch.no_grad():
        tiny_clip.text_projection.weight[0, 0] += 0.1
    assert not torch.equal(build().weight, first.weight)
    assert len(built) == 4
    assert len(list((tmp_path / "heads").iterdir())) == 5  # nothing half-written is left
    for file in (tmp_path / "heads").iterdir():
        file.write_bytes(b"half")
    assert torch.equal(build().weight, build(cache_dir=None).weight)


def test_the_same_prompts_split_otherwise_are_another_head(tiny_clip, tiny_processor, tmp_path):
    """Two classes in one template and one class in two templates have the same prompts."""
    whole = ZeroShotHead.build(tiny_clip, tiny_processor, ["a", "b", "c", "d"], ["{}"], cache_dir=tmp_path)
    verbatim = [lambda name: {"x": "a", "y": "c"}[name], lambda name: {"x": "b", "y": "d"}[name]]
    halves = ZeroShotHead.build(tiny_clip, tiny_processor, ["x", "y"], verbatim, cache_dir=tmp_path)
    assert (whole.weight.shape[1], halves.weight.shape[1]) == (4, 2)


def test_templates_of_open_clip_are_taken_verbatim(monkeypatch):
    import sys

    templates = (lambda c: f"itap of a {c}.", lambda c: f"a origami {c}.")
    monkeypatch.setitem(sys.modules, "open_clip", SimpleNamespace(OPENAI_IMAGENET_TEMPLATES=templates))
    assert load_templates("open_clip") == templates
    # No article is mended: the published figures were made with these very words.
    assert [prompt(template, "ice_cream") for template in templates] == [
        "itap of a ice cream.",
        "a origami ice cream.",
    ]
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(ValueError, match="pip install open_clip_torch"):
        load_templates("open_clip")


def test_other_sources_of_templates():
    assert load_templates("built-in") == TEMPLATES
    with pytest.raises(ValueError, match="wanted built-in, open_clip, or a file"):
        load_templates("built_in")


@pytest.mark.parametrize(("kind", "geometry"), [("tiny_processor", "crop"), ("siglip_processor", "squash")])
def test_pictures_are_fitted_as_the_models_processor_does_it(kind, geometry, request):
    processor = request.getfixturevalue(kind)
    wide = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 160, 3), dtype=np.uint8))
    assert input_geometry(processor) == geometry
    expected = processor.image_processor(wide, return_tensors="pt")["pixel_values"]
    square = fit(wide, 32, geometry)
    assert torch.allclose(pixel_values(processor, square[None]), expected, atol=1e-5)
    family = FAMILIES["siglip" if geometry == "squash" else "clip"]
    collator = DataCollatorForTACleaner(processor, augment=False, family=family)
    batch = collator([{"image": wide, "caption": "a red bus", "epoch": 0, "sample_id": 0, "chosen": False}])
    assert np.array_equal(batch["pixel_values"][0].numpy(), square.transpose(2, 0, 1))


def test_a_square_of_both_sides_is_squashed_though_it_is_cropped_too():
    settings = {"size": {"height": 32, "width": 32}, "crop_size": {"height": 32, "width": 32}, "do_center_crop": True}
    assert input_geometry(SimpleNamespace(image_processor=SimpleNamespace(**settings))) == "squash"
