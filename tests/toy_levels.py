"A tiny student, and a structure loss that two processes share"
import torch
from transformers import PretrainedConfig, XLMRobertaConfig, XLMRobertaForMaskedLM

from xlnb.models.encoders import load_tokenizer
from xlnb.methods.mmkd.losses import structure_loss
from xlnb.training.stage import Stage


def student(dropout=0.0, size=32):
    torch.manual_seed(0)
    config = XLMRobertaConfig(vocab_size=len(load_tokenizer("lab")), hidden_size=size, num_hidden_layers=1,
                              num_attention_heads=2, intermediate_size=64, max_position_embeddings=130,
                              pad_token_id=1, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
    return XLMRobertaForMaskedLM(config)


def stack(rows): return {k: torch.tensor([r[k] for r in rows]) for k in ("x", "y")}


class Map(torch.nn.Linear):
    "A student of one matrix"
    config = PretrainedConfig(hidden_size=6)

    def forward(self, x, y): return structure_loss(super().forward(x), y, 0.5, True, True)


def structure_stage():
    g = torch.Generator().manual_seed(1)
    rows = [dict(x=torch.randn(6, generator=g).tolist(), y=torch.randn(6, generator=g).tolist()) for _ in range(32)]
    torch.manual_seed(0)
    loss = lambda model, batch: (l := model(**batch), {"structure": l})
    args = dict(per_device_train_batch_size=8, num_train_epochs=2, optim="sgd", learning_rate=5.0, use_cpu=True,
                logging_steps=1)
    return Stage("structure", rows, stack, loss, args=args), Map(6, 4)
