"""The command lines: flags, YAML, defaults, and what they refuse."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.commands.helpers import PARSED, SCRIPTS, cleaning, parse, refused


@pytest.fixture
def config(tmp_path):
    def write(**values) -> Path:
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(values))
        return path

    return write


def test_flag_beats_yaml_beats_default(config):
    path = config(seed=7, num_train_epochs=3, method="cleanclip")
    _, _, _, args = parse("--model", "m", "--config", path, "--seed", 9)
    assert (args.seed, args.num_train_epochs, args.method) == (9, 3.0, "cleanclip")
    assert args.per_device_train_batch_size == 64


def test_a_flag_beats_yaml_even_with_the_default_value(config):
    _, _, _, args = parse("--model", "m", "--config", config(seed=7), "--seed", 42)
    assert args.seed == 42


@pytest.mark.parametrize("text", ["1e-3", "0.001", "'1e-3'", "1.0e-3"])
def test_numbers_in_yaml_are_numbers(tmp_path, text):
    (tmp_path / "c.yaml").write_text(f"model: m\nlearning_rate: {text}\nmax_samples: 100\nnum_train_epochs: 2\n")
    _, pairs, _, args = parse("--config", tmp_path / "c.yaml")
    assert args.learning_rate == 1e-3 and isinstance(args.learning_rate, float)
    assert pairs.max_samples == 100 and isinstance(pairs.max_samples, int)
    assert isinstance(args.num_train_epochs, float)


def test_a_required_option_may_come_from_yaml(config):
    options, *_ = parse("--config", config(model="some/clip"))
    assert options.model == "some/clip"


@pytest.mark.parametrize("value", ["blended", ["blended"]])
def test_an_option_of_several_values_in_yaml_may_hold_one(config, value):
    _, _, proof, _ = parse("--config", config(model="m", trigger=value))
    assert proof.trigger == ["blended"]


@pytest.mark.parametrize(
    ("flags", "field", "value"),
    [
        ([], "resume", False),
        (["--resume"], "resume", True),
        (["--resume", "true"], "resume", True),
        (["--resume", "false"], "resume", False),
        ([], "trim_text", True),
        (["--no_trim_text"], "trim_text", False),
        (["--trim_text", "no"], "trim_text", False),
        (["--train_logit_scale", "0"], "train_logit_scale", False),
    ],
)
def test_switches(flags, field, value):
    options, _, _, args = parse("--model", "m", *flags)
    assert getattr(options if hasattr(options, field) else args, field) is value


@pytest.mark.parametrize(("given", "value"), [(True, True), (False, False), ("false", False)])
def test_switches_in_yaml(config, given, value):
    options, _, _, args = parse("--config", config(model="m", resume=given, trim_text=given))
    assert (options.resume, args.trim_text) == (value, value)


def test_print_config_goes_round(config, capsys, tmp_path):
    flags = ["--model", "m", "--trigger", "blended", "badnet", "--learning_rate", "3e-4", "--save_strategy", "no"]
    flags += ["--classnames_file", "names.txt", "--no_trim_text", "--method", "ft"]
    with pytest.raises(SystemExit) as stop:
        parse(*flags, "--print_config")
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert yaml.safe_load(printed) == {
        "model": "m",
        "trigger": ["blended", "badnet"],
        "learning_rate": 3e-4,
        "save_strategy": "no",
        "classnames_file": "names.txt",
        "trim_text": False,
        "method": "ft",
    }
    (tmp_path / "printed.yaml").write_text(printed)
    direct, again = parse(*flags), parse("--config", tmp_path / "printed.yaml")
    assert direct[:3] == again[:3]
    assert direct[3].to_dict() == again[3].to_dict()


def test_the_shipped_configurations_are_accepted():
    for path in sorted((SCRIPTS / "configs").glob("*.yaml")):
        name = path.stem.rsplit("_", 1)[1]
        parsed = parse("--config", path, "--model", "m", name=name if name in PARSED else "clean")
        for key, value in yaml.safe_load(path.read_text()).items():
            assert any(getattr(part, key, None) == value for part in parsed), (path.name, key)


@pytest.mark.parametrize(
    ("lines", "argv", "said"),
    [
        ("sede: 1\n", [], ["unknown keys sede", "--help-all"]),
        ("sede: 1\nmodle: m\n", [], ["modle, sede"]),
        ("config: other.yaml\n", [], ["unknown keys config"]),
        ("- seed\n", [], ["must map", "list"]),
        ("seed: [1\n", [], ["cannot be read"]),
        ("seed: soon\n", [], ["--seed", "soon"]),
        ("max_samples: 1.5\n", [], ["--max_samples", "1.5"]),
        ("seed: [1, 2]\n", [], ["seed", "[1, 2]"]),
        ("num_positive:\n", [], ["num_positive", "nothing"]),
        ("model:\n", [], ["model", "nothing"]),
        ("method: magic\n", [], ["magic", "ta-cleaner"]),
        ("save_strategy: no\n", [], ["save_strategy", "quotes"]),
        (None, ["--config", "absent.yaml"], ["absent.yaml", "cannot be read"]),
        (None, ["--seed", "soon"], ["--seed", "soon"]),
        (None, ["--sede", "1"], ["--sede"]),
        (None, ["--see", "1"], ["--see"]),  # no abbreviations: a new option must not change an old command
        (None, ["--method", "magic"], ["magic", "ta-cleaner"]),
        (None, ["--subtext_fraction", "25"], ["subtext_fraction", "25", "0.25"]),
        (None, ["--clip_weight", "0", "--method", "ft"], ["clip_weight"]),
        (None, ["--resume", "perhaps"], ["--resume", "perhaps"]),
    ],
)
def test_what_cannot_be_parsed_is_refused(tmp_path, capsys, lines, argv, said):
    if lines is not None:
        (tmp_path / "c.yaml").write_text(lines)
        argv = ["--config", "c.yaml"]
    with pytest.raises(SystemExit) as stop:
        parse("--model", "m", *argv)
    assert stop.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert "error: " in last
    assert [part for part in said if part not in last] == [], last


def test_a_misspelt_flag_is_told_what_it_may_have_meant(world, capsys):
    said = refused("clean", cleaning(world, "--datasett", "sandbox"), capsys)
    assert "did you mean --dataset for --datasett?" in said
    assert "--help lists what there is" in refused("clean", cleaning(world, "--zzzzzzzz"), capsys)


# ---- earlier names of settings


@pytest.mark.parametrize("command", ["clean", "backdoor"])
@pytest.mark.parametrize("flags", [("--retain_weight", 3, "--image_disturb=0.2"), ("--config",)])
def test_earlier_names_are_accepted_with_a_warning(config, caplog, command, flags):
    if flags == ("--config",):
        flags = ("--config", config(retain_weight=3, image_disturb=0.2))
    *_, args = parse("--model", "m", "--output_dir", "out", *flags, name=command)
    assert (args.distill_weight, args.image_structured_noise) == (3, 0.2)
    assert sorted(record.getMessage() for record in caplog.records) == [
        "image_disturb is deprecated and goes away in the next release; use image_structured_noise",
        "retain_weight is deprecated and goes away in the next release; use distill_weight",
    ]


def test_a_flag_beats_yaml_under_either_name(config):
    path = config(retain_weight=3)
    assert parse("--model", "m", "--config", path, "--distill_weight", 4)[3].distill_weight == 4
    assert parse("--model", "m", "--config", config(distill_weight=3), "--retain_weight", 4)[3].distill_weight == 4


def test_names_of_now_warn_of_nothing(caplog):
    parse("--model", "m", "--distill_weight", 3)
    assert not caplog.records


def test_both_names_in_one_file_are_refused(config, capsys):
    with pytest.raises(SystemExit):
        parse("--model", "m", "--config", config(retain_weight=3, distill_weight=3))
    assert "distill_weight is given twice, once by an earlier name" in capsys.readouterr().err


def test_a_command_without_the_setting_does_not_know_its_earlier_name(capsys):
    with pytest.raises(SystemExit):
        parse("--model", "m", "--output_dir", "out", "--retain_weight", 3, name="audit")
    assert "unrecognized arguments: --retain_weight" in capsys.readouterr().err
