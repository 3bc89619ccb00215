// The views of views.py in a page: no library, no network, no kernel. Several views on a page share
// the first copy of this script. Every view works by mouse, touch and keyboard alike, says what it
// shows in a line of text (aria-live), and draws again when its width or the page's theme changes.
(() => {
  "use strict";
  if (window.r2aViews) return;

  // --- data ---------------------------------------------------------------------------------------

  const unpack = (text, Kind) => {
    const raw = atob(text);
    const bytes = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
    return new Kind(bytes.buffer);
  };

  // A channel holds the heaviest weights of each row (a row is a token of the answer).
  const readChannel = (packed) => {
    const steps = packed.signed ? 127 : 255;
    const bytes = unpack(packed.keys, Uint8Array); // one for each place, or two in a long trace
    const keys = bytes.length === packed.rows * packed.top ? bytes : new Uint16Array(bytes.buffer);
    const parts = unpack(packed.parts, packed.signed ? Int8Array : Uint8Array);
    const shares = packed.shares ? unpack(packed.shares, Uint8Array) : null;
    const { name, signed, first, rows, top, scale } = packed;
    const each = (row, visit) => {
      for (let i = row * top; i < (row + 1) * top; i++) {
        if (parts[i]) visit(keys[i], (parts[i] / steps) * scale[row]);
      }
    };
    return { name, signed, first, rows, each, shares };
  };

  // What is shown for a chosen token: its own row, or who reads it; for none, the mean of all rows.
  const weightsFor = (channel, length, chosen) => {
    const weights = new Float32Array(length);
    const row = chosen === null ? -1 : chosen - channel.first;
    if (row >= 0 && row < channel.rows) {
      channel.each(row, (key, weight) => (weights[key] = weight));
    } else {
      for (let r = 0; r < channel.rows; r++) {
        channel.each(r, (key, weight) => {
          if (chosen === null) weights[key] += weight / channel.rows;
          else if (key === chosen) weights[channel.first + r] = weight;
        });
      }
    }
    return weights;
  };

  const sumBySentence = (weights, sentences) => {
    const summed = weights.slice();
    for (const [start, stop] of sentences) {
      let sum = 0;
      for (let i = start; i < stop; i++) sum += weights[i];
      summed.fill(sum, start, stop);
    }
    return summed;
  };

  // --- small things -------------------------------------------------------------------------------

  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name === "class") element.className = value;
      else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
  };
  const percent = (share) => (share < 0.1 ? (100 * share).toFixed(1) : (100 * share).toFixed(0)) + "%";
  const number = (value) => (Math.abs(value) < 10 ? value.toPrecision(2) : value.toFixed(0));
  // A blank alone would be nothing to see.
  const visible = (token) => (token.trim() ? token : token.replaceAll(" ", "·")).replaceAll("\n", "⏎");
  const quoted = (token) => "“" + visible(token) + "”";
  const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
  const css = (root, name) => getComputedStyle(root).getPropertyValue(name).trim();
  const colourOf = (root, name) => {
    const text = css(root, name);
    return text.startsWith("#") ? [1, 3, 5].map((i) => parseInt(text.slice(i, i + 2), 16)) : text.match(/\d+/g).slice(0, 3).map(Number);
  };
  // Black or white, whichever stands out more: one of them always has a contrast of 4.5 or more.
  const inkOn = (colour) => {
    const [red, green, blue] = colour.map((part) => part / 255).map((part) =>
      part <= 0.03928 ? part / 12.92 : Math.pow((part + 0.055) / 1.055, 2.4));
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 ? "#000000" : "#ffffff";
  };
  const segmentNames = (trace) => trace.segments.flatMap(([name, start, stop]) => Array(stop - start).fill(name));

  const mix = (stops, at) => {
    const place = clamp(at, 0, 1) * (stops.length - 1);
    const i = Math.min(Math.floor(place), stops.length - 2);
    const part = place - i;
    return "rgb(" + stops[i].map((c, j) => Math.round(c + (stops[i + 1][j] - c) * part)).join(",") + ")";
  };
  const VIRIDIS = [[68, 1, 84], [71, 44, 122], [59, 81, 139], [44, 113, 142], [33, 144, 141],
    [39, 173, 129], [92, 200, 99], [170, 220, 50], [253, 231, 37]];
  const NO_ATTENTION = "#dddddd"; // no colour of the map
  const RED_BLUE = [[103, 0, 31], [214, 96, 77], [247, 247, 247], [67, 147, 195], [5, 48, 97]];

  // What is left out of a sparse view.
  const coverage = ({ covers }) => covers ? ` Kept: the ${covers[0]} heaviest reads of each row, ${percent(covers[1])} of its attention.` : "";

  const legend = (root, trace) => make("div", { class: "r2a-legend" }, ...trace.segments.map(([name]) =>
    make("span", {}, make("i", { style: `background:var(--c-${name})` }), trace.labels[name])));

  // A canvas as wide as its column (or `least` pixels, scrolling), sharp on dense screens.
  const canvasIn = (parent, label, paint) => {
    const canvas = make("canvas", { tabindex: "0", role: "img", "aria-label": label });
    const scroll = make("div", { class: "r2a-scroll" }, canvas);
    parent.append(scroll);
    const draw = () => {
      const width = scroll.clientWidth;
      if (!width) return;
      const size = paint.size(width);
      const dense = window.devicePixelRatio || 1;
      canvas.width = Math.round(size.width * dense);
      canvas.height = Math.round(size.height * dense);
      canvas.style.width = size.width + "px";
      canvas.style.height = size.height + "px";
      const pen = canvas.getContext("2d");
      pen.setTransform(dense, 0, 0, dense, 0, 0);
      pen.font = "11px system-ui, sans-serif";
      paint.draw(pen, size);
    };
    redraws.add([canvas, draw]);
    new ResizeObserver(draw).observe(scroll);
    return { canvas, draw, at: (event) => {
      const box = canvas.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top];
    } };
  };
  const redraws = new Set();
  const redrawAll = () => {
    for (const entry of redraws) entry[0].isConnected ? entry[1]() : redraws.delete(entry);
  };
  const themes = new MutationObserver(redrawAll);
  themes.observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
  document.addEventListener("DOMContentLoaded", () =>
    themes.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light"] }));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redrawAll);

  const ARROWS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [1, 0], ArrowDown: [-1, 0] };

  // --- token view ---------------------------------------------------------------------------------

  // What scrolls can be reached by the keyboard, what does not is no stop on the way.
  const reachable = (block) => {
    if (block.scrollHeight > block.clientHeight) block.setAttribute("tabindex", "0");
    else block.removeAttribute("tabindex");
  };

  // The text of a trace, shaded. `reader.onchoose(index or null)` hears of every choice.
  const tokenText = (root, trace, reader) => {
    const status = make("output", { class: "r2a-status", "aria-live": "polite" });
    const text = make("div", { class: "r2a-text", tabindex: "0", role: "group",
      "aria-label": "Text of the trace. Arrow keys choose a token, Home the first of the answer, Escape none." });
    const cues = new Map(trace.cues.map(([word, at]) => [at, word]));
    const starts = new Set(trace.sentences.map(([start]) => start));
    const spans = [], segments = segmentNames(trace);
    for (const [name, start, stop] of trace.segments) {
      const block = make("div");
      for (let i = start; i < stop; i++) {
        const span = make("span", { class: "r2a-token", "data-token": i });
        const piece = trace.tokens[i];
        for (const part of piece.split(/(\n)/)) {
          if (part === "\n") span.append(make("span", { class: "r2a-break" }, "⏎"), "\n");
          else if (part) span.append(part);
        }
        if (cues.has(i)) {
          span.classList.add("r2a-cue");
          span.title = "cue: " + cues.get(i);
        }
        if (starts.has(i) && i > start) span.classList.add("r2a-sentence");
        spans.push(span);
        block.append(span);
      }
      const tag = stop - start === 1 && name !== "reasoning"; // its text says which
      text.append(make("section", { class: "r2a-segment" + (tag ? " r2a-tag" : ""), "data-segment": name,
        style: `border-color:var(--c-${name})` }, ...(tag ? [] : [make("b", {}, trace.labels[name])]), block));
      new ResizeObserver(() => reachable(block)).observe(block);
    }
    const [first, start] = reader.start ?? [0, null];
    let channel = reader.channels[first], sentences = false, pinned = start, hovered = null, lit = [];
    const shown = () => (hovered === null ? pinned : hovered);

    const paint = () => {
      const chosen = shown();
      let weights = weightsFor(channel, spans.length, chosen);
      reader.weights = weights;
      if (sentences) weights = sumBySentence(weights, trace.sentences);
      let most = 1e-9;
      // the sink at BOS would leave everything else pale
      for (let i = trace.segments[0][2]; i < weights.length; i++) most = Math.max(most, Math.abs(weights[i]));
      for (const i of lit) {
        spans[i].style.backgroundColor = spans[i].style.color = "";
        spans[i].classList.remove("r2a-against");
      }
      lit = [];
      const paper = colourOf(root, "background-color");
      const colours = Object.fromEntries(trace.segments.map(([name]) => [name, colourOf(root, "--c-" + name)]));
      for (let i = 0; i < weights.length; i++) {
        const strength = Math.pow(Math.min(1, Math.abs(weights[i]) / most), 0.7);
        if (strength < 0.04) continue;
        lit.push(i);
        spans[i].style.backgroundColor =
          `color-mix(in srgb, var(--c-${segments[i]}) ${Math.round(100 * strength)}%, transparent)`;
        spans[i].style.color = inkOn(paper.map((from, j) => from + (colours[segments[i]][j] - from) * strength));
        if (weights[i] < 0) spans[i].classList.add("r2a-against");
      }
      text.querySelector(".r2a-chosen")?.classList.remove("r2a-chosen");
      if (chosen !== null) spans[chosen].classList.add("r2a-chosen");
      status.textContent = describe(chosen, reader.weights);
      reader.onpaint(chosen, reader.weights);
    };

    const describe = (chosen, weights) => {
      // blanks and line breaks say nothing to a reader, however much is read there
      const heaviest = [...weights.keys()].filter((i) => weights[i] && trace.tokens[i].trim()).sort((a, b) =>
        Math.abs(weights[b]) - Math.abs(weights[a])).slice(0, 4);
      const say = channel.signed ? number : percent;
      const list = heaviest.map((i) => `${quoted(trace.tokens[i])} (${trace.labels[segments[i]]}) ${say(weights[i])}`).join(", ");
      if (chosen === null) return `All tokens of the answer together, ${channel.name}. Most: ${list}.`;
      const row = chosen - channel.first;
      if (row < 0 || row >= channel.rows) {
        return list ? `${quoted(trace.tokens[chosen])} was read to write ${list}, ${channel.name}.`
          : `${quoted(trace.tokens[chosen])} is among the heaviest reads for no token of the answer.`;
      }
      const shares = channel.shares && trace.segments.map(([name], s) =>
        `${trace.labels[name]} ${percent(channel.shares[row * trace.segments.length + s] / 255)}`).join(", ");
      return `To write ${quoted(trace.tokens[chosen])}, token ${row + 1} of ${channel.rows} of the answer, ${channel.name}` +
        (shares ? ` read ${shares}. Most: ${list}.` : `, most: ${list}.`);
    };

    const choose = (index, scroll = false) => {
      pinned = index;
      hovered = null;
      paint();
      if (scroll && index !== null) {
        const block = spans[index].closest(".r2a-segment > div");
        const top = spans[index].offsetTop - block.offsetTop;
        if (top < block.scrollTop || top > block.scrollTop + block.clientHeight - 24) block.scrollTop = top - block.clientHeight / 2;
      }
    };
    const tokenOf = (event) => {
      const span = event.target.closest(".r2a-token");
      return span ? Number(span.dataset.token) : null;
    };
    text.addEventListener("pointermove", (event) => {
      if (event.pointerType !== "mouse") return;
      const index = tokenOf(event);
      if (index !== hovered && index !== null) { hovered = index; paint(); }
    });
    text.addEventListener("pointerleave", () => { if (hovered !== null) { hovered = null; paint(); } });
    text.addEventListener("click", (event) => {
      const index = tokenOf(event);
      if (index !== null) choose(index === pinned ? null : index);
    });
    text.addEventListener("keydown", (event) => {
      const from = pinned === null ? channel.first - 1 : pinned;
      const to = { ArrowRight: from + 1, ArrowLeft: from - 1, Home: channel.first,
        End: channel.first + channel.rows - 1, Escape: null }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      choose(to === null ? null : clamp(to, 0, spans.length - 1), true);
    });

    const controls = make("div", { class: "r2a-controls" });
    if (reader.channels.length > 1) {
      controls.append(make("label", {}, "Read by", make("select", { onchange: (event) => {
        channel = reader.channels[event.target.selectedIndex];
        reader.channel = channel;
        paint();
      } }, ...reader.channels.map((c, i) => make("option", i === first ? { selected: "" } : {}, c.name)))));
    }
    if (trace.sentences.length) {
      controls.append(make("label", {}, make("input", { type: "checkbox", onchange: (event) => {
        sentences = event.target.checked;
        paint();
      } }), "whole sentences"));
    }
    controls.append(legend(root, trace));
    reader.channel = channel;
    root.append(controls);
    redraws.add([text, paint]);
    return { text, status, choose, paint };
  };

  const strip = (root, parent, trace, reader, choose) => {
    const height = 44, band = 6;
    const view = canvasIn(parent, "How much is read at each place of the trace", {
      size: (width) => ({ width, height }),
      draw: (pen, { width }) => {
        const step = width / trace.tokens.length, weights = reader.weights;
        let most = 1e-9;
        for (let i = trace.segments[0][2]; i < weights.length; i++) most = Math.max(most, Math.abs(weights[i]));
        for (const [name, start, stop] of trace.segments) {
          pen.fillStyle = css(root, "--c-" + name);
          pen.fillRect(start * step, height - band, Math.max(1, (stop - start) * step), band);
          for (let i = start; i < stop; i++) {
            const tall = Math.min(1, Math.abs(weights[i]) / most) * (height - band - 6);
            if (tall > 0.3) pen.fillRect(i * step, height - band - 1 - tall, Math.max(1, step), tall);
          }
        }
        pen.fillStyle = css(root, "--ink");
        for (const [, at] of trace.cues) pen.fillRect(at * step, height - band, 1.5, band);
        if (reader.chosen !== null) pen.fillRect(reader.chosen * step, 0, Math.max(1.5, step), 4);
      },
    });
    view.canvas.removeAttribute("tabindex");
    view.canvas.addEventListener("click", (event) => {
      const [x] = view.at(event);
      choose(clamp(Math.floor((x / view.canvas.clientWidth) * trace.tokens.length), 0, trace.tokens.length - 1), true);
    });
    return view;
  };

  // Answer rows by all keys; `onrow(token)` when a row is clicked.
  const attentionMap = (root, parent, trace, current, onrow) => {
    const band = 6;
    const view = canvasIn(parent, "Attention map: a row for each token of the answer, a column for each token before it", {
      size: (width) => {
        const rows = current().rows;
        return { width, height: Math.round(rows * clamp(240 / rows, 1, 9)) + band };
      },
      draw: (pen, { width, height }) => {
        const channel = current(), stepX = width / trace.tokens.length, stepY = (height - band) / channel.rows;
        pen.fillStyle = css(root, "--ink");
        for (let r = 0; r < channel.rows; r++) {
          let most = 1e-9;
          channel.each(r, (key, weight) => { if (key >= trace.segments[0][2]) most = Math.max(most, Math.abs(weight)); });
          channel.each(r, (key, weight) => {
            pen.globalAlpha = Math.pow(Math.min(1, Math.abs(weight) / most), 0.7);
            pen.fillRect(key * stepX, r * stepY, Math.max(1, stepX), Math.max(1, stepY));
          });
        }
        pen.globalAlpha = 1;
        for (const [name, start, stop] of trace.segments) {
          pen.fillStyle = css(root, "--c-" + name);
          pen.fillRect(start * stepX, height - band, Math.max(1, (stop - start) * stepX), band);
          if (name === "reasoning") {
            pen.strokeStyle = css(root, "--c-answer");
            pen.lineWidth = 1.5;
            pen.strokeRect(start * stepX, 0.75, (stop - start) * stepX, height - band - 1.5);
          }
        }
        pen.strokeStyle = css(root, "--ink");
        pen.lineWidth = 1;
        pen.setLineDash([3, 3]);
        for (const [, at] of trace.cues) {
          pen.beginPath();
          pen.moveTo((at + 0.5) * stepX, 0);
          pen.lineTo((at + 0.5) * stepX, height - band);
          pen.stroke();
        }
        pen.setLineDash([]);
        view.mark(view.row);
      },
    });
    // The chosen row is framed by an element above the canvas: to draw a long map again takes time.
    const frame = make("div", { class: "r2a-row", hidden: "" });
    view.canvas.parentElement.append(frame);
    view.row = null;
    view.mark = (row) => {
      const { rows } = current(), step = (view.canvas.clientHeight - band) / rows;
      view.row = row !== null && row >= 0 && row < rows ? row : null;
      frame.hidden = view.row === null;
      frame.style.top = view.row * step - 2 + "px";
      frame.style.height = step + 4 + "px";
    };
    view.canvas.addEventListener("click", (event) => {
      const [, y] = view.at(event);
      const channel = current();
      onrow(channel.first + clamp(Math.floor((y / (view.canvas.clientHeight - band)) * channel.rows), 0, channel.rows - 1));
    });
    view.canvas.addEventListener("keydown", (event) => {
      const move = { ArrowUp: -1, ArrowDown: 1 }[event.key];
      if (!move) return;
      event.preventDefault();
      const channel = current();
      onrow(channel.first + clamp((view.row ?? -1) + move, 0, channel.rows - 1));
    });
    return view;
  };

  const tokens = (root, data) => {
    const { trace } = data;
    const reader = { channels: data.channels.map(readChannel), weights: new Float32Array(trace.tokens.length), chosen: null, start: data.start };
    let along = null, map = null, drawn = null;
    reader.onpaint = (chosen) => {
      reader.chosen = chosen;
      along.draw();
      if (map && drawn !== reader.channel) map.draw();
      drawn = reader.channel;
      map?.mark(chosen === null ? null : chosen - reader.channel.first);
    };
    if (data.facts.length) {
      root.append(make("div", { class: "r2a-facts" }, ...data.facts.map(([name, value]) =>
        make("span", {}, name, " ", make("strong", {}, value)))));
    }
    const view = tokenText(root, trace, reader);
    // On a wide screen the text stands on the left, what is drawn of it on the right.
    const profile = make("div", { class: "r2a-profile" });
    const pair = make("div", { class: data.map ? "r2a-abreast" : "" }, view.status, profile, view.text);
    root.append(pair);
    along = strip(root, profile, trace, reader, view.choose);
    if (data.map) {
      const figure = make("div", { class: "r2a-map" });
      pair.append(figure);
      map = attentionMap(root, figure, trace, () => reader.channel, (token) => view.choose(token, true));
      figure.append(make("p", { class: "r2a-help" }, "A row for each token of the answer, a column for each token of the trace, stronger where more was read to write it (each row on its own scale). The green frame is the reasoning, dashed lines are cues."));
    }
    root.append(make("p", { class: "r2a-help" }, "Point at a token or tap it: the text lights up by what was read to write a token of the answer, or, for a token of the reasoning, by what it was read for. Underlined: cues. ¦ begins a sentence. Keys: ← → Home End, Escape for the whole answer." + coverage(data)));
    view.paint();
  };

  // --- grids: layers by heads, layers by tokens ------------------------------------------------------

  const grid = (root, parent, label, spec) => {
    const left = 34;
    const view = canvasIn(parent, label, {
      size: (width) => {
        const cell = clamp((width - left - 2) / spec.columns, spec.least, 56);
        return { width: Math.max(left + 2 + cell * spec.columns, Math.min(width, left + 60)),
          height: spec.rows * spec.tall + spec.foot, cell };
      },
      draw: (pen, { cell }) => {
        view.cell = cell;
        const ink = css(root, "--ink");
        for (let r = 0; r < spec.rows; r++) {
          const y = (spec.rows - 1 - r) * spec.tall; // layer 0 lies at the bottom
          for (let c = 0; c < spec.columns; c++) {
            pen.fillStyle = spec.colour(r, c);
            pen.fillRect(left + c * cell, y, cell - (cell > 5 ? 1 : 0), spec.tall - 1);
            spec.decorate?.(pen, r, c, left + c * cell, y, cell, spec.tall);
          }
          if (r % Math.ceil(12 / spec.tall) === 0) {
            pen.fillStyle = ink;
            pen.textAlign = "right";
            pen.textBaseline = "middle";
            pen.fillText(spec.rowName(r), left - 5, y + spec.tall / 2);
          }
        }
        pen.fillStyle = ink;
        spec.feet(pen, left, spec.rows * spec.tall, cell);
        if (view.chosen) {
          const [r, c] = view.chosen;
          pen.lineWidth = 3;
          pen.strokeStyle = "#ffffff";
          pen.strokeRect(left + c * cell - 1, (spec.rows - 1 - r) * spec.tall - 1, cell + 1, spec.tall + 1);
          pen.lineWidth = 1.5;
          pen.strokeStyle = "#000000";
          pen.strokeRect(left + c * cell - 1, (spec.rows - 1 - r) * spec.tall - 1, cell + 1, spec.tall + 1);
        }
      },
    });
    view.chosen = null;
    const choose = (r, c) => {
      view.chosen = [clamp(r, 0, spec.rows - 1), clamp(c, 0, spec.columns - 1)];
      view.draw();
      spec.onchoose(...view.chosen);
    };
    view.choose = choose;
    const cellAt = (event) => {
      const [x, y] = view.at(event);
      const c = Math.floor((x - left) / view.cell), r = spec.rows - 1 - Math.floor(y / spec.tall);
      return c >= 0 && c < spec.columns && r >= 0 && r < spec.rows ? [r, c] : null;
    };
    view.canvas.addEventListener("click", (event) => {
      const cell = cellAt(event);
      if (cell) choose(...cell);
    });
    view.canvas.addEventListener("pointermove", (event) => {
      const cell = event.pointerType === "mouse" ? cellAt(event) ?? view.chosen : null;
      if (cell) spec.onpoint(...cell);
    });
    view.canvas.addEventListener("pointerleave", () => view.chosen && spec.onpoint(...view.chosen));
    view.canvas.addEventListener("keydown", (event) => {
      const move = ARROWS[event.key];
      if (!move) return;
      event.preventDefault();
      const [r, c] = view.chosen ?? [0, -1];
      choose(r + move[0], c + move[1]);
      const scroll = view.canvas.parentElement;
      const x = left + view.chosen[1] * view.cell;
      if (x < scroll.scrollLeft || x > scroll.scrollLeft + scroll.clientWidth - view.cell) scroll.scrollLeft = x - scroll.clientWidth / 2;
    });
    return view;
  };

  const heads = (root, data) => {
    const { values, marks, maps, kept } = data;
    const largest = Math.max(...values.flat());
    const status = make("output", { class: "r2a-status r2a-brief", "aria-live": "polite" });
    const area = make("div", { class: "r2a-maps" });
    const traces = maps.map(({ trace, channels }) => ({ trace, channels: channels.map(readChannel) }));
    const keptAt = new Map(kept.map(([layer, head], i) => [layer + "." + head, i]));
    const marked = new Map();
    for (const [kind, list] of Object.entries(marks)) {
      for (const [layer, head] of list) {
        const key = layer + "." + head;
        marked.set(key, [...(marked.get(key) ?? []), kind]);
      }
    }
    const shapes = {
      "reasoning-focus head": (pen, x, y, r) => pen.rect(x - r, y - r, 2 * r, 2 * r),
      "induction head": (pen, x, y, r) => { pen.moveTo(x - r / 2, y - r / 2); pen.lineTo(x + r / 2, y + r / 2); pen.moveTo(x + r / 2, y - r / 2); pen.lineTo(x - r / 2, y + r / 2); },
      "retrieval head": (pen, x, y, r) => pen.arc(x, y, r * 0.7, 0, 7),
    };
    const decorate = (pen, r, c, x, y, wide, tall) => {
      for (const kind of marked.get(r + "." + c) ?? []) {
        for (const [width, colour] of [[3.5, "#ffffff"], [1.6, "#111111"]]) {
          pen.beginPath();
          shapes[kind](pen, x + wide / 2, y + tall / 2, Math.min(wide, tall) / 2 - 2.5);
          pen.lineWidth = width;
          pen.strokeStyle = colour;
          pen.stroke();
        }
      }
    };
    const tell = (layer, head) => {
      const key = layer + "." + head, i = keptAt.get(key);
      const kinds = marked.has(key) ? ", " + marked.get(key).join(" and ") : "";
      status.textContent = values[layer][head] === null ? `Layer ${layer} has no attention.` :
        `Head L${layer}.H${head}${kinds}: ${data.quantity} ${percent(values[layer][head])}.` +
        (i === undefined ? " No maps were kept for this head." : "");
    };
    // One or two traces side by side; of more, the one that is chosen.
    let drawn = [], shown = null;
    const lay = (some) => {
      area.replaceChildren();
      drawn = some.map(({ trace, channels }) => {
        const figure = make("div", { class: "r2a-map" });
        area.append(figure);
        const map = attentionMap(root, figure, trace, () => channels[shown ?? 0], () => {});
        map.canvas.removeAttribute("tabindex");
        figure.append(make("p", { class: "r2a-help" }, trace.title));
        return map;
      });
    };
    const show = (layer, head) => {
      tell(layer, head);
      const i = keptAt.get(layer + "." + head);
      area.classList.toggle("r2a-none", i === undefined); // keeps its place: nothing jumps
      if (i === undefined || i === shown) return;
      shown = i;
      for (const map of drawn) map.draw();
    };
    const bottom = make("div", { class: "r2a-legend" }, "Larger is brighter; layer 0 at the bottom. ",
      ...Object.keys(marks).map((kind) => make("span", {}, { "reasoning-focus head": "□ ", "induction head": "× ", "retrieval head": "○ " }[kind] + kind)));
    root.append(bottom);
    const tall = clamp(Math.floor(260 / values.length), 9, 30);
    const view = grid(root, root, `Layers by heads: ${data.quantity}. Arrow keys choose a head.`, {
      rows: values.length, columns: values[0].length, least: 9, tall, foot: 18,
      colour: (r, c) => (values[r][c] === null ? NO_ATTENTION : mix(VIRIDIS, values[r][c] / largest)), decorate,
      rowName: (r) => "L" + r,
      feet: (pen, left, y, cell) => {
        pen.textAlign = "center";
        pen.textBaseline = "top";
        const every = Math.ceil(22 / cell);
        for (let c = 0; c < values[0].length; c += every) pen.fillText("H" + c, left + (c + 0.5) * cell, y + 3);
      },
      onchoose: show,
      onpoint: show,
    });
    root.append(status);
    if (traces.length > 2) {
      root.append(make("div", { class: "r2a-controls" }, make("label", {}, "Trace", make("select", {
        onchange: (event) => lay([traces[event.target.selectedIndex]]),
      }, ...traces.map(({ trace }) => make("option", {}, trace.title))))));
    }
    if (traces.length) root.append(legend(root, traces[0].trace));
    root.append(area);
    lay(traces.length > 2 ? traces.slice(0, 1) : traces);
    root.append(make("p", { class: "r2a-help" }, "Point at a head, tap it or use the arrow keys: its attention on the example traces appears below, a row for each token of the answer." + coverage(data)));
    view.choose(...data.start);
  };

  // The grid of `data`, whose cells may be null as long as they are computed: `refresh()` draws what
  // has come since, `best()` chooses the largest. `data.onchoose(row, column)` hears a reader's choice.
  const patch = (root, data) => {
    const { effect, probability, before, answers, clean, corrupted, layers, flip } = data;
    let bound = 1;
    const status = make("output", { class: "r2a-status r2a-brief", "aria-live": "polite" });
    const bars = make("div", { class: "r2a-bars" });
    const context = make("div", { class: "r2a-context" });
    const differs = clean.map((token, i) => token !== corrupted[i]);
    const name = (token) => { const t = token.replaceAll("\n", "⏎").replaceAll(" ", "·"); return t.length > 12 ? t.slice(0, 11) + "…" : t; };
    const label = (c) => differs[c] ? `${name(clean[c])}←${name(corrupted[c])}` : name(clean[c]);
    const longest = Math.max(...clean.map((_, c) => label(c).length));
    const receiver = data.direction === "denoising" ? corrupted : clean;
    const show = (r, c) => {
      if (effect[r][c] === null) {
        status.textContent = "This cell is not computed yet.";
        return;
      }
      const [donor, own] = data.direction === "denoising" ? [clean[c], corrupted[c]] : [corrupted[c], clean[c]];
      const change = donor === own ? `the state of ${quoted(donor)}, token ${data.positions[c]}, is taken from the other run`
        : `${quoted(own)}, token ${data.positions[c]}, gets the state of ${quoted(donor)}`;
      status.textContent = `Before layer ${layers[r]}, ${change}: ${effect[r][c].toFixed(2).replace(/^-(0\.00)$/, "$1")} of the logit difference comes over` +
        (flip[r][c] ? ", and the answer flips." : "; the answer does not flip.");
      bars.replaceChildren(...answers.flatMap((answer, a) => {
        const after = probability[r][c][a];
        return [make("span", {}, `P(${quoted(answer)})`),
          make("span", { class: "r2a-bar" }, make("i", { style: `width:${100 * after}%` }),
            make("u", { style: `left:${100 * before[a]}%`, title: "before the patch" })),
          make("span", {}, `${percent(before[a])} → ${percent(after)}`)];
      }));
      context.replaceChildren(...receiver.flatMap((token, i) => {
        const gap = i > 0 && data.positions[i] - data.positions[i - 1] > 1 ? [" … "] : [];
        return [...gap, i === c ? make("mark", {}, token) : token];
      }));
    };
    const view = grid(root, root, "Layers by tokens: what patching each cell brings over. Arrow keys choose a cell.", {
      rows: effect.length, columns: clean.length, least: 15, tall: clamp(Math.floor(240 / effect.length), 10, 28), foot: 12 + 7 * longest,
      colour: (r, c) => (effect[r][c] === null ? css(root, "--line") : mix(RED_BLUE, 0.5 + effect[r][c] / bound / 2)),
      rowName: (r) => "L" + layers[r],
      feet: (pen, left, y, cell) => {
        pen.textAlign = "right";
        pen.textBaseline = "middle";
        clean.forEach((_, c) => {
          pen.save();
          pen.translate(left + (c + 0.5) * cell, y + 4);
          pen.rotate(-Math.PI / 2);
          pen.font = (differs[c] ? "bold " : "") + "11px ui-monospace, monospace";
          pen.fillText(label(c), 0, 0);
          pen.restore();
        });
      },
      onchoose: (r, c) => {
        show(r, c);
        if (mounted) data.onchoose?.(r, c);
      },
      onpoint: show,
    });
    root.append(status, bars, make("p", { class: "r2a-help" }, "Bars: after the patch; upright lines: before it. Blue cells bring the other run's answer over, red ones the opposite; layer 0 at the bottom. Click a cell or use the arrow keys."), context);
    let mounted = false;
    const refresh = () => {
      bound = Math.max(1, ...effect.flat().map(Math.abs));
      view.draw();
    };
    const best = () => {
      // a token that differs tells more than the place behind it, where everything comes together
      const columns = [...clean.keys()].filter((c) => differs[c] || !differs.includes(true));
      let [row, column] = [0, columns[0]];
      effect.forEach((values, r) => columns.forEach((c) => { if (values[c] > effect[row][column]) [row, column] = [r, c]; }));
      mounted = false; // no reader's choice
      view.choose(row, column);
      mounted = true;
    };
    refresh();
    best();
    return { refresh, best };
  };

  // --- pieces to choose from ----------------------------------------------------------------------

  const pick = (root, { question, pieces, right, see }) => {
    const status = make("output", { class: "r2a-status", "aria-live": "polite" });
    const press = (button, pressed) => button.setAttribute("aria-pressed", String(pressed));
    const buttons = pieces.map((piece) => make("button", { type: "button", "aria-pressed": "false", onclick: (event) => {
      press(event.currentTarget, event.currentTarget.getAttribute("aria-pressed") === "false");
    } }, visible(piece)));
    const check = () => {
      const chosen = buttons.flatMap((button, i) => (button.getAttribute("aria-pressed") === "true" ? [i] : []));
      const found = chosen.filter((i) => right.includes(i)).length, wrong = chosen.length - found;
      status.textContent = found === right.length && !wrong ? `All ${found} and no other. ${see}`
        : `${found} of ${right.length} found, and ${wrong} that ${wrong === 1 ? "does" : "do"} not belong. Change your choice and check again.`;
    };
    const reveal = () => {
      buttons.forEach((button, i) => press(button, right.includes(i)));
      status.textContent = see;
    };
    root.append(make("p", {}, question), make("div", { class: "r2a-pieces", role: "group", "aria-label": question }, ...buttons),
      make("div", { class: "r2a-controls" }, make("button", { type: "button", onclick: check }, "Check"),
        make("button", { type: "button", onclick: reveal }, "Show")), status);
  };

  const fill = (root, data) => {
    if (data.title) root.append(make("p", { class: "r2a-title" }, data.title));
    KINDS[data.kind](root, data);
  };

  // Several views of a kind, of which one stands.
  const shelf = (root, { label, views }) => {
    const place = make("div", { class: "r2a-chosen-view" });
    const show = (i) => {
      place.replaceChildren();
      fill(place, views[i]);
    };
    root.append(make("div", { class: "r2a-controls" }, make("label", {}, label, make("select", {
      onchange: (event) => show(event.target.selectedIndex),
    }, ...views.map(({ title }, i) => make("option", {}, `${i + 1} of ${views.length}: ${title}`))))), place);
    show(0);
  };

  // Behind a link, seen once it has the focus, that leads past all that can be reached in the view.
  let views = 0;
  const skippable = (root) => {
    const end = make("span", { id: `r2a-past-${++views}`, tabindex: "-1" });
    root.before(make("a", { class: "r2a-skip", href: "#" + end.id, onclick: (event) => {
      event.preventDefault(); // the address of the page stays
      end.focus();
    } }, "Skip the explorer"));
    root.after(end);
  };

  const KINDS = { tokens, heads, patch, pick, shelf };
  window.r2aViews = {
    patch,
    fill,
    mount: (id) => {
      for (const root of document.querySelectorAll(`[data-r2a-view="${id}"]:not([data-mounted])`)) {
        root.dataset.mounted = "yes";
        skippable(root);
        fill(root, JSON.parse(root.querySelector("script").textContent));
      }
    },
  };
})();
