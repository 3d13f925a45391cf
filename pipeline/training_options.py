"""Flags of `pipeline.train`, and which of them cannot be meant together."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.checkpoints import add_flags
from pipeline.run import UsageError, check_numbers

EXAMPLE = """\
OUT gets best-validation.pt and best-test.pt (weights), curves.json, predictions.npz and, last, train.json.  The same
command takes an interrupted training up again, to the same result.

example:
  python -m pipeline.train --manifest demo/manifest.parquet --store demo/features --model avel --setting supervised \\
      --seed 0 --out demo/train/avel-supervised-0
"""

#: Every stream that some network reads.
STREAMS = ("visual", "audio", "motion")


def parser(description: str) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m pipeline.train",
        description=description,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--manifest", required=True, type=Path, help="made by pipeline.prepare")
    made.add_argument("--store", required=True, type=Path, help="feature store, made by pipeline.extract")
    made.add_argument("--labels", type=Path, help="pseudo-label store, made by pipeline.pseudolabel")
    made.add_argument("--background", type=Path, metavar="DIR", help="AVE's background clips for weak training, HDF5")
    made.add_argument("--model", required=True, help="name of a network; an unknown one lists them all")
    made.add_argument("--setting", default="supervised", choices=["supervised", "weak"])
    made.add_argument("--seed", type=int, help="default: the published one")
    made.add_argument("--out", required=True, type=Path, help="folder of this training")
    made.add_argument("--config", type=Path, help="YAML; default: the model's own in workflows/config/models")
    for stream in STREAMS:
        made.add_argument(f"--{stream}", metavar="FEATURE", help=f"key or encoder:recipe[=WEIGHTS] of {stream!r}")
    made.add_argument("--epochs", type=int, help="instead of the configuration's; its schedule stays as it is")
    made.add_argument("--batch", type=int, help="instead of the configuration's")
    made.add_argument("--patience", type=int, help="stop after so many epochs without a better validation score")
    made.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    made.add_argument("--precision", default="fp32", choices=["fp32", "bf16"], help="bf16: mixed precision")
    made.add_argument("--loader-workers", type=int, default=2, help="reading processes, where data outgrow memory")
    made.add_argument("--stream", action="store_true", help="read every batch from the store, whatever the memory")
    add_flags(made)
    return made


def network_class(arguments: argparse.Namespace) -> type:
    """The class of the network, once the flags are known to fit it.

    Raises:
        UsageError: they do not, whatever the files say.
    """
    from pipeline.models import table

    check_numbers(arguments, epochs=1, batch=1, patience=1, loader_workers=0)
    try:
        cls = table.find(arguments.model, arguments.setting)
    except ValueError as error:
        raise UsageError(str(error)) from error
    if cls.needs_labels and arguments.labels is None:
        raise UsageError(
            f"model {arguments.model} learns from pseudo-labels: give --labels; `python -m pipeline.pseudolabel` makes "
            "them"
        )
    if arguments.background and (arguments.setting != "weak" or set(cls.streams) != {"visual", "audio"}):
        raise UsageError("--background is for weak training of AVE models, which have one visual and one audio feature")
    if arguments.background and arguments.stream:
        raise UsageError("--background clips are held in memory; leave out --stream")
    if strange := [stream for stream in STREAMS if getattr(arguments, stream) and stream not in cls.streams]:
        flags = ", ".join(f"--{stream}" for stream in strange)
        raise UsageError(f"model {arguments.model} does not read {flags}; its streams are {', '.join(cls.streams)}")
    return cls
