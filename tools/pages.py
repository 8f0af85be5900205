"""Builds the site from the notebooks as they stand: python tools/pages.py [folder], or --quarto

Nothing is executed; the outputs stored in the notebooks are shown. Order, section titles, header and footer come from
`_quarto.yml`. In each notebook hidden cells go, and an exported cell becomes the signature and parameter table of what
it defines, with its source folded below. Sphinx with MyST-NB then makes the pages, for which Quarto's cell options and
call-outs become their MyST equivalents; with --quarto they stay, and Quarto makes the pages. An unknown option,
call-out, cross-reference or link stops the build.
"""
import ast, copy, html, json, posixpath, re, shutil, subprocess, sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
NBS, PAGES, QUARTO = ROOT / "nbs", ROOT / "_proc" / "pages", ROOT / "_proc" / "quarto"
# Quarto's and nbdev's cell options that mean something here; those that only mean something to tests are not shown.
KNOWN = {"default_exp", "export", "exports", "exporti", "hide", "hide_line", "eval", "echo", "output", "include", "warning", "slow", "cuda",
         "code-fold", "code-summary", "fig-cap", "fig-alt", "fig-width", "fig-height", "label", "filter_stream"}
REFERENCE = "Reference"  # the section of the sidebar whose pages are made from docstrings, one per folder
LINK = re.compile(r"(?<=\]\()(?!https?:)([^)\s#]+\.ipynb)")
NAME = re.compile(r"(?<![`\[])`([A-Za-z_][\w.]*)(\(\))?`(?![`\]{])")
CALLOUT = re.compile(r"^(:{3,})\s*\{\.callout-(note|tip|warning|important|caution)([^}]*)\}\s*$", re.M)


# --- what is where ----------------------------------------------------------------------------------------------------
def config(): return yaml.safe_load((ROOT / "_quarto.yml").read_text(encoding="utf-8"))


def docname(path):
    "data/12_tasks.ipynb -> data/tasks, the name that nbdev gives the page too"
    folder, name = posixpath.split(path)
    return posixpath.join(folder, re.sub(r"^\d+[a-z]?_", "", name).removesuffix(".ipynb").removesuffix(".qmd"))


def references(cfg):
    "{folder of the library: page of its reference}, from the sidebar"
    found = [href(i) for item in cfg["website"]["sidebar"]["contents"] if isinstance(item, dict) and item.get("section") == REFERENCE for i in item["contents"]]
    return {posixpath.basename(docname(p)): p for p in found}


def heading_of(path):
    "Title and subtitle of a notebook"
    first = next(source(c) for c in read(path)["cells"] if c["cell_type"] == "markdown")
    m = re.match(r"#\s+(.+?)\s*\n+>\s*(.+?)\s*(\n|$)", first)
    return (m[1], m[2]) if m else sys.exit(f"nbs/{path}: the first text cell must be `# Title` and, on the next line, `> subtitle`")


def href(item): return item if isinstance(item, str) else item["href"]


def sections(cfg):
    "[(section title or None, [notebook paths])] in the order of the sidebar"
    groups = [(None, [])]
    for item in cfg["website"]["sidebar"]["contents"]:
        if isinstance(item, dict) and item.get("section") == REFERENCE: continue
        if isinstance(item, dict) and "section" in item: groups.append((item["section"], [href(i) for i in item["contents"]]))
        elif groups[-1][0] is None: groups[-1][1].append(href(item))
        else: groups.append((None, [href(item)]))
    return [g for g in groups if g[1]]


def read(path): return json.loads((NBS / path).read_text(encoding="utf-8"))
def source(cell): return "".join(cell["source"])


def options(src):
    "{'eval': 'false', 'export': '', ...} of a code cell, and its code without those lines"
    lines = src.splitlines()
    found = [m for m in (re.match(r"#\|\s*([\w-]+)\s*:?\s*(.*?)\s*$", l) for l in lines) if m]
    code = [l for l in lines if not re.match(r"#\|", l) and not re.search(r"#\|\s*hide_line\s*$", l)]
    return {m[1]: m[2].strip("\"'") for m in found}, "\n".join(code).strip("\n")


def exported(opts): return not {"export", "exports", "exporti"}.isdisjoint(opts)


# --- signatures -------------------------------------------------------------------------------------------------------
def note(lines, node):
    "The comment behind a parameter or field; one behind the colon of a `def` is about what is returned"
    rest = lines[node.end_lineno - 1].encode()[node.end_col_offset:].decode()
    m = re.match(r"([^#]*)#\s*(.+?)\s*$", rest)
    return m[2] if m and ":" not in m[1] else ""


def parameters(fn, lines):
    "(name, type, default, comment) of every parameter, and of what is returned"
    a = fn.args
    plain = a.posonlyargs + a.args
    rows = list(zip(plain, [None] * (len(plain) - len(a.defaults)) + a.defaults))
    if a.vararg: rows.append((a.vararg, None))
    rows += list(zip(a.kwonlyargs, a.kw_defaults))
    if a.kwarg: rows.append((a.kwarg, None))
    stars = {id(a.vararg): "*", id(a.kwarg): "**"}
    ends = [(d or arg).end_lineno for arg, d in rows]  # of several on one line the comment belongs to the last
    for i, (arg, d) in enumerate(rows):
        text = note(lines, d or arg) if ends[i] not in ends[i + 1:] else ""
        yield stars.get(id(arg), "") + arg.arg, ast.unparse(arg.annotation) if arg.annotation else "", ast.unparse(d) if d else "", text
    closing = re.search(r"\)(?:\s*->[^#]*)?:\s*#\s*(.+?)\s*$", "\n".join(lines[ends[-1] - 1 if ends else fn.lineno - 1:fn.body[0].lineno - 1]), re.M)
    kind = ast.unparse(fn.returns) if fn.returns else ""
    if closing or kind not in ("", "None"): yield "returns", kind, "", closing[1] if closing else ""


def fields(cls, lines):
    for n in cls.body:
        if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name) and not n.target.id.startswith("_") and "ClassVar" not in ast.unparse(n.annotation):
            yield n.target.id, ast.unparse(n.annotation), ast.unparse(n.value) if n.value else "", note(lines, n)


def signature(name, rows, types):
    "Names and defaults; types only where no table shows them"
    args, ret = [], ""
    for n, kind, default, _ in rows:
        if n == "returns": ret = f" -> {kind}" if types and kind else ""
        else: args.append(n + (f": {kind}" if types and kind else "") + (f" = {default}" if default else ""))
    return f"{name}({', '.join(args)}){ret}"


class Myst:
    "API blocks for Sphinx"
    def table(self, rows):
        tick = lambda s: f"`{s}`" if s else " "
        out = [":::{list-table}", ":class: params", ":header-rows: 1", "* - name\n  - type\n  - default\n  - what it is"]
        for name, kind, default, text in rows:
            shown = "*returns*" if name == "returns" else "**{}**".format(name.replace("*", r"\*"))
            out.append(f"* - {shown}\n  - {tick(kind)}\n  - {tick(default)}\n  - {text or ' '}")
        return "\n".join(out) + "\n:::"

    def block(self, kind, name, sig, module, body):
        fence = ":" * (1 + max((len(m) for m in re.findall(r"^:{3,}", body, re.M)), default=3))
        return f"{fence}{{py:{kind}}} {sig}\n:module: xlnb.{module}\n\n{body}\n{fence}"


class Pandoc:
    "API blocks for Quarto"
    def table(self, rows):
        tick = lambda s: "<code>" + html.escape(s).replace("|", "&#124;").replace("*", "&#42;") + "</code>" if s else ""
        out = ["| name | type | default | what it is |", "|---|---|---|---|"]
        for name, kind, default, text in rows:
            shown = "*returns*" if name == "returns" else f"**{tick(name)}**"
            out.append(f"| {shown} | {tick(kind)} | {tick(default)} | {text.replace('|', chr(92) + '|')} |")
        return "\n".join(out)

    def block(self, kind, name, sig, module, body):
        level = "####" if kind in ("method", "property") else "###"
        return f"{level} `{name}` {{#{name} .api}}\n\n```python\n{'class ' * (kind == 'class')}{sig}\n```\n\n{body}"


def describe(style, kind, name, module, rows, doc, inner=""):
    "One name: signature, docstring, parameter table"
    rows = [r for r in rows if r[0] not in ("self", "cls")]
    if [r[0] for r in rows] == ["returns"]:  # nothing to put in a table
        doc, rows = " ".join(filter(None, [doc, f"Returns {rows[0][3]}." if rows[0][3] else ""])), [(*rows[0][:3], "")]
    told = any(r[3] for r in rows)  # else a table would only repeat the signature
    body = "\n\n".join(filter(None, [doc, style.table(rows) if told else "", inner]))
    return style.block(kind, name, name if kind == "property" else signature(name, rows, types=not told), module, body)


def api(style, node, lines, module):
    "Documentation of one public function or class"
    doc = ast.get_docstring(node) or ""
    if isinstance(node, ast.ClassDef):
        init = next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
        rows = list(fields(node, lines)) or (list(parameters(init, lines)) if init else [])
        if rows and rows[-1][0] == "returns":  # nothing comes back from `__init__`: the comment is about the last parameter
            *rows, (_, _, _, text) = rows
            rows[-1] = (*rows[-1][:3], rows[-1][3] or text)
        methods = [n for n in node.body if isinstance(n, ast.FunctionDef) and not n.name.startswith("_") and ast.get_docstring(n)]
        return describe(style, "class", node.name, module, rows, doc, "\n\n".join(api(style, m, lines, module) for m in methods))
    decorators = {getattr(d, "id", "") for d in node.decorator_list}
    first = node.args.args[0] if node.args.args else None
    name = f"{ast.unparse(first.annotation)}.{node.name}" if "patch" in decorators else node.name
    if decorators & {"property", "cached_property"}: return describe(style, "property", name, module, [], doc)
    kind = "method" if "patch" in decorators or (first and first.arg in ("self", "cls")) else "function"
    return describe(style, kind, name, module, list(parameters(node, lines)), doc)


def definitions(code):
    "Top-level functions and classes of a cell"
    try: return [n for n in ast.parse(code).body if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))]
    except SyntaxError: return []


def public(paths):
    "(module, page, node, lines of its cell) of every public function and class that the notebooks export, in their order"
    for path in paths:
        module = None
        for cell in read(path)["cells"]:
            if cell["cell_type"] != "code": continue
            opts, code = options(source(cell))
            module = opts.get("default_exp", module)
            if not exported(opts) or "exporti" in opts: continue
            for n in definitions(code):
                if not n.name.startswith("_") and not any(getattr(d, "id", "") == "patch" for d in n.decorator_list): yield module, path, n, code.splitlines()


def symbols(paths):
    "{name: (module, page)} of everything public that the notebooks export"
    found = {}
    for module, path, n, _ in public(paths): found.setdefault(n.name, (module, path))
    return found


# --- cells ------------------------------------------------------------------------------------------------------------
class Page:
    "A notebook on its way to Sphinx"
    style = Myst()

    def __init__(self, path, known):
        self.path, self.known, self.module, self.titled = path, known, None, False

    def fail(self, text): sys.exit(f"nbs/{self.path}: {text}")

    def markdown(self, text):
        if not self.titled:
            m = re.match(r"#\s+(.+?)\s*\n+>\s*(.+?)\s*(\n|$)", text)
            if not m: self.fail("the first text cell must be `# Title` and, on the next line, `> subtitle`")
            text, self.titled = self.heading(m[1], m[2]) + text[m.end():], True
        text = re.sub(r"^(#+ .*?)\s+-\s*$", r"\1", text, flags=re.M)
        text = CALLOUT.sub(self.callout, text)
        parts = re.split(r"(^ *```.*?^ *```[^\n]*$)", text, flags=re.M | re.S)
        return "".join(p if i % 2 else self.inline(p) for i, p in enumerate(parts))

    def heading(self, title, subtitle): return f"# {title}\n\n{{.subtitle}}\n{subtitle}\n"

    def callout(self, m):
        title = re.search(r'title="([^"]*)"', m[3])
        return f"{m[1]}{{admonition}} {title[1]}\n:class: {m[2]}" if title else f"{m[1]}{{{m[2]}}}"

    def check(self, text):
        left = re.search(r"^:{3,}\s*\{\.[^}]*\}|\]\{[.#][^}]*\}|\{\{<.*?>\}\}", text, re.M)
        if left: self.fail(f"no equivalent for `{left[0]}`")

    def inline(self, text):
        self.check(text)
        text = re.sub(LINK, lambda m: self.link(m[1]), text)
        text = re.sub(r"(?<![\w`])@((?:fig|tbl)-[\w-]+)", r"[](#\1)", text)
        return self.names(text)

    def names(self, text):
        "Names in code become links, not in headings"
        return "\n".join(l if l.startswith("#") else re.sub(NAME, self.symbol, l) for l in text.split("\n"))

    def link(self, target):
        path = posixpath.normpath(posixpath.join(posixpath.dirname(self.path), target))
        if not (NBS / path).exists(): self.fail(f"links to {target}, which does not exist")
        return posixpath.join(posixpath.dirname(target), posixpath.basename(docname(path))) + ".ipynb"

    def meant(self, m):
        "(module, notebook) of `name` where it can only mean the exported thing"
        module, page = self.known.get(m[1].split(".")[-1], (None, None))
        return (module, page) if m[2] or page == self.path or re.search(r"_|[A-Z]", m[1]) else (None, None)

    def symbol(self, m):
        module, _ = self.meant(m)
        return f"{{py:obj}}`{m[1]}{m[2] or ''} <xlnb.{module}.{m[1].split('.')[-1]}>`" if module else m[0]

    def code(self, cell):
        opts, code = options(source(cell))
        unknown = set(opts) - KNOWN
        if unknown: self.fail(f"unknown cell option {sorted(unknown)}")
        self.module = opts.get("default_exp", self.module)
        if {"hide", "default_exp"} & set(opts) or opts.get("include") == "false": return
        outputs = [] if opts.get("output") == "false" else [o for o in cell.get("outputs", []) if o.get("name") != "stderr"]
        if any(o["output_type"] == "error" for o in outputs): self.fail(f"a cell ended with an error: {code.splitlines()[0]}")
        if exported(opts): yield from self.export(opts, code)
        elif not code and not outputs: return
        else:
            fold = opts.get("code-fold", "false") != "false"
            yield self.make(code, opts, outputs, fold, opts.get("code-summary", "Show the code"))

    def export(self, opts, code):
        nodes = definitions(code)
        lines = code.splitlines()
        public = [n for n in nodes if not n.name.startswith("_")] if "exporti" not in opts else []
        for n in public: yield dict(cell_type="markdown", metadata={}, source=self.inline(api(self.style, n, lines, self.module)))
        try: imports = all(isinstance(n, (ast.Import, ast.ImportFrom)) for n in ast.parse(code).body)
        except SyntaxError: imports = False
        if not code or imports: return
        names = ", ".join(n.name for n in nodes) or ", ".join(dict.fromkeys(re.findall(r"^(\w+)\s*(?::[^=\n]+)?=", code, re.M))) or "this cell"
        yield self.make(code, {}, [], "exports" not in opts, f"Source of {names}")

    def make(self, code, opts, outputs, fold=False, summary=""):
        meta = {"tags": [], "mystnb": {}}
        if fold:
            meta["tags"].append("hide-input")
            meta["mystnb"]["code_prompt_show"] = meta["mystnb"]["code_prompt_hide"] = summary
        if opts.get("echo") == "false" or not code: meta["tags"].append("remove-input")
        if "fig-cap" in opts: meta["mystnb"]["figure"] = {"caption": opts["fig-cap"], "align": "left"} | ({"name": opts["label"]} if "label" in opts else {})
        if "fig-alt" in opts or "fig-cap" in opts: meta["mystnb"]["image"] = {"alt": opts.get("fig-alt") or opts["fig-cap"]}
        return dict(cell_type="code", metadata=meta, execution_count=None, outputs=copy.deepcopy(outputs), source=code)

    def process(self):
        nb, cells = read(self.path), []
        for cell in nb["cells"]:
            if cell["cell_type"] == "markdown": cells.append(dict(cell_type="markdown", metadata={}, source=self.markdown(source(cell))))
            elif cell["cell_type"] == "code": cells += self.code(cell)
        cells = [dict(c, id=f"c{i}") for i, c in enumerate(cells) if c["source"].strip() or c.get("outputs")]
        kernel = {"display_name": "python3", "language": "python", "name": "python3"}
        return dict(cells=cells, metadata={"kernelspec": kernel, "language_info": {"name": "python"}}, nbformat=4, nbformat_minor=5)


class QuartoPage(Page):
    "A notebook on its way to Quarto, which knows its own call-outs and options"
    style = Pandoc()

    def heading(self, title, subtitle):
        self.front = yaml.safe_dump({"title": title, "subtitle": subtitle, "output-file": posixpath.basename(docname(self.path)) + ".html"}, allow_unicode=True)
        return ""

    def callout(self, m): return m[0]

    def inline(self, text):
        self.check(CALLOUT.sub("", text))
        for target in re.findall(LINK, text): self.link(target)
        return self.names(text)

    def symbol(self, m):
        module, page = self.meant(m)
        if not module: return m[0]
        path = posixpath.relpath(page, posixpath.dirname(self.path) or ".") if page != self.path else ""
        return f"[`{m[1]}{m[2] or ''}`]({path}#{m[1].split('.')[-1]})"

    def make(self, code, opts, outputs, fold=False, summary=""):
        keep = {k: v for k, v in opts.items() if k in ("echo", "fig-cap", "fig-alt", "label")} | ({"code-fold": "true", "code-summary": summary} if fold else {})
        if not code: keep["echo"] = "false"
        head = "".join(f"#| {k}: {v if v in ('true', 'false') else json.dumps(v, ensure_ascii=False)}\n" for k, v in keep.items())
        return dict(cell_type="code", metadata={}, execution_count=None, outputs=copy.deepcopy(outputs), source=head + code)

    def process(self):
        nb = super().process()
        nb["cells"].insert(0, dict(cell_type="raw", metadata={}, id="front", source=f"---\n{self.front}---\n"))
        return nb


# --- reference --------------------------------------------------------------------------------------------------------
def names_of(paths):
    "{module: (page, [(name, arguments, first line of the docstring)])} of what the notebooks export"
    found = {}
    for module, path, n, lines in public(paths):
        rows = [] if isinstance(n, ast.ClassDef) else [r for r in parameters(n, lines) if r[0] not in ("self", "cls", "returns")]
        args = "" if isinstance(n, ast.ClassDef) else f"({', '.join(r[0] for r in rows)})"
        found.setdefault(module, (path, []))[1].append((n.name, args, (ast.get_docstring(n) or "").split("\n")[0]))
    return found


def reference(folder, paths, link):
    "Reference of one folder as Markdown: a table per module, each name linked to where it is defined and explained"
    parts = [f"Every public name of `xlnb.{folder}`, in the order of its pages. A name leads to the page that defines, explains and tests it."]
    for module, (page, names) in names_of(paths).items():
        if module.split(".")[0] != folder: continue
        parts.append(f"## xlnb.{module}\n\n" + heading_of(page)[1].rstrip(".") + ".")
        rows = [f"| {link(module, page, name)}{args and '<code>' + html.escape(args) + '</code>'} | {doc.replace('|', chr(92) + '|') or ' '} |" for name, args, doc in names]
        parts.append("| name | what it is |\n|---|---|\n" + "\n".join(rows))
    return "\n\n".join(parts)


def myst_link(module, page, name): return f"{{py:obj}}`{name} <xlnb.{module}.{name}>`"


def write_references(groups, listed):
    "Pages for Sphinx; returns their toctree"
    made = references(config())
    for folder, path in made.items():
        target = PAGES / f"{docname(path)}.md"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(f"# Reference: {folder}\n\n{{.subtitle}}\nPublic names of `xlnb.{folder}`\n\n" + reference(folder, listed, myst_link) + "\n", encoding="utf-8")
    return [toctree(REFERENCE, [docname(p) for p in made.values()])] if made else []


def write_quarto_references(listed):
    for folder, path in references(config()).items():
        up = posixpath.dirname(path) or "."
        link = lambda module, page, name: f"[`{name}`]({posixpath.relpath(page, up)}#{name})"
        front = yaml.safe_dump({"title": f"Reference: {folder}", "subtitle": f"Public names of xlnb.{folder}"}, allow_unicode=True)
        (QUARTO / path).parent.mkdir(parents=True, exist_ok=True)
        (QUARTO / path).write_text(f"---\n{front}---\n\n" + reference(folder, listed, link) + "\n", encoding="utf-8")


# --- the whole site ---------------------------------------------------------------------------------------------------
def toctree(title, names):
    head = [":::{toctree}", ":hidden:"] + ([f":caption: {title}"] if title else [])
    return "\n".join(head + [""] + names + [":::"])


def listing():
    "Sections and their notebooks; every notebook must be listed"
    groups = sections(config())
    listed = [p for _, ps in groups for p in ps]
    there = {p.relative_to(NBS).as_posix() for p in NBS.rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts}
    if there != set(listed): sys.exit(f"the sidebar of _quarto.yml and nbs/ differ in {sorted(there ^ set(listed))}")
    return groups, listed


def save(nb, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(nb), encoding="utf-8")


def write_pages():
    groups, listed = listing()
    known = symbols(listed)
    shutil.rmtree(PAGES, ignore_errors=True)
    for path in listed:
        nb = Page(path, known).process()
        if path == "index.ipynb":
            trees = [toctree(t, [docname(p) for p in ps if p != path]) for t, ps in groups] + write_references(groups, listed)
            nb["cells"].append(dict(cell_type="markdown", metadata={}, id="toc", source="\n\n".join(trees)))
        save(nb, PAGES / f"{docname(path)}.ipynb")


def write_quarto():
    _, listed = listing()
    known = symbols(listed)
    shutil.rmtree(QUARTO, ignore_errors=True)
    for path in listed: save(QuartoPage(path, known).process(), QUARTO / path)
    write_quarto_references(listed)
    for f in "_quarto.yml", "styles.css", "colab.html", "404.qmd": shutil.copy(NBS / f, QUARTO / f)
    (QUARTO / "llms.txt").write_text(overview(), encoding="utf-8")


LOST = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>{title} - {site}</title>
<style>body{{font:1.1rem/1.5 system-ui,sans-serif;max-width:40rem;margin:15vh auto;padding:0 1rem}}</style></head>
<body><h1>{title}</h1>{text}</body></html>
"""


def write_extras(out):
    "What no page holds: a map of the site for search engines and one for language models, and what is shown for an address that leads nowhere"
    site = config()["website"]
    base = site["site-url"].rstrip("/")
    pages = [docname(p) for p in listing()[1]] + [docname(p) for p in references(config()).values()]
    urls = "".join(f"<url><loc>{base}/{p}.html</loc></url>\n" for p in pages)
    (out / "sitemap.xml").write_text(f'<?xml version="1.0" encoding="UTF-8"?>\n<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n{urls}</urlset>\n', encoding="utf-8")
    (out / "llms.txt").write_text(overview(), encoding="utf-8")
    _, front, text = (NBS / "404.qmd").read_text(encoding="utf-8").split("---\n", 2)
    linked = re.sub(r"\[([^\]]+)\]\(/([^)]*)\)", lambda m: f'<a href="{base}/{m[2]}">{m[1]}</a>', html.escape(text.strip(), quote=False))
    paragraphs = "".join(f"<p>{p}</p>" for p in linked.split("\n\n"))
    (out / "404.html").write_text(LOST.format(title=yaml.safe_load(front)["title"], site=site["title"], text=paragraphs), encoding="utf-8")


def overview():
    """llms.txt (llmstxt.org): what this is, and every page under its section with what it holds

    Titles and descriptions are those of the pages. What a reader needs last, the reference, is marked as optional."""
    site, cfg = config()["website"], config()
    base = site["site-url"].rstrip("/")
    entry = lambda page, title, text: f"- [{title}]({base}/{page}.html): {text.replace('`', '')}"
    title, summary = heading_of("index.ipynb")
    parts = [f"# {title}", f"> {summary}", introduction("index.ipynb"), f"Source: {site['repo-url']}. A page is a notebook that defines, explains and tests its part."]
    for section, paths in sections(cfg):
        parts.append(f"## {section or 'Start'}\n\n" + "\n".join(entry(docname(p), *heading_of(p)) for p in paths))
    parts.append("## Optional\n\n" + "\n".join(entry(docname(p), f"{REFERENCE}: {f}", f"Public names of xlnb.{f}") for f, p in references(cfg).items()))
    return "\n\n".join(parts) + "\n"


def introduction(path):
    "First paragraph below the title of a page, as plain text"
    texts = [source(c) for c in read(path)["cells"] if c["cell_type"] == "markdown"]
    paragraph = re.split(r"\n\s*\n", re.sub(r"\A#\s+.+?\n+>.*?(\n|$)", "", texts[0]).strip() or texts[1].strip())[0]
    return re.sub(r"\[([^\]]+)\]\([^)]*\)|\*+|`", lambda m: m[1] or "", paragraph)


def build(out):
    write_pages()
    made = PAGES.parent / "html"  # MyST-NB leaves a folder of its own beside it
    for folder in made, out: shutil.rmtree(folder, ignore_errors=True)
    cmd = [sys.executable, "-m", "sphinx", "-b", "html", "-q", "-W", "--keep-going", "-d", PAGES.parent / "doctrees", "-c", ROOT / "tools" / "sphinx", PAGES, made]
    code = subprocess.run([str(c) for c in cmd]).returncode
    if code: return code
    shutil.move(made, out)
    if (NBS / "404.qmd").exists(): write_extras(out)
    return 0


if __name__ == "__main__":
    if "--quarto" in sys.argv: sys.exit(write_quarto())
    out = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "_docs")
    code = build(out)
    if not code: print(f"the site is in {out.name}/: open {out.name}/index.html, or python -m http.server -d {out.name}")
    sys.exit(code)
