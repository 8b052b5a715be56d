// The images: two of them under a slider, and the details of all side by side.
"use strict";

const { comparisons: COMPARISONS, files: FILES } = DATA.pictures;
const BLINK_MS = 700;

const images = Object.fromEntries(
  ["problem", "image", "left", "right"].map((name) => [name, document.getElementById(`images-${name}`)]),
);
const stage = document.getElementById("stage");
const split = document.getElementById("split");
const blink = document.getElementById("blink");
let blinking = null;

function comparison() {
  return COMPARISONS[images.problem.value][images.image.value];
}

function described(view) {
  return `${view.name}, ${images.image.value}, ${images.problem.selectedOptions[0].text}`;
}

function picture(file, alt) {
  const img = new Image();
  img.src = FILES[file];
  img.alt = alt;
  return img;
}

function showSides() {
  const { views, width, height, left, top, side } = comparison();
  for (const name of ["left", "right"]) {
    const view = views[images[name].selectedIndex];
    const img = document.getElementById(`picture-${name}`);
    img.src = FILES[view.picture];
    img.alt = described(view);
    document.getElementById(`caption-${name}`).textContent = [view.name, view.caption].filter(Boolean).join(", ");
  }
  stage.style.setProperty("--ratio", `${width} / ${height}`);
  stage.style.setProperty("--width", `${Math.max(width, 448)}px`);
  Object.assign(document.getElementById("detail-box").style, {
    left: `${(100 * left) / width}%`,
    top: `${(100 * top) / height}%`,
    width: `${(100 * side) / width}%`,
    height: `${(100 * side) / height}%`,
  });
}

function showDetails() {
  document.getElementById("error-full").textContent = comparison().error_full;
  const strip = document.getElementById("details");
  strip.replaceChildren(
    ...comparison().views.map((view) => {
      const figure = document.createElement("figure");
      const caption = document.createElement("figcaption");
      const [psnr] = view.caption.split(",");
      caption.append(view.name, document.createElement("br"), psnr);
      figure.append(caption, picture(view.detail, `Detail of ${described(view)}`));
      if (FILES[view.error]) figure.append(picture(view.error, `Error of ${described(view)}`));
      return figure;
    }),
  );
}

function show() {
  showSides();
  showDetails();
}

function setSplit() {
  stage.style.setProperty("--split", `${split.value}%`);
}

function dragSplit(event) {
  if (event.type === "pointermove" && !(event.buttons & 1)) return;
  const box = stage.getBoundingClientRect();
  split.value = (100 * (event.clientX - box.left)) / box.width;
  setSplit();
}

function toggleBlink() {
  if (blinking) {
    clearInterval(blinking);
    blinking = null;
  } else {
    const swap = () => {
      split.value = split.value < 50 ? 100 : 0;
      setSplit();
    };
    swap();
    blinking = setInterval(swap, BLINK_MS);
  }
  blink.setAttribute("aria-pressed", String(blinking !== null));
}

const names = comparison().views.map((view) => view.name);
for (const name of ["left", "right"]) {
  images[name].replaceChildren(...names.map((text) => new Option(text)));
}
images.left.selectedIndex = 1;
images.right.selectedIndex = names.length - 1;
images.problem.addEventListener("change", show);
images.image.addEventListener("change", show);
images.left.addEventListener("change", showSides);
images.right.addEventListener("change", showSides);
split.addEventListener("input", setSplit);
stage.addEventListener("pointerdown", dragSplit);
stage.addEventListener("pointermove", dragSplit);
blink.addEventListener("click", toggleBlink);
setSplit();
show();
