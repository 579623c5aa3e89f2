// Fill a hole without a generator: the tokens of the frozen tokenizer are optimized until the rest fits.

function fill(send) {
  const view = pane("the hole");
  const bar = h("progress", { max: 1, value: 0, "aria-label": "progress", hidden: true });
  const says = h("output", {});
  const hole = [25, 25, 50, 50]; // left, top, width, height in percent
  const fields = ["left", "top", "width", "height"].map((name, i) =>
    labeled(name, number(hole[i], 0, 100, 1, (event) => { hole[i] = Number(event.target.value); draw(); }), " %"));
  const start = button("fill", () => send({ do: "fill", hole })),
    like = button("towards the second image instead", () => send({ do: "resemble" })), stop = button("stop", () => send({ do: "stop" }));
  stop.disabled = true;
  let original = null, from = null;

  function draw() {
    if (!original) return;
    view.show(original, "the hole, to be filled; drag to draw another", (context, width, height) => {
      context.fillStyle = "#888";
      context.fillRect((hole[0] / 100) * width, (hole[1] / 100) * height, (hole[2] / 100) * width, (hole[3] / 100) * height);
    });
  }
  const place = (event) => {
    const box = view.canvas.getBoundingClientRect();
    return [(100 * (event.clientX - box.left)) / box.width, (100 * (event.clientY - box.top)) / box.height];
  };
  view.canvas.addEventListener("pointerdown", (event) => { from = place(event); view.canvas.setPointerCapture(event.pointerId); });
  view.canvas.addEventListener("pointerup", () => { from = null; });
  view.canvas.addEventListener("pointermove", (event) => {
    if (!from) return;
    const to = place(event).map((x) => Math.max(0, Math.min(100, x)));
    const ends = [0, 1].map((i) => [Math.min(from[i], to[i]), Math.max(from[i], to[i])]);
    [hole[0], hole[1]] = [Math.round(ends[0][0]), Math.round(ends[1][0])];
    [hole[2], hole[3]] = [Math.round(ends[0][1] - ends[0][0]), Math.round(ends[1][1] - ends[1][0])];
    fields.forEach((field, i) => { field.querySelector("input").value = hole[i]; });
    draw();
  });

  function begin(picture) { original = picture; says.textContent = ""; draw(); }
  async function filled(message, buffers) {
    const [image] = await Promise.all(buffers.map(bitmap));
    view.show(image, message.text);
    bar.hidden = stop.disabled = message.done;
    start.disabled = like.disabled = !message.done;
    bar.value = message.share;
    says.textContent = message.text;
  }
  const element = h("details", {}, h("summary", {}, "Fill a hole, without a generator"),
    h("div", { className: "panes" }, view.figure),
    h("div", { className: "row" }, ...fields, start, like, stop, bar, says));
  return { element, begin, filled };
}
