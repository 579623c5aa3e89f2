// Elements, pictures and canvases: what the other parts are made of.

function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  element.setAttribute("data-lm-suppress-shortcuts", "true"); // JupyterLab would take the keys
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element && name !== "list") element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

const labeled = (text, control, after = "") => h("label", {}, h("span", {}, text), control, after);
const button = (text, onclick, title = "") => h("button", { type: "button", onclick, title }, text);
const number = (value, min, max, step, onchange) => h("input", { type: "number", value, min, max, step, onchange });
const slider = (max, name, oninput) =>
  h("input", { type: "range", min: 0, max, value: 0, step: "any", "aria-label": name, oninput });

const bitmap = (bytes) => createImageBitmap(new Blob([bytes]));

// A picture with a caption; `show` draws it in the same animation frame, since bitmaps are decoded beforehand.
function pane(name) {
  const canvas = h("canvas", { role: "img", "aria-label": name, width: 64, height: 64 });
  const caption = h("figcaption", {}, name);
  const figure = h("figure", {}, canvas, caption);
  function show(picture, text, overlay = null) {
    canvas.width = picture.width;
    canvas.height = picture.height;
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(picture, 0, 0);
    if (overlay) overlay(context, picture.width, picture.height);
    caption.textContent = text;
    canvas.setAttribute("aria-label", text);
  }
  return { figure, canvas, caption, show };
}

const pixelsOf = (picture) => {
  const canvas = new OffscreenCanvas(picture.width, picture.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(picture, 0, 0);
  return context.getImageData(0, 0, picture.width, picture.height);
};

// Paint `context` with the difference of two pictures, four times as large as it is, on black.
function difference(context, a, b) {
  const [x, y] = [pixelsOf(a), pixelsOf(b)];
  for (let i = 0; i < x.data.length; i++) {
    x.data[i] = i % 4 === 3 ? 255 : Math.min(255, 4 * Math.abs(x.data[i] - y.data[i]));
  }
  context.putImageData(x, 0, 0);
}

// Choose a picture: by its index in the data set, a path, an upload, a paste or a drop.
function chooser(send, count, second) {
  const ask = (message, buffers = []) => send({ do: "open", second, ...message }, buffers);
  const path = h("input", { type: "text", placeholder: "path of a picture", size: 18 });
  const upload = async (file) => ask({ name: file.name || "pasted picture" }, [await file.arrayBuffer()]);
  const file = h("input", { type: "file", accept: "image/*,.heic,.heif", onchange: () => file.files[0] && upload(file.files[0]) });
  const index = number(0, 0, Math.max(0, count - 1), 1, () => ask({ index: Number(index.value) }));
  path.addEventListener("keydown", (event) => event.key === "Enter" && ask({ path: path.value }));
  const element = h(
    "div", { className: "row" },
    count ? labeled("image", index, ` of ${count.toLocaleString()}`) : null,
    labeled("or", path), button("open", () => ask({ path: path.value })),
    labeled("or upload", file),
    second ? null : h("span", { className: "hint" }, "or paste one here"),
  );
  return { element, upload };
}
