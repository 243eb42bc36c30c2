"""What of the patches is plain arithmetic; the rest is exercised by the end-to-end tests."""

from hypothesis import given
from hypothesis import strategies as st

from sftrl_ext.backends.patches import partitions_by_length


@given(st.lists(st.integers(1, 500), min_size=1, max_size=60), st.data())
def test_micro_batches_hold_every_row_once_and_go_by_length(costs, data):
    parts = data.draw(st.integers(1, len(costs)))
    found = partitions_by_length(costs, parts)
    assert len(found) == parts and all(found)
    assert sorted(row for part in found for row in part) == list(range(len(costs)))
    for shorter, longer in zip(found, found[1:], strict=False):
        assert max(costs[row] for row in shorter) <= min(costs[row] for row in longer)


def test_equal_rows_are_cut_into_equal_parts():
    assert [len(part) for part in partitions_by_length([7] * 12, 4)] == [3, 3, 3, 3]
