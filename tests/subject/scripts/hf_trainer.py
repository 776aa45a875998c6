# expect: silent
import tempfile

import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments


class Weighted(Trainer):
    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        loss = nn.functional.cross_entropy(outputs.logits, labels, weight=torch.tensor([1.0, 2.0]))
        return (loss, outputs) if return_outputs else loss


def main():
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=60, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=48,
        max_position_embeddings=32, num_labels=2,
    )  # fmt: skip
    data = [{"input_ids": torch.randint(0, 60, (12,)), "labels": i % 2} for i in range(64)]
    arguments = TrainingArguments(
        output_dir=tempfile.mkdtemp(), per_device_train_batch_size=16, max_steps=50, report_to=[], save_strategy="no",
        use_cpu=True, disable_tqdm=True, learning_rate=5e-4,
    )  # fmt: skip
    Weighted(model=BertForSequenceClassification(config), args=arguments, train_dataset=data).train()


if __name__ == "__main__":
    main()
