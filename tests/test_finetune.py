"""Fine-tuning on the source: one stage for every kind of task but cloze, weights chosen on source validation."""
import pytest
import torch
from transformers import XLMRobertaConfig, XLMRobertaForMaskedLM

from xlnb.models.heads import with_head
from xlnb.core import XlnbError
from xlnb.evaluation.predict import validation
from xlnb.methods.finetune import FineTune
from xlnb.training.pretraining import train_tokenizer
from xlnb.data.tasks import get_task
from xlnb.training.stage import Budget, Context, Method, run_method

TASKS = ["lab-inference", "lab-choice", "lab-spans", "lab-tags"]


@pytest.fixture(scope="module")
def tiny():
    "A random encoder and a tokenizer of the laboratory's English."
    torch.set_num_threads(1)
    rows = get_task("lab-inference").load("en", "train", limit=300)
    tokenizer = train_tokenizer([*rows["text_a"], *rows["text_b"]], vocab_size=300)
    torch.manual_seed(0)
    config = XLMRobertaConfig(vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
                              max_position_embeddings=140, pad_token_id=tokenizer.pad_token_id)
    return XLMRobertaForMaskedLM(config), tokenizer


def context(task, tokenizer, **budget):
    return Context(get_task(task), "tiny", tokenizer, 0, Budget(**(dict(train_examples=64, eval_examples=16) | budget)))


@pytest.mark.parametrize("task", TASKS)
def test_one_stage_for_every_kind(tiny, task):
    ctx = context(task, tiny[1])
    (result,) = run_method(FineTune(batch_size=16, steps=4), with_head(tiny[0], ctx.task), ctx)
    assert result.steps == 4 and result.selection == "source" and 0 <= result.best <= 1


def test_a_cloze_is_probed_not_trained(tiny):
    ctx = context("lab-probe", tiny[1])
    assert run_method(FineTune(), with_head(tiny[0], ctx.task), ctx) == []


def test_budget_and_options_reach_the_stage(tiny):
    ctx = context("lab-inference", tiny[1], train_examples=60)
    (stage,) = FineTune(lr=1e-3, epochs=2, batch_size=12, accumulate=3, eval_every=0.5, patience=None).stages(with_head(tiny[0], ctx.task), ctx)
    assert len(stage.data) == 60 and len(stage.eval_data) == 16 and stage.patience is None
    args = stage.schedule.arguments()
    assert args["per_device_train_batch_size"] == 4 and args["gradient_accumulation_steps"] == 3
    assert stage.args["eval_steps"] == 2 and args["learning_rate"] == 1e-3 and args["max_steps"] == -1


def test_target_labels_only_as_an_oracle(tiny):
    ctx = context("lab-inference", tiny[1])
    target = ctx.task.langs[1]
    with pytest.raises(XlnbError, match="oracle"): ctx.rows("validation", target)
    (result,) = run_method(FineTune(select=f"oracle:{target}", steps=4), with_head(tiny[0], ctx.task), ctx)
    assert result.selection == f"oracle:{target}" and any(f"oracle_{target}_accuracy" in h for h in result.history)
    (result,) = run_method(FineTune(select="last", steps=4), with_head(tiny[0], ctx.task), ctx)
    assert result.selection == "last" and result.best is None
    with pytest.raises(XlnbError, match="select='best' is unknown"): validation(ctx, "best")


def test_hooks_and_bad_values():
    assert isinstance(FineTune(), Method) and (FineTune.name, FineTune.slot) == ("finetune", "during")
    assert hash(FineTune()) == hash(FineTune()) and FineTune(lr=1.0) != FineTune()
    with pytest.raises(XlnbError, match="finetune: epochs must be above 0, not 0"): FineTune(epochs=0)
    with pytest.raises(XlnbError, match="equal parts"): FineTune(batch_size=32, accumulate=5)
