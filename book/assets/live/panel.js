// What a session shows: its text with arcs, the probability of the old and the new answer, a line
// that says what was read. It knows no experiments and no controls.
(() => {
  "use strict";
  const live = (globalThis.r2aLive ??= {});
  const { make, shown } = live;
  const DIGITS = [..."0123456789"];
  const ARCS = 3, LEAST = 0.1; // arcs of a token, and the least weight of one

  live.percent = (share) => (share > 0 && share < 0.01 ? "< 1" : Math.round(100 * share)) + " %";
  const { percent } = live;

  // Put into `parent`. `onedit(index, id)`: a token of the thought shall become another.
  live.newPanel = (parent, model, onedit) => {
    const { tokenizer } = model;
    let session = null, base = null, names = [], opening = 0, busy = false;
    const text = live.newText(parent, {
      choicesOf: (token) => (/^\d$/.test(token) ? DIGITS : names.includes(token) || names.includes(" " + token) ? names : null),
      onedit: (index, token) => base && onedit(index, tokenizer.encode(token)[0]),
      onpoint: (index) => reads(index),
    });
    const bars = make("div", { class: "r2a-bars" });
    const status = make("output", { class: "r2a-status", "aria-live": "polite" });
    parent.append(bars, status);

    const segmentOf = (i) => {
      if (i < session.start) return i > 1 && i < session.start - 3 ? "prompt" : null;
      if (session.closed === null || i < session.closed - 1) return "reasoning";
      return i < opening ? null : "answer";
    };

    const show = () => {
      const { ids } = session.pass, texts = ids.map((id) => tokenizer.decode([id]));
      opening = session.closed ?? ids.length; // behind the blank line that the answer begins with
      while (texts[opening]?.trim() === "") opening++;
      const fresh = base ? live.newIn(base.ids, ids) : new Set();
      text.show(texts.map((piece, i) =>
        ({ text: piece, segment: segmentOf(i), marks: fresh.has(i) ? ["r2a-changed"] : [] })));
    };

    const bar = (name, before, after) => [
      make("span", {}, name),
      make("div", { class: "r2a-bar", role: "img", "aria-label": `${percent(before)} before, ${percent(after)} now` },
        make("i", { style: `width:${100 * after}%` }), make("u", { style: `left:${100 * before}%` })),
      make("span", {}, `${percent(before)} → ${percent(after)}`),
    ];

    const showBars = () => {
      const { box } = session.written();
      if (!box || !base.box) return bars.replaceChildren(make("span", {}, "No box to compare."));
      const now = live.probabilitiesAt(session.pass, box.position);
      const rows = [["the old answer, " + base.box.text, base.box.id]];
      if (box.id !== base.box.id) rows.push(["the new answer, " + box.text, box.id]);
      bars.replaceChildren(...rows.flatMap(([name, id]) => bar(name, base.likely[id], now[id])));
    };

    // What was read to write the token: by the strongest head, from the token before it.
    const reads = (index) => {
      if (busy || !base?.heads.length) return [];
      const { layer, head } = base.heads[0], name = `L${layer}.H${head}`;
      if (index === null || index <= session.start) {
        status.textContent = `Point at a word to see what head ${name} read to write it: of all heads it looks at the thought most while it answers. Click a digit or a name of the thought to change it.`;
        return [];
      }
      const row = live.attentionRow(session.pass, layer, head, index - 1);
      const most = [...row.keys()].slice(1).sort((a, b) => row[b] - row[a]).slice(0, ARCS).filter((key) => row[key] >= LEAST);
      const list = most.map((key) => `${around(key)} ${percent(row[key])}`).join(", ");
      const first = row[0] >= LEAST ? `; the beginning of the text ${percent(row[0])}` : "";
      status.textContent = `To write ${shown(tokenizer.decode([session.pass.ids[index]]))}, ${name} read ${list || "nothing in particular"}${first}.`;
      return most.map((key) => [key, row[key]]);
    };

    const around = (index) => shown(tokenizer.decode(session.pass.ids.slice(Math.max(session.start, index - 2), index + 1)));

    // Shows another session, which nothing is held against yet.
    const open = (fresh) => {
      session?.stop();
      [session, base] = [fresh, null];
      const found = [...session.question.matchAll(/the (\w+) is \w+ than the (\w+)/g)];
      names = [...new Set(found.flatMap((match) => [` ${match[1]}`, ` ${match[2]}`]))];
      text.choose(null);
    };

    // As `session.rewrite`, and shows it; without a base to compare with, this becomes it.
    const rewrite = async (thought, options) => {
      busy = true;
      if (!(await session.rewrite(thought, show, options))) return false;
      busy = false;
      if (!base) {
        base = session.written();
        if (base.box) base.likely = live.probabilitiesAt(session.pass, base.box.position);
        base.heads = base.closed === null ? [] : session.headsByMass();
      }
      show();
      showBars();
      return true;
    };

    return { stage: text.stage, open, rewrite, get base() { return base; } };
  };
})();
