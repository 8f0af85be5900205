__version__ = "0.1.0"
# Names load on first use, so that `import xlnb` stays fast: nothing heavy is imported here.

_NAMES = {
    "languages": "XlnbError Language language register_language code_in",
    "lab": "Lab LabLanguage",
    "tasks": "Task get_task list_tasks show_batch",
    "features": "featurize collator cloze_scores",
    "encoders": "load_encoder load_tokenizer with_head encoder_fingerprint",
    "pretraining": "pretrain train_tokenizer",
    "train": "Budget Context Stage StageTrainer run_stage predict task_loss",
    "evaluate": "evaluate_model item_scores transfer_gap bootstrap paired_difference",
    "methods.finetune": "FineTune",
    "study": "METHODS Recipe recipe method Cell run_cell Store Study lab_study",
}
_WHERE = {name: module for module, names in _NAMES.items() for name in names.split()}
_MODULES = ("languages", "lab", "tasks", "features", "encoders", "pretraining", "train", "evaluate", "plots", "methods", "study", "cli")
__all__ = sorted(_WHERE)


def __getattr__(name):
    from importlib import import_module
    if name in _MODULES: return import_module(f"{__name__}.{name}")
    if name in _WHERE: return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'xlnb' has no attribute {name!r}")


def __dir__(): return sorted({*globals(), *__all__, *_MODULES})
