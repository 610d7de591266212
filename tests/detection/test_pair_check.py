"""Checking pairs: every score against numbers written out independently, and a planted poison ranks first."""

from __future__ import annotations

import csv
import json
import logging
import math

import numpy as np
import pytest
import torch
from datasets import Dataset, load_from_disk
from datasets import Image as Encoded
from PIL import Image

from hf_ta_cleaner.commands.check_data import main
from hf_ta_cleaner.detection.local_density import neighbour_scores
from hf_ta_cleaner.detection.pair_check import PairScores, clip_losses, score_pairs, warn_of_poison, write_check
from hf_ta_cleaner.detection.shared_regions import SharedRegions


pytestmark = pytest.mark.usefixtures("logging_as_it_was")


@pytest.fixture(scope="module")
def features():
    points = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.normalize(points, dim=-1)


def test_neighbour_scores_as_by_definition(features):
    k, points = 4, features.double().numpy()
    distances = np.sqrt(((points[:, None] - points[None]) ** 2).sum(-1))
    nearest = [np.argsort(row)[1 : k + 1] for row in distances]
    sorted_distances = [distances[i][nearest[i]] for i in range(20)]
    radius = np.array([d[-1] for d in sorted_distances])
    lid = np.array([-1 / np.mean(np.log(d / d[-1])) for d in sorted_distances])
    slof = [np.mean(radius[i] / radius[nearest[i]]) for i in range(20)]
    dao = [np.mean(lid[nearest[i]] * np.log(radius[i] / radius[nearest[i]])) for i in range(20)]
    found = neighbour_scores(features, k)
    np.testing.assert_allclose(found["k_dist"].numpy(), radius, rtol=1e-5)
    np.testing.assert_allclose(found["slof"].numpy(), slof, rtol=1e-4)
    np.testing.assert_allclose(found["dao"].numpy(), dao, rtol=1e-3, atol=1e-4)


def test_copies_and_strangers():
    crowd = torch.nn.functional.normalize(torch.tensor([[1.0, 0.01 * i] for i in range(10)]), dim=-1)
    found = neighbour_scores(torch.cat([crowd, torch.tensor([[-1.0, 0.0]])]), 3)
    assert all(int(values.argmax()) == 10 for values in found.values())
    same = neighbour_scores(torch.ones(8, 2) / math.sqrt(2), 3)  # distance zero everywhere: finite, no outlier
    assert all(torch.isfinite(values).all() and values.std() < 1e-6 for values in same.values())
    with pytest.raises(ValueError, match="at least 3"):
        neighbour_scores(crowd[:2])


def test_shared_regions_are_counted():
    r = np.random.default_rng(0)
    images = r.integers(0, 256, (10, 72, 72, 3), dtype=np.uint8)
    images[3:7, 58:, 58:] = images[3, 58:, 58:]  # a patch on four of them
    images[9, :36, :36] = images[3, 36:, 36:]  # the same patch elsewhere does not count
    regions = SharedRegions()
    keys = [regions.add(images[:5]), regions.add(images[5:])]
    assert np.concatenate([regions.shared(part) for part in keys]).tolist() == [0, 0, 0, 3, 3, 3, 3, 0, 0, 0]
    flat = SharedRegions()
    assert flat.shared(flat.add(np.full((4, 72, 72, 3), 200, np.uint8))).tolist() == [0] * 4  # paper is no patch


def test_regions_seen_once_are_forgotten(monkeypatch):
    monkeypatch.setattr("hf_ta_cleaner.detection.shared_regions.REMEMBERED", 500)  # a picture of 72 pixels has 324
    images = np.random.default_rng(0).integers(0, 256, (12, 72, 72, 3), dtype=np.uint8)
    images[[0, 1, 8, 11], :14, :14] = images[0, :14, :14]
    regions = SharedRegions()
    found = [regions.add(images[i : i + 2]) for i in range(0, 12, 2)]
    assert len(regions._keys) <= 500 + 2 * 324
    assert np.concatenate([regions.shared(part) for part in found]).tolist() == [3, 3, 0, 0, 0, 0, 0, 0, 3, 0, 0, 3]


@pytest.mark.parametrize("size", [32, 50, 224])
@pytest.mark.parametrize("place", ["bottom-right", "middle"])
def test_a_patch_is_found_at_any_size_of_picture(size, place):
    side = max(8, size // 14)
    top = size - side if place == "bottom-right" else (size - side) // 2
    images = np.random.default_rng(0).integers(0, 256, (4, size, size, 3), dtype=np.uint8)
    images[1:3, top : top + side, top : top + side] = images[0, :side, :side]
    regions = SharedRegions()
    assert regions.shared(regions.add(images)).tolist() == [0, 1, 1, 0]


def test_clip_losses_as_by_hand(tiny_clip):
    tiny_clip.logit_scale.data.fill_(math.log(2))
    images, texts = torch.eye(3), torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [1.0, 0, 0]])
    found = clip_losses(tiny_clip, images, texts)
    # Texts 0 and 2 are one and the same: pair 0 is compared with text 1 only, and pictures 0 and 1.
    plain = math.log(math.exp(2) + 1) - 2
    assert found[0].item() == pytest.approx(plain)
    assert found[2].item() == pytest.approx(math.log(2))  # picture 2 fits neither
    assert found[1].item() == pytest.approx(math.log(math.exp(2) + 2) - 2)


@pytest.fixture(scope="module")
def pairs():
    """80 noisy pictures, of which six carry one patch and one caption."""
    r = np.random.default_rng(1)
    images = r.integers(0, 256, (80, 36, 36, 3), dtype=np.uint8)
    images[10:16, 24:, 24:] = images[10, 24:, 24:]
    captions = [f"picture number {i} of a collection" for i in range(80)]
    captions[10:16] = ["a photo of a banana."] * 6
    return Dataset.from_dict({"image": [Image.fromarray(i) for i in images], "caption": captions})


@pytest.fixture
def scores(pairs, tiny_clip, tiny_processor):
    return score_pairs(tiny_clip, tiny_processor, pairs, batch_size=64, k=8)


def test_a_planted_poison_ranks_first(scores):
    assert scores.rows.tolist() == list(range(80)) and not scores.unreadable
    assert scores.values["repeated_caption"][10:16].tolist() == [5.0] * 6
    assert scores.values["repeated_caption"].sum() == 30
    assert set(scores.ranking()[:12]) >= set(range(10, 16))
    assert set(scores.kept(0.15)).isdisjoint(range(10, 16)) and len(scores.kept(0.15)) == 68
    with pytest.raises(ValueError, match="share of pairs"):
        scores.kept(1.0)


def test_a_stream_is_scored_as_it_comes(pairs, tiny_clip, tiny_processor, scores):
    stream = pairs.to_iterable_dataset()
    found = score_pairs(tiny_clip, tiny_processor, stream, batch_size=80, k=8)
    whole = score_pairs(tiny_clip, tiny_processor, pairs, batch_size=80, k=8)
    np.testing.assert_allclose(found.values["dao"], whole.values["dao"], rtol=1e-3, atol=1e-3)  # one batch: no order
    assert len(score_pairs(tiny_clip, tiny_processor, stream, batch_size=64, max_pairs=70).rows) == 70


def damage(row: dict, index: int) -> dict:
    return {"image": {"bytes": b"no picture", "path": None}} if index == 7 else row


def test_unreadable_and_too_few(pairs, tiny_clip, tiny_processor):
    rows = [dict(row) for row in pairs]
    rows[3]["caption"], rows[5]["image"] = " ", {"bytes": b"no picture", "path": None}
    found = score_pairs(tiny_clip, tiny_processor, iter(rows), batch_size=64)
    assert found.unreadable == [3, 5] and len(found.rows) == 78
    damaged = pairs.cast_column("image", Encoded(decode=False)).map(damage, with_indices=True)
    found = score_pairs(tiny_clip, tiny_processor, damaged.cast_column("image", Encoded()), batch_size=64)
    assert found.unreadable == [7] and len(found.rows) == 79
    with pytest.raises(ValueError, match="at least 64 readable pairs"):
        score_pairs(tiny_clip, tiny_processor, pairs.select(range(30)))


def test_what_stands_out_is_told():
    r = np.random.default_rng(0)
    values = {name: r.normal(size=1000) for name in ("suspicion", "disagreement")}
    values["shared_region"] = np.zeros(1000)
    scores = PairScores(np.arange(1000), values)
    assert scores.findings() == []
    values["disagreement"][:9] = 50
    assert scores.findings() == []  # fewer than one in a hundred captions: any data have such
    values["disagreement"][:10] = 50
    values["shared_region"][:6] = 5
    first, second = scores.findings()
    assert first.startswith("6 of 1,000 pictures") and second.startswith("10 of 1,000 captions (1.0%)")


def test_cleaning_data_is_warned_of(pairs, tiny_clip, tiny_processor, caplog):
    (finding,) = [f for f in warn_of_poison(tiny_clip, tiny_processor, pairs) if "small square" in f]
    assert finding.startswith("6 of 80 pictures") and "may be poisoned: of a sample, 6 of 80" in caplog.text
    caplog.clear()
    assert warn_of_poison(tiny_clip, tiny_processor, pairs.select(range(20))) == []
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_files(scores, tmp_path):
    write_check(scores, tmp_path, model="sandbox", dataset="me/data", worst=5)
    rows = list(csv.DictReader((tmp_path / "scores.csv").open()))
    assert [int(row["row"]) for row in rows] == scores.rows[scores.ranking()].tolist()
    assert json.loads((tmp_path / "check.json").read_text())["pairs"] == 80
    with Image.open(tmp_path / "sheet.png") as page:
        assert page.size == (8 * 104, 128)
    with pytest.raises(FileExistsError, match=r"scores\.csv"):
        write_check(scores, tmp_path, model="sandbox", dataset="sandbox")


def test_the_command_filters(pairs, tmp_path, capsys):
    pairs.save_to_disk(tmp_path / "pairs")
    common = ["--dataset", str(tmp_path / "pairs"), "--model", "sandbox", "--batch_size", "64", "--device", "cpu"]
    out = tmp_path / "out"
    try:
        main([*common, "--drop", "0.15", "--output_dir", str(out)])
    except SystemExit as stop:
        assert stop.code == 3  # noise: what stands out is not this test's concern
    kept = load_from_disk(out / "filtered")
    assert len(kept) == 68 and "a photo of a banana." not in kept["caption"]
    assert (out / "sheet.png").is_file() and "80 pairs scored" in capsys.readouterr().out
    for flags, message in (
        (["--output_dir", str(out)], "holds files"),
        (["--output_dir", str(tmp_path / "new"), "--streaming", "--drop", "0.1"], "leave out --streaming"),
    ):
        with pytest.raises(SystemExit) as stop:
            main([*common, *flags])
        assert stop.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize("width", [128, 512])
def test_many_equal_captions_are_known_as_one(tiny_clip, width):
    """Whatever the rounding: none of the 60 is a negative of another, and then nothing tells them apart."""
    tiny_clip.logit_scale.data.fill_(math.log(100))
    vectors = torch.nn.functional.normalize(torch.randn(80, width, generator=torch.Generator().manual_seed(0)), dim=-1)
    vectors[:60] = vectors[0]
    assert clip_losses(tiny_clip, vectors, vectors).max() < 1e-3
