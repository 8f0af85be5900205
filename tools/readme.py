"""Makes README.md from nbs/index.ipynb: its prose, its code, and the outputs stored in it; figures as files."""
import base64, json, posixpath, re, sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
INDEX = ROOT / "nbs" / "index.ipynb"
IMAGES = "nbs/images"


def links(text):
    "Links between notebooks, made relative to the folder of the README"
    return re.sub(r"\]\((?!https?:|#)([^)\s]+)\)", lambda m: f"]({posixpath.normpath(posixpath.join('nbs', m[1]))})", text)


def directives(src): return re.findall(r"^#\|\s*(.+)$", src, re.M)


def code(cell):
    "A code cell and its stored text or Markdown output"
    src = "".join(cell["source"])
    flags = directives(src)
    if any(re.match(r"hide\b|include:\s*false|default_exp|export", f) for f in flags): return
    body = re.sub(r"^#\|.*\n?", "", src, flags=re.M).strip()
    if body and "echo: false" not in flags: yield f"```{'sh' if body.startswith('!') else 'python'}\n{re.sub(r'^!', '', body, flags=re.M)}\n```"
    for out in cell.get("outputs", []):
        data = {k: "".join(v) for k, v in out.get("data", {"text/plain": out.get("text", "")}).items() if k.startswith("text/")}
        if "image/png" in out.get("data", {}): yield f"![{caption(cell)}]({IMAGES}/{cell['id']}.png)"
        elif "text/markdown" in data: yield data["text/markdown"].strip()
        elif data.get("text/plain", "").strip(): yield "\n".join("    " + l for l in data["text/plain"].rstrip().splitlines())


def caption(cell):
    "The caption of a figure, which is also its text for those who do not see it"
    found = [d for d in directives("".join(cell["source"])) if d.startswith("fig-cap")]
    return found[0].partition(":")[2].strip().strip('"') if found else ""


def figures():
    "{path from the root: content} of the figures that the README shows"
    cells = [c for c in json.loads(INDEX.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code"]
    pngs = {c["id"]: o["data"]["image/png"] for c in cells for o in c["outputs"] if "image/png" in o.get("data", {})}
    return {ROOT / IMAGES / f"{k}.png": base64.b64decode("".join(v)) for k, v in pngs.items()}


def readme():
    parts = ["<!-- made from nbs/index.ipynb: edit that page, then `make readme` -->"]
    for cell in json.loads(INDEX.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "markdown": parts.append(links("".join(cell["source"]).strip()))
        elif cell["cell_type"] == "code": parts += code(cell)
    return "\n\n".join(parts) + "\n"


def script():
    "The first code block of the README that uses the library"
    return next(b for b in re.findall(r"```python\n(.*?)```", readme(), re.S) if "xlnb" in b)


def differs():
    "Files that are not what the page gives"
    wanted = {ROOT / "README.md": readme().encode()} | figures()
    yield from (p for p, content in wanted.items() if not p.exists() or p.read_bytes() != content)
    yield from (p for p in (ROOT / IMAGES).glob("*") if p not in wanted)


if __name__ == "__main__":
    if "--script" in sys.argv: print(script())
    elif "--check" not in sys.argv:
        for path in (ROOT / IMAGES).glob("*"): path.unlink()
        if figures(): (ROOT / IMAGES).mkdir(exist_ok=True)
        for path, content in (figures() | {ROOT / "README.md": readme().encode()}).items(): path.write_bytes(content)
    elif bad := [*differs()]:
        sys.exit(f"{', '.join(str(p.relative_to(ROOT)) for p in bad)}: not what nbs/index.ipynb gives: run `make readme`")
