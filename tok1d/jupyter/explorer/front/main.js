// The explorer: models and a picture above, then the token slider, the microscope and the filling of holes.

function render({ model, el }) {
  const send = (message, buffers = []) => { status.textContent = "…"; model.send(message, undefined, buffers); };
  const status = h("p", { className: "status", role: "status" });
  const count = model.get("count"), parts = { slider: compare(send), touch: microscope(send, count), hole: fill(send) };
  const image = chooser(send, count, false);
  const where = h("input", { type: "text", placeholder: "run or model folder, hub id", size: 20 });
  const add = () => where.value && send({ do: "add", where: where.value });
  where.addEventListener("keydown", (event) => event.key === "Enter" && add());
  const models = h("div", { className: "row models" });
  const root = h("div", { className: "tok1d-explorer", tabIndex: -1 },
    models, image.element, status, parts.slider.element, parts.touch.element, parts.hole.element);

  function offer({ choices, chosen }) {
    const boxes = choices.map((name) => h("input", { type: "checkbox", value: name, checked: chosen.includes(name), onchange: () =>
      send({ do: "models", names: boxes.filter((box) => box.checked).map((box) => box.value) }) }));
    models.replaceChildren(h("span", {}, "models"), ...boxes.map((box) => h("label", {}, box, box.value)), labeled("or", where), button("add", add));
  }
  const answers = {
    models: offer,
    frames: async (message, buffers) => {
      await parts.slider.frames(message, buffers);
      parts.hole.begin(await bitmap(buffers[0]));
      parts.touch.begin(message.tokens);
    },
    edited: parts.touch.edited, token: parts.touch.token, table: parts.touch.table, second: parts.touch.second,
    fewest: parts.slider.fewest, filled: parts.hole.filled,
  };
  function answer(message, buffers) {
    status.textContent = message.kind === "error" ? message.text : message.note ?? "";
    status.classList.toggle("error", message.kind === "error");
    answers[message.kind]?.(message, buffers.map((view) => view.buffer ? new Uint8Array(view.buffer, view.byteOffset, view.byteLength) : view));
  }
  model.on("msg:custom", answer);
  root.addEventListener("paste", (event) => {
    const [file] = event.clipboardData.files;
    if (file) { event.preventDefault(); image.upload(file); }
  });
  root.addEventListener("dragover", (event) => event.preventDefault());
  root.addEventListener("drop", (event) => {
    const [file] = event.dataTransfer.files;
    if (file) { event.preventDefault(); image.upload(file); }
  });
  el.append(root);
  send({ do: "start" });
  return () => model.off("msg:custom", answer);
}

export default { render };
