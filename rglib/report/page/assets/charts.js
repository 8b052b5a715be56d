// The charts: drawn from the figures in #data, in the colours of the theme, operable by keyboard.
"use strict";

const DATA = JSON.parse(document.getElementById("data").textContent);
const CONFIG = { displayModeBar: false };

function variable(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function draw(place, figure, visible = () => true) {
  const ink = variable("--ink"), rule = variable("--rule"), paper = variable("--paper");
  const lines = { gridcolor: rule, zerolinecolor: rule, linecolor: rule };
  const axis = { ...lines, spikecolor: ink, spikethickness: 1, automargin: true };
  const font = { family: variable("--sans"), size: 13, color: ink };
  const traces = figure.data.map((trace) => {
    const color = variable(`--series-${trace.meta.series}`);
    return {
      ...trace,
      visible: visible(trace),
      line: { ...trace.line, color },
      marker: { ...trace.marker, color },
    };
  });
  const layout = {
    ...figure.layout,
    width: place.clientWidth,
    height: place.clientHeight,
    font,
    paper_bgcolor: paper,
    plot_bgcolor: paper,
    hoverlabel: { bgcolor: paper, bordercolor: rule, font },
    xaxis: { ...figure.layout.xaxis, ...axis },
    yaxis: { ...figure.layout.yaxis, ...axis },
  };
  return Plotly.react(place, traces, layout, CONFIG);
}

// PSNR over the iterations ----------------------------------------------------------------------

const curves = {
  chart: document.getElementById("curves-chart"),
  problem: document.getElementById("curves-problem"),
  methods: [...document.querySelectorAll("input[name=curve]")],
  said: document.getElementById("curves-said"),
  position: null, // of the keyboard's cursor; null is the end
};

function chosenCurves() {
  const chosen = curves.methods.filter((box) => box.checked).map((box) => box.value);
  const { data } = DATA.convergence[curves.problem.value];
  return data.filter((trace) => chosen.includes(trace.meta.method));
}

function drawCurves() {
  const chosen = chosenCurves();
  draw(curves.chart, DATA.convergence[curves.problem.value], (trace) => chosen.includes(trace));
  sayCurves();
}

// A trace's value in words; one that is shorter says where it ended.
function value(trace, position) {
  const at = Math.min(position, trace.y.length - 1);
  const said = trace.y[at] === null ? "diverged" : `${trace.y[at].toFixed(2)} dB`;
  return at < position ? `${said} after ${at}` : said;
}

// Says the values where the cursor is, and returns that and the last position.
function sayCurves() {
  const last = Math.max(0, ...chosenCurves().map((trace) => trace.x.length - 1));
  const position = Math.min(curves.position ?? last, last);
  const values = chosenCurves().map((trace) => `${trace.name} ${value(trace, position)}`);
  const where = position === last ? "At the end" : `At iteration ${position}`;
  curves.said.textContent = values.length ? `${where}: ${values.join(", ")}.` : "No method is chosen.";
  return { position, last };
}

function moveAlong(event) {
  const { position, last } = sayCurves();
  const steps = { ArrowLeft: position - 1, ArrowRight: position + 1, Home: 0, End: last };
  if (!(event.key in steps)) return;
  event.preventDefault();
  curves.position = Math.min(last, Math.max(0, steps[event.key]));
  sayCurves();
  Plotly.Fx.hover(curves.chart, { xval: curves.position });
}

// Training --------------------------------------------------------------------------------------

const training = {
  stage: document.getElementById("training-stage"), // absent where nothing was trained
  charts: document.getElementById("training-charts"),
};

function drawTraining() {
  for (const chart of training.charts.querySelectorAll(".chart")) Plotly.purge(chart);
  training.charts.replaceChildren();
  const figures = DATA.training[training.stage.value];
  const places = figures.map(({ title }) => chartPlace(`${title}, ${training.stage.value}`, title));
  training.charts.append(...places);
  figures.forEach(({ figure }, number) => draw(places[number].lastChild, figure));
}

function chartPlace(name, title) {
  const place = document.createElement("figure");
  const caption = document.createElement("figcaption");
  const chart = document.createElement("div");
  caption.textContent = title;
  chart.className = "chart";
  chart.setAttribute("role", "img");
  chart.setAttribute("aria-label", name);
  place.append(caption, chart);
  return place;
}

// -----------------------------------------------------------------------------------------------

let width = innerWidth;

function drawAll() {
  drawCurves();
  if (training.stage) drawTraining();
}

curves.problem.addEventListener("change", drawCurves);
for (const box of curves.methods) box.addEventListener("change", drawCurves);
curves.chart.addEventListener("keydown", moveAlong);
training.stage?.addEventListener("change", drawTraining);
addEventListener("resize", () => {
  if (innerWidth !== width) requestAnimationFrame(drawAll); // scrolling on a phone changes the height
  width = innerWidth;
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
for (const [event, printing] of [["beforeprint", true], ["afterprint", false]]) {
  addEventListener(event, () => {
    document.documentElement.classList.toggle("printing", printing);
    drawAll();
  });
}
drawAll();
