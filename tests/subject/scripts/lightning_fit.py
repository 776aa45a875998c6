# expect: SD601 error
import lightning as L
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Lit(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(10, 24), nn.ReLU(), nn.Linear(24, 3))

    def training_step(self, batch, batch_idx):
        x, y = batch
        p = F.softmax(40 * self.net(x), dim=1)
        loss = F.nll_loss(torch.log(p), y)  # DEFECT
        self.log("loss", loss)
        return loss

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-3)
        return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 10)}


if __name__ == "__main__":
    L.seed_everything(0)
    data = TensorDataset(torch.randn(96, 10), torch.arange(96) % 3)
    trainer = L.Trainer(
        max_epochs=100, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Lit(), DataLoader(data, batch_size=32))
