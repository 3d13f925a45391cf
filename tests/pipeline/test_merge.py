import pytest

from pipeline.merge import main
from pipeline.store import FeatureStore
from tests.pipeline import store_factory as factory

DEMO = factory.manifest(10)
AUDIO = factory.spec()
VISUAL = factory.spec("vgg19", (2, 2, 3), modality="visual")


def merge(folder, *sources):
    options = ["--manifest", str(folder / "M.parquet"), "--into", str(folder / "all")]
    return main([*options, *(str(folder / name) for name in sources)])


def part(folder, name, rows, specs=(AUDIO,), absent=frozenset(), **options):
    made = FeatureStore.create(folder / name, DEMO, specs, job_clips=options.get("job_clips", 4))
    for spec in specs:
        factory.fill(made, DEMO, spec.key, absent, rows)
    return made


def tree(path):
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


@pytest.fixture
def folder(tmp_path):
    DEMO.save(tmp_path / "M.parquet")
    return tmp_path


def test_parts_of_several_machines_become_the_store_that_one_would_have_made(folder):
    part(folder, "a", range(0, 4))
    part(folder, "b", range(4, 10), (AUDIO, VISUAL))
    part(folder, "c", range(0, 8), (VISUAL,))
    assert merge(folder, "a", "b", "c") == 0
    whole = factory.store(folder / "whole", DEMO, [AUDIO, VISUAL], job_clips=4)
    assert tree(folder / "all") == tree(whole.path)
    assert merge(folder, "a", "b", "c") == 0
    assert tree(folder / "all") == tree(whole.path)


def test_two_stores_that_disagree_on_a_block_are_refused_before_anything_moves(folder, capsys):
    part(folder, "a", range(0, 4))
    part(folder, "b", range(0, 10), absent={1})
    with pytest.raises(SystemExit):
        merge(folder, "a", "b")
    assert f"{AUDIO.key} block 0: " in capsys.readouterr().err
    assert len(FeatureStore.open(folder / "all").missing(AUDIO.key)) == 3


def test_a_damaged_block_is_left_out_and_named_and_a_sound_copy_is_taken_instead(folder, capsys):
    damaged = part(folder, "a", range(0, 8))
    part(folder, "b", range(4, 10))
    shard = damaged.path / AUDIO.key / "values/c/1/0/0"
    shard.write_bytes(shard.read_bytes()[:-1])
    assert merge(folder, "a", "b") == 1
    assert f"left out: {damaged.path}: {AUDIO.key} block 1" in capsys.readouterr().err
    merged = FeatureStore.open(folder / "all")
    assert merged.missing(AUDIO.key) == []
    assert merged.verify() == []


def test_stores_of_other_manifests_and_job_sizes_are_refused(folder, capsys):
    part(folder, "a", range(0, 4))
    part(folder, "b", range(0, 10), job_clips=2)
    factory.store(folder / "c", factory.manifest(9), [AUDIO])
    for other, message in [("b", "jobs of 2 clips"), ("c", "another manifest"), ("all", "not a feature store")]:
        with pytest.raises(SystemExit):
            merge(folder, "a", other)
        assert message in capsys.readouterr().err


def test_a_block_without_any_rows_is_taken_like_others(folder):
    part(folder, "a", range(0, 8), absent={4, 5, 6, 7})
    part(folder, "b", range(8, 10))
    assert merge(folder, "a", "b") == 0
    whole = factory.store(folder / "whole", DEMO, [AUDIO], absent={4, 5, 6, 7}, job_clips=4)
    assert tree(folder / "all") == tree(whole.path)
