"""A small study with a checkpoint, prefixes, snapshots and a table that cells share, in processes that die at a given moment."""

import multiprocessing
import os
import signal
from pathlib import Path

RECIPES = [
    "finetune(epochs=2,batch_size=16)",
    "salt(steps=6,batch_size=16,candidates=dictionary,dictionary=lab)",
    "finetune(epochs=2,batch_size=16)+averaging(checkpoints=2)",
]


def study(encoder, root, **more):
    "Six cells; two recipes share their fine-tuned model, two seeds a table"
    from xlnb.data.tasks import get_task
    from xlnb.study.grid import Study
    from xlnb.study.prefixes import Prefixes
    from xlnb.training.schedule import Budget

    options = (
        dict(
            seeds=2,
            budget=Budget(train_examples=48, eval_examples=16, max_length=32),
            langs="qal",
            store=Path(root) / "runs",
            prefixes=Prefixes(Path(root) / "cache"),
        )
        | more
    )
    return Study(get_task("lab-inference"), encoder, RECIPES, **options)


def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)


def die_beyond(size):
    "The system ends this process within the write that makes a file larger than this: what came before stays, half a file"
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def before(owner, name, do, times=1):
    "Do something before the n-th call of a function"
    whole, calls = getattr(owner, name), []

    def called(*args, **kwargs):
        calls.append(1)
        if len(calls) == times:
            do()
        return whole(*args, **kwargs)

    setattr(owner, name, called)


def plant(where):
    "Where this process dies"
    from xlnb.methods.salt import table
    from xlnb.study import prefixes, store
    from xlnb.training import trainer

    if where == "record":
        before(store, "write_parquet", lambda: die_beyond(2000))
    elif where == "third record":
        before(store, "write_parquet", lambda: die_beyond(2000), 3)
    elif where == "checkpoint":
        before(trainer.StageTrainer, "_save_checkpoint", lambda: die_beyond(20_000))
    elif where == "states":
        before(trainer, "seal", die)  # all but the seal
    elif where == "prefix":
        before(prefixes, "save_file", lambda: die_beyond(20_000), 3)
    elif where == "snapshot":
        before(prefixes, "save_file", lambda: die_beyond(10_000))
    elif where == "cache":
        before(table, "write_parquet", lambda: die_beyond(500))
    elif where == "epoch":
        from transformers import TrainerCallback

        TrainerCallback.on_epoch_end = die
    elif where:
        raise ValueError(where)


def _work(encoder, root, where):
    import torch

    torch.set_num_threads(1)
    os.environ["XLNB_CACHE"] = str(Path(root) / "home")
    plant(where)
    study(encoder, root).run(progress=False)


def processes():
    "Makes processes that have imported everything and computed nothing, so that each starts at once"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["xlnb.study.grid", "xlnb.methods.salt.method", "xlnb.methods.averaging", "toy_kill"]
    )
    return context


def started(context, encoder, root, where=""):
    process = context.Process(target=_work, args=(encoder, str(root), where))
    process.start()
    return process
