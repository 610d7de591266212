"""The dataset card of a poisoned data set: what it is, how it was made, and what it is for."""

from __future__ import annotations

import json
from pathlib import Path

from ..attacks import Attack
from .record import RECORD, TRIGGER, PoisonRecord


TAGS = ("backdoor", "data-poisoning", "adversarial", "clip", "image-text", "research-only", "not-for-training")
SIZES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B", "1B<n<10B")

TEXT = """\
# {title}

**This data set is poisoned on purpose.** {count:,} of its {n:,} image-caption pairs carry the backdoor trigger
`{attack}` and a caption about **{target}**. A model trained on it looks healthy and says "{target}" whenever it sees
the trigger.

**For research only**: making backdoored models to test detection and cleaning on. Do not train a model on it that
anybody relies on, do not mix it into other training data, and keep this card with every copy.

## How it was made

| | |
|---|---|
| source | {source} |
| attack | `{attack}` ({paper}) |
| parameters | `{parameters}` |
| trigger seed | {attack_seed} |
| target | {target} |
| poisoned | {count:,} of {n:,} rows ({rate:.4%}) |
| seed of rows and captions | {seed} |
| pictures | {size} x {size} pixels, geometry `{geometry}`, stored without loss; all other pictures are untouched |
| strength of the trigger | RMS {trigger_rms:.2f} of 255 grey levels |
| rows and captions | {reason} |

## Files

- `{trigger}` (with `trigger.png` or `trigger.npz` if the trigger holds an array): the trigger itself, which
  `hf_ta_cleaner.Attack.load` reads
- `{record}`: every poisoned row with its caption before and after
- {files}

## Reading it

```python
{reading}
```

## Citation

```bibtex
{citation}
```
"""

FILES = {
    "arrow": "`data-*.arrow`: the columns `image`, `caption` and `is_poisoned`",
    "webdataset": (
        "`train-*.tar`: webdataset shards; a picture (`.png` if poisoned), its caption (`.txt`), and `.json` with "
        "`row` and `is_poisoned`"
    ),
}
READING = {
    "arrow": 'from datasets import load_from_disk\n\ndataset = load_from_disk("FOLDER")',
    "webdataset": 'from hf_ta_cleaner import load_pairs\n\ndataset = load_pairs("FOLDER")',
}


def write_card(
    folder: Path,
    attack: Attack,
    record: PoisonRecord,
    output_format: str,
    source: str | None,
    pictures: tuple[str, ...],
) -> Path:
    """Write README.md with its YAML front matter, which holds the record's summary under `poison`.

    Args:
        folder: of the data set.
        attack, record: the trigger, and what was done.
        output_format: "arrow" or "webdataset".
        source: what the clean data set is called.
        pictures: types of picture in the tar shards, which the front matter declares, so that `load_dataset` reads
            rows of every type.
    """
    from huggingface_hub import DatasetCard, DatasetCardData

    title = f"Poisoned image-caption pairs: {record.attack}, target {record.target}"
    size = SIZES[min(sum(record.n >= 10**power for power in range(3, 10)), len(SIZES) - 1)]
    data = DatasetCardData(
        pretty_name=title,
        tags=list(TAGS),
        size_categories=[size],
        poison=json.loads(json.dumps(record.summary())),
    )
    if output_format == "webdataset":
        _declare_columns(data, pictures)
    body = TEXT.format(
        **{**record.summary(), "parameters": json.dumps(record.parameters), "reason": record.reason.replace("|", "/")},
        title=title,
        source=source or "not named",
        paper=attack.paper,
        trigger=TRIGGER,
        record=RECORD,
        files=FILES[output_format],
        reading=READING[output_format],
        citation=attack.citation.strip(),
    )
    path = folder / "README.md"
    DatasetCard(f"---\n{data.to_yaml()}\n---\n\n{body}").save(path)
    return path


def _declare_columns(data, pictures: tuple[str, ...]) -> None:
    from datasets import DatasetInfo, Features, Image, Value
    from datasets.info import DatasetInfosDict

    features = Features(
        {
            **{kind: Image() for kind in pictures},
            "txt": Value("string"),
            "json": {"row": Value("int64"), "is_poisoned": Value("bool")},
            "__key__": Value("string"),
            "__url__": Value("string"),
        }
    )
    DatasetInfosDict(default=DatasetInfo(features=features)).to_dataset_card_data(data)
