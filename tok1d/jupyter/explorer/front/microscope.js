// The microscope: tokens that are dropped, edited, shuffled, copied or taken from a second image.

function microscope(send, count) {
  const state = { ids: [], now: [], second: null, at: 0, asked: 0, waiting: false, again: null };
  const strip = h("div", { className: "strip", role: "listbox", "aria-label": "tokens" });
  const [picture, effect, attention] = [pane("edited"), pane("effect"), pane("attention")];
  const says = h("p", { className: "says" }), why = h("p", { className: "hint" }), off = h("p", { className: "hint" });
  const others = h("div", { className: "panes small" });
  const code = number(0, 0, 0, 1, () => edit((now) => { now[state.at] = Number(code.value); }));
  const target = number(0, 0, 0, 1, null), first = number(1, 1, 1, 1, null);
  const blend = slider(1, "share of the second image", () => ask({ do: "blend", share: Number(blend.value) }));
  const other = chooser(send, count, true);
  const rest = h("div", { className: "row", hidden: true },
    button("take its token", () => edit((now) => { now[state.at] = state.second[state.at]; })),
    labeled("take its first", first), button("tokens", () => edit((now) => {
      for (let k = 0; k < Number(first.value); k++) now[k] = state.second[k];
    })), labeled("blend", blend));

  // one question at a time: while the kernel decodes, only the newest one waits
  function ask(message) {
    if (state.waiting) { state.again = message; return; }
    state.waiting = true;
    send(message);
  }
  function edit(change) { change(state.now); tokens(); ask({ do: "decode", ids: state.now }); }
  function select(k, focus = false) {
    state.at = Math.max(0, Math.min(state.ids.length - 1, k));
    code.value = state.now[state.at] ?? state.ids[state.at];
    tokens();
    if (focus) strip.children[state.at].focus();
    send({ do: "token", k: state.at });
  }
  function tokens() {
    [...strip.children].forEach((cell, k) => {
      const value = state.now[k], kept = value !== null;
      cell.className = kept ? (value === state.ids[k] ? "" : "edited") : "dropped";
      cell.setAttribute("aria-selected", k === state.at);
      cell.tabIndex = k === state.at ? 0 : -1;
      cell.setAttribute("aria-label", `token ${k}, ${kept ? `code ${value}` : "dropped"}`);
      cell.title = cell.getAttribute("aria-label");
    });
  }
  const drop = (now) => { now[state.at] = now[state.at] === null ? state.ids[state.at] : null; };
  function keys(event) {
    const moves = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 8, ArrowUp: -8 };
    if (event.key in moves) select(state.at + moves[event.key], true);
    else if (["Delete", "Backspace", "d"].includes(event.key)) edit(drop);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
  strip.addEventListener("keydown", keys);

  function begin(message) {
    Object.assign(state, { ids: message.ids, now: [...message.ids], at: 0, second: null, waiting: false, again: null });
    details.hidden = !message.ids.length;
    off.textContent = details.hidden ? message.why : "";
    why.textContent = message.why;
    attention.figure.hidden = Boolean(message.why);
    rest.hidden = true;
    code.max = message.codebook - 1;
    target.max = message.ids.length - 1;
    first.max = message.ids.length;
    strip.replaceChildren(...message.ids.map((_, k) => h("button", { type: "button", role: "option", onclick: () => select(k) }, k)));
    if (!message.ids.length) return;
    tokens();
    ask({ do: "decode", ids: state.now });
    if (details.open) look();
  }
  const look = () => { send({ do: "table" }); select(0); };

  async function edited(message, buffers) {
    state.waiting = false;
    const [image] = await Promise.all(buffers.map(bitmap));
    picture.show(image, message.text);
    picture.canvas.dataset.answered = ++state.asked;
    if (state.again) { const next = state.again; state.again = null; ask(next); }
  }
  async function token(message, buffers) {
    if (message.k !== state.at) return;
    const [map, ...rest] = await Promise.all(buffers.map(bitmap));
    effect.show(map, `what changes without token ${message.k}`);
    if (message.looks) attention.show(rest.shift(), `where token ${message.k} looks`);
    says.textContent = message.text;
    others.replaceChildren(...message.codes.map((value, i) => {
      const near = pane("");
      near.show(rest[i], `code ${value}`);
      const take = button("", () => edit((now) => { now[message.k] = value; }), `take code ${value}`);
      take.append(near.canvas, `code ${value}`);
      return take;
    }));
  }
  function table(message) {
    const most = Math.max(...message.effects);
    message.effects.forEach((share, k) => strip.children[k]?.style.setProperty("--effect", Math.sqrt(share / most)));
  }
  function second(message) { state.second = message.ids; rest.hidden = false; blend.value = 0; }

  const all = (keep) => edit((now) => state.ids.forEach((id, k) => { now[k] = keep(k) ? id : null; }));
  const details = h("details", { ontoggle: () => details.open && state.ids.length && look() },
    h("summary", {}, "Microscope: touch the tokens"),
    h("p", { className: "hint" }, "Darker tokens change more. Arrows move, Delete drops."),
    strip,
    h("div", { className: "row" },
      button("drop or keep it", () => edit(drop)), button("keep only it", () => all((k) => k === state.at)),
      button("drop all after it", () => all((k) => k <= state.at)),
      button("shuffle", () => edit((now) => {
        for (let i = now.length - 1; i > 0; i--) {
          const j = Math.floor(Math.random() * (i + 1));
          [now[i], now[j]] = [now[j], now[i]];
        }
      })),
      labeled("its code", code), labeled("copy it to token", target),
      button("copy", () => edit((now) => { now[Number(target.value)] = now[state.at]; })),
      button("reset", () => edit((now) => state.ids.forEach((id, k) => { now[k] = id; })))),
    h("div", { className: "panes" }, picture.figure, effect.figure, attention.figure), why, says, others,
    h("p", { className: "hint" }, "A second image, to take tokens from:"), other.element, rest);
  return { element: h("div", {}, off, details), begin, edited, token, table, second };
}
