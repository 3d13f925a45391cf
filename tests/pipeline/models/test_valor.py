"""Which audio the VALOR networks take: a vector per segment or a whole CLAP map, and nothing that looks like one."""

import pytest

from pipeline.models import table
from tests.pipeline.models.networks import VALOR


@pytest.mark.parametrize("model", ["valor", "valor-plus-plus", "link"])
@pytest.mark.parametrize("audio", [(20, 768), (1, 32, 768), (10, 64, 768), (9, 768)])
def test_audio_that_is_neither_segments_nor_a_map_is_refused(model, audio):
    """Rows of half a second are no map of two frequency rows, and a map per segment is none of the clip."""
    with pytest.raises(ValueError, match=r"neither one for each of 10 segments nor a CLAP map of 64; give .* --audio"):
        table.build(model, "weak", VALOR | {"audio": audio}, 25)


@pytest.mark.parametrize("audio", [(10, 768), (1, 64, 768), (64, 768)])
def test_segments_and_maps_are_taken(audio):
    table.build("valor-plus-plus", "weak", VALOR | {"audio": audio}, 25, width=8, heads=2, hidden=8)
