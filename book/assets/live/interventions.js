// What may be changed in a pass, in the package's words (r2a_utils/causal/interventions.py): tokens
// edited, tokens forbidden, attention edges cut, heads ablated, states patched. A place is [start,
// stop], positions of a pass; `stop` may be Infinity. A head is [layer, head].
(() => {
  "use strict";
  const live = (globalThis.r2aLive ??= {});
  const within = (position, [start, stop]) => position >= start && position < stop;
  const NONE = [];

  // Several changes at once. Each gives patches, cuts or ablations.
  live.changes = (...parts) => {
    const all = (kind) => parts.flatMap((part) => part[kind] ?? NONE);
    const cuts = all("cuts"), ablations = all("ablations"), patches = all("patches");
    return {
      patches,
      cuts,
      ablations,
      ablates: (layer, head, position) => ablations.some((ablation) =>
        within(position, ablation.queries) && ablation.heads.some(([l, h]) => l === layer && h === head)),
      cutsAt: (layer, head, query) => (cuts.length === 0 ? NONE : cuts.filter((cut) =>
        within(query, cut.queries) && (cut.heads === null || cut.heads.some(([l, h]) => l === layer && h === head)))),
      // the first layer and position that anything here touches
      layer: Math.min(Infinity, ...patches.map((patch) => patch.layer), ...[...cuts, ...ablations].map(
        (change) => (change.heads === null ? 0 : Math.min(...change.heads.map(([layer]) => layer))))),
      position: Math.min(Infinity, ...patches.map((patch) => patch.position),
        ...[...cuts, ...ablations].map((change) => change.queries[0])),
    };
  };
  live.unchanged = live.changes();

  // Removes the attention from `queries` to `keys`, in `heads` (null: all); the softmax gives the
  // weight to the other keys ("renormalised"). Throws where a query would be left without any key.
  live.cutEdges = (queries, keys, heads = null) => {
    if (keys[0] <= 0 && keys[1] > queries[0]) throw new Error("a cut takes every key from a query: leave at least one visible");
    return { cuts: [{ queries, keys, heads }] };
  };

  // z of `heads` replaced by zero at `queries`.
  live.ablateHeads = (heads, queries) => ({ ablations: [{ heads, queries }] });

  // The input of `layer` at `position` replaced by that of another pass, at `from`.
  live.patchState = (donor, layer, position, from = position) => {
    const size = donor.model.hidden;
    return { patches: [{ layer, position, value: donor.resid[layer].slice(from * size, (from + 1) * size) }] };
  };

  // The pass under a change: only the positions and layers that the change can reach are run again.
  live.replay = (pass, change) => {
    const copy = live.copyOf(pass, change);
    if (change.position < pass.ids.length) live.compute(copy, change.position, change.layer);
    return copy;
  };

  // The pass over other tokens: what they share with it, up to the first that differs, is kept.
  live.editTokens = (pass, ids) => {
    let same = 0;
    while (same < ids.length && ids[same] === pass.ids[same]) same++;
    return live.extend(live.truncate(pass, same), ids.slice(same));
  };

  // The tokens to forbid so that none of the `cues` is written, as `cue_token_ids` finds them: every
  // token that is such a word, and the first of several where it has four letters or more.
  live.cueIds = (tokenizer, cues) => {
    const words = new Set(cues), found = new Set();
    for (let id = 0; id < tokenizer.size; id++) {
      const word = /^[\W_]*([A-Za-z]+)[\W_]*$/.exec(tokenizer.decode([id]));
      if (word && words.has(word[1].toLowerCase())) found.add(id);
    }
    for (const cue of cues.filter((text) => !text.includes(" "))) {
      for (const spelling of [cue, cue[0].toUpperCase() + cue.slice(1), cue.toUpperCase()]) {
        for (const written of [spelling, " " + spelling]) {
          const [first, ...rest] = tokenizer.encode(written), letters = tokenizer.decode([first]).trim();
          if (rest.length && letters.length >= 4 && spelling.startsWith(letters)) found.add(first);
        }
      }
    }
    return found;
  };
})();
