// In a table of results numbers stand to the right; columns of words stand to the left.
document.addEventListener("DOMContentLoaded", () => {
  for (const table of document.querySelectorAll("table.dataframe")) {
    const rows = [...table.rows];
    if (table.querySelector("[rowspan], [colspan]") || new Set(rows.map(r => r.cells.length)).size > 1) continue;
    for (let i = 1; i < rows[0].cells.length; i++) {
      const cells = rows.map(r => r.cells[i]), shown = cells.filter(c => c.tagName === "TD").map(c => c.textContent.trim());
      if (shown.some(t => t && !/^[-+\u2212]?[\d.,%\u00b1\u2013 \[\]()eE+-]+$|^(nan|NaN|None|True|False|<NA>)$/.test(t))) cells.forEach(c => c.classList.add("text", ...(shown.some(t => t.length > 40) ? ["long"] : [])));
    }
  }
});
