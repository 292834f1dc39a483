"""Sizes by hand, in the paper's arithmetic; and coded for real, to see that nothing is left out."""

import networks
import numpy as np
import pytest

from lutq_hw.errors import InputError
from lutq_hw.huffman import Code
from lutq_hw.network import Codebook, Dense, Input, Network, Output, TensorType, Thresholds
from lutq_train import compression
from lutq_train.compression import LayerCodes, account, of_network


def test_equation_1_by_hand():
    layer = LayerCodes("fc", np.array([[7, 7, 7, 7, 7], [2, 2, 2, -1, -1]]))
    found = account([layer])
    # Codewords of 1, 2 and 2 bits: (5 + 1) 1 + (3 + 1) 2 + (2 + 1) 2 = 20; three values of 32 bits.
    assert found.original == 320 and found.total == 20 + 96
    assert found.ratio == 320 / 116 and found.kept == 1
    assert found.entropy == pytest.approx(0.5 + 0.3 * np.log2(1 / 0.3) + 0.2 * np.log2(5))


def test_equation_2_by_hand():
    found = account([LayerCodes("fc", np.array([7, 7, 7, 7, 7, 2, 2, 2, -1, -1]))], "fixed")
    assert found.total == 10 * 2 + 3 * 32
    assert account([LayerCodes("fc", np.array([3, 3]))], "fixed").total == 32


def test_positions_by_hand():
    # 1,000 weights, one kept in four: differences are all 4, one symbol of one bit in the table with its 3 bits.
    symbols = np.zeros(1000, int)
    symbols[3::4] = np.tile([5, -5], 125)
    found = account([LayerCodes("fc", symbols)])
    layer = found.layers[0]
    assert layer.by_position and layer.kept == 250
    assert layer.values == 250 and layer.positions == 250
    assert found.codebooks == 2 * (32 + 1) and found.tables == 1 + 3
    assert found.total == 250 + 250 + 66 + 4


def test_a_long_gap_takes_more_than_one_symbol(monkeypatch):
    monkeypatch.setattr(compression, "WIDTHS", [2])
    # Positions 0, 2, 8 and 9: differences 1, 2, 6, 1; with 2 bits, 6 is one skip of 3 and a 3. So the symbols are two
    # ones, a two, a three and a skip: four codewords of two bits.
    symbols = np.zeros(400, int)
    symbols[[0, 2, 8, 9]] = 1
    found = account([LayerCodes("fc", symbols)])
    assert found.layers[0].positions == 5 * 2 and found.tables == 4 * (2 + 2)


def test_zero_is_a_symbol_where_few_are_pruned():
    symbols = np.random.default_rng(0).permutation([0, 1, 2, 3] * 100)
    found = account([LayerCodes("fc", symbols)])
    assert not found.layers[0].by_position and found.tables == 0
    assert found.total == 400 * 2 + 4 * (2 + 32)
    assert found.kept == 0.75
    assert account([LayerCodes("fc", symbols, zero=None)]).kept == 1


def test_layers_that_share_a_codebook_store_it_once():
    a, b = np.array([1, 2] * 50), np.array([2, 1] * 50)
    shared = account([LayerCodes("a", a), LayerCodes("b", b)])
    apart = account([LayerCodes("a", a, "a"), LayerCodes("b", b, "b")])
    assert shared.total == 200 + 2 * 33 and apart.total == 200 + 4 * 33


def test_floats_count_on_both_sides_and_scales_on_one():
    plain = account([LayerCodes("fc", np.array([1, 1, 2]))])
    more = account([LayerCodes("fc", np.array([1, 1, 2]), floats=2, extra=1)])
    assert more.original == plain.original + 64 and more.total == plain.total + 64 + 32
    assert account([LayerCodes("fc", np.array([1, 2]), values=7)]).codebooks == 7 * 32 + 2


def test_the_papers_lenet():
    # 8.55 % of 431,080 kept at random, 32 uniform cells of a Laplace distribution: about what Table 1 reports.
    rng = np.random.default_rng(0)
    layers = []
    for name, size, bias in (("conv1", 500, 20), ("conv2", 25_000, 50), ("fc1", 400_000, 500), ("fc2", 5000, 10)):
        values = np.clip(np.round(rng.laplace(0, 2.0, size)), -16, 15).astype(int)
        values[values == 0] = 1
        layers.append(LayerCodes(name, values * (rng.random(size) < 0.0855), floats=bias))
    found = account(layers)
    assert found.original == 431_080 * 32
    assert 40 < found.ratio < 60
    assert found.kept == pytest.approx(0.0855, abs=0.002)
    assert account(layers, "fixed").ratio < found.ratio


def test_streams_really_have_these_sizes():
    rng = np.random.default_rng(1)
    symbols = rng.choice([0, 0, 0, 0, 0, 0, 0, -3, 1, 1, 2], 3000)
    found = account([LayerCodes("fc", symbols)])
    kept = symbols[symbols != 0]
    names, indices, counts = np.unique(kept, return_inverse=True, return_counts=True)
    code = Code.of(counts)
    assert found.layers[0].values == code.encode(indices)[1]
    assert found.codebooks == code.lengths.sum() + 32 * len(names)
    best = []
    for width in compression.WIDTHS:
        stream = []
        for gap in np.diff(np.flatnonzero(symbols), prepend=-1).tolist():
            while gap > (1 << width) - 1:
                stream.append((1 << width) - 1)
                gap -= (1 << width) - 1
            stream.append(gap - 1)
        counts = np.bincount(stream, minlength=1 << width)
        code = Code.of(counts)
        best.append((code.encode(stream)[1] + int((code.lengths[counts > 0].astype(int) + width).sum()),
                     code.encode(stream)[1]))
    assert (found.layers[0].positions + found.tables, found.layers[0].positions) == min(best)


def chain(books, scales=None, bias=None):
    """Dense layers of 8 inputs and outputs, one after the other."""
    nodes, previous = [Input("image", TensorType((8,), bits=2))], "image"
    for n, book in enumerate(books):
        last = n == len(books) - 1
        step = None if last else Thresholds(np.tile([[1, 5, 9]], (8, 1)), bits=2)
        nodes.append(Dense(f"fc{n}", previous, book, bias if last else None, step))
        previous = f"fc{n}"
    info = {} if scales is None else {"scales": {f"fc{n}": {"weights": scale} for n, scale in enumerate(scales)}}
    return Network("chain", (*nodes, Output("scores", previous)), info)


def book(seed, dictionary, **rest):
    dictionary = np.array(dictionary)
    rng = np.random.default_rng(seed)
    return Codebook(rng.permutation(np.arange(64) % dictionary.shape[-1]).reshape(8, 8), dictionary, **rest)


def test_a_network_with_one_codebook_for_all():
    one, two = book(0, [-2, -1, 1, 2]), book(1, [-2, -1, 1, 2])
    same = of_network(chain([one, two], [0.5, 0.5]))
    assert same.total == 128 * 2 + 4 * (32 + 2)
    scaled = of_network(chain([one, two], [0.5, 0.25]))
    assert scaled.total == same.total + 2 * 32  # equal integers, but two scales
    assert of_network(chain([one, two])).total == scaled.total
    own = of_network(chain([one, two], [0.5, 0.5]), codebooks={})
    assert own.total == 128 * 2 + 8 * (32 + 2)


def test_parts_of_one_codebook_are_recognised_by_their_scale():
    one, part = book(0, [-2, -1, 1, 2]), book(2, [-2, -1, 1])
    found = of_network(chain([one, part], [0.5, 0.5]))
    assert found.codebooks == 4 * 32 + 8
    assert of_network(chain([one, part], [0.5, 0.25])).codebooks == 7 * 32 + 8 + 1 + 2 + 2


def test_biases_are_counted_where_outputs_differ():
    books = [book(0, [-2, -1, 1, 2]), book(1, [-2, -1, 1, 2])]
    without = of_network(chain(books))
    assert of_network(chain(books, bias=np.arange(8))).original == without.original + 8 * 32
    assert of_network(chain(books), floats={"fc0": 16}).total == without.total + 16 * 32


def test_subgroups_channel_scales_and_tables():
    groups = np.arange(8) % 2
    syq = book(0, [[-3, 0, 3], [-5, 0, 5]], subgroups=groups)
    found = of_network(chain([syq], [[0.5] * 8]))
    assert found.layers[0].kept == int((syq.values != 0).sum())
    assert found.codebooks == 6 * 32 + 8 * 32 + 5
    products = Codebook(syq.assignments, table=np.arange(12).reshape(4, 3))
    assert of_network(chain([products])).codebooks == 3 * 32 + 5


def test_any_network_can_be_counted():
    rng = np.random.default_rng(4)
    for _ in range(20):
        network = networks.random_network(rng)
        found = of_network(network)
        assert [layer.name for layer in found.layers] == [node.name for node in network.weighted]
        assert found.total > 0 and found.total <= of_network(network, codebooks={}).total


def test_the_text():
    symbols = np.zeros(1000, int)
    symbols[3::4] = np.tile([5, -5], 125)
    text = str(account([LayerCodes("fc", symbols, floats=2), LayerCodes("out", np.array([5, -5]))]))
    assert text.splitlines() == [
        "layer          weights     kept  entropy  values  positions  floats  bits  bits/weight",
        "-------------  -------  -------  -------  ------  ---------  ------  ----  -----------",
        "fc               1,000   25.0 %     1.00     250        250      64   564         0.56",
        "out                  2  100.0 %     1.00       2                        2         1.00",
        "codebooks                                                              66",
        "position code                                                           4",
        "-------------  -------  -------  -------  ------  ---------  ------  ----  -----------",
        "total            1,002   25.1 %     1.00     252        250      64   636         0.63",
        "32,128 bits of 32-bit numbers to 636 (0.1 kB), huffman code: 50.52 x"]


@pytest.mark.parametrize("call, text", [
    (lambda: account([]), "a compression ratio needs at least one layer with a codebook"),
    (lambda: account([LayerCodes("fc", np.ones(2, int))], "lz"), "code must be one of huffman, fixed, not 'lz'"),
    (lambda: LayerCodes("fc", np.ones(2)), "fc: symbols must be integers, at least one, not 2 of float64"),
    (lambda: LayerCodes("fc", np.ones(0, int)), "fc: symbols must be integers, at least one, not 0 of int64"),
])
def test_wrong_arguments(call, text):
    with pytest.raises(InputError, match=f"^{text}$"):
        call()
