"""Short real trainings in real frameworks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from stabdiag.live.watch import TrippedError


def events(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]


def data(broken: int | None = None) -> DataLoader:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(160, 8, generator=generator), torch.randint(4, (160,), generator=generator)
    if broken is not None:
        x[broken] = torch.nan
    return DataLoader(TensorDataset(x, y), batch_size=16)


def lightning_fit(folder: Path, loader: DataLoader, **options):
    lightning = pytest.importorskip("lightning.pytorch")
    from stabdiag.integrations.lightning import Watch

    class Classifier(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(8, 16), nn.Linear(16, 4)

        def training_step(self, batch, index):
            x, y = batch
            loss = F.cross_entropy(self.head(F.relu(self.body(x))), y)
            self.log("loss", loss)
            return loss

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), lr=1e-3)

    logged = []
    watch = Watch(every=4, directory=folder / "out", log=lambda step, scalars: logged.append((step, scalars)))
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        callbacks=[watch],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **options,
    )
    trainer.fit(Classifier(), loader)
    return logged


def test_lightning_in_mixed_bfloat16(folder: Path) -> None:
    logged = lightning_fit(folder, data(), precision="bf16-mixed")
    assert [step for step, _ in logged] == [0, 4, 8]
    assert logged[-1][1]["loss"] > 0, "the loss of the training step is seen"
    assert [event["step"] for event in events(folder / "out")] == [0, 4, 8]


def test_lightning_stops_at_the_sample(folder: Path) -> None:
    with pytest.raises(TrippedError) as caught:
        lightning_fit(folder, data(broken=100), accumulate_grad_batches=2)
    finding = caught.value.report.findings[0]
    assert finding.evidence["culprit"]["rows"] == [100 % 16]
    assert finding.location is not None
    assert finding.location.path.endswith("test_frameworks.py")
    assert torch._C._len_torch_function_stack() == 0


def test_transformers_trainer_accumulates(folder: Path) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    from stabdiag.integrations.transformers import Watch

    config = transformers.GPT2Config(n_layer=2, n_head=2, n_embd=16, vocab_size=40, n_positions=16)
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(config)
    ids = torch.randint(40, (48, 12), generator=torch.Generator().manual_seed(0))
    logged = []
    arguments = transformers.TrainingArguments(
        str(folder),
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        max_steps=6,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        save_strategy="no",
    )
    watch = Watch(every=2, directory=folder / "out", log=lambda step, scalars: logged.append((step, scalars)))
    dataset = [{"input_ids": row, "labels": row} for row in ids]
    transformers.Trainer(model, arguments, train_dataset=dataset, callbacks=[watch]).train()
    assert [step for step, _ in logged] == [0, 2, 4]
    assert any(name.startswith("attention entropy/") for name in logged[0][1])
    assert (folder / "out" / "report.html").exists()


def test_checkpointed_and_compiled_models(folder: Path) -> None:
    from torch.utils.checkpoint import checkpoint

    import stabdiag

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(8, 16), nn.Linear(16, 4)

        def forward(self, x):
            return self.head(checkpoint(lambda t: F.gelu(self.body(t)), x, use_reentrant=False))

    torch.manual_seed(0)
    for model in (Net(), torch.compile(nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 4)), backend="eager")):
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        recorder = stabdiag.watch(model, optimizer, every=2, directory=folder / "out")
        for x, y in data():
            with recorder.step():
                optimizer.zero_grad()
                F.cross_entropy(model(x), y).backward()
                optimizer.step()
        assert recorder.number == 10
        recorder.close()
    samples = [event for event in events(folder / "out") if event["event"] == "sample"]
    assert len(samples) == 10
    assert all(event["findings"] is not None for event in samples)


def test_a_resumed_training_is_watched_again(folder: Path) -> None:
    import stabdiag

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(2):
        recorder = stabdiag.watch(model, optimizer, every=5, directory=folder / "out")
        for x, y in data():
            with recorder.step():
                optimizer.zero_grad()
                F.cross_entropy(model(x), y).backward()
                optimizer.step()
        recorder.close()
        torch.save((model.state_dict(), optimizer.state_dict()), folder / "checkpoint.pt")
        weights, state = torch.load(folder / "checkpoint.pt")
        model.load_state_dict(weights)
        optimizer.load_state_dict(state)
    assert [event["step"] for event in events(folder / "out")] == [0, 5, 0, 5]
