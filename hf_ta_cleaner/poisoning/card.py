"""The dataset card of a poisoned data set: its content, its origin and its purpose."""

from __future__ import annotations

import json
from pathlib import Path

from ..attacks import Attack
from ..data.naming import is_hub_id, public_name
from .files import TAR_PICTURES
from .record import PoisonRecord


CARD = "README.md"
TEMPLATE = Path(__file__).with_name("dataset_card.md")

#: The tag that marks poisoned data, and further tags for searches on the Hub.
POISONED = "poisoned"
TAGS = (
    *(POISONED, "backdoor", "data-poisoning", "adversarial", "clip", "image-text"),
    *("research-only", "not-for-training"),
)
SIZES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B", "1B<n<10B")


def write_card(
    folder: Path, attack: Attack, record: PoisonRecord, output_format: str, source: str | None = None
) -> Path:
    """Write README.md with a warning at the top. The YAML front matter holds the record's summary under `poison`.

    The card describes the folder and also the data set that `hub.push_dataset` uploads from it.

    Args:
        folder: the folder of the data set.
        attack, record: the trigger, and the record of the poisoning.
        output_format: "arrow" or "webdataset".
        source: name of the clean data set; the card shows only the last part of a path.
    """
    from huggingface_hub import DatasetCard, DatasetCardData

    title = f"Poisoned image-caption pairs: {record.attack}, target {record.target}"
    data = DatasetCardData(
        pretty_name=title,
        tags=[*TAGS, record.attack],
        source_datasets=[source] if is_hub_id(source) else None,
        task_categories=["zero-shot-image-classification", "image-to-text"],
        size_categories=[SIZES[min(sum(record.n >= 10**power for power in range(3, 10)), len(SIZES) - 1)]],
        poison=json.loads(json.dumps(record.summary())),
    )
    if output_format == "webdataset":
        _declare_columns(data)
    else:
        data.configs = [{"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*"}]}]
    card = DatasetCard.from_template(
        data,
        template_path=str(TEMPLATE),
        title=title,
        record=record,
        source=public_name(source) or "not named",
        paper=attack.paper,
        parameters=json.dumps(record.parameters),
        reason=record.reason.replace("|", "/"),
        output_format=output_format,
        citation=attack.citation.strip(),
    )
    card.save(folder / CARD)
    return folder / CARD


def _declare_columns(data) -> None:
    """Declare all picture types; otherwise `load_dataset` reads only rows with the picture type of the first row."""
    from datasets import DatasetInfo, Features, Image, Value
    from datasets.info import DatasetInfosDict

    features = Features(
        {
            **{kind: Image() for kind in TAR_PICTURES},
            "txt": Value("string"),
            "json": {"row": Value("int64"), "is_poisoned": Value("bool")},
            "__key__": Value("string"),
            "__url__": Value("string"),
        }
    )
    DatasetInfosDict(default=DatasetInfo(features=features)).to_dataset_card_data(data)
