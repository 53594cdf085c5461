import torch
from torch import nn

from experiments.dgl_utils import ConvNet, FedAvgCNN, LeNet, attacked_net, weights_init


def test_the_trained_net_has_1947_prunable_weights():
    assert sum(weight.numel() for weight in ConvNet().parameters() if weight.dim() >= 2) == 1947


def test_the_trained_net_gives_probabilities():
    output = ConvNet()(torch.rand(4, 1, 28, 28))
    assert output.shape == (4, 10)
    torch.testing.assert_close(output.sum(dim=1), torch.ones(4))


def test_the_larger_net_has_the_papers_parameters_and_gives_ten_scores():
    net = FedAvgCNN()
    assert sum(parameter.numel() for parameter in net.parameters()) == 1_663_370
    assert sum(weight.numel() for weight in net.parameters() if weight.dim() >= 2) == 1_662_752
    assert net(torch.rand(2, 1, 28, 28)).shape == (2, 10)


def test_the_attacked_net_gives_ten_scores_and_sees_588_features():
    net = LeNet()
    assert net(torch.rand(2, 1, 28, 28)).shape == (2, 10)
    assert net.fc.in_features == 588


def test_weights_init_fills_the_whole_range_and_nothing_beyond_it():
    torch.manual_seed(0)
    net = attacked_net()
    weights = torch.cat([parameter.flatten() for parameter in net.parameters()])
    assert 0.49 < weights.max() <= 0.5 and -0.5 <= weights.min() < -0.49
    assert abs(weights.mean()) < 0.01
    assert net.conv1.bias.abs().max() > 0.25  # biases too


def test_weights_init_leaves_layers_without_weights_alone():
    weights_init(nn.Sigmoid())
