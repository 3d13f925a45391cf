"""Contrastive fine-tuning: the loss against float64, cached gradients, exact resume, and what goes wrong."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from extractors.base import load
from extractors.recipes import recipe as encoder_recipe
from pipeline import extract, finetune
from pipeline.finetuning import frames
from pipeline.finetuning import pair as pairs
from pipeline.finetuning.frames import draw
from pipeline.finetuning.losses import info_nce
from pipeline.finetuning.recipe import FOLDER, FinetuneRecipe, read
from pipeline.finetuning.tuning import Tuning
from pipeline.manifest import Manifest
from pipeline.mediafile import find
from pipeline.metrics.retrieval import both_ways, recall_at
from pipeline.run import sha256_of
from pipeline.store import FeatureStore
from tests.pipeline import store_factory
from tests.pipeline.small_clips import small_clips  # noqa: F401 - a fixture

CONFIG = """
loss: symmetric
batch: 4
epochs: 3
chunk: 2
projection: 8
frames: 2
optimizer: {name: sgd, lr: 1.0e-2, momentum: 0.9}
"""


def reference(visual, audio, temperature, symmetric, videos=None):
    """Eq. 9 by loops in float64, and its mirror image."""
    visual, audio = visual.astype(np.float64), audio.astype(np.float64)
    count, total = len(visual), 0.0
    for one, other in ((visual, audio), (audio, visual))[: 2 if symmetric else 1]:
        for i in range(count):
            allowed = [j for j in range(count) if j == i or videos is None or videos[j] != videos[i]]
            exponentials = [np.exp(one[i] @ other[j] / temperature) for j in allowed]
            total -= np.log(np.exp(one[i] @ other[i] / temperature) / sum(exponentials)) / count
    return total / (2 if symmetric else 1)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("videos", [None, [0, 1, 2, 0, 3, 1]])
def test_info_nce_equals_float64_loops(symmetric, videos):
    rng = np.random.default_rng(0)
    visual, audio = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in rng.normal(size=(2, 6, 16)))
    found = info_nce(
        torch.from_numpy(visual).float(), torch.from_numpy(audio).float(), 0.2,
        "symmetric" if symmetric else "one-sided", None if videos is None else torch.tensor(videos),
    )  # fmt: skip
    assert float(found) == pytest.approx(reference(visual, audio, 0.2, symmetric, videos), rel=1e-5)


def test_one_clip_has_no_negatives():
    with pytest.raises(ValueError, match="at least two clips"):
        info_nce(torch.ones(1, 2), torch.ones(1, 2), 0.2)
    with pytest.raises(ValueError, match="InfoNCE needs at least two clips"):
        FinetuneRecipe(batch=1)


def test_published_recipes_say_what_the_sources_say():
    code, paper = read("cace2024"), read("cace2024-paper")
    assert (code.loss, paper.loss) == ("symmetric", "one-sided")
    for found in (code, paper):
        assert (found.temperature, found.projection, found.batch, found.epochs) == (0.2, 128, 256, 50)
        assert found.optimizer == {"name": "sgd", "lr": 1e-3, "momentum": 0.9, "weight_decay": 1e-4}
        assert found.schedule == {"kind": "milestones", "epochs": [15, 30], "factor": 0.1}
        assert (found.splits, found.validation, found.resample) == (("train", "val"), None, "once")
    assert {read(path.stem).batch for path in FOLDER.glob("*.yaml")} >= {256}
    with pytest.raises(FileNotFoundError, match="there are cace2024"):
        read("cace2025")


def test_a_frame_of_every_part_is_drawn_by_the_seed_alone():
    times = np.arange(300) / 30
    first = draw(times, 10.0, 10, (0, 1, 2))
    assert (first // 30).tolist() == list(range(10))
    assert first.tolist() == draw(times, 10.0, 10, (0, 1, 2)).tolist()
    assert first.tolist() != draw(times, 10.0, 10, (0, 2, 2)).tolist()
    assert draw(times[:45], 10.0, 10, (0,)).max() == 44


def test_pictures_drawn_once_are_decoded_once(small_clips, monkeypatch):  # noqa: F811
    folder, manifest = small_clips
    spec = encoder_recipe("clip-tiny").spec
    groups, others = [[4, 0], [7, 2]], [[2, 1], [0, 4]]  # clip 7 has no file

    def run(once, room):
        monkeypatch.setattr(frames, "room_bytes", lambda: room)
        dataset = frames.Frames(manifest.clips, folder, spec, 2, 0, once)
        asked = []
        read = frames.Frames.__getitem__
        monkeypatch.setattr(
            frames.Frames, "__getitem__", lambda self, index: asked.append(index[1]) or read(self, index)
        )
        found = [batch for epoch in (0, 1) for batch in frames.batches(dataset, epoch, (groups, others)[epoch], 0)]
        monkeypatch.setattr(frames.Frames, "__getitem__", read)
        return found, asked

    fresh, every = run(True, 0)
    kept, first = run(True, 10**9)
    assert every == [4, 0, 7, 2, 2, 1, 0, 4]
    assert first == [4, 0, 7, 2, 1]
    for (places, pictures, refused), (wanted, same, reasons) in zip(kept, fresh, strict=True):
        assert (places, refused) == (wanted, reasons)
        assert torch.equal(pictures, same)
    assert [places for places, _, _ in kept] == [[4, 0], [2], [2, 1], [0, 4]]
    drawn_anew, every = run(False, 10**9)
    assert len(every) == 8
    assert not torch.equal(drawn_anew[3][1], fresh[3][1])


def test_retrieval_counts_ranks_and_ties_against():
    similarity = np.array([[0.9, 0.1, 0.2], [0.8, 0.7, 0.1], [0.1, 0.2, 0.3]])
    assert recall_at(similarity, np.eye(3), (1, 2)) == {"R@1": pytest.approx(200 / 3), "R@2": 100.0}
    assert both_ways(np.zeros((4, 4)))["rows"] == {"R@1": 0.0, "R@5": 100.0}


def small_pair(seed=0, norms="frozen"):
    torch.manual_seed(seed)
    encoder = load("clip-tiny", "random:0")
    return pairs.Pair(encoder, 64, 5, 8, "all", norms, "fp32").train()


def test_cached_gradients_are_those_of_the_whole_batch():
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 256, (5, 2, 64, 64, 3), generator=generator, dtype=torch.uint8)
    audio, videos = torch.randn(5, 5, generator=generator), torch.arange(5)
    found = {}
    for chunk in (5, 2):
        pair = small_pair()
        loss = pairs.backward(pair, pictures, audio, videos, lambda v, a, w: info_nce(v, a, 0.2, "symmetric", w), chunk)
        found[chunk] = loss, {name: p.grad for name, p in pair.named_parameters() if p.grad is not None}
    assert found[2][0] == pytest.approx(found[5][0], rel=1e-5)
    assert found[2][1].keys() == found[5][1].keys()
    for name, gradient in found[5][1].items():
        torch.testing.assert_close(found[2][1][name], gradient, rtol=1e-3, atol=1e-5)
    assert max(gradient.abs().max() for gradient in found[5][1].values()) > 1e-3


def test_cached_gradients_are_of_the_pass_that_made_the_vectors():
    """Networks that drop paths in training drop the same ones when a chunk goes through them again."""
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 256, (5, 2, 64, 64, 3), generator=generator, dtype=torch.uint8)
    audio, videos, found = torch.randn(5, 5, generator=generator), torch.arange(5), []
    for cached in (False, True):
        pair = small_pair()
        pair.visual = torch.nn.Sequential(torch.nn.Dropout(0.5), pair.visual)
        torch.manual_seed(3)
        if cached:
            loss = pairs.backward(pair, pictures, audio, videos, lambda v, a, w: info_nce(v, a, 0.2, "symmetric", w), 2)
        else:
            seen = torch.cat([pair.see(some) for some in pictures.split(2)])
            whole = info_nce(seen, pair.hear(audio), 0.2, "symmetric", videos)
            whole.backward()
            loss = float(whole.detach())
        found.append((loss, [p.grad for p in pair.parameters() if p.grad is not None], torch.rand(1)))
    (loss, gradients, drawn), (again, same, drawn_again) = found
    assert again == pytest.approx(loss, rel=1e-5)
    assert drawn_again == drawn
    for one, other in zip(gradients, same, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-5)


def test_a_split_does_not_train_and_validate():
    with pytest.raises(ValueError, match="split val both trains and validates"):
        FinetuneRecipe(splits=("train", "val"), validation="val")


@pytest.fixture
def folder(tmp_path, small_clips):  # noqa: F811
    """Manifest, recipe and a store of audio features in which clip 3 has none."""
    _, manifest = small_clips
    manifest.save(tmp_path / "manifest.parquet")
    (tmp_path / "recipe.yaml").write_text(CONFIG)
    audio = store_factory.spec("vggish", (5,), count=None)
    store_factory.store(tmp_path / "features", manifest, [audio], absent={3})
    return tmp_path


def flags(folder, media, out, *more):
    return [
        "--manifest", f"{folder}/manifest.parquet", "--media", str(media), "--store", f"{folder}/features", "--visual",
        "clip-tiny", "--visual-weights", "random:0", "--audio", "vggish:ave2018", "--recipe", f"{folder}/recipe.yaml",
        "--out", f"{folder}/{out}", *more,
    ]  # fmt: skip


def test_an_interrupted_run_ends_at_the_same_weights(folder, small_clips, monkeypatch, capsys):  # noqa: F811
    media, manifest = small_clips
    assert finetune.main(flags(folder, media, "whole")) == 0
    epochs = []

    def interrupt(line, total):
        epochs.append(line["epoch"])
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(finetune, "_report", interrupt)
        with pytest.raises(SystemExit):
            finetune.main(flags(folder, media, "halves"))
    assert epochs == [1]
    assert not (folder / "halves" / "finetune.json").exists()
    assert finetune.main(flags(folder, media, "halves")) == 0
    records = [json.loads((folder / name / "finetune.json").read_text()) for name in ("whole", "halves")]
    assert records[0] == records[1]
    whole = records[0]
    assert whole["weights"]["sha256"] == sha256_of(folder / "whole" / "clip-tiny.safetensors")
    assert whole["arguments"]["clips"] == {"train": 4, "validation": 3, "excluded": {"audio: absent": 1}}
    assert whole["refused"]["clips"] == {manifest.ids[-1]: "absent"}
    assert [line["epoch"] for line in whole["history"]] == [0, 1, 2, 3]
    tuned, before = load("clip-tiny", f"{folder}/whole/clip-tiny.safetensors"), load("clip-tiny", "random:0")
    assert tuned.spec.key != before.spec.key
    with pytest.raises(SystemExit):  # another seed is another fine-tuning
        finetune.main(flags(folder, media, "whole", "--seed", "1"))
    assert "other data or settings: seed; choose" in capsys.readouterr().err
    assert finetune.main(flags(folder, media, "whole", "--seed", "1", "--stale", "restart")) == 0
    assert "other data or settings: seed; it is forgotten" in capsys.readouterr().err
    assert len(json.loads((folder / "whole" / "curves.json").read_text())) == 4


def test_other_sounds_and_other_media_are_other_data(folder, small_clips, capsys):  # noqa: F811
    media, manifest = small_clips
    own = folder / "media"
    shutil.copytree(media, own)
    assert finetune.main(flags(folder, own, "out", "--epochs", "1")) == 0
    assert finetune.main(flags(folder, own, "out", "--epochs", "1")) == 0
    path = find(manifest.clips[0], own)[0]
    whole = path.read_bytes()
    path.write_bytes(whole + b"more")
    with pytest.raises(SystemExit):
        finetune.main(flags(folder, own, "out", "--epochs", "1"))
    assert "other data" in capsys.readouterr().err
    path.write_bytes(whole)
    store = FeatureStore.create(folder / "features", manifest, [])
    (key,) = store.keys()
    rows = store.values(key)[:]
    writer = store.writer(key, 0)
    for row, clip in enumerate(manifest.clips):
        writer.put(row, rows[row] + 1 if row != 3 else rows[0], store.spec(key).grid.segments(clip.duration_s))
    writer.commit()
    with pytest.raises(SystemExit):
        finetune.main(flags(folder, own, "out", "--epochs", "1"))
    assert "other data" in capsys.readouterr().err


def test_the_last_batches_of_an_epoch_are_averaged_over_as_many_as_there_are(folder, small_clips):  # noqa: F811
    media, _ = small_clips
    found = []
    for accumulate in (1, 3):  # an epoch is one batch
        (folder / "recipe.yaml").write_text(f"{CONFIG}accumulate: {accumulate}\n")
        assert finetune.main(flags(folder, media, str(accumulate), "--epochs", "1")) == 0
        found.append(torch.load(folder / str(accumulate) / "checkpoint.pt", weights_only=True)["pair"])
    assert all(torch.equal(found[1][name], values) for name, values in found[0].items())


def test_training_lowers_the_loss(folder, small_clips):  # noqa: F811
    media, _ = small_clips
    assert finetune.main(flags(folder, media, "out", "--epochs", "12", "--loss", "one-sided")) == 0
    losses = [line["loss"] for line in json.loads((folder / "out" / "curves.json").read_text())[1:]]
    assert losses[-1] < losses[0] - 0.1


def test_a_fine_tuning_that_diverges_ends_with_the_last_good_checkpoint(folder, small_clips, capsys):  # noqa: F811
    media, _ = small_clips
    schedule = "schedule: {kind: milestones, epochs: [1], factor: 1.0e+41}\n"  # beyond float32
    for batch, says in (
        ("2", "the loss is nan in epoch 2, batch 2"),
        ("4", "weights are NaN or infinite after epoch 2"),
    ):
        (folder / "recipe.yaml").write_text(CONFIG + schedule)
        with pytest.raises(SystemExit):
            finetune.main(flags(folder, media, batch, "--batch", batch))
        assert says in capsys.readouterr().err
        assert torch.load(folder / batch / "checkpoint.pt", weights_only=True)["progress"]["epoch"] == 1
        assert not (folder / batch / "finetune.json").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--audio", "cnn14"], "no single feature called 'cnn14'"),
        (["--visual", "vggish"], "only encoders of single frames can be tuned"),
        (["--visual-weights", "wrong.pt"], "neither `pretrained`, `random:SEED` nor an existing file"),
        (["--batch", "1", "--loader-workers", "-1"], "--batch 1: at least 2; --loader-workers -1: at least 0"),
        (["--epochs", "0"], "--epochs 0: at least 1"),
        (["--chunk", "0"], "--chunk 0: at least 1"),
        (["--seed", "-1"], "--seed -1: 0 to 4294967295"),
        (["--recipe", "nothing"], "no such fine-tuning recipe"),
        (["--device", "cuda:99"], "--device cuda:99: torch"),
        (["--device", "meta"], "--device meta: write cpu, cuda or cuda:N"),
    ],
)
def test_what_cannot_be_tuned_is_said(folder, small_clips, capsys, change, message):  # noqa: F811
    media, _ = small_clips
    with pytest.raises(SystemExit) as stop:
        finetune.main(flags(folder, media, "out", *change))
    assert stop.value.code == (2 if message.startswith("--") and "torch" not in message else 1)
    assert message in capsys.readouterr().err


def test_a_checkpoint_of_another_architecture_is_refused(folder, small_clips, capsys):  # noqa: F811
    media, _ = small_clips
    torch.save({"visual.conv1.weight": torch.zeros(3, 3)}, folder / "other.pt")
    with pytest.raises(SystemExit):
        finetune.main(flags(folder, media, "out", "--visual-weights", f"{folder}/other.pt"))
    assert "checkpoint does not fit clip-tiny" in capsys.readouterr().err


def test_spoilt_audio_features_are_named(folder, small_clips, capsys):  # noqa: F811
    media, manifest = small_clips
    store = FeatureStore.create(folder / "features", manifest, [])
    values = store.values(store.keys()[0])
    rows = values[1]
    rows[0, 0] = np.nan
    values[1] = rows
    with pytest.raises(SystemExit):
        finetune.main(flags(folder, media, "out"))
    assert f"holds NaN or infinity for 1 clip(s): {manifest.ids[1]}" in capsys.readouterr().err


def test_batches_are_the_same_for_any_number_of_processes():
    class Six:
        def __len__(self):
            return 7

    tuning = Tuning.__new__(Tuning)
    tuning.seed, tuning.train, tuning.recipe = 5, Six(), FinetuneRecipe(batch=3)
    groups = tuning.groups(2)
    assert [len(group) for group in groups] == [3, 3]
    assert len({place for group in groups for place in group}) == 6
    assert groups != tuning.groups(3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet50", "vgg19-bn", "clip-b32"])
def test_every_family_is_tuned_and_extracted_with(folder, small_clips, name):  # noqa: F811
    """A step of the real network, an ordinary checkpoint, a new key, and the old feature as it was."""
    media, manifest = small_clips
    (folder / "recipe.yaml").write_text(CONFIG.replace("frames: 2", "frames: 1\nvalidation: null"))
    assert finetune.main(flags(folder, media, "out", "--epochs", "1", "--visual", name)) == 0
    record = json.loads((folder / "out" / "finetune.json").read_text())
    assert np.isfinite(record["history"][-1]["loss"])
    Manifest(manifest.dataset, manifest.clips[:1], manifest.classes).save(folder / "one.parquet")
    tuned = f"{folder}/out/{name}.safetensors"
    for weights in ("random:0", f"{name}={tuned}"):
        made = [
            "--manifest",
            f"{folder}/one.parquet",
            "--media",
            str(media),
            "--store",
            f"{folder}/visual",
            "--encoders",
        ]
        assert extract.main([*made, name, "--weights", weights, "--workers", "0"]) == 0
        store = FeatureStore.open(folder / "visual")
        if weights == "random:0":
            old = store.key(name)
            before = {path: sha256_of(path) for path in (folder / "visual" / old).rglob("*") if path.is_file()}
    new = store.key(f"{name}={tuned}")
    assert store.key(f"{name}=random:0") == old != new
    assert store.spec(new).weights == f"sha256:{record['weights']['sha256']}"
    assert all(sha256_of(path) == digest for path, digest in before.items())
    rows, tuned_rows = (store.read(manifest.ids[0], key) for key in (old, new))
    assert rows.shape == tuned_rows.shape
    assert 0 < np.abs(tuned_rows - rows).max() < np.abs(rows).max(), "a step is no other network"


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(folder, small_clips):  # noqa: F811
    media, _ = small_clips
    (folder / "recipe.yaml").write_text(CONFIG.replace("momentum: 0.9", "momentum: 0.0"))
    assert finetune.main(flags(folder, media, "one", "--epochs", "1")) == 0
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    command += ["pipeline.finetune", *flags(folder, media, "two", "--epochs", "1")]
    subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True)
    one, two = (torch.load(folder / name / "checkpoint.pt", weights_only=True)["pair"] for name in ("one", "two"))
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-4, atol=1e-5)
    assert encoder_recipe("clip-tiny").spec.encoder == "clip-tiny"
