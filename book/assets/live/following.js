// What a state of the playground makes of a session: the thought that it says, the heads that it
// cuts or ablates, the cues that it bans. It knows no page.
(() => {
  "use strict";
  const live = (globalThis.r2aLive ??= {});
  const FINISHED = "Okay, I think I have finished thinking.\n</think>"; // the paper's sentence

  // The tokens that a state must not write, or undefined.
  live.forbiddenBy = (state, model) =>
    state.cues === "banned" ? (model.forbidden ??= live.cueIds(model.tokenizer, model.cues)) : undefined;

  // The lines of a thought, {text, place}; `ids` hold it from `start` to `stop`.
  live.linesOf = ({ tokenizer }, ids, start, stop) => {
    const lines = [];
    for (let i = start, first = i, line = ""; i < stop; i++) {
      line += tokenizer.decode([ids[i]]);
      if (!line.endsWith("\n") && i + 1 < stop) continue;
      lines.push({ text: line.trim(), place: [first, i + 1] });
      [first, line] = [i + 1, ""];
    }
    return lines;
  };

  // Writes what the state says with `rewrite` (the session's, or what shows it as well). `own` is
  // what the model writes by itself. Resolves to false where a newer call took over.
  live.follow = async (state, session, own, rewrite) => {
    const { model, start } = session, forbidden = live.forbiddenBy(state, model);
    const text = state.reasoning === "without" ? FINISHED : state.thought === null ? "" : `${state.thought.trimEnd()}\n</think>`;
    const written = model.tokenizer.encode(text);
    if (state.from === "thought") {
      const ids = written.length ? [...session.pass.ids.slice(0, start), ...written] : own.ids;
      const stop = written.length ? start + written.length - 1 : (own.closed ?? own.ids.length + 1) - 1;
      return rewrite(written, { forbidden, change: changeOf(state, model, start, ids, start, stop) });
    }
    if (!(await rewrite(written, { forbidden, change: live.unchanged }))) return false;
    if (session.closed === null || state.act === "none" || !state.heads.length) return true;
    const ids = session.pass.ids.slice(), { closed } = session;
    return rewrite(ids.slice(start, closed), { forbidden, change: changeOf(state, model, closed, ids, start, closed - 1) });
  };

  // What is changed from a position on. The thought is the package's segment, which begins with the
  // line break behind its tag and ends before the closing one.
  const changeOf = (state, model, from, ids, start, stop) => {
    if (state.act === "none" || !state.heads.length) return live.unchanged;
    const queries = [from, Infinity], thought = [start - 1, stop];
    if (state.act === "ablate") return live.changes(live.ablateHeads(state.heads, queries));
    const keys = { problem: [1, start - 2], thought }[state.to] ?? live.linesOf(model, ids, start, stop)[Number(state.to) - 1]?.place;
    return live.changes(live.cutEdges(queries, keys ?? thought, state.heads));
  };
})();
