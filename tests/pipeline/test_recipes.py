"""Training configurations: every model has one for every setting, published and small."""

import pytest

from pipeline.models import table
from pipeline.recipes import FOLDER, config_file, read
from tests.pipeline.models import networks as n

# Streams of the published features.
SHAPES = {
    "han": n.LLP, "valor": n.LLP, "valor-plus": n.LLP, "valor-plus-plus": n.VALOR, "link": n.VALOR, "dg-sct": n.MAPS,
}  # fmt: skip


@pytest.mark.parametrize(("name", "setting"), n.EVERY)
@pytest.mark.parametrize("dataset", ["ave", "demo"])
def test_every_model_has_its_file(name, setting, dataset):
    recipe = read(config_file(name, dataset), setting)
    assert recipe.model == name
    assert set(recipe.features) == set(table.find(name, setting).streams)
    assert not (dataset == "demo" and recipe.published), "published numbers do not belong beside the demo's"
    table.build(name, setting, SHAPES.get(name, n.AVE), 25, **_fitting(recipe, dataset))


def _fitting(recipe, dataset):
    return recipe.network | ({"adapter": False} if recipe.model == "dg-sct" and dataset == "demo" else {})


@pytest.mark.parametrize(("name", "setting"), n.EVERY)
def test_published_features_exist(name, setting):
    from extractors.recipes import recipe

    for feature in read(config_file(name, "ave"), setting).features.values():
        assert recipe(feature).name == feature


def test_a_published_file_says_what_the_paper_says():
    cace = read(FOLDER / "cace-net.yaml", "supervised")
    assert (cace.optimizer, cace.batch, cace.epochs, cace.clip_norm) == ({"name": "adam", "lr": 7e-4}, 64, 200, 0.5)
    assert cace.network["contrast_from"] == cace.epochs // 8
    valor = read(FOLDER / "valor-plus-plus.yaml", "weak")
    assert (valor.seed, valor.network["width"], valor.network["layers"]) == (87, 256, 4)
    assert valor.schedule["last"] == 3e-6
    avel = read(FOLDER / "avel.yaml", "weak")
    assert (avel.epochs, avel.shuffle, avel.drop_last, avel.seed) == (250, False, True, 3344)


def test_a_file_that_is_its_own_base_is_told(tmp_path):
    (tmp_path / "a.yaml").write_text("base: b.yaml\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\n")
    with pytest.raises(ValueError, match="leads back"):
        read(tmp_path / "a.yaml", "weak")
