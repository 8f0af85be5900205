"""How Sphinx renders the pages that tools/pages.py prepares; title, header and footer come from _quarto.yml."""
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
import pages

quarto = pages.config()
site = quarto["website"]
listed = [p for _, ps in pages.sections(quarto) for p in ps]
blob = "/".join([site["repo-url"], "blob", site["repo-branch"], site["repo-subdir"]])

project, author, html_title = site["title"], "the xlnb authors", site["title"]
root_doc, language = "index", "en"
extensions = ["myst_nb", "sphinx_copybutton", "sphinx-mathjax-offline"]
exclude_patterns, templates_path, html_static_path = [], ["_templates"], ["_static"]

# Notebooks: outputs as they are stored, maths between dollars, wide tables in a box of their own.
nb_execution_mode, nb_merge_streams = "off", True
nb_render_markdown_format = "myst"  # outputs may hold tables, as the text of a page may
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "attrs_block", "deflist"]
myst_heading_anchors = 3
suppress_warnings = ["myst.header"]  # a page may start a section at any depth
nb_mime_priority_overrides = [("html", "application/vnd.jupyter.widget-view+json", None)]

# Code and what it documents.
add_module_names, python_use_unqualified_type_names = False, True
toc_object_entries_show_parents = "hide"
copybutton_exclude = ".linenos, .gp"
html_copy_source = html_show_sphinx = False
html_favicon = "_static/favicon.svg"
html_use_index = False
html_domain_indices = False

html_theme, html_css_files = "pydata_sphinx_theme", ["xlnb.css"]
html_js_files = ["tables.js"]
html_sidebars = {"**": ["pages.html"]}
html_context = dict(
    default_mode="auto",
    header_links=[(i["text"], pages.docname(i["href"])) for i in site["navbar"]["left"]],
    notebooks={pages.docname(p): f"{blob}/{p}" for p in listed},
    described={pages.docname(p): pages.heading_of(p) for p in listed}
    | {pages.docname(p): (f"Reference: {f}", f"Public names of xlnb.{f}") for f, p in pages.references(quarto).items()},
    chapters=[(title, [pages.docname(p) for p in paths]) for title, paths in pages.sections(quarto) if title]
    + [(pages.REFERENCE, [pages.docname(p) for p in pages.references(quarto).values()])],
    site_url=site["site-url"].rstrip("/"),
    start_text=site["sidebar"]["contents"][0]["text"],
    footer_text=site["page-footer"]["left"],
)
html_theme_options = dict(
    logo={"text": site["title"]},
    icon_links=[{"name": i["aria-label"], "url": i["href"], "icon": f"fa-brands fa-{i['icon']}"} for i in site["navbar"]["right"]],
    navbar_align="left", navbar_center=["links.html"], navbar_persistent=["search-button-field"], navbar_end=["theme-switcher", "navbar-icon-links"],
    article_header_start=["notebook.html"], article_header_end=[], secondary_sidebar_items={"**": ["page-toc"], "index": [], "browse": [], "search": []},
    primary_sidebar_end=[], footer_start=["footer.html"], footer_center=[], footer_end=[], show_toc_level=2, back_to_top_button=False,
    pygments_light_style="friendly", pygments_dark_style="github-dark", search_bar_text="Search", surface_warnings=False,
)
