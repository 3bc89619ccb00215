// A problem, a thought and an answer that a model keeps writing anew: one pass, of which only what
// follows an edit is computed again, in slices that leave the page alive. It knows no page.
(() => {
  "use strict";
  const live = (globalThis.r2aLive ??= {});
  const SLICE = 12; // milliseconds of work before the page may draw
  const READ = 16; // tokens of a text that stands that are read at a time
  const MOST = 400; // tokens written

  const pause = () => new Promise((resolve) => setTimeout(resolve));

  // What stands in the last box of an answer: the position that its token is written from, and the token.
  live.boxOf = (model, ids, start) => {
    let found = null, text = "";
    for (let i = start; i < ids.length; i++) {
      if (text.endsWith("\\boxed{")) found = { position: i - 1, id: ids[i], text: model.tokenizer.decode([ids[i]]) };
      text += model.tokenizer.decode([ids[i]]);
    }
    return found;
  };

  // `start`: where the thought begins; `closed`: where the answer begins (null while there is none).
  live.newSession = (model, question) => {
    const prompt = model.tokenizer.prompt(question), [end] = model.tokenizer.encode("</think>");
    const session = { model, question, pass: live.newPass(model), start: prompt.length, closed: null };
    let current = 0; // a newer rewriting stops an older one

    // The text becomes the prompt and `thought`; the model goes on behind it. `heard` is called after
    // each slice. Resolves to false where a newer call took over.
    session.rewrite = async (thought, heard = () => {}, { forbidden, change } = {}) => {
      const mine = ++current, ids = [...prompt, ...thought];
      if (change) {
        // what neither the old change nor the new one touches is kept
        const kept = Math.min(session.pass.change.position, change.position);
        session.pass = live.copyOf(live.truncate(session.pass, kept), change);
      }
      let same = 0;
      while (same < ids.length && ids[same] === session.pass.ids[same]) same++;
      const { pass } = session, writing = live.continueGreedily(pass, { forbidden, most: MOST });
      live.truncate(pass, same);
      const tell = () => {
        const at = pass.ids.indexOf(end, session.start);
        session.closed = at < 0 ? null : at + 1;
        heard();
      };
      let slice = performance.now();
      const spent = async () => {
        if (performance.now() - slice < SLICE) return;
        tell();
        await pause();
        slice = performance.now();
      };
      for (let at = same; at < ids.length; at += READ) {
        live.extend(pass, ids.slice(at, at + READ));
        await spent();
        if (mine !== current) return false;
      }
      while (!writing.next().done) {
        await spent();
        if (mine !== current) return false;
      }
      tell();
      return true;
    };

    // Ends a rewriting that is going on.
    session.stop = () => current++;

    // What was written: the ids, where the parts begin, and the box.
    session.written = () => ({
      ids: session.pass.ids.slice(),
      start: session.start,
      closed: session.closed,
      box: session.closed === null ? null : live.boxOf(model, session.pass.ids, session.closed),
    });

    // All heads, [{layer, head, mass}, …], the one first whose answer looks at the thought most.
    session.headsByMass = () => {
      const { pass, start, closed } = session, n = pass.ids.length - closed;
      return model.layers.flatMap((_, layer) => Array.from({ length: model.heads }, (_, head) => {
        let mass = 0;
        for (let query = closed; query < pass.ids.length; query++) {
          const row = live.attentionRow(pass, layer, head, query);
          for (let key = start; key < closed - 1; key++) mass += row[key] / n;
        }
        return { layer, head, mass };
      })).sort((a, b) => b.mass - a.mass);
    };
    return session;
  };
})();
