"""Would the tests notice an error? Small errors are put into a module, one at a time, and its tests are run.

    python tools/mutation.py [--sample 40] [--again] [training/losses ...]

Cosmic Ray makes the errors ("mutants"): another operator, another number, a condition turned round, a loop that never
runs. Which of them are tried is drawn with a seed, and no place in a module is changed twice before every other was once.
Each is tried in a fork of this process, which has imported the libraries, on a copy of the package in which one module
differs. What the tests let pass is tried on the module's own page. Results are kept in `nbs/study/store/mutation.json`:
a stopped run goes on, a larger `--sample` adds to a smaller one, and a module that has changed begins anew. `--again`
tries those once more that were not noticed, unless a person has given the `reason` in that file why one need not be.
"""
import argparse, ast, contextlib, gc, importlib.metadata, json, os, random, re, resource, shutil, signal, sys, tempfile, time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "nbs/study/store/mutation.json"
SEED, MEMORY = 0, 4 << 30   # of the draw; bytes that a process may take beyond what is there

# {module: (its page, the fastest tests of it, as for pytest, and its functions and classes; all, if none is named)}
MODULES = {
    "training/losses": ("training/31_losses", "test_losses.py -k 'token_loss or shares or span_loss or gpu'", ""),
    "methods/mmkd/losses": ("methods/mmkd/72_losses", "test_losses.py -k 'word or sentence or structure or vector_mse or gpu'", ""),
    "methods/clism/losses": ("methods/clism/84_losses", "test_losses.py -k 'pointing or mean_state or contrast'", ""),
    "methods/alsace/losses": (
        "methods/alsace/62_losses", "test_losses.py test_alsace.py -k 'divergence or distillation or entropy_of or gpu or pair_counts "
        "or identical_versions or released_loss or detached'", ""),
    "methods/alsace/vote": (
        "methods/alsace/61_vote", "test_alsace.py -k 'vote_and or selection_does or equal_languages or softmax_is'", ""),
    "evaluation/statistics": ("evaluation/42_statistics", "test_statistics.py -k 'not cover and not compiles and not gap_identity and not the_mean_over'", ""),
    "evaluation/factorial": ("evaluation/111_factorial", "test_factorial.py", ""),
    "methods/clism/spans": ("methods/clism/81_spans", "test_clism.py -k 'recurring_spans or drawn_spans or names_in_a_row or controls or without_spaces'", ""),
    "methods/clism/projection": (
        "methods/clism/82_projection", "test_span_mask.py -k 'definition or every_reason or side_by_side or borders or "
        "cut_questions or sample_to_look or stopped_run or folder_knows'", ""),
    "study/cell": (
        "study/91_cell", "test_cell.py test_study.py::test_keys test_study.py::test_a_changed_row_or_weight_changes_the_key "
        "test_study.py::test_what_decides_a_result_is_in_the_key test_baselines.py::test_translated_rows_decide_the_key",
        "data_fingerprint rows_digest rows_read Cell task_fields encoder_label _for _once made_of prefix_key"),
    "core": ("00_core", "test_keys.py", "plain _plain _as_data _tokenizer _function _content _code _held digest stream_digest "
             "file_digest weights_digest"),
}

# What all tests import, before a process is forked for each error.
SHARED = ("torch transformers datasets accelerate pandas scipy.stats sklearn.linear_model matplotlib.pyplot seaborn "
          "statsmodels.formula.api IPython.display nbdev.test hypothesis pytest xlnb.study.grid xlnb.study.presets "
          "xlnb.evaluation.plots xlnb.training.pretraining").split()


# --- the errors ------------------------------------------------------------------------------------------------------
def operators():
    "{name: operator} of Cosmic Ray, without those that need arguments"
    try: from cosmic_ray import plugins
    except ImportError:
        raise SystemExit("mutation testing needs Cosmic Ray, which nothing else here does: pip install cosmic-ray") from None
    found = {name.partition("/")[2]: plugins.get_operator(name) for name in plugins.operator_names()}
    return {name: o() for name, o in found.items() if not o.arguments()}


def spans(source, names=()):
    "Lines of the functions and classes that are named, and where annotations stand, which nothing computes with"
    tree = ast.parse(source)
    whole = [n for n in tree.body if not names or getattr(n, "name", None) in names]
    lines = {k for n in whole for k in range(n.lineno, n.end_lineno + 1)}
    hints = [h for n in ast.walk(tree) for h in (getattr(n, "annotation", None), getattr(n, "returns", None)) if h]
    return lines, [((h.lineno, h.col_offset), (h.end_lineno, h.end_col_offset)) for h in hints]


def mutants(source, names=()):
    "[(operator, its how-manieth occurrence, place)] of all errors that can be put into a program"
    from cosmic_ray.ast import ast_nodes, get_ast
    nodes, (lines, hints), out = list(ast_nodes(get_ast(source))), spans(source, names), []
    for name, operator in operators().items():
        places = [at[0] for n in nodes for at in operator.mutation_positions(n)]
        out += [(name, k, at) for k, at in enumerate(places) if at[0] in lines and not any(a <= at < b for a, b in hints)]
    return out


def drawn(found, seed=SEED):
    "All errors in the order in which they are tried: a drawn one of every place before the second of any"
    found, seen = random.Random(seed).sample(found, len(found)), Counter()
    turn = [seen.update([at]) or seen[at] for *_, at in found]
    return [m for _, m in sorted(zip(turn, found), key=lambda o: o[0])]


def mutated(source, name, occurrence):
    "A program with one error, and its line before and after"
    from cosmic_ray.mutating import mutate_code
    new = mutate_code(source, operators()[name], occurrence)
    lines = source.splitlines(), new.splitlines()
    at = next(k for k, (a, b) in enumerate(zip(*lines)) if a != b)
    return new, dict(line=at + 1, was=lines[0][at].strip(), now=lines[1][at].strip())


# --- a copy of the package -------------------------------------------------------------------------------------------
def sections(module):
    "{id of a cell: its code} of an exported module"
    parts = re.split(r"^# %% \S+ #(\S+)$\n", module, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2]))


def changed_page(page, was, now):
    "A notebook with the error that a module has: it defines by itself what the module holds"
    nb, new = json.loads(page), sections(now)
    for cell in nb["cells"]:
        if (a := sections(was).get(cell.get("id"))) == (b := new.get(cell.get("id"))): continue
        code = "".join(cell["source"]).splitlines()
        head = [l for l in code if l.startswith("#|")]
        body, a, b = code[len(head):], a.strip().splitlines(), b.strip().splitlines()
        while body and not body[0].strip(): body.pop(0)
        if len(a) == len(b) == len(body): b = [z if x == y else y for x, y, z in zip(a, b, body)]  # imports differ
        cell["source"] = "\n".join([*head, *b])
    return json.dumps(nb)


@contextlib.contextmanager
def copy(root, module, source, page=""):
    "A folder that looks like the project, with another text of one module, and of its page"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as tmp:
        tmp, file = Path(tmp), Path("xlnb", f"{module}.py")
        links = lambda d, skip: shutil.copytree(root / d, tmp / d, copy_function=os.symlink, ignore=shutil.ignore_patterns(skip))
        links("xlnb", f"{file.stem}.*.pyc")
        def write(path, text):
            (tmp / path).unlink()
            (tmp / path).write_text(text, encoding="utf-8")
        was = (root / file).read_text(encoding="utf-8")
        write(file, source)
        if page:
            links("nbs", ".ipynb_checkpoints")
            if was != source: write(Path("nbs", f"{page}.ipynb"), changed_page((root / "nbs" / f"{page}.ipynb").read_text(encoding="utf-8"), was, source))
            shutil.copy(root / "settings.ini", tmp)
        (tmp / "tmp").mkdir()
        yield tmp


# --- one trial -------------------------------------------------------------------------------------------------------
def run_tests(tests, where):
    "Does everything pass?"
    import hypothesis, pytest, shlex
    hypothesis.settings.register_profile("mutation", database=None, phases=["explicit", "generate"], derandomize=True)
    hypothesis.settings.load_profile("mutation")
    tests = [str(where / o) if o.startswith("test_") else o for o in shlex.split(tests)]
    return pytest.main(["-x", "-q", "--assert=plain", "-p", "no:cacheprovider", "-W", "ignore", *tests]) == 0


def run_page(path):
    from nbdev.test import test_nb
    return test_nb(path, skip_flags=["slow", "cuda"], showerr=False)[0]


def trial(folder, module, check, limit=600):
    "'survived', 'killed', 'timeout' or 'broken' (the module cannot be imported), and the CPU seconds that it took"
    if not (pid := os.fork()):
        code = 3
        try:
            os.setsid()
            resource.setrlimit(resource.RLIMIT_CPU, (int(limit), int(limit) + 5))
            resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
            signal.alarm(20 * int(limit))
            for stream in (1, 2): os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
            os.environ |= dict(PYTHONPATH=str(folder), TMPDIR=str(folder / "tmp"), PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
            tempfile.tempdir = str(folder / "tmp")
            sys.path.insert(0, str(folder))
            os.chdir(folder)
            for loaded in [m for m in sys.modules if m.partition(".")[0] == "xlnb"]: del sys.modules[loaded]  # its copy is read
            importlib.import_module(module)
            code = 1
            code = 0 if check(folder) else 1
        finally: os._exit(code)
    _, status, used = os.wait4(pid, 0)
    with contextlib.suppress(ProcessLookupError): os.killpg(pid, signal.SIGKILL)   # what its tests have started
    ended = "timeout" if os.WIFSIGNALED(status) else {0: "survived", 1: "killed"}.get(os.waitstatus_to_exitcode(status), "broken")
    return ended, used.ru_utime + used.ru_stime


class Module:
    "A module with its tests and its page, and what is known of its errors"
    def __init__(self, name, known, root=ROOT):
        self.name, self.root, (self.page, self.tests, names) = name, root, MODULES[name]
        self.source = (root / "xlnb" / f"{name}.py").read_text(encoding="utf-8")
        self.found, self.limits = mutants(self.source, names.split()), {}
        from xlnb.core import digest
        begin = dict(source=digest(self.source), seed=SEED, mutants=len(self.found), results={}, survivors={}, seconds=0.)
        self.known = known if known.get("source") == begin["source"] else begin
        self.known |= dict(page=f"nbs/{self.page}.ipynb", tests=self.tests and f"pytest tests/{self.tests}".replace(" test_", " tests/test_"),
                           mutants=len(self.found), names=names.split())

    def tried(self, source, on):
        "How a text of the module fares on its tests or on its page"
        page = on == "page"
        with copy(self.root, self.name, source, self.page if page else "") as folder:
            check = lambda at: run_page(at / "nbs" / f"{self.page}.ipynb") if page else run_tests(self.tests, self.root / "tests")
            ended, seconds = trial(folder, f"xlnb.{self.name.replace('/', '.')}", check, self.limits.get(on, 600))
        self.known["seconds"] += seconds
        return ended, seconds

    def limit(self, on):
        "CPU seconds: five times as many as the module needs as it is"
        if on not in self.limits:
            ended, seconds = self.tried(self.source, on)
            if ended != "survived": raise SystemExit(f"{self.name}: the {on} fails on the module as it is: see to that first")
            self.limits[on] = 10 + 5 * seconds

    def judge(self, name, occurrence):
        "Try one error, first on the tests, then on the page"
        source, line = mutated(self.source, name, occurrence)
        key, ended = f"{name} {occurrence}", "survived"
        for on in ["tests"] * bool(self.tests) + ["page"]:
            self.limit(on)
            ended, _ = self.tried(source, on)
            if ended != "survived": break
        if self.known["results"].get(key) == "survived" != ended: self.known.setdefault("later", []).append(key)
        self.known["results"][key] = f"{ended} by the {on}" if ended in ("killed", "timeout") else ended
        reason = self.known["survivors"].pop(key, {}).get("reason", "")
        if ended == "survived": self.known["survivors"][key] = line | dict(reason=reason)
        return f"{self.name}:{line['line']} {key}: {self.known['results'][key]}" + f"\n    {line['now']}" * (ended == "survived")


def main(args=None):
    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ask.add_argument("--sample", type=int, default=40, help="errors per module")
    ask.add_argument("--again", action="store_true", help="try those once more that were not noticed")
    ask.add_argument("modules", nargs="*", choices=[*MODULES, []], help="all, if left out")
    asked = ask.parse_args(args)
    operators()
    for name in SHARED: importlib.import_module(name)
    from xlnb.core import write_text
    from xlnb.study.version import provenance
    made = provenance()
    made["versions"]["cosmic-ray"] = importlib.metadata.version("cosmic-ray")
    known = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    modules = {name: Module(name, known.get(name, {})) for name in asked.modules or MODULES}
    for m in modules.values() if asked.again else ():   # what is tried after these was drawn after they were looked at
        m.known.setdefault("seen", len(m.known["results"]))
    gc.collect(), gc.freeze()   # or every fork would look through all of it
    order = {name: drawn(m.found)[:asked.sample] for name, m in modules.items()}
    for name, error in ((name, order[name][k]) for k in range(asked.sample) for name in order if k < len(order[name])):
        m, (operator, occurrence, _) = modules[name], error
        key = f"{operator} {occurrence}"
        anew = asked.again and not m.known["survivors"].get(key, {"reason": "killed"})["reason"]
        if key in m.known["results"] and not anew: continue
        print(m.judge(operator, occurrence), flush=True)
        known[name] = m.known | dict(made=made)
        write_text(RESULTS, json.dumps(known, indent=1, ensure_ascii=False) + "\n")
    for name, m in modules.items():
        ends = Counter(v.partition(" ")[0] for v in m.known["results"].values())
        print(f"{name}: {dict(ends)} of {len(m.found)}")


if __name__ == "__main__": sys.exit(main())
