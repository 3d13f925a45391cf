"""The configuration of the workflow: laid over the defaults, checked, its paths made whole, before anything runs."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from pipeline.planning import ROOT

SCHEMA = ROOT / "workflows" / "schemas" / "config.schema.yaml"
DEFAULTS = ROOT / "workflows" / "config" / "defaults.yaml"


def read(path: str | Path) -> dict[str, Any]:
    """A configuration laid over the defaults, checked against the workflow's schema.

    Raises:
        ValueError: misspelt, missing or unknown values, entries that cannot be told apart; all of them.
    """
    import jsonschema

    config = read_yaml(DEFAULTS)
    _lay_over(config, read_yaml(Path(path)))
    problems = [
        f"{'.'.join(map(str, error.absolute_path)) or 'configuration'}: {error.message}"
        for error in jsonschema.Draft202012Validator(read_yaml(SCHEMA)).iter_errors(config)
    ]
    problems = problems or clashes(config["datasets"])
    if problems:
        raise ValueError("\n  ".join([f"{path}:", *problems]))
    expand(config)
    return config


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file, {} for an empty one.

    Raises:
        ValueError: anything else.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not YAML ({error})") from error
    if not isinstance(values, dict | None):
        raise ValueError(f"{path}: expected `key: value` lines, found {type(values).__name__}")
    return values or {}


def _lay_over(below: dict[str, Any], above: dict[str, Any]) -> None:
    for key, value in above.items():
        if isinstance(value, dict) and isinstance(below.get(key), dict):
            _lay_over(below[key], value)
        else:
            below[key] = value


def training_name(dataset: str, run: dict[str, Any]) -> str:
    """Model, setting and name of an entry of `train`, as its files are called, without the seed."""
    setting = run.get("setting", "weak" if dataset == "llp" else "supervised")
    return "-".join([run["model"], setting, *([run["name"]] if "name" in run else [])])


def exports(settings: dict[str, Any]) -> list[tuple[str, dict[str, str]]]:
    """Formats to export, each with the features that were named for its roles."""
    entries = [{"format": entry} if isinstance(entry, str) else entry for entry in settings.get("export", [])]
    return [(entry["format"], entry.get("features", {})) for entry in entries]


def clashes(datasets: dict[str, Any]) -> list[str]:
    """Entries whose files would have the same names, so that only the first of them would run; one sentence each."""
    found = []
    for dataset, settings in datasets.items():
        names = {
            "train": [training_name(dataset, run) for run in settings.get("train", [])],
            "finetune": [tuning["name"] for tuning in settings.get("finetune", [])],
            "export": [layout for layout, _ in exports(settings)],
        }
        found += [
            f"datasets.{dataset}.{part}: {count} entries are {name}, and their files would have the same names: "
            + ("leave one" if part == "export" else "give each a `name:` of its own")
            for part, called in names.items()
            for name, count in Counter(called).items()
            if count > 1
        ]
    return found


def expand(values: Any) -> Any:
    """Put the home folder for `~` in every path, `NAME=~/FILE` included; lists and mappings are changed in place."""
    if isinstance(values, dict | list):
        for key, value in list(values.items() if isinstance(values, dict) else enumerate(values)):
            values[key] = expand(value)
    elif isinstance(values, str):
        name, separator, path = values.partition("=")
        if separator and path.startswith("~"):
            return f"{name}={os.path.expanduser(path)}"
        return os.path.expanduser(values)
    return values
