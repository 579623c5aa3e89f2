// The token slider: original and reconstructions at 1 … K tokens, with their numbers.

const COLORS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00"];
const METRICS = { psnr: ["PSNR", "dB", 1], ssim: ["SSIM", "", 3], lpips: ["LPIPS", "", 3], vgg_distance: ["VGG16 distance", "", 3], bits: ["bits", "", 0] };

function compare(send) {
  const state = { rows: [], original: null, counts: [], at: 0, playing: 0 };
  const panes = h("div", { className: "panes" });
  const text = h("output", { className: "says" });
  const range = h("input", {
    type: "range", min: 0, max: 0, value: 0, step: 1, "aria-label": "number of tokens",
    oninput: () => go(Number(range.value)),
  });
  const play = button("play", toggle);
  const share = slider(1, "place of the wipe", draw);
  share.value = 0.5;
  const mode = h("select", { onchange: draw, "aria-label": "comparison" },
    ...["side by side", "wipe", "difference × 4"].map((name) => h("option", { value: name }, name)));
  const metric = h("select", { onchange: chart, "aria-label": "number" });
  const plot = h("div", { className: "plot" });
  const wish = number("", 0, 60, 0.5, () => wish.value && send({ do: "fewest", psnr: Number(wish.value) }));
  const found = h("output", {});
  let own = [];

  function toggle() {
    if (state.playing) { clearInterval(state.playing); state.playing = 0; }
    else state.playing = setInterval(() => {
      if (!range.isConnected) return toggle();
      go((state.at + 1) % state.counts.length);
    }, 600);
    play.textContent = state.playing ? "stop" : "play";
  }
  function go(at) { state.at = at; range.value = at; draw(); mark(); }

  // the frame of a row at a count: its own, or that of the next smaller count it has
  const frameAt = (row, count) => row.frames[row.counts.findLastIndex((own) => own <= count)];
  const says = (row, i) => {
    const numbers = Object.keys(METRICS).filter((name) => row[name] && name !== "bits")
      .map((name) => `${name === "psnr" ? "" : METRICS[name][0] + " "}${row[name][i].toFixed(METRICS[name][2])}${METRICS[name][1] && " " + METRICS[name][1]}`);
    return `${row.name}: ${numbers.join(" · ")}`;
  };
  function draw() {
    if (!state.original) return;
    const count = state.counts[state.at], wiping = mode.value === "wipe";
    share.parentElement.hidden = !wiping;
    own[0].show(state.original, state.label);
    state.rows.forEach((row, r) => {
      const i = row.counts.findLastIndex((own) => own <= count), frame = row.frames[i];
      if (!frame) return own[r + 1].show(state.original, `${row.name} begins at ${row.counts[0]} tokens`, (c, w, hh) => c.clearRect(0, 0, w, hh));
      own[r + 1].show(frame, says(row, i), (context, width, height) => {
        if (wiping) {
          const x = Math.round(Number(share.value) * width);
          if (x) context.drawImage(state.original, 0, 0, x, height, 0, 0, x, height);
          context.fillStyle = "#fff";
          context.fillRect(x, 0, Math.max(1, width / 128), height);
        } else if (mode.value.startsWith("difference")) difference(context, state.original, frame);
      });
    });
    const bits = state.rows[0].bits[state.rows[0].counts.findLastIndex((own) => own <= count)];
    text.textContent = `${count} token${count > 1 ? "s" : ""}` + (bits ? ` · ${Math.round(bits).toLocaleString()} bits` : "");
    range.setAttribute("aria-valuetext", text.textContent);
  }

  const SVG = (tag, attributes, ...children) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };
  let place = () => 0, line = null;
  function chart() {
    const name = metric.value, [W, H, L, B] = [430, 150, 38, 22], rows = state.rows.filter((row) => row[name]);
    const all = rows.flatMap((row) => row[name]), [low, high] = [Math.min(...all), Math.max(...all)];
    const wide = Math.log2(state.counts.at(-1)) - Math.log2(state.counts[0]) || 1;
    place = (count) => L + 6 + ((Math.log2(count) - Math.log2(state.counts[0])) / wide) * (W - L - 20);
    const y = (value) => 8 + (1 - (value - low) / (high - low || 1)) * (H - B - 16);
    const svg = SVG("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `${METRICS[name][0]} against tokens` });
    for (const value of [low, (low + high) / 2, high]) {
      svg.append(SVG("line", { x1: L, x2: W, y1: y(value), y2: y(value), class: "grid" }),
        SVG("text", { x: L - 4, y: y(value) + 3, "text-anchor": "end" }, value.toFixed(Math.min(METRICS[name][2], 2))));
    }
    for (const count of state.counts) svg.append(SVG("text", { x: place(count), y: H - 6, "text-anchor": "middle" }, count));
    rows.forEach((row) => {
      const color = row.dashed ? "#888888" : COLORS[state.rows.indexOf(row) % COLORS.length];
      const points = row.counts.map((count, i) => `${place(count)},${y(row[name][i])}`).join(" ");
      svg.append(SVG("polyline", { points, fill: "none", stroke: color, "stroke-width": 2, "stroke-dasharray": row.dashed ? "5 4" : "none" }));
      row.counts.forEach((count, i) => svg.append(SVG("circle", { cx: place(count), cy: y(row[name][i]), r: 2.5, fill: color })));
    });
    line = SVG("line", { y1: 4, y2: H - B, class: "mark" });
    svg.append(line);
    plot.replaceChildren(svg, h("p", { className: "legend" }, ...rows.map((row) =>
      h("span", { style: `--color: ${row.dashed ? "#888888" : COLORS[state.rows.indexOf(row) % COLORS.length]}` }, row.name))));
    mark();
  }
  function mark() {
    if (!line) return;
    const x = place(state.counts[state.at]);
    line.setAttribute("x1", x);
    line.setAttribute("x2", x);
  }

  async function frames(message, buffers) {
    const [original, ...rest] = await Promise.all(buffers.map(bitmap));
    const count = state.counts[state.at];
    let taken = 0;
    const rows = message.rows.map((row) => ({ ...row, frames: rest.slice(taken, (taken += row.counts.length)) }));
    Object.assign(state, { original, rows, label: message.label });
    state.counts = [...new Set(state.rows.flatMap((row) => row.counts))].sort((a, b) => a - b);
    const before = state.counts.indexOf(count);
    state.at = before >= 0 ? before : state.counts.length >> 1;
    range.max = state.counts.length - 1;
    range.value = state.at;
    own = [pane(message.label), ...state.rows.map((row) => pane(row.name))];
    panes.replaceChildren(...own.map((each) => each.figure));
    const names = Object.keys(METRICS).filter((name) => state.rows.some((row) => row[name]));
    metric.replaceChildren(...names.map((name) => h("option", { value: name }, METRICS[name][0])));
    found.textContent = "";
    draw();
    chart();
  }
  function fewest(message) {
    found.textContent = message.text;
    if (message.count) go(state.counts.findLastIndex((count) => count <= message.count));
  }
  const element = h("section", { "aria-label": "token slider" },
    h("div", { className: "row" }, play, range, text),
    h("div", { className: "row" }, mode, labeled("wipe", share)),
    panes, h("div", { className: "row" }, labeled("against tokens:", metric), labeled("fewest tokens for", wish, " dB"), found), plot);
  return { element, frames, fewest };
}
