// A patch grid: two texts, aligned up to the token at which their answers part, and how much of one
// answer comes over when the state of a single token is taken from the other text. In the package's
// words (r2a_utils/causal/): the donor is clean, what is patched is corrupted, cells are denoised.
(() => {
  "use strict";
  const live = (globalThis.r2aLive ??= {});
  const LEAST_GAP = 1; // nats between the two, below which nothing is divided by it

  // donor, own: {ids, closed} each. Throws where there is nothing to contrast. `spans`: [start in the
  // donor, start in the other, length] of what corresponds; `stop`, `donorStop`: where both end, right
  // before the tokens `theirs` and `ours`, with which the answers part. Texts of one length are
  // aligned token by token, others from both ends for as long as they are the same.
  live.pairOf = (donor, own, end) => {
    if (donor.closed === null || own.closed === null) throw new Error("One of the two has no answer.");
    const a = [...donor.ids.slice(donor.closed), end], b = [...own.ids.slice(own.closed), end];
    let same = 0;
    while (same < a.length && a[same] === b[same]) same++;
    if (same === a.length) throw new Error("Both write the same answer: change what decides it.");
    const donorStop = donor.closed + same, stop = own.closed + same;
    const pair = { donorStop, stop, theirs: a[same], ours: b[same], spans: [[0, 0, stop]] };
    if (donorStop !== stop) {
      let front = 0, back = 0;
      const shorter = Math.min(stop, donorStop);
      while (front < shorter && donor.ids[front] === own.ids[front]) front++;
      while (back < shorter - front && donor.ids[donorStop - 1 - back] === own.ids[stop - 1 - back]) back++;
      pair.spans = [[0, 0, front], [donorStop - back, stop - back, back]];
    }
    return pair;
  };

  // The places that correspond, [position, position in the donor], from the first on whose state can
  // differ.
  live.alignedFrom = (pair, donor, own) => {
    const places = pair.spans.flatMap(([from, start, length]) => Array.from({ length }, (_, i) => [start + i, from + i]));
    let first = Math.min(...places.filter(([at, from]) => own.ids[at] !== donor.ids[from]).map(([at]) => at));
    if (pair.donorStop !== pair.stop) first = Math.min(first, pair.spans[1][1]);
    return places.filter(([at]) => at >= (first === Infinity ? 1 : first));
  };

  // Yields for each cell, [layer, position, position in the donor], what patching it brings over:
  // `effect`, 0 nothing and 1 all of the logit difference; `probability` of both answers; `flip`.
  // Throws where the two passes hardly differ.
  live.patchGrid = function* (donor, pass, pair, cells) {
    const { theirs, ours, stop } = pair, last = stop - 1, size = pass.model.hidden;
    const copy = live.truncate(live.copyOf(pass), stop);
    const read = (from, position) => {
      const logits = live.logitsAt(from, position), gap = logits[theirs] - logits[ours];
      const all = live.probabilitiesAt(from, position);
      return { gap, probability: [all[theirs], all[ours]], wins: all.every((p) => p <= all[theirs]) };
    };
    const before = read(copy, last), whole = read(donor, pair.donorStop - 1).gap - before.gap;
    if (Math.abs(whole) < LEAST_GAP) throw new Error("The two hardly differ in what they answer here: there is nothing to bring over.");
    for (const [layer, position, from] of cells) {
      const value = donor.resid[layer].subarray(from * size, (from + 1) * size);
      let after = before;
      if (value.some((x, i) => x !== pass.resid[layer][position * size + i])) {
        copy.change = live.changes(pass.change, live.patchState(donor, layer, position, from));
        live.compute(copy, position, layer);
        after = read(copy, last);
        live.restore(copy, pass, position);
      }
      yield { effect: (after.gap - before.gap) / whole, probability: after.probability, flip: after.wins && !before.wins };
    }
  };
})();
