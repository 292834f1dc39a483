"""Weights to start from: reading them by name, refusing those that do not fit, and a first layer for another input."""

import numpy as np
import pytest
import torch
from torch import nn

from lutq_hw.errors import InputError
from lutq_train.networks.resnet import ResNetOptions
from lutq_train.weights import IMAGENET_MEAN, IMAGENET_STD, load_weights, renormalize_input


def network(seed):
    torch.manual_seed(seed)
    model = ResNetOptions(8, 2).build((8, 8, 3), 4)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean)
            nn.init.uniform_(layer.running_var, 0.5, 2)
    return model.eval()


def arrays(model):
    """A state dict as public .npz files have it: without counters."""
    return {name: value.numpy() for name, value in model.state_dict().items() if not name.endswith("num_batches_tracked")}


@pytest.fixture
def source():
    return network(1)


def test_all_forms_of_a_file(source, tmp_path):
    x, state = torch.randn(2, 3, 8, 8), source.state_dict()
    np.savez(tmp_path / "w.npz", **arrays(source))
    np.savez(tmp_path / "swapped.npz", **{name: value.astype(">f8") for name, value in arrays(source).items()})
    torch.save(state, tmp_path / "w.pt")
    torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}, "best": 0.9}, tmp_path / "w.th")
    for name in ("w.npz", "swapped.npz", "w.pt", "w.th"):
        model = network(2)
        load_weights(model, tmp_path / name)
        assert torch.equal(model(x), source(x))
        assert next(model.parameters()).dtype == torch.float32


@pytest.mark.parametrize("change, text", [
    ({"linear.bias": None}, "must hold linear.bias of shape (4,), which is missing"),
    ({"bn1.running_var": None}, "must hold bn1.running_var of shape (2,), which is missing"),
    ({"fc.weight": np.zeros(3)}, "holds fc.weight, which the model does not have; give weights of the same model"),
    ({"layer1.0.conv1.weight": np.zeros((2, 2, 1, 1))}, ("must hold layer1.0.conv1.weight of shape (2, 2, 3, 3), not "
                                                        "(2, 2, 1, 1)")),
    ({"linear.weight": np.full((4, 8), np.inf)}, "must hold finite numbers, which those of linear.weight are not"),
    ({"linear.bias": np.array(["a"] * 4)}, "must hold numbers, but linear.bias is an array of <U1"),
    ({"linear.bias": np.array([None] * 4)}, ("must be an .npz archive of plain arrays (Object arrays cannot be loaded when "
                                            "allow_pickle=False)")),
])
def test_files_that_do_not_fit_change_nothing(change, text, source, tmp_path):
    path = tmp_path / "w.npz"
    np.savez(path, **{name: value for name, value in (arrays(source) | change).items() if value is not None})
    model = network(2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(InputError) as caught:
        load_weights(model, path)
    assert str(caught.value) == f"{path} {text}"
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class Evil:
    def __reduce__(self):
        return print, ("called",)


@pytest.mark.parametrize("content, text", [
    ([torch.zeros(2)], "must hold a state dict, names with a tensor each, and it does not"),
    ({"epoch": 3}, "must hold a state dict, names with a tensor each, and it does not"),
    (Evil(), "must be a torch file of tensors: Weights only load failed"),
])
def test_torch_files_without_a_state_dict(content, text, source, tmp_path, capsys):
    path = tmp_path / "w.pt"
    torch.save(content, path)
    with pytest.raises(InputError) as caught:
        load_weights(source, path)
    assert str(caught.value).startswith(f"{path} {text}")
    assert not capsys.readouterr().out


@pytest.mark.parametrize("name, text", [
    ("no.pt", "must be a torch file of tensors: "), ("no.npz", "must be an .npz archive of plain arrays ("),
    ("bad.pt", "must be a torch file of tensors: "), ("bad.npz", "must be an .npz archive of plain arrays (")])
def test_files_that_cannot_be_read(name, text, source, tmp_path):
    if name.startswith("bad"):
        (tmp_path / name).write_bytes(b"not a file of weights")
    with pytest.raises(InputError) as caught:
        load_weights(source, tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name} {text}")


@pytest.mark.parametrize("padding", [0, 1])
def test_the_first_layer_takes_other_inputs(padding):
    torch.manual_seed(3)
    conv, norm = nn.Conv2d(3, 5, 3, padding=padding, bias=False).double(), nn.BatchNorm2d(5).double().eval()
    nn.init.normal_(norm.running_mean)
    nn.init.uniform_(norm.weight, -1, 1)
    pixels = torch.randint(0, 256, (2, 3, 7, 8)).double()
    mean, std = (torch.tensor(values, dtype=torch.float64)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    inner = slice(padding, -padding or None)
    with torch.no_grad():
        before = norm(conv((pixels / 255 - mean) / std))[:, :, inner, inner]
        renormalize_input(conv, norm)
        assert torch.allclose(norm(conv((pixels - 128) / 64))[:, :, inner, inner], before, atol=1e-12)
    assert conv.weight.dtype == torch.float64


def test_from_one_scale_to_another():
    conv, norm = nn.Conv2d(1, 2, 3, bias=False), nn.BatchNorm2d(2).eval()
    pixels = torch.randint(0, 256, (1, 1, 5, 5)).float()
    with torch.no_grad():
        before = norm(conv((pixels / 255 - 0.1307) / 0.3081))
        renormalize_input(conv, norm, (0.1307,), (0.3081,), centre=0.0, scale=256.0)
        assert torch.allclose(norm(conv(pixels / 256)), before, atol=1e-5)


@pytest.mark.parametrize("conv, norm, text", [
    (nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), ("mean and std must have one value for each of 1 input channels of an ungrouped "
                                            "convolution, not 3 and 3 with 1 groups")),
    (nn.Conv2d(3, 3, 3, groups=3), nn.BatchNorm2d(3), ("mean and std must have one value for each of 3 input channels of an "
                                                      "ungrouped convolution, not 3 and 3 with 3 groups")),
    (nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3, track_running_stats=False), ("norm must be a batch norm with a running mean, not "
                                                                       "one with track_running_stats=False")),
])
def test_layers_that_cannot_be_renormalised(conv, norm, text):
    with pytest.raises(InputError) as caught:
        renormalize_input(conv, norm)
    assert str(caught.value) == text
