"""Cards: metadata that parse back to the report's own numbers, a text that says what was done, and what was used."""

from __future__ import annotations

import dataclasses

import pytest
import yaml
from huggingface_hub import DatasetCard, ModelCard
from huggingface_hub.repocard import metadata_load

from hf_ta_cleaner.attacks import ATTACKS, get_attack
from hf_ta_cleaner.data.naming import is_hub_id
from hf_ta_cleaner.losses import CITATIONS
from hf_ta_cleaner.poisoning import PoisonRecord, write_card
from hf_ta_cleaner.publishing.hub import write_card as write_hub_card
from hf_ta_cleaner.publishing.model_card import build_model_card, has_warning
from hf_ta_cleaner.publishing.report import Report
from tests.report_samples import a_report, section


SETTINGS = {
    "model": "openai/clip-vit-base-patch32",
    "dataset": "pixparse/cc3m-wds",
    "max_samples": 100_000,
    "method": "ta-cleaner",
    "clip_weight": 1.0,
    "inmodal_weight": 1.0,
    "subtext_weight": 0.5,
    "learning_rate": 1e-5,
    "num_train_epochs": 10.0,
    "max_steps": -1,
    "per_device_train_batch_size": 64,
    "seed": 0,
    "eval_dataset": "ethz/food101",
    "eval_split": "validation",
}
RECORD = PoisonRecord(
    attack="blended",
    parameters={"alpha": 0.2},
    attack_seed=5,
    target="banana",
    n=1000,
    count=30,
    rate=0.03,
    seed=0,
    size=48,
    geometry="crop",
    trigger_rms=30.0,
    reason="drawn",
    rows=[],
    original_captions=[],
    captions=[],
)


def rows(text: str) -> dict[str, list[str]]:
    """The table of a card: first cell -> the others."""
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    return {line[0]: line[1:] for line in cells}


def test_the_metadata_parse_back_to_the_reports_numbers(tmp_path):
    card = build_model_card("clip-cleaned", settings=SETTINGS, report=a_report())
    card.save(tmp_path / "README.md")
    metadata = metadata_load(tmp_path / "README.md")
    assert metadata["base_model"] == SETTINGS["model"] and metadata["datasets"] == [SETTINGS["dataset"]]
    assert metadata["library_name"] == "transformers"
    assert metadata["pipeline_tag"] == "zero-shot-image-classification"
    assert metadata["tags"] == ["clip", "backdoor-defense", "ta-cleaner"]
    data = ModelCard.load(tmp_path / "README.md").data
    assert data.model_name == "clip-cleaned"
    accuracy, asr = data.eval_results
    assert (accuracy.metric_type, accuracy.metric_value) == ("accuracy", 0.672)
    assert (asr.metric_type, asr.metric_value) == ("attack_success_rate", 0.009)
    for result in (accuracy, asr):
        assert result.task_type == "zero-shot-image-classification"
        assert (result.dataset_type, result.dataset_split) == ("ethz/food101", "validation")
    assert accuracy.metric_args == {"n": 1000, "interval95": pytest.approx([0.652, 0.692]), "before": 0.676}
    assert asr.metric_args == {
        "n": 980,
        "interval95": pytest.approx([0.0, 0.019]),
        "floor": 0.004,
        "target": "banana",
        "trigger": "blended",
        "seed": 5,
        "before": 0.941,
    }
    assert ModelCard(str(card)).data.to_dict() == card.data.to_dict()


def test_the_text_says_what_was_measured_and_done():
    text = build_model_card("clip-cleaned", settings=SETTINGS, report=a_report(), repo_id="me/clip-cleaned").text
    assert text.lstrip().startswith("# clip-cleaned\n")
    table = rows(text)
    assert table[""] == ["before", "after", "floor", "n"]
    assert table["clean accuracy"] == ["67.6 [65.6, 69.6]", "67.2 [65.2, 69.2]", "", "1,000"]
    assert table["ASR@1 blended, target banana"] == ["94.1 [93.1, 95.1]", "0.9 [0.0, 1.9]", "0.4", "980"]
    for part in (
        "- **blended**: The backdoor is removed: ASR 94.1% → 0.9%",
        '"me/clip-cleaned"',
        "The cleaning loses 0.4 points [-1.0, 2.0] of clean accuracy against the suspect model.",
        "- Data: pixparse/cc3m-wds, 100,000 pairs",
        "- Objective: ta-cleaner: 1 clip + 1 inmodal + 0.5 subtext",
        "- Learning rate: 1e-05",
        "- Epochs: 10",
        "- Cost: 20,000 pairs seen, 312 s on cuda",
        "Audited against these triggers only: blended.",
        "Made with torch 2.13.0, transformers 5.23.0.",
    ):
        assert part in text, part
    assert "WARNING" not in text and "None" not in text and "{{ " not in text
    assert "\n\n\n" not in text


@pytest.mark.parametrize(
    ("weights", "cited"),
    [
        ({"clip": 1.0, "inmodal": 1.0, "subtext": 1.0}, {"clip", "inmodal", "subtext"}),
        ({"clip": 1.0, "inmodal": 0.0, "subtext": 0.0}, {"clip"}),
    ],
)
@pytest.mark.parametrize("attack", ["blended", "badclip"])
def test_it_cites_what_was_used_and_no_more(weights, cited, attack):
    settings = {"method": "x", **{f"{name}_weight": weight for name, weight in weights.items()}}
    report = a_report(before=section(0.6, 0.9, attack), after=section(0.6, 0.1, attack))
    text = build_model_card("x", settings=settings, report=report).text
    assert {name for name, entry in CITATIONS.items() if entry.strip() in text} == cited
    assert {name for name, kind in ATTACKS.items() if kind.citation.strip() in text} == {attack}
    assert text.count("```bibtex") == 1


def test_nothing_is_claimed_that_was_not_measured():
    card = build_model_card("x", settings={"model": "somewhere/on/disk", "method": "ft", "clip_weight": 1.0})
    assert card.data.eval_results is None and card.data.base_model is None and card.data.datasets is None
    assert "Nothing was measured" in card.text and "Not audited against any trigger" in card.text
    assert "`disk`" in card.text and "somewhere" not in card.text  # where it lies is nobody's business
    progress = build_model_card("x", settings={}, progress="**Not finished**: step 3 of 9.").text
    assert "step 3 of 9" in progress and "None" not in progress


def test_held_out_pairs_alone():
    recall = {"recall@1": 0.5, "image_to_text_recall@1": 0.4, "text_to_image_recall@1": 0.6}
    nothing = {"clean_accuracy": None, "attacks": {}}
    retrieval = {"pairs": 1000, "before": recall, "after": recall | {"text_to_image_recall@1": 0.55}}
    card = build_model_card(
        "x", settings=SETTINGS, report=a_report(before=nothing, after=nothing, ca_loss=None, retrieval=retrieval)
    )
    assert (
        "The cleaning loses 0.0 points of image-to-text recall@1 (40.0% → 40.0%) and 5.0 points of text-to-image "
        "recall@1 (60.0% → 55.0%) on 1,000 held-out pairs."
    ) in card.text
    assert card.data.eval_results is None and "Not audited against any trigger" in card.text


def test_a_backdoored_model_says_so_first():
    report = a_report(method="backdoor", after=None, ca_loss=None)
    card = build_model_card("x", settings=SETTINGS, report=report, record=RECORD, backdoored=True)
    assert has_warning(card.text, card.data.tags) and card.text.count("WARNING") == 1
    assert card.data.tags == ["clip", "backdoored", "research"]
    assert card.data.datasets is None  # the pairs were poisoned; the source is not what it was trained on
    assert "- Poison: 30 of 1,000 pairs (3.00%), seed 0" in card.text and "- Target: banana" in card.text
    assert rows(card.text)[""] == ["rate", "floor", "n"]
    parsed = ModelCard(str(card))
    assert has_warning(parsed.text, parsed.data.tags)
    assert not has_warning(parsed.text, ["clip"]) and not has_warning("# x\n" + parsed.text, parsed.data.tags)


@pytest.mark.parametrize("output_format", ["arrow", "webdataset"])
def test_poisoned_data_say_so_first(output_format, tmp_path):
    write_card(tmp_path, get_attack("blended"), RECORD, output_format, "pixparse/cc3m-wds")
    card = DatasetCard.load(tmp_path / "README.md")
    assert has_warning(card.text, card.data.tags) and {"poisoned", "blended"} <= set(card.data.tags)
    assert card.data.source_datasets == ["pixparse/cc3m-wds"] and "| source | pixparse/cc3m-wds |" in card.text
    assert "30 of its 1,000 image-caption pairs carry the backdoor trigger `blended`" in card.text
    assert ATTACKS["blended"].citation.strip() in card.text
    assert ("train-*.tar" in card.text) == (output_format == "webdataset")
    write_card(tmp_path, get_attack("blended"), RECORD, output_format, str(tmp_path / "photos"))
    card = DatasetCard.load(tmp_path / "README.md")
    assert "| source | photos |" in card.text and card.data.source_datasets is None


def test_the_loss_of_a_siglip_is_called_by_its_name(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "siglip"}')
    card = ModelCard.load(write_hub_card(tmp_path, settings=SETTINGS))
    assert card.data.tags == ["siglip", "backdoor-defense", "ta-cleaner"]
    assert "- Objective: ta-cleaner: 1 siglip + 1 inmodal + 0.5 subtext" in card.text
    assert CITATIONS["siglip"].strip() in card.text and CITATIONS["clip"].strip() not in card.text


def test_an_adapter_is_loaded_onto_its_base(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    settings = {**SETTINGS, "use_peft": True, "lora_rank": 4, "lora_alpha": 8.0}
    settings |= {"repel_weight": 6.0, "repel_share": 0.5, "image_noise": 0.25, "adversarial_patch": 0.5}
    text = ModelCard.load(write_hub_card(tmp_path, settings=settings)).text
    assert 'PeftModel.from_pretrained(AutoModel.from_pretrained("openai/clip-vit-base-patch32")' in text
    assert "ordinary checkpoint" not in text and "- Adapters: LoRA of rank 4, alpha 8.0" in text
    assert "- Repelled for: the first 50% of the steps" in text and "- Share of pictures with noise: 0.25" in text
    assert "- Share of pictures with a learnt patch: 0.5" in text and "blended with a learnt" not in text


def test_names_from_outside_cannot_break_the_card():
    """A class name or folder with markup in it stays a value in the metadata and one cell in the table."""
    odd = 'a "b": {c} | d\n---\nlicense: mit'
    report = a_report(before=section(0.6, 0.9), after=section(0.6, 0.1))
    for part in (report.before, report.after):
        part["attacks"]["blended"]["target"] = odd
    card = build_model_card("x", settings=SETTINGS | {"model": "{{ 7 * 7 }}"}, report=report)
    parsed = ModelCard(str(card))
    assert parsed.data.eval_results[1].metric_args["target"] == odd and parsed.data.license is None
    assert "{{ 7 * 7 }}" in parsed.text
    line = next(line for line in parsed.text.splitlines() if line.startswith("| ASR@1"))
    assert line.replace("\\|", "").count("|") == 6 and "license: mit" in line


@pytest.mark.parametrize(("name", "is_id"), [("owner/name", True), ("name", False), (None, False), ("./a/b", False)])
def test_what_counts_as_a_hub_id(name, is_id, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_hub_id(name) == is_id
    (tmp_path / "owner" / "name").mkdir(parents=True)
    assert not is_hub_id("owner/name")  # a folder of this name comes first, as it does when loading


def test_every_field_of_a_report_has_been_thought_of():
    """A new part of a report should reach the card, or be left out on purpose."""
    shown = {"method", "before", "after", "target", "cost", "retrieval", "scan", "ca_loss", "dataset"}
    shown |= {"versions", "created"}
    left_out = {"seed", "model", "base_model", "notes", "settings", "history", "examples"}
    assert {field.name for field in dataclasses.fields(Report)} == shown | left_out


def test_the_metadata_are_plain_yaml():
    text = str(build_model_card("x", settings=SETTINGS, report=a_report()))
    assert yaml.safe_load(text.split("---\n")[1])["model-index"][0]["name"] == "x"
