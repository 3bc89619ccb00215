// A problem, a thought and an answer on the screen: tokens to point at, some of them to change, and
// arcs to what was read to write a token. It knows no model; works by mouse, touch and keyboard.
(() => {
  "use strict";
  const live = (globalThis.r2aLive ??= {});
  const SEGMENTS = [["prompt", "problem"], ["reasoning", "its thought"], ["answer", "its answer"]];
  const SVG = "http://www.w3.org/2000/svg";

  live.make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
  };
  const { make } = live;
  live.shown = (text) => "“" + text.trim() + "”";

  // The places of `after` that are not in the longest sequence that it has in common with `before`.
  live.newIn = (before, after) => {
    const n = before.length, m = after.length, width = m + 1, common = new Uint16Array((n + 1) * width);
    for (let i = n - 1; i >= 0; i--) {
      for (let j = m - 1; j >= 0; j--) {
        common[i * width + j] = before[i] === after[j] ? common[(i + 1) * width + j + 1] + 1
          : Math.max(common[(i + 1) * width + j], common[i * width + j + 1]);
      }
    }
    const found = new Set(after.keys());
    for (let i = 0, j = 0; i < n && j < m;) {
      if (before[i] === after[j]) {
        found.delete(j);
        i++;
        j++;
      } else if (common[(i + 1) * width + j] >= common[i * width + j + 1]) i++;
      else j++;
    }
    return found;
  };

  // Put into `parent`. `choicesOf(text)`: what a token may become, or null; `onedit(index, text)`: it
  // was changed; `onpoint(index or null)` returns the arcs to draw, [[index, weight], …].
  live.newText = (parent, { choicesOf, onedit, onpoint }) => {
    const arcs = document.createElementNS(SVG, "svg");
    arcs.setAttribute("class", "r2a-arcs");
    arcs.setAttribute("aria-hidden", "true");
    const blocks = Object.fromEntries(SEGMENTS.map(([name]) => [name, make("div")]));
    const stage = make("div", { class: "r2a-stage r2a-text", tabindex: "0", role: "group",
      "aria-label": "Problem, thought and answer. Left and right choose a digit or name, up and down or typing change it, Escape leaves it." },
    ...SEGMENTS.map(([name, label]) => make("section", { class: "r2a-segment", "data-segment": name,
      style: `border-color:var(--c-${name})` }, make("b", {}, label), blocks[name])), arcs);
    const chooser = make("div", { class: "r2a-choices", role: "group", "aria-label": "what to put there" });
    parent.append(stage, chooser);

    let spans = new Map(), tokens = [], chosen = null, hovered = null, offered = null;
    const editable = (index) => tokens[index]?.segment === "reasoning" && choicesOf(tokens[index].text);
    const stops = () => tokens.flatMap(({ segment, text }, i) => (segment !== "prompt" && choicesOf(text) ? [i] : []));

    // tokens: [{text, segment, marks}], `segment` null for what is not shown; marks are classes.
    const show = (given) => {
      tokens = given;
      spans = new Map();
      for (const block of Object.values(blocks)) block.replaceChildren();
      tokens.forEach(({ text, segment, marks }, index) => {
        if (!segment) return;
        const span = make("span", { class: ["r2a-token", ...marks].join(" "), "data-token": index }, text);
        if (editable(index)) span.classList.add("r2a-editable");
        spans.set(index, span);
        blocks[segment].append(span);
      });
      if (!spans.has(chosen)) chosen = null;
      hovered = null;
      offer();
      point();
    };

    const point = () => {
      const index = hovered ?? chosen;
      for (const span of stage.querySelectorAll(".r2a-chosen, .r2a-read")) span.classList.remove("r2a-chosen", "r2a-read");
      spans.get(index)?.classList.add("r2a-chosen");
      draw(index, spans.has(index) ? onpoint(index) : (onpoint(null), []));
    };

    const draw = (index, found) => {
      arcs.replaceChildren();
      const box = stage.getBoundingClientRect(), to = spans.get(index)?.getBoundingClientRect();
      arcs.setAttribute("viewBox", `0 0 ${box.width} ${box.height}`);
      for (const [from, weight] of found) {
        const span = spans.get(from);
        if (!span) continue;
        span.classList.add("r2a-read");
        const start = span.getBoundingClientRect(), line = document.createElementNS(SVG, "path");
        const [x1, y1] = [start.left + start.width / 2 - box.left, start.top - box.top];
        const [x2, y2] = [to.left + to.width / 2 - box.left, to.top - box.top];
        const top = Math.min(y1, y2) - 14 - Math.abs(x2 - x1) / 12;
        line.setAttribute("d", `M${x1},${y1} C${x1},${top} ${x2},${top} ${x2},${y2}`);
        line.setAttribute("stroke-width", (1 + 3 * weight).toFixed(1));
        line.setAttribute("opacity", (0.25 + 0.75 * weight).toFixed(2));
        arcs.append(line);
      }
    };

    const choose = (index) => {
      chosen = index;
      hovered = null;
      offer();
      point();
    };

    const offer = () => {
      const choices = editable(chosen);
      if (!choices) return chooser.replaceChildren();
      const now = tokens[chosen].text, name = `in place of ${live.shown(now)}:`;
      // The buttons stay where they offer the same: one that was pressed keeps the focus.
      const same = offered?.length === choices.length && choices.every((text, i) => text === offered[i]);
      if (!same || !chooser.childElementCount) {
        chooser.replaceChildren(name, ...choices.map((text) =>
          make("button", { type: "button", onclick: () => edit(text) }, text.trim())));
      }
      offered = choices;
      chooser.firstChild.textContent = name;
      choices.forEach((text, i) => chooser.children[i].setAttribute("aria-pressed", String(text === now)));
    };

    const edit = (text) => {
      if (text === tokens[chosen].text) return;
      onedit(chosen, text);
    };

    const indexOf = (event) => {
      const span = event.target.closest?.(".r2a-token");
      return span ? Number(span.dataset.token) : null;
    };
    stage.addEventListener("pointermove", (event) => {
      const index = indexOf(event);
      if (event.pointerType !== "mouse" || index === hovered) return;
      hovered = index;
      point();
    });
    stage.addEventListener("pointerleave", () => {
      if (hovered === null) return;
      hovered = null;
      point();
    });
    stage.addEventListener("click", (event) => {
      const index = indexOf(event);
      if (index !== null) choose(index === chosen ? null : index);
    });
    stage.addEventListener("keydown", (event) => {
      const places = stops(), step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (event.ctrlKey || event.altKey || event.metaKey) return;
      if (step) {
        const at = chosen === null ? (step > 0 ? -1 : places.length)
          : step > 0 ? places.filter((i) => i <= chosen).length - 1 : places.filter((i) => i < chosen).length;
        choose(places[Math.min(places.length - 1, Math.max(0, at + step))] ?? null);
      } else if (event.key === "Escape") choose(null);
      else if (!keyEdits(event.key)) return;
      event.preventDefault();
    });

    // Up and down go through the choices; a typed character picks the next that begins with it.
    const keyEdits = (key) => {
      const choices = editable(chosen);
      if (!choices) return false;
      const at = choices.indexOf(tokens[chosen].text), n = choices.length;
      const turn = { ArrowUp: 1, ArrowDown: -1 }[key];
      if (turn) edit(choices[(at + turn + n) % n]);
      else {
        const after = [...choices.slice(at + 1), ...choices.slice(0, at + 1)];
        const typed = key.length === 1 && after.find((text) => text.trim().startsWith(key.toLowerCase()));
        if (!typed) return false;
        edit(typed);
      }
      return true;
    };

    new ResizeObserver(point).observe(stage);
    return { stage, show, choose, get chosen() { return chosen; } };
  };
})();
