"""Seconds per row of every encoder, for `python -m pipeline.plan`: prints entries of workflows/config/throughput.yaml,
and writes them there if asked to.

A ten-second clip with picture and sound is written, decoded and prepared as `extract` does it, then its rows are
encoded in batches of the encoder's own size.  On a CPU both are the process's CPU seconds with one thread: waiting for
a core does not count, but neighbours on the same memory do (vggish: 1.7 times as much), so use a quiet machine.  On a
GPU encoding is wall time.

    python benchmarks/throughput.py --write                                    # all encoders, this machine's CPU
    python benchmarks/throughput.py --write --device cuda
    python benchmarks/throughput.py --encoders vggish,vgg19
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def clip(path: Path) -> Path:
    """Ten seconds of 320x240 at 25 frames a second with stereo sound: a moving texture, so that decoding has work."""
    import numpy as np

    from tests.media_factory import tone, write_media

    texture = np.random.default_rng(0).integers(0, 255, (240, 640, 3), dtype=np.uint8)
    images = (np.ascontiguousarray(texture[:, number : number + 320]) for number in range(250))
    return write_media(path, images=images, samples=tone(10.0, 44_100, 2))


def measure(name: str, media_file: Path, device: str, precision: str, repeats: int) -> dict[str, float | int | str]:
    """Prepare and encode one clip's rows; the best of `repeats`."""
    import torch

    from extractors.base import load
    from pipeline.media import Media

    encoder = load(name, "random:0", device, precision)
    clock = time.process_time if device == "cpu" else time.perf_counter
    prepared: list[float] = []
    encoded: list[float] = []
    with torch.inference_mode():
        for _ in range(repeats + 1):  # the first warms up
            begun = time.process_time()
            with Media(media_file) as media:
                segments = encoder.spec.grid.segments(10.0)
                batch = encoder.prepare(media, segments)
            prepared.append((time.process_time() - begun) / len(batch))
            rows = batch[torch.arange(encoder.batch_rows) % len(batch)]
            begun = clock()
            out = encoder.encode(rows.to(device))
            if device != "cpu":
                torch.cuda.synchronize()
            encoded.append((clock() - begun) / len(out))
    return {
        "device": device.split(":")[0],
        "precision": precision,
        "prepare_s": float(f"{min(prepared[1:]):.3g}"),
        "encode_s": float(f"{min(encoded[1:]):.3g}"),
        "batch_rows": encoder.batch_rows,
    }


def line(name: str, entries: list[dict]) -> str:
    """An encoder's line of the file."""
    shown = ", ".join("{" + ", ".join(f"{key}: {value}" for key, value in entry.items()) + "}" for entry in entries)
    return f'  "{name}": [{shown}]'


def merged(text: str, name: str, found: dict) -> str:
    """The file with one measurement put in: in place of the same device's and precision's, beside others."""
    import yaml

    known = (yaml.safe_load(text).get("encoders") or {}).get(name, [])
    others = [e for e in known if (e["device"], e["precision"]) != (found["device"], found["precision"])]
    new = line(name, [found, *others])
    lines = text.splitlines()
    for number, old in enumerate(lines):
        if old.startswith(f'  "{name}": '):
            lines[number] = new
            break
    else:
        lines.insert(max(i for i, old in enumerate(lines) if old == "encoders:" or old.startswith('  "')) + 1, new)
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoders", help="comma separated names; all by default")
    parser.add_argument("--write", action="store_true", help="put the entries into workflows/config/throughput.yaml")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    import torch

    from extractors.base import ENCODERS
    from pipeline.bill import THROUGHPUT

    torch.set_num_threads(1)
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        media_file = clip(Path(folder) / "clip.mp4")
        names = options.encoders.split(",") if options.encoders else list(ENCODERS)
        for number, name in enumerate(names, 1):
            print(f"{number}/{len(names)} {name}", file=sys.stderr, flush=True)  # a large one takes minutes
            try:
                found = measure(name, media_file, options.device, options.precision, options.repeats)
            except (ImportError, ValueError) as error:  # an optional package is missing: measure the others
                print(f"{name}: not measured: {error}", file=sys.stderr)
                failed += 1
                continue
            print(line(name, [found]), flush=True)
            if options.write:
                THROUGHPUT.write_text(merged(THROUGHPUT.read_text(encoding="utf-8"), name, found), encoding="utf-8")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
