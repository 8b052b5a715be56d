// The charts: drawn from the figures in #data, in the colours of the theme, operable by keyboard.
"use strict";

const DATA = JSON.parse(document.getElementById("data").textContent);
const CONFIG = { displayModeBar: false, responsive: true };

function variable(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function draw(place, figure, visible = () => true) {
  const ink = variable("--ink"), rule = variable("--rule"), paper = variable("--paper");
  const axis = { spikecolor: ink, spikethickness: 1, gridcolor: rule, zerolinecolor: rule, linecolor: rule, automargin: true };
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

function value(trace, position) {
  const y = trace.y[Math.min(position, trace.y.length - 1)];
  return y === null || y === undefined ? "diverged" : `${y.toFixed(2)} dB`;
}

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
  for (const { title, figure } of DATA.training[training.stage.value]) {
    const place = document.createElement("figure");
    const caption = document.createElement("figcaption");
    const chart = document.createElement("div");
    caption.textContent = title;
    chart.className = "chart";
    chart.setAttribute("role", "img");
    chart.setAttribute("aria-label", `${title}, ${training.stage.value}`);
    place.append(caption, chart);
    training.charts.append(place);
    draw(chart, figure);
  }
}

// -----------------------------------------------------------------------------------------------

function drawAll() {
  drawCurves();
  if (training.stage) drawTraining();
}

curves.problem.addEventListener("change", drawCurves);
for (const box of curves.methods) box.addEventListener("change", drawCurves);
curves.chart.addEventListener("keydown", moveAlong);
training.stage?.addEventListener("change", drawTraining);
for (const theme of ["(prefers-color-scheme: dark)", "print"]) {
  matchMedia(theme).addEventListener("change", drawAll);
}
drawAll();
