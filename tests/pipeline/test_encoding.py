"""Batches of one shape from many clips, and every row back to its own clip."""

import numpy as np
import pytest
import torch

from extractors.base import Encoder
from extractors.spec import FeatureSpec, Grid
from pipeline.encoding import BatchedEncoder
from pipeline.preparation import Part

SPEC = FeatureSpec(
    encoder="double", recipe="default", modality="audio", layer="out", preprocess=("cut",), postprocess=(),
    grid=Grid(), sampler=None, shape=(2,),
)  # fmt: skip


class Double(Encoder):
    """Twice its input; remembers the batches it saw and fails when they have more rows than `room`."""

    batch_rows = 4

    def __init__(self, room: int = 1_000) -> None:
        super().__init__(SPEC)
        self.room = room
        self.seen: list[torch.Tensor] = []

    def build_network(self):
        return torch.nn.Linear(1, 1)

    def collect(self, media, segments):
        raise AssertionError("rows are prepared elsewhere")

    def forward(self, inputs):
        if len(inputs) > self.room:
            raise torch.OutOfMemoryError("no room")
        self.seen.append(inputs.clone())
        return inputs * 2


def part(row, values, offset=0, last=True, places=None):
    batch = torch.tensor(values, dtype=torch.float32)[:, None].expand(-1, 2).contiguous()
    places = np.arange(len(values)) if places is None else np.array(places)
    starts = np.arange(offset, offset + len(places), dtype=np.float64)
    return Part(row, ("k",), offset, batch, places, np.stack([starts, starts + 1], axis=1), last)


def encode(encoder, parts, transforms=False):
    batched = BatchedEncoder(encoder, transforms=transforms)
    found = {}
    for item in parts:
        if isinstance(item, int):
            batched.drop(item)
            continue
        for done in batched.add(item):
            assert done.row not in found
            found[done.row] = done
        item.batch.fill_(float("nan"))  # its memory is the sender's again
    for done in batched.flush():
        assert done.row not in found
        found[done.row] = done
    return {row: done.values[:, 0].tolist() for row, done in found.items()}


def test_batches_are_cut_across_clips_and_rows_return_to_theirs():
    encoder = Double()
    found = encode(encoder, [part(0, [1, 2, 3]), part(1, [4, 5, 6, 7, 8]), part(2, [9])])
    assert found == {0: [2, 4, 6], 1: [8, 10, 12, 14, 16], 2: [18]}
    assert [len(batch) for batch in encoder.seen] == [4, 4, 4]
    assert encoder.seen[-1][:, 0].tolist() == [9, 9, 9, 9], "the last batch is padded with its last row"


def test_a_clip_in_parts_is_whole_only_after_the_last():
    found = encode(Double(), [part(0, [1, 2, 3, 4], last=False), part(1, [7]), part(0, [5], offset=4), part(2, [8, 9])])
    assert found == {0: [2, 4, 6, 8, 10], 1: [14], 2: [16, 18]}


def test_rows_that_repeat_are_encoded_once():
    encoder = Double()
    found = encode(encoder, [part(0, [1, 2], places=[0, 0, 0, 1], last=False), part(0, [3], offset=4, places=[0, 0])])
    assert found == {0: [2, 2, 2, 4, 6, 6]}
    assert [len(batch) for batch in encoder.seen] == [4]


def test_a_dropped_clip_takes_nothing_with_it():
    found = encode(Double(), [part(0, [1, 2], last=False), part(1, [3]), 0, part(2, [4, 5, 6])])
    assert found == {1: [6], 2: [8, 10, 12]}


def test_a_clip_that_starts_anew_is_not_counted_twice():
    found = encode(Double(), [part(0, [1, 2], last=False), part(1, [3]), part(0, [4, 5, 6])])
    assert found == {0: [8, 10, 12], 1: [6]}


def test_out_of_memory_halves_the_batch_and_goes_on(capsys):
    encoder = Double(room=1)
    assert encode(encoder, [part(0, [1, 2, 3, 4, 5])]) == {0: [2, 4, 6, 8, 10]}
    assert {len(batch) for batch in encoder.seen} == {1}
    said = capsys.readouterr().err
    assert "2 rows at once" in said
    assert "1 rows at once" in said


def test_no_room_for_a_single_row_is_an_error():
    with pytest.raises(MemoryError, match="no room for a single row"):
        encode(Double(room=0), [part(0, [1, 2, 3, 4])])


class Squared(Double):
    """Squares its collected rows; remembers how many came at once and fails when they are more than `room`."""

    def __init__(self, exact: bool, room: int = 1_000) -> None:
        super().__init__()
        self.transform_is_exact = exact
        self.transform_room = room
        self.transformed: list[int] = []

    def transform(self, collected):
        if len(collected) > self.transform_room:
            raise torch.OutOfMemoryError("no room")
        self.transformed.append(len(collected))
        return collected.square()


def test_collected_rows_are_transformed_clip_by_clip_only_if_their_bits_allow_it():
    parts = [[1, 2, 3], [4, 5, 6, 7, 8], [9]]
    for exact, counts in ((True, [3, 5, 1]), (False, [4, 4, 4])):
        encoder = Squared(exact)
        found = encode(encoder, [part(row, values) for row, values in enumerate(parts)], transforms=True)
        assert found == {row: [2 * value**2 for value in values] for row, values in enumerate(parts)}
        assert encoder.transformed == counts
    assert encode(Squared(True), [part(0, [3])]) == {0: [6]}, "prepared rows are transformed already"


def test_out_of_memory_in_a_transform_halves_what_is_transformed_at_once():
    encoder = Squared(True, room=2)
    assert encode(encoder, [part(0, [1, 2, 3, 4, 5])], transforms=True) == {0: [2, 8, 18, 32, 50]}
    assert max(encoder.transformed) == 2
    with pytest.raises(MemoryError, match="no room for a single row"):
        encode(Squared(True, room=0), [part(0, [1, 2])], transforms=True)


@pytest.mark.parametrize("items", [1, 2, 3, 5])
def test_a_part_split_for_transport_gives_the_same_rows(items):
    whole = part(0, [1, 2, 3, 4], places=[0, 0, 1, 2, 2, 3, 3])
    expected = encode(Double(), [part(0, [1, 2, 3, 4], places=[0, 0, 1, 2, 2, 3, 3])])
    pieces = list(whole.split(items))
    assert [piece.last for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert encode(Double(), [Part(**{**vars(p), "batch": p.batch.clone()}) for p in pieces]) == expected
