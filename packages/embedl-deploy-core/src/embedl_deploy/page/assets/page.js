"use strict";

// Tables: a click on a title sorts by its column, another one turns the order around. What has no value comes last.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => sort(table, heads, head, column)));
}

function sort(table, heads, head, column) {
  const numbers = head.classList.contains("n");
  const now = head.getAttribute("aria-sort");
  const down = now ? now === "ascending" : numbers;
  heads.forEach(other => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const keyed = [...table.tBodies[0].rows].map(row => [key(row.cells[column], numbers), row]);
  keyed.sort(([a], [b]) => (a === null) - (b === null) || (a === null ? 0 : (down ? -1 : 1) * order(a, b, numbers)));
  table.tBodies[0].append(...keyed.map(([, row]) => row));
}

function key(cell, numbers) {
  if (numbers) return cell.dataset.v === undefined ? null : Number(cell.dataset.v);
  return cell.textContent.trim() || null;
}

function order(a, b, numbers) {
  return numbers ? (a < b ? -1 : a > b ? 1 : 0) : a.localeCompare(b, "en", { numeric: true });
}

// The graph: nodes are in a column, in the order in which they run. An edge to the next one is in that column, any other
// in a lane beside it, one lane for each value, however many read it. A closed block stands for what is in it.
const graph = document.getElementById("graph");
const STEP = 8, MOST = 14, HALF = 50;

function draw() {
  const rows = [...graph.querySelectorAll(".row")].filter(isShown);
  const places = new Map();  // of a node, the line that stands for it
  rows.forEach((row, at) => nodesOf(row).forEach(node => places.set(node, at)));
  const stops = [...new Set(places.values())].sort((a, b) => a - b);
  const next = new Map(stops.map((at, index) => [at, stops[index + 1]]));
  const straight = new Set(), far = new Map();
  for (const node of graph.querySelectorAll("[data-in]")) {
    const to = places.get(Number(node.dataset.n));
    for (const number of node.dataset.in.split(" ")) {
      const from = places.get(Number(number));
      if (from === undefined || from >= to) continue;
      if (next.get(from) === to) straight.add(from);
      else far.set(from, (far.get(from) || new Set()).add(to));
    }
  }
  const ends = [], lanes = [];
  for (const [from, readers] of [...far].sort(([a], [b]) => a - b)) {
    const last = Math.max(...readers);
    let lane = ends.findIndex(end => end <= from);
    if (lane < 0) lane = Math.min(ends.length, MOST - 1);
    ends[lane] = Math.max(last, ends[lane] || 0);
    lanes.push({ from, last, readers, lane });
  }
  const width = 14 + ends.length * STEP, middle = width - 1;
  graph.style.setProperty("--rail", `${width}px`);
  rows.forEach((row, at) => {
    const d = [];
    const before = Math.max(...stops.filter(stop => stop < at), -1);
    if (straight.has(before)) d.push(`M${middle} 0V${places.size && stops.includes(at) ? HALF : 100}`);
    if (straight.has(at)) d.push(`M${middle} ${HALF}V100`);
    for (const { from, last, readers, lane } of lanes) {
      if (at < from || at > last) continue;
      const x = middle - (lane + 1) * STEP;
      if (at === from) d.push(`M${middle} ${HALF}C${x} ${HALF} ${x} 75 ${x} 100`);
      if (from < at && at < last) d.push(`M${x} 0V100`);
      if (readers.has(at)) d.push(`M${x} 0C${x} 25 ${x} ${HALF} ${middle} ${HALF}`);
    }
    row.querySelector(".lanes").replaceChildren(picture(width + 6, d.join("")));
  });
}

function isShown(row) {
  const around = (row.tagName === "SUMMARY" ? row.parentElement : row).parentElement.closest("details:not([open])");
  return !around || !graph.contains(around);
}

function nodesOf(row) {
  if (row.tagName !== "SUMMARY") return [Number(row.dataset.n)];
  if (row.parentElement.open) return [];
  return [...row.parentElement.querySelectorAll("[data-n]")].map(inner => Number(inner.dataset.n));
}

function picture(width, d) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", `0 0 ${width} 100`);
  svg.setAttribute("preserveAspectRatio", "none");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", d);
  svg.append(path);
  return svg;
}

if (graph) {
  graph.addEventListener("toggle", draw, true);
  for (const button of document.querySelectorAll("[data-blocks]")) {
    button.addEventListener("click", () => {
      const blocks = [...graph.querySelectorAll("details")];
      for (const block of blocks) block.open = button.dataset.blocks === "open" || block.querySelector("details") !== null;
      draw();
    });
  }
  draw();
}

// A link may lead into what is closed.
function reveal() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  for (let around = target.closest("details"); around; around = around.parentElement.closest("details")) around.open = true;
  target.scrollIntoView({ block: "center" });
}
addEventListener("hashchange", reveal);
reveal();
