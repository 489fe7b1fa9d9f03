(() => {
  "use strict";
  const data = JSON.parse(document.getElementById("data").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let drawn = [];
  // SVG is sharp at any zoom and is read out; with thousands of marks it takes too long.
  const rowsOf = ({data, layer = []}) => layer.reduce((sum, part) => sum + rowsOf(part), data?.values?.length ?? 0);
  const drawOne = (spec, index) => {
    const place = document.getElementById("chart" + index);
    return vegaEmbed(place, spec, {
      mode: "vega-lite", renderer: rowsOf(spec) > 2000 ? "canvas" : "svg", ast: true, actions: false,
      config: data.themes[dark.matches ? "dark" : "light"],
    }).catch(error => { place.textContent = "This chart cannot be drawn: " + error.message; });
  };
  const draw = async () => {
    drawn.forEach(chart => chart && chart.finalize());
    drawn = await Promise.all(data.charts.map(drawOne));
  };
  if (data.charts.length) { draw(); dark.addEventListener("change", draw); }

  const words = new Intl.Collator("en", {numeric: true});
  const compare = (a, b) => {
    const x = a.dataset.v, y = b.dataset.v;
    if (x !== undefined && y !== undefined) return Number(x) - Number(y) || 0;
    if (x !== undefined || y !== undefined) return x !== undefined ? -1 : 1;
    return words.compare(a.textContent, b.textContent);
  };
  // A thousand rows take a second to lay out: only the first ones are shown, and more with every scroll to their end.
  for (const table of document.querySelectorAll(".rows > table")) {
    const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells], portion = Number(table.dataset.portion);
    const filter = table.closest("section").querySelector(".filter"), box = table.parentElement;
    let query = "", most = portion, matches = body.rows.length;
    const show = () => {
      matches = 0;
      for (const row of body.rows) {
        const text = query && [...row.cells].map(cell => cell.textContent).join(" ").toLowerCase();
        const fits = !query || text.includes(query);
        matches += fits;
        row.hidden = !fits || matches > most;
      }
    };
    heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => {
      const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      body.append(...[...body.rows].sort((p, q) => {
        const a = p.cells[column], b = q.cells[column];
        if ("none" in a.dataset || "none" in b.dataset) return ("none" in a.dataset) - ("none" in b.dataset);
        return sign * compare(a, b);
      }));
      show();
    }));
    box.addEventListener("scroll", () => {
      if (matches <= most || box.scrollTop + 2 * box.clientHeight < box.scrollHeight) return;
      most += portion;
      show();
    });
    addEventListener("beforeprint", () => { most = Infinity; show(); });
    if (filter) filter.firstElementChild.addEventListener("input", event => {
      query = event.target.value.trim().toLowerCase();
      most = portion;
      show();
      filter.lastElementChild.textContent =
        matches.toLocaleString("en") + " of " + body.rows.length.toLocaleString("en");
    });
  }
})();
