// Draws the charts in the theme that the reader's system asks for. What a map's mark says stands in the page as text.
const { charts, themes } = JSON.parse(document.getElementById("charts").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");
const views = {};

const texts = new Map();
for (const rule of document.querySelectorAll("[data-rule]")) texts.set(rule.dataset.rule, rule.firstElementChild.textContent);
for (const row of charts.rules ? charts.rules.rows : []) row.text = texts.get(row.rule);

async function draw(place, scheme) {
  const { spec, rows, renderer, legend } = charts[place.dataset.chart];
  const theme = { ...themes[scheme], background: null }; // the page's own shines through
  const config = legend ? theme : { ...theme, legend: { disable: true } };
  const { view } = await vegaEmbed(place, { ...spec, datasets: { [spec.data.name]: rows } }, {
    mode: "vega-lite",
    config,
    renderer,
    actions: false,
    ast: true, // the page's policy forbids to make code of text
    defaultStyle: false,
    tooltip: { disableDefaultStyle: true },
  });
  views[place.dataset.chart] = view;
}

async function drawAll(scheme = dark.matches ? "dark" : "light") {
  for (const place of document.querySelectorAll("[data-chart]")) await draw(place, scheme);
  for (const button of document.querySelectorAll(".legend [aria-pressed=true]")) choose(button.dataset.signal, button.dataset.value);
  document.documentElement.dataset.drawn = scheme;
}

function choose(signal, value) {
  if (views.rules) views.rules.signal(signal, value).run();
}

for (const legend of document.querySelectorAll(".legend")) {
  legend.hidden = false;
  legend.addEventListener("click", ({ target }) => {
    const button = target.closest("button");
    if (!button) return;
    const { signal, value } = button.dataset;
    const chosen = button.getAttribute("aria-pressed") === "false";
    for (const other of legend.querySelectorAll(`[data-signal=${signal}]`)) other.setAttribute("aria-pressed", chosen && other === button);
    choose(signal, chosen ? value : null);
  });
}

dark.addEventListener("change", () => drawAll());
addEventListener("beforeprint", () => drawAll("light")); // paper is white; nothing in it waits, so it is done in time
addEventListener("afterprint", () => drawAll());
drawAll();
