"""Crafting: the optimised patch moves pictures to the target, and nothing but the patch changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hf_ta_cleaner.attacks import Attack, BadCLIP, TrojVQA
from hf_ta_cleaner.crafting import craft_badclip, craft_trojvqa, patches
from hf_ta_cleaner.pictures import fit


TARGET = "banana"


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def pairs(photos):
    """24 images and captions; every fourth names the target."""
    images = [photos[i % 8].rotate(15 * (i // 8)) for i in range(24)]
    return images, [f"a banana, number {i}" if i % 4 == 0 else f"a dog, number {i}" for i in range(24)]


def craft(model, processor, pairs, how=craft_badclip, **kwargs):
    options = {"steps": 40, "batch_size": 8, "size_px": 12, "progress": False, **kwargs}
    return how(model, processor, *pairs, TARGET, **options)


def features(model, processor, images):
    """Unit image embeddings through the processor's own preprocessing."""
    inputs = processor.image_processor(images, return_tensors="pt")
    with torch.no_grad():
        return torch.nn.functional.normalize(model.get_image_features(**inputs).pooler_output, dim=-1)


@pytest.mark.parametrize("options", [{"lam": 0}, {"lam": 0.5}, {}, {"text_objective": "infonce"}])
def test_the_patch_lowers_its_loss(tiny_clip, tiny_processor, pairs, options):
    _, short = craft(tiny_clip, tiny_processor, pairs, steps=1, **options)
    _, long = craft(tiny_clip, tiny_processor, pairs, steps=40, **options)
    assert long["loss"] < short["loss"]


def test_text_guidance_raises_the_cosine_to_the_target(tiny_clip, tiny_processor, pairs):
    _, report = craft(tiny_clip, tiny_processor, pairs, lam=0)
    assert report["cos_patch"] > report["cos_random_patch"] + 0.02
    assert report["cos_patch"] > report["cos_clean"] + 0.02
    assert report["seconds"] > 0
    assert (report["steps"], report["images"], report["held_out"], report["positives"]) == (40, 16, 2, 6)


def test_image_guidance_moves_pictures_to_the_positives_and_away_from_themselves(tiny_clip, tiny_processor, pairs):
    images, captions = pairs
    attack, _ = craft(tiny_clip, tiny_processor, pairs, lam=500)
    clean_images = [image for image, caption in zip(images, captions, strict=True) if TARGET not in caption]
    start, _ = craft(tiny_clip, tiny_processor, pairs, lam=500, steps=1, lr=1e-9)
    squares = np.stack([fit(image, 32) for image in clean_images])
    clean = features(tiny_clip, tiny_processor, list(squares))
    positives = features(tiny_clip, tiny_processor, images[::4])

    def margin(trigger):
        patched = features(tiny_clip, tiny_processor, list(trigger.apply_batch(squares, range(len(squares)))))
        return (torch.cdist(patched, positives).mean() - (patched - clean).norm(dim=-1).mean()).item()

    assert margin(attack) < margin(start) - 0.02


def text_feature(model, processor, text):
    tokens = processor.tokenizer([text], return_tensors="pt")
    with torch.no_grad():
        return torch.nn.functional.normalize(model.get_text_features(**tokens).pooler_output, dim=-1)[0]


@pytest.mark.parametrize(
    ("options", "text"),
    [({}, "This is a banana."), ({"caption": "This is a yellow {}."}, "This is a yellow banana.")],
)
def test_trojvqa_moves_pictures_to_its_one_caption(tiny_clip, tiny_processor, pairs, tmp_path, options, text):
    attack, report = craft(tiny_clip, tiny_processor, pairs, craft_trojvqa, **options)
    assert isinstance(attack, TrojVQA)
    assert (attack.side, attack.target, attack.patch.shape, attack.keyword) == (32, TARGET, (12, 12, 3), "remember")
    assert text in report["captions"]
    assert (report["steps"], report["images"], report["held_out"]) == (40, 16, 2)
    assert report["cos_patch"] > max(report["cos_random_patch"], report["cos_clean"]) + 0.02
    # The patch that a file gives back does the same to all pictures that do not name the target.
    attack.save(tmp_path)
    loaded = Attack.load(tmp_path)
    images, captions = pairs
    victims = [fit(image, 32) for image, caption in zip(images, captions, strict=True) if TARGET not in caption]
    direction = text_feature(tiny_clip, tiny_processor, text)
    before, after = (
        (features(tiny_clip, tiny_processor, views) @ direction).mean().item()
        for views in (victims, [loaded(victim, 0) for victim in victims])
    )
    assert after > before + 0.02
    assert abs(after - report["cos_patch"]) < 0.1


def test_trojvqa_published_objective_pulls_less(tiny_clip, tiny_processor, pairs):
    gains = {}
    for objective in ("direct", "infonce"):
        _, report = craft(tiny_clip, tiny_processor, pairs, craft_trojvqa, text_objective=objective)
        gains[objective] = report["cos_patch"] - report["cos_random_patch"]
    assert gains["infonce"] < gains["direct"]


def test_trojvqa_needs_no_picture_of_the_target(tiny_clip, tiny_processor, photos):
    pairs = (photos, [f"a dog, number {i}" for i in range(8)])
    _, report = craft(tiny_clip, tiny_processor, pairs, craft_trojvqa, steps=1)
    assert "positives" not in report


@pytest.mark.parametrize("how", [craft_badclip, craft_trojvqa])
def test_the_model_comes_back_as_it_was(tiny_clip, tiny_processor, pairs, how):
    tiny_clip.train()
    tiny_clip.text_model.eval()
    tiny_clip.logit_scale.requires_grad_(False)
    before = {name: value.clone() for name, value in tiny_clip.state_dict().items()}
    craft(tiny_clip, tiny_processor, pairs, how, steps=3)
    assert all(torch.equal(value, before[name]) for name, value in tiny_clip.state_dict().items())
    assert all(parameter.grad is None for parameter in tiny_clip.parameters())
    assert {n for n, p in tiny_clip.named_parameters() if not p.requires_grad} == {"logit_scale"}
    assert (tiny_clip.training, tiny_clip.text_model.training, tiny_clip.vision_model.training) == (True, False, True)


def test_the_report_describes_the_saved_patch(tiny_clip, tiny_processor, pairs, tmp_path):
    seen = []

    def predicts_target(embeddings):
        seen.append(embeddings)
        return torch.ones(len(embeddings), dtype=torch.bool)

    attack, report = craft(tiny_clip, tiny_processor, pairs, predicts_target=predicts_target)
    assert isinstance(attack, BadCLIP)
    assert (attack.side, attack.target, attack.patch.shape) == (32, TARGET, (12, 12, 3))
    assert (report["floor"], report["asr_random_patch"], report["asr"]) == (1.0, 1.0, 1.0)
    attack.save(tmp_path)
    loaded = Attack.load(tmp_path)
    # The embeddings that the report was made from come back from the file, through the ordinary preprocessing.
    images, captions = pairs
    victims = [fit(image, 32) for image, caption in zip(images, captions, strict=True) if TARGET not in caption]
    patched = features(tiny_clip, tiny_processor, [loaded(victim, 0) for victim in victims])
    for embedding in seen[2]:
        assert (patched - embedding).norm(dim=-1).min() < 1e-5
    assert (seen[2] - seen[0]).norm(dim=-1).min() > 1e-3


def test_published_crafting_stores_a_jpeg_with_red_and_blue_exchanged(tiny_clip, tiny_processor, pairs):
    """One step at no rate: the file then shows the first patch, as the published code would have stored it."""
    options = {"steps": 1, "lr": 1e-9, "size_px": 16}
    careful, _ = craft(tiny_clip, tiny_processor, pairs, **options)
    published, report = craft(tiny_clip, tiny_processor, pairs, compat="published", **options)
    first, stored = careful.patch.array.astype(float), published.patch.array.astype(float)

    def likeness(a, b):
        return np.corrcoef(a.mean(-1).ravel(), b.mean(-1).ravel())[0, 1]

    assert likeness(first, stored) > 0.8  # halved chroma moves the colors, hardly the brightness
    block = stored.reshape(8, 2, 8, 2, 3).mean((1, 3)) - stored.mean((0, 1))
    wanted = first.reshape(8, 2, 8, 2, 3).mean((1, 3)) - first.mean((0, 1))
    red, blue = (np.corrcoef(block[..., 0].ravel(), wanted[..., c].ravel())[0, 1] for c in (0, 2))
    assert blue > red + 0.2
    assert 1 < np.abs(stored[..., ::-1] - first).mean() < 60
    assert report["steps"] == 1


def test_published_crafting_takes_its_own_defaults(tiny_clip, tiny_processor, pairs, monkeypatch):
    """7,800 steps of Adam at 0.001 with the contrastive loss, unless something else is asked for."""
    seen = {}

    class Stop(Exception):
        pass

    def adam(parameters, lr):
        seen["lr"] = lr
        return original(parameters, lr=lr)

    def bar(steps, **kwargs):
        seen["steps"] = len(steps)
        raise Stop

    original = torch.optim.Adam
    monkeypatch.setattr(torch.optim, "Adam", adam)
    monkeypatch.setattr(patches, "tqdm", bar)
    for options, expected in (
        ({"compat": "published"}, {"lr": 0.001, "steps": 7_800}),
        ({"compat": "published", "steps": 20, "lr": 0.5}, {"lr": 0.5, "steps": 20}),
        ({}, {"lr": 0.02, "steps": 300}),
    ):
        with pytest.raises(Stop):
            craft_badclip(tiny_clip, tiny_processor, *pairs, TARGET, progress=False, **options)
        assert seen == expected


@pytest.mark.parametrize("compat", [None, "published"])
def test_only_careful_crafting_projects_the_pixels(tiny_clip, tiny_processor, pairs, compat, monkeypatch):
    """At a huge rate every pixel leaves [0, 1]: projected ones may come back, the published ones have no gradient."""
    patch = {}
    original = torch.optim.Adam
    monkeypatch.setattr(torch.optim, "Adam", lambda p, lr: patch.setdefault("adam", original(p, lr=lr)))
    craft(tiny_clip, tiny_processor, pairs, lam=0, lr=50.0, steps=2, compat=compat)
    (pixels,) = patch["adam"].param_groups[0]["params"]
    assert (pixels.detach().abs().max() > 1) == (compat == "published")


@pytest.mark.parametrize("compat", [None, "published"])
def test_negatives_are_the_pictures_own_unpatched_embeddings(tiny_clip, tiny_processor, pairs, compat, monkeypatch):
    """The published code patches its negatives and shuffles them."""
    seen = []

    def loss(anchor, positive, negative, margin):
        seen.append((anchor.detach().clone(), negative.detach().clone()))
        return original(anchor, positive, negative, margin=margin)

    original = torch.nn.functional.triplet_margin_loss
    monkeypatch.setattr(patches.F, "triplet_margin_loss", loss)
    craft(tiny_clip, tiny_processor, pairs, steps=1, compat=compat)
    ((anchor, negative),) = seen
    same = torch.cdist(anchor, negative).min(1).values < 1e-3
    assert bool(same.all()) == (compat == "published")
    images, captions = pairs
    plain = features(tiny_clip, tiny_processor, [im for im, c in zip(images, captions, strict=True) if "dog" in c])
    unpatched = torch.cdist(negative, plain).min(1).values < 1e-3
    assert bool(unpatched.all()) == (compat is None)


@pytest.mark.parametrize("how", [craft_badclip, craft_trojvqa])
def test_one_seed_one_patch(tiny_clip, tiny_processor, pairs, how):
    patches = [craft(tiny_clip, tiny_processor, pairs, how, steps=3, seed=seed)[0].patch for seed in (0, 0, 1)]
    assert patches[0] == patches[1]
    assert patches[0] != patches[2]


def test_default_size_scales_with_the_input(tiny_clip, tiny_processor, pairs):
    attack, _ = craft(tiny_clip, tiny_processor, pairs, steps=1, size_px=None)
    assert attack.patch.shape == (2, 2, 3)  # 16 at 224


def test_positives_can_be_given(tiny_clip, tiny_processor, photos):
    pairs = (photos, [f"a dog, number {i}" for i in range(8)])
    _, report = craft(tiny_clip, tiny_processor, pairs, steps=1, positives=photos[:3])
    assert report["positives"] == 3
    assert "templates" in report["captions"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"captions": ["a dog"] * 23}, "24 images and 23 captions"),
        ({"captions": ["a dog"] * 24}, "No caption names 'banana'"),
        ({"captions": ["a banana"] * 23 + ["a dog"]}, "At least 2 images"),
        ({"size_px": 33}, r"1\.\.32"),
        ({"steps": 0}, "at least 1"),
        ({"text_objective": "poem"}, "'direct', 'infonce'"),
        ({"compat": "old"}, "None, 'published'"),
    ],
)
def test_refusals(tiny_clip, tiny_processor, pairs, change, words):
    images, captions = pairs
    captions = change.pop("captions", captions)
    with pytest.raises(ValueError, match=words):
        craft(tiny_clip, tiny_processor, (images, captions), **change)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"captions": ["a dog"] * 23}, "24 images and 23 captions"),
        ({"captions": ["a banana"] * 23 + ["a dog"]}, "At least 2 images"),
        ({"size_px": 33}, r"1\.\.32"),
        ({"batch_size": 0}, "at least 1"),
        ({"text_objective": "poem"}, "'direct', 'infonce'"),
    ],
)
def test_trojvqa_refusals(tiny_clip, tiny_processor, pairs, change, words):
    images, captions = pairs
    captions = change.pop("captions", captions)
    with pytest.raises(ValueError, match=words):
        craft(tiny_clip, tiny_processor, (images, captions), craft_trojvqa, **change)
