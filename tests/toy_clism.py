"A tiny encoder that learns to point, in a run that two processes share"
import torch
from transformers import XLMRobertaConfig, XLMRobertaForMaskedLM

from xlnb.models.encoders import load_tokenizer
from xlnb.methods.clism.method import CLISM
from xlnb.methods.clism.collator import SpanCollator
from xlnb.data.tasks import get_task
from xlnb.training.stage import Budget, Context

LANGS = ("en", "qal", "qge")


def encoder(dropout=0.0, size=32):
    torch.manual_seed(0)
    config = XLMRobertaConfig(vocab_size=len(load_tokenizer("lab")), hidden_size=size, num_hidden_layers=1,
                              num_attention_heads=2, intermediate_size=64, max_position_embeddings=260,
                              pad_token_id=1, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
    return XLMRobertaForMaskedLM(config).eval()


def context(**kw):
    "A context with a tokenizer of its own, since the method adds a token"
    usual = dict(task=get_task("lab-spans"), encoder="lab", tokenizer=load_tokenizer("lab"),
                 budget=Budget(max_length=64), langs=LANGS)
    return Context(**usual | kw)


class Fixed(SpanCollator):
    "Masks the same tokens however many rows a process has"
    def masked(self, batch):
        x = batch["pair_input_ids"]
        chosen = (x % 5 == 0) & ~torch.isin(x, self.kept) & (batch["pair_attention_mask"] == 1)
        return dict(pair_input_ids=x.masked_fill(chosen, self.tokenizer.mask_token_id),
                    mlm_labels=x.masked_fill(~chosen, -100))


def shared_stage(model, **more):
    "What two processes can share exactly: full batches, no dropout, plain gradient descent, negatives gathered"
    ctx = context()
    m = CLISM(**dict(amount=30, batch_size=8, gather=True, steps=12) | more)
    stages = m.stages(model, ctx)
    stage = next(stages)
    stage.collator, stage.data = Fixed(ctx.tokenizer), stage.data.select(range(40))
    stage.args |= dict(optim="sgd", learning_rate=0.05, use_cpu=True, logging_steps=1)
    return stages, stage
