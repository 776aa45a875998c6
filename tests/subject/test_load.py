"""Files of every shape that must load with no option at all."""

import random
import sys
import types
from pathlib import Path

import numpy
import pytest
import torch
from torch import nn

from stabdiag.subject.load import load
from stabdiag.subject.subject import SubjectError

FILES = Path(__file__).parent / "files"

LOADS = {
    # file: (name, shape of the first input, objective begins with)
    "default_arguments.py": ("Classifier", (64, 20), "cross-entropy over 5 classes"),
    "lenet.py": ("LeNet", (16, 1, 28, 28), "negative log-likelihood over 10 classes"),
    "lenet_linear.py": ("LeNet5", (16, 3, 64, 64), "cross-entropy over 10 classes"),
    "factories.py": ("ResNet", (16, 3, 32, 32), "cross-entropy over 10 classes"),
    "gpt.py": ("GPT", (16, 16), "the model's own loss"),
    "lstm_lm.py": ("RNNModel", (16, 24), "cross-entropy over 120 classes"),
    "vae.py": ("VAE", (64, 784), "mean square of output[0]"),
    "gan.py": ("Generator", (16, 100, 1, 1), "mean square of output"),
    "gan_linear.py": ("Generator", (64, 64), "mean square of output"),
    "unet.py": ("UNet", (16, 3, 32, 32), "cross-entropy over 2 classes"),
    "vit.py": ("ViT", (16, 3, 48, 48), "cross-entropy over 10 classes"),
    "gcn.py": ("GCN", (22, 14), "negative log-likelihood over 7 classes"),
    "edge_index.py": ("GNN", (22, 9), "cross-entropy over 4 classes"),
    "instance.py": ("model", (64, 10), "cross-entropy over 2 classes"),
    "sibling_user.py": ("Net", (64, 12), "cross-entropy over 3 classes"),
    "package/nets/mlp.py": ("MLP", (64, 11), "cross-entropy over 4 classes"),
    "training_script.py": ("NeuralNet", (64, 784), "cross-entropy over 10 classes"),
    "three_lines.py": ("model", (16, 24), "the model's own loss"),
}


@pytest.mark.parametrize("file", LOADS)
def test_loads_with_no_option(file):
    name, shape, objective = LOADS[file]
    subject = load(str(FILES / file))
    assert subject.facts.name == name
    assert tuple(subject.batch(0).args[0].shape) == shape
    assert subject.facts.objective.startswith(objective)
    assert set(subject.facts.how) == {"model", "inputs", "objective"} and all(subject.facts.how.values())
    assert subject.facts.declared == []
    assert all(module.training for module in subject.model.modules())


@pytest.mark.parametrize("file", LOADS)
def test_takes_a_training_step(file):
    subject = load(str(FILES / file))
    inputs = subject.batch(0)
    loss = subject.loss(subject.model(*inputs.args, **inputs.kwargs), inputs)
    assert loss.shape == () and loss.isfinite()
    loss.backward()
    assert all(p.grad is not None for p in subject.model.parameters())


@pytest.mark.parametrize("file", LOADS)
def test_leaves_no_trace(file):
    torch.manual_seed(11)
    random.seed(11)
    numpy.random.seed(11)
    before = torch.get_rng_state(), random.getstate(), numpy.random.get_state()[1].tolist()
    first, second = load(str(FILES / file)), None
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()
    assert before[2] == numpy.random.get_state()[1].tolist()
    assert all(p.grad is None for p in first.model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in first.model.modules())
    if first.rebuild is not None:
        second = first.rebuild(0)  # never ran forward: buffers and parameters must be as fresh
        for a, b in zip(first.model.state_dict().values(), second.state_dict().values(), strict=True):
            assert torch.equal(a, b)


def test_factories_say_which_and_name_the_others():
    how = load(str(FILES / "factories.py")).facts.how["model"]
    assert "ResNet18" in how and "ResNet34" in how
    named = load(f"{FILES / 'factories.py'}:ResNet34")
    assert len(list(named.model.layer1)) == 2


def test_names_an_instance_a_class_and_a_module(write, monkeypatch, tmp_path):
    write("class Net(nn.Linear):\n    def __init__(self, n=4): super().__init__(n, n)\nnet = Net(3)\n", "named_pieces.py")
    assert load(f"{tmp_path / 'named_pieces.py'}:net").model.in_features == 3
    assert load(f"{tmp_path / 'named_pieces.py'}:Net").model.in_features == 4
    monkeypatch.syspath_prepend(str(tmp_path))
    assert load("named_pieces:net").facts.path == "named_pieces"


def test_build_model_comes_first(loaded):
    subject = loaded("""
        class Net(nn.Linear):
            def __init__(self): super().__init__(2, 2)
        net = Net()
        def build_model(): return nn.Linear(7, 3)
        """)
    assert subject.model.in_features == 7 and subject.facts.name == "Linear"
    assert tuple(subject.batch(0).args[0].shape)[-1] == 7  # inferred although build_model is declared


def test_arguments_are_literals_and_reach_the_configuration(loaded):
    subject = load(str(FILES / "gpt.py"), arguments={"n_layer": "3"})
    assert len(subject.model.h) == 3
    subject = load(str(FILES / "config_without_defaults.py"), arguments={"width": "5", "depth": "2"})
    assert len(subject.model.layers) == 2 and "width=5" in subject.facts.how["model"]
    code = """
        class Net(nn.Module):
            def __init__(self, sizes):
                super().__init__()
                self.net = nn.Linear(*sizes)
            def forward(self, x): return self.net(x)
        """
    assert loaded(code, arguments={"sizes": "(3, 8)"}).model.net.out_features == 8


def test_script_options_are_read_with_an_empty_command_line(loaded):
    subject = loaded("""
        import argparse
        def get_args():
            parser = argparse.ArgumentParser()
            parser.add_argument("--width", type=int, default=6)
            return parser.parse_args()
        class Net(nn.Module):
            def __init__(self, args):
                super().__init__()
                self.fc = nn.Linear(args.width, 3)
            def forward(self, x): return self.fc(x)
        if __name__ == "__main__":
            model = Net(get_args())
        """)
    assert subject.model.fc.in_features == 6


def test_generator_is_chosen_over_its_discriminator(loaded):
    subject = loaded("""
        class Generator(nn.Linear):
            def __init__(self): super().__init__(10, 20)
        class Discriminator(nn.Linear):
            def __init__(self): super().__init__(20, 1)
        """)
    assert subject.facts.name == "Generator" and "Discriminator" in subject.facts.how["model"]


def test_file_name_and_own_use_choose(write):
    code = """
        class First(nn.Linear):
            def __init__(self): super().__init__(2, 2)
        class Second(nn.Linear):
            def __init__(self): super().__init__(3, 2)
        """
    assert load(str(write(code, "second.py"))).facts.name == "Second"
    code += "\n        if __name__ == '__main__':\n            net = First()\n"
    assert load(str(write(code, "train_it.py"))).facts.name == "First"


def test_functions_that_train_are_not_called(loaded):
    subject = loaded("""
        class Net(nn.Linear):
            def __init__(self): super().__init__(2, 2)
        def train():
            model = Net()
            model(torch.randn(1, 2)).sum().backward()
            raise AssertionError
            return model
        """)
    assert subject.facts.name == "Net"


def test_compiled_models_run_eager(loaded):
    subject = loaded("""
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.body = torch.compile(nn.Linear(4, 4))
            def forward(self, x): return self.body(x)
        def build_model(): return torch.compile(Net())
        """)
    assert not any(hasattr(module, "_orig_mod") for module in subject.model.modules())


def test_lazy_layers_are_initialised(loaded):
    code = """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv, self.head = nn.LazyConv2d(4, 3), nn.LazyLinear(5)
            def forward(self, x): return self.head(self.conv(x).flatten(1))
        """
    subject = loaded(code)
    assert subject.facts.parameters == sum(p.numel() for p in subject.model.parameters()) > 0
    assert [p.shape for p in subject.rebuild(1).parameters()] == [p.shape for p in subject.model.parameters()]


def test_a_model_that_trains_while_built(loaded):
    subject = loaded("""
        def build_model():
            net = nn.Linear(3, 1)
            net(torch.ones(2, 3)).sum().backward()
            with torch.no_grad(): net.weight -= net.weight.grad
            net.zero_grad()
            return net
        """)
    assert subject.facts.rebuildable


def test_rebuild_shifts_the_seeds_the_author_sets(loaded):
    code = """
        import random
        import numpy as np
        from torch import manual_seed
        def build_model():
            manual_seed(7)
            net = nn.Linear(4, 4)
            generator = torch.Generator().manual_seed(3)
            random.seed(1)
            np.random.seed(1)
            rng = np.random.default_rng(5)
            net.register_buffer("a", torch.randn(2, generator=generator))
            net.register_buffer("b", torch.tensor([random.random(), np.random.rand(), rng.random()]))
            return net
        """
    subject = loaded(code)
    same, other, again = subject.rebuild(0), subject.rebuild(1), subject.rebuild(1)
    for key, value in subject.model.state_dict().items():
        assert torch.equal(value, same.state_dict()[key])
        assert torch.equal(other.state_dict()[key], again.state_dict()[key])
        assert not torch.equal(value, other.state_dict()[key])
    assert torch.manual_seed.__module__ == "torch.random" and torch.Generator.__name__ == "Generator"
    assert torch.Generator is torch._C.Generator


def test_an_instance_and_loaded_weights_cannot_be_rebuilt(tmp_path, write):
    assert load(str(FILES / "instance.py")).rebuild is None
    path = write("def build_model(): return nn.Linear(4, 2)")
    torch.save({"state_dict": {"module.weight": torch.ones(2, 4), "module.bias": torch.zeros(2)}}, tmp_path / "w.pt")
    subject = load(str(path), weights=str(tmp_path / "w.pt"))
    assert subject.rebuild is None and subject.model.weight.eq(1).all()
    torch.save({"weight": torch.ones(3, 4)}, tmp_path / "bad.pt")
    with pytest.raises(SubjectError, match="does not fit"):
        load(str(path), weights=str(tmp_path / "bad.pt"))


def test_the_author_wrote_everything(loaded):
    subject = loaded("""
        def build_model(): return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
        def example_inputs(): return (torch.randn(6, 3),)
        def loss(output): return output.square().mean()
        def make_optimizer(model): return torch.optim.SGD(model.parameters(), lr=0.1)
        """)
    assert subject.facts.declared == ["inputs", "loss", "optimizer"]
    assert isinstance(subject.make_optimizer(subject.model), torch.optim.SGD)
    assert subject.model[1].num_batches_tracked == 0 and subject.model[1].running_mean.eq(0).all()
    assert isinstance(subject.model, nn.Sequential)


def test_a_file_edited_since_it_was_loaded_is_loaded_anew(loaded, monkeypatch):
    monkeypatch.setitem(sys.modules, "model", types.ModuleType("model"))  # the file's own name is taken
    first = loaded("def build_model(): return nn.Linear(4, 3)\ndef example_inputs(): return torch.ones(5, 4)")
    second = loaded("def build_model(): return nn.Linear(6, 3)\ndef example_inputs(): return torch.ones(5, 6)")
    assert (first.model.in_features, second.model.in_features) == (4, 6)
