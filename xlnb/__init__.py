__version__ = "0.1.0"
# Names load on first use, so that `import xlnb` stays fast: nothing heavy is imported here.

_NAMES = {  # module: what is public of it; "new=old" where it has another name there
    "core": "XlnbError",
    "languages": "register_language",
    "data.tasks": "get_task list_tasks own_task register_task",
    "data.parallel": "parallel_text",
    "models.encoders": "load_encoder",
    "models.heads": "load_finetuned save_finetuned",
    "training.pretraining": "pretrain",
    "training.schedule": "Budget Schedule",
    "training.stage": "Method",
    "training.trainer": "predict",
    "evaluation.statistics": "compare score_table",
    "evaluation.published": "against_published published_numbers",
    "evaluation.plots": "plot_curve plot_gap plot_heatmap plot_history plot_scores",
    "methods.finetune": "FineTune",
    "methods.averaging": "Averaging",
    "methods.salt.method": "SALT",
    "methods.alsace.method": "ALSACE",
    "methods.mmkd.method": "MMKD",
    "methods.clism.method": "CLISM",
    "study.recipe": "recipe register_method",
    "study.store": "Store",
    "study.grid": "Study",
    "study.models": "predict_texts",
    "study.verify": "verify",
}
_WHERE = {}
for _module, _names in _NAMES.items():
    for _name in _names.split(): _WHERE[_name.partition("=")[0]] = _module, _name.rpartition("=")[2]
_MODULES = {module.partition(".")[0] for module in _NAMES} | {"cli", "lab"}
__all__ = sorted(_WHERE)


def __getattr__(name):
    from importlib import import_module
    if name in _MODULES: return import_module(f"{__name__}.{name}")
    if name not in _WHERE: raise AttributeError(f"module 'xlnb' has no attribute {name!r}; its public names are {', '.join(__all__)}")
    module, attr = _WHERE[name]
    return getattr(import_module(f"{__name__}.{module}"), attr)


def __dir__(): return list(__all__)
