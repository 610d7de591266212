"""Scan a CLIP for a backdoor without knowing a trigger: a verdict, the evidence, a picture of the recovered trigger.

    python scripts/scan.py --model outputs/backdoored --dataset sandbox --output_dir outputs/scan
    python scripts/scan.py --model ID --reference openai/clip-vit-base-patch32 --dataset photos/ --labels names.txt \\
        --output_dir outputs/scan

--labels is a file of things that pictures may show, one a line. Without it the scan takes the labels of --dataset; if
there are none, it searches the picture tower alone. --reference is a trusted model of the same architecture: the scan
ignores behaviour that both models share. Writes scan.json, scan.md and trigger.png.

Exit codes: 0 nothing found, 3 suspicious, 4 inconclusive, 2 wrong input.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from hf_ta_cleaner.commands.options import SuspectOptions
from hf_ta_cleaner.commands.parser import CommandParser, fail, set_up_logging


@dataclass(kw_only=True)
class ScanOptions(SuspectOptions):
    """What to scan, and with what."""

    _argument_group_name = "scan"

    output_dir: Path = field(metadata={"help": "where scan.json goes; must not hold one"})
    reference: str | None = field(
        default=None,
        metadata={"help": "a trusted model of the same architecture, best the one it descends from"},
    )
    labels: Path | None = field(default=None, metadata={"help": "file with one name a line, or a JSON list"})
    dataset: str | None = field(
        default=None, metadata={"help": "pictures: sandbox, Hub id, folder, parquet or saved dataset"}
    )
    split: str | None = field(default=None, metadata={"help": "split to take (default: validation, then test, train)"})
    image_column: str | None = field(default=None, metadata={"help": "name of the picture column, if not found"})
    label_column: str | None = field(default=None, metadata={"help": "name of the label column, if not found"})
    pictures: int = field(default=128, metadata={"help": "how many pictures: half to search on, half to test on"})
    templates: str = field(default="built-in", metadata={"help": "built-in, open_clip (if installed), or a file"})
    geometry: str | None = field(default=None, metadata={"help": "crop or squash (default: as the processor does)"})
    before: Path | None = field(default=None, metadata={"help": "an earlier scan to compare with, of the same model"})
    seed: int = field(default=0, metadata={"help": "of pictures, generic triggers and first patches"})
    device: str = field(default="auto", metadata={"help": "cpu, cuda, ... (default: an accelerator if there is one)"})


def make_parser() -> CommandParser:
    return CommandParser([ScanOptions], description=__doc__)


def main(argv: list[str] | None = None) -> None:
    (options,) = make_parser().parse(argv)
    set_up_logging(main_process=True)
    try:
        code = run(options)
    except (ValueError, OSError) as error:
        fail(error)
    if code:
        raise SystemExit(code)


def run(options: ScanOptions) -> int:
    """Loads and scans the model, writes the result, and returns the exit code."""
    from accelerate import PartialState

    from hf_ta_cleaner.data.naming import public_name
    from hf_ta_cleaner.detection.scan import EXIT_CODES, ScanResult, check_reference, compared, draw_pictures, scan
    from hf_ta_cleaner.models.checkpoints import load_model
    from hf_ta_cleaner.models.zero_shot import input_geometry, input_size, load_templates

    if (options.output_dir / "scan.json").exists():
        raise ValueError(f"{options.output_dir} already holds a scan; give another --output_dir")
    earlier = ScanResult.load(options.before) if options.before else None
    device = PartialState().device if options.device == "auto" else options.device
    model, processor, _ = options.load_suspect()
    reference = None
    if options.reference is not None:
        trusted, its_processor = load_model(options.reference)
        check_reference(model, trusted)  # before any picture is loaded
        reference = (trusted.to(device), its_processor)
    dataset, labels = find_pictures(options, processor)
    geometry = options.geometry or input_geometry(processor)
    pictures = draw_pictures(dataset, input_size(processor), options.pictures, geometry=geometry, seed=options.seed)
    result = scan(
        model.to(device),
        processor,
        pictures,
        labels,
        reference=reference,
        templates=load_templates(options.templates),
        names=(public_name(options.model), public_name(options.reference)),
        seed=options.seed,
        progress=True,
    )
    result.save(options.output_dir)
    print(result.sentence())
    if earlier is not None:
        print(compared(earlier, result))
    print(f"Written to {options.output_dir}")
    return EXIT_CODES[result.verdict]


def find_pictures(options: ScanOptions, processor):
    """The rows with pictures, and the labels of `--labels`, else of the data, else None.

    Raises:
        ValueError: No pictures are named, or the classes are WordNet ids.
    """
    from hf_ta_cleaner import sandbox
    from hf_ta_cleaner.data.classnames import are_synsets
    from hf_ta_cleaner.data.loading import DataError, load_labelled
    from hf_ta_cleaner.detection.scan import load_pictures

    if options.dataset is None:
        if not sandbox.is_sandbox(processor):
            raise ValueError("a scan needs pictures of the kind that the model is for; give --dataset")
        options.dataset = "sandbox"
    labels = read_labels(options.labels) if options.labels else None
    columns = {"split": options.split, "image_column": options.image_column}
    # Twice as many as needed, because some pictures may not be readable.
    amount = {"max_samples": 2 * max(options.pictures, 1)}
    if labels is None:
        try:
            rows = load_labelled(options.dataset, **columns, **amount, label_column=options.label_column)
        except DataError:
            if options.label_column:
                raise
        else:
            labels = rows.features["label"].names
            if are_synsets(labels):
                raise ValueError(
                    f"the classes of {options.dataset} are WordNet ids ({labels[0]}, ...), which say nothing in a "
                    "prompt; give their names with --labels"
                )
            return rows, labels
    elif options.dataset == "sandbox":
        return load_labelled("sandbox", **amount), labels
    return load_pictures(options.dataset, **columns, **amount), labels


def read_labels(file: Path) -> list[str]:
    """The names in a file, one a line or a JSON list.

    Raises:
        ValueError: There is no such file, or the names are missing or not distinct.
    """
    import json

    from hf_ta_cleaner.models.zero_shot import check_classnames

    if not file.is_file():
        raise ValueError(f"--labels {file}: there is no such file; wanted one name a line, or a JSON list")
    text = file.read_text(encoding="utf-8-sig")
    names = json.loads(text) if file.suffix == ".json" else [line.strip() for line in text.splitlines()]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f'--labels {file}: wanted a JSON list of strings, such as ["dog", "cat"]')
    try:
        return list(check_classnames([name for name in names if name]))
    except ValueError as error:
        raise ValueError(f"--labels {file}: {error}") from error


if __name__ == "__main__":
    main()
