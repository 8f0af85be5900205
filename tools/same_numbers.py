"""Are results equal to the bit between two checkouts? One small cell of every recipe on every laboratory task, by both.

    python tools/same_numbers.py OLD_CHECKOUT [--recipes plain salt ...] [--tasks lab-inference ...] [--cache FILE]

Both sides run here, with the same number of threads. Results of the old checkout are kept in a file, so that only the new side
runs again; `--again` forgets them.
"""
import argparse
import hashlib
import importlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import traceback
import warnings
from pathlib import Path

TASKS = ['lab-inference', 'lab-choice', 'lab-spans', 'lab-tags', 'lab-probe']
TRAIN = 'finetune(epochs=2)'
RECIPES = {  # several spellings: the first that a checkout knows is taken
    'plain': [TRAIN],
    'salt': ['salt(epochs=2)'],
    'alsace': [f'{TRAIN}+alsace(amount=24,batch_size=8,epochs=2,lr=1e-5)'],
    'mmkd': [f'mmkd(amount=12,batch_size=16,epochs=1)+{TRAIN}'],
    'clism': [f'clism(amount=24,batch_size=16,epochs=1)+{TRAIN}'],
}
LANGS = ('en', 'qal', 'qgr')
BUDGET = dict(train_examples=64, eval_examples=24)


def first(*names):
    "The first of these that can be imported: 'module:attribute'"
    for name in names:
        module, _, attribute = name.partition(':')
        try: return getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError): pass
    raise ImportError(' / '.join(names))


def fingerprints(model):
    "A hash of each parameter, in an order that does not depend on names"
    import torch
    raw = lambda v: v.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    return sorted(hashlib.sha256(raw(p)).hexdigest()[:16] for p in model.parameters())


def watch(seen):
    "Remember the weights of every model that is tested"
    original = first('xlnb.evaluation.predict:evaluate_model', 'xlnb.evaluate:evaluate_model')
    def evaluate_model(task, model, *args, **options):
        seen['weights'] = fingerprints(model)
        return original(task, model, *args, **options)
    for module in [m for name, m in sys.modules.items() if name.startswith('xlnb')]:
        if getattr(module, 'evaluate_model', None) is original: module.evaluate_model = evaluate_model


def run_one(specs, task):
    "What one small cell gives"
    recipe = first('xlnb.study.recipe:recipe', 'xlnb.recipes:recipe')
    Cell, run_cell = (first(f'xlnb.study.cell:{n}', f'xlnb.cells:{n}') for n in ('Cell', 'run_cell'))
    Budget = first('xlnb.training.schedule:Budget', 'xlnb.training.stage:Budget', 'xlnb.train:Budget')
    get_task = first('xlnb.data.tasks:get_task', 'xlnb.tasks:get_task')
    seen, faults = {}, []
    watch(seen)
    for spec in specs:
        try: made = recipe(spec)
        except Exception as e: faults.append(str(e)); continue
        with tempfile.TemporaryDirectory() as out:
            items, info = run_cell(Cell(get_task(task), 'lab', made, 0, Budget(**BUDGET), LANGS), out)[:2]
        items = items.drop(columns=[c for c in ('task', 'encoder', 'recipe', 'seed', 'budget', 'sample') if c in items])
        numbers = items.select_dtypes(('number', 'bool'))
        table = {c: json.loads(items[c].to_json(orient='values', double_precision=15, default_handler=str)) for c in items}
        means = numbers.groupby(items.lang).mean().to_dict()
        lines = [h['loss'] for s in info['stages'] for h in s['history'] if 'loss' in h]
        return dict(scores=table, means=means, losses=lines[:5], last=lines[-1:],
                    lines=len(lines), weights=seen['weights'])
    return dict(fault=faults)


def work(asked, threads):
    "All cells by the checkout that PYTHONPATH names; a line of JSON each"
    warnings.simplefilter('ignore')
    editable = lambda finder: getattr(finder, '__module__', '').startswith('__editable__')
    sys.meta_path[:] = [f for f in sys.meta_path if not editable(f)]  # this checkout or nothing
    import torch
    torch.set_num_threads(threads)
    import xlnb
    print(json.dumps(dict(package=str(Path(xlnb.__file__).parent))), flush=True)
    for task, name in asked:
        try: result = run_one(RECIPES[name], task)
        except Exception: result = dict(fault=traceback.format_exc().splitlines()[-6:])
        print('RESULT ' + json.dumps([f'{task} {name}', result]), flush=True)


def home(checkout):
    "A cache for one checkout, without what cells have made before: encoders of the laboratory stay"
    here = hashlib.sha256(f'{Path(__file__).resolve()} {Path(checkout).resolve()}'.encode()).hexdigest()[:12]
    folder = Path(tempfile.gettempdir())/f'same-numbers-{here}'
    for name in ('prefixes', 'teachers'): shutil.rmtree(folder/name, ignore_errors=True)
    folder.mkdir(exist_ok=True)
    return str(folder)


def results(checkout, asked, threads):
    "{cell: result} of a checkout, in a process of its own"
    env = os.environ | dict.fromkeys(('OMP_NUM_THREADS', 'MKL_NUM_THREADS'), str(threads))
    env |= dict(PYTHONPATH=str(checkout), XLNB_CACHE=home(checkout), TOKENIZERS_PARALLELISM='false')
    command = [sys.executable, str(Path(__file__).resolve()), '--work', json.dumps(asked), '--threads', str(threads), 'none']
    run = subprocess.Popen(command, env=env, cwd=env['XLNB_CACHE'], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    out = {}
    for line in run.stdout:
        if line.startswith('{"package"'):
            at = Path(json.loads(line)['package']).resolve()
            if at.parent != Path(checkout).resolve(): raise SystemExit(f'{at} was imported instead of {checkout}')
        if line.startswith('RESULT '):
            cell, result = json.loads(line[7:])
            out[cell] = result
            print('.', end='', file=sys.stderr, flush=True)
    if run.wait(): raise SystemExit(f'{checkout} ended with {run.returncode}')
    print(file=sys.stderr)
    return out


def difference(old, new):
    "What differs between two results of one cell, in a line"
    sides = (('old', old), ('new', new))
    if any('fault' in r for _, r in sides): return '; '.join(f"{k}: {r['fault'][-1] if 'fault' in r else 'ran'}" for k, r in sides)
    both = [c for c in old['scores'] if c in new['scores']]  # a newer table may have more columns
    differs = [k for k in ('losses', 'last', 'lines', 'weights') if old[k] != new[k]]
    parts, columns = [], [c for c in both if old['scores'][c] != new['scores'][c]]
    if 'losses' in differs:
        i = next((i for i, (a, b) in enumerate(zip(old['losses'], new['losses'])) if a != b), 0)
        parts.append(f"losses from line {i} on ({old['losses'][i:i+1]} -> {new['losses'][i:i+1]})")
    elif 'last' in differs or 'lines' in differs:
        parts.append(f"losses: {old['lines']} lines, last {old['last']} -> {new['lines']} lines, last {new['last']}")
    if 'weights' in differs:
        gone, come = (len([w for w in a['weights'] if w not in {*b['weights']}]) for a, b in ((old, new), (new, old)))
        parts.append(f"weights: {gone} of {len(old['weights'])} tensors -> {come} of {len(new['weights'])} others")
    if columns:
        means = [{c: r['means'][c] for c in columns if c in r['means']} for _, r in sides]
        parts.append(f"scores: {means[0]} -> {means[1]}" if means[0] != means[1] else f"items: {', '.join(columns)}")
    if not both: parts.append('no common column of scores')
    return '; '.join(parts)


def main():
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument('old', type=Path, help='folder of the checkout to compare with')
    ask.add_argument('--recipes', nargs='+', default=list(RECIPES), choices=list(RECIPES))
    ask.add_argument('--tasks', nargs='+', default=TASKS)
    ask.add_argument('--threads', type=int, default=1)
    ask.add_argument('--cache', type=Path, help='file of the old results; in the temporary folder if not given')
    ask.add_argument('--again', action='store_true', help='forget the old results')
    ask.add_argument('--work', help=argparse.SUPPRESS)
    args = ask.parse_args()
    if args.work: return work(json.loads(args.work), args.threads)
    here, asked = Path(__file__).resolve().parents[1], [(t, r) for t in args.tasks for r in args.recipes]
    run = [str(args.old.resolve()), args.threads, os.environ.get('ONEDNN_MAX_CPU_ISA'), RECIPES, LANGS, BUDGET]
    name = hashlib.sha256(json.dumps(run).encode()).hexdigest()[:12]
    file = args.cache or Path(tempfile.gettempdir())/f'same-numbers-{name}.json'
    known = json.loads(file.read_text()) if file.exists() and not args.again else {}
    missing = [a for a in asked if ' '.join(a) not in known]
    if missing:
        known |= results(args.old.resolve(), missing, args.threads)
        part = file.with_suffix(f'.{os.getpid()}')
        part.write_text(json.dumps({k: v for k, v in known.items() if 'fault' not in v})); part.replace(file)
    new, bad = results(here, asked, args.threads), 0
    for cell in map(' '.join, asked):
        fault = difference(known[cell], new[cell])
        bad += bool(fault)
        print(f'{cell:24} {fault or "equal to the bit"}')
    print(f'{len(asked) - bad} of {len(asked)} cells equal to the bit ({file})')
    return bad > 0


if __name__ == '__main__': sys.exit(main())
