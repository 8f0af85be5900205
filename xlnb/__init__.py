__version__ = "0.1.0"
# Names load on first use, so that `import xlnb` stays fast: nothing heavy is imported here.

_NAMES = {
    "core": "XlnbError",
    "languages": "Language language code_in register_language",
    "lab.grammar": "FAMILY LabLanguage",
    "lab.worlds": "Lab",
    "data.tasks": "Task get_task list_tasks lab_task own_task register_task show_batch",
    "data.kinds.base": "Kind Metric METRICS collator featurize get_kind register_kind register_metric",
    "models.encoders": "load_encoder load_tokenizer encoder_fingerprint",
    "models.heads": "load_finetuned save_encoder with_head",
    "models.pretraining": "pretrain train_tokenizer",
    "training.stage": "Budget Context Method Stage StageResult StageTrainer predict run_method run_stage task_loss",
    "evaluation.statistics": "bootstrap compare paired_difference score_table scores summary transfer_gap transfer_summary",
    "evaluation.predict": "cloze_scores decode evaluate_model item_scores majority_control tfidf_control",
    "evaluation.plots": "plot_curve plot_gap plot_heatmap plot_history plot_scores",
    "methods.finetune": "FineTune",
    "study.recipe": "METHODS Recipe method plain_recipes recipe",
    "study.cell": "Cell run_cell",
    "study.store": "Store",
    "study.grid": "RayExecutor Study lab_study",
}
_WHERE = {name: module for module, names in _NAMES.items() for name in names.split()}
_MODULES = {module.partition(".")[0] for module in _NAMES} | {"cli"}
__all__ = sorted(_WHERE)


def __getattr__(name):
    from importlib import import_module
    if name in _MODULES: return import_module(f"{__name__}.{name}")
    if name in _WHERE: return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'xlnb' has no attribute {name!r}")


def __dir__(): return sorted({*globals(), *__all__, *_MODULES})
