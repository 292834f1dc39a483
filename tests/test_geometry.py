"""The window geometry against a naive walk over the input."""

from hypothesis import given
from hypothesis import strategies as st

from lutq_hw.geometry import WindowGeometry


@st.composite
def geometries(draw):
    k = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    p = tuple(draw(st.integers(0, n - 1)) for n in k)
    h, w = (draw(st.integers(max(1, n - 2 * q), 12)) for n, q in zip(k, p, strict=True))
    groups, words, channels = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    stride = draw(st.integers(1, 6)), draw(st.integers(1, 4))
    return WindowGeometry((h, w, groups * words * channels), k, stride, p, channels, draw(st.sampled_from([1, k[0]])),
                          groups, draw(st.integers(1, 3)))


@given(geometries())
def test_rows_needed_are_those_that_a_window_touches(g):
    held = 0  # first row in the buffer
    last = g.out_shape[0] - 1
    for oy in range(last + 1):
        touched = [oy * g.stride[0] - g.padding[0] + k for k in range(g.kernel[0])]
        inside = [row for row in touched if 0 <= row < g.shape[0]]
        if inside:
            assert held <= min(inside)
            assert held + g.need[oy] >= max(inside) + 1
        assert g.need[oy] <= g.buffer_rows
        held += g.release[oy]
    assert held == g.shape[0], "all rows of a frame leave the buffer with its last output row"
    assert g.need[last] == g.shape[0] - (held - g.release[last]), "the last output row waits for the whole frame"


@given(geometries())
def test_the_next_output_row_can_arrive_while_one_is_computed(g):
    for oy in range(g.out_shape[0]):
        following = g.need[(oy + 1) % g.out_shape[0]]
        assert g.release[oy] + following <= g.buffer_rows


@given(geometries())
def test_masks_mark_kernel_positions_inside_the_input(g):
    for axis in (0, 1):
        for out in range(g.out_shape[axis]):
            expected = [0 <= out * g.stride[axis] - g.padding[axis] + k < g.shape[axis] for k in range(g.kernel[axis])]
            assert [bool(g.mask(axis, out) >> k & 1) for k in range(g.kernel[axis])] == expected


def test_counts_of_a_convolution_worked_by_hand():
    g = WindowGeometry((28, 28, 1), (5, 5), (2, 2), (2, 2), channels=1, rows=5, repeat=2)
    assert g.out_shape == (14, 14)
    assert g.fold == 5  # five columns of five rows
    assert g.reads == 14 * 14 * 2 * 5
    assert g.need[:3] == (3, 5, 5) and g.need[-1] == 4
    assert g.release[:3] == (0, 2, 2) and g.release[-1] == 4
    assert g.buffer_rows == 7
    assert g.depth == 28


def test_dense_layer_buffers_two_vectors():
    g = WindowGeometry((1, 1, 216), channels=4, repeat=10)
    assert (g.buffer_rows, g.depth, g.fold, g.reads) == (2, 108, 54, 540)
