// The forward pass of a Qwen2 decoder. A pass keeps what each token left (inputs of the layers,
// queries, keys, values), so that only what follows an edit is computed again. What may be changed in
// a pass, `interventions.js` knows; how it goes on, `greedy.js`.
(() => {
  "use strict";
  const live = (globalThis.r2aLive ??= {});
  const CAPACITY = 1024; // tokens of a pass
  const BLOCK = 16; // tokens that one layer reads at a time
  const SCRATCH = 2 ** 20; // bytes of what a block needs beside the weights
  const FOUR = 4; // sums that are made at once, which keeps the processor busy

  // --- the model ----------------------------------------------------------------------------------

  // The packed weights (r2a_utils/tiny/page_weights.py) as float32, by name.
  const unpack = (packed) => {
    const text = atob(packed.weights), bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    const found = {};
    let at = 0;
    const floats = (n) => new Float32Array(bytes.slice(at, (at += 4 * n)).buffer);
    for (const [name, rows, columns] of packed.tensors) {
      if (columns === undefined) {
        found[name] = floats(rows);
        continue;
      }
      const scales = floats(rows), values = new Float32Array(rows * columns);
      for (let i = 0; i < values.length; i += 2, at += 3) {
        const scale = scales[(i / columns) | 0], middle = bytes[at + 1];
        values[i] = (bytes[at] + ((middle & 15) << 8) - 2047) * scale;
        values[i + 1] = ((middle >> 4) + (bytes[at + 2] << 4) - 2047) * scale;
      }
      found[name] = values;
    }
    return found;
  };

  // Matrices one under the other, where the kernel finds them.
  const stacked = (kernel, ...parts) => {
    const whole = kernel.floats(parts.reduce((sum, part) => sum + part.length, 0));
    parts.reduce((at, part) => (whole.set(part, at), at + part.length), 0);
    return whole;
  };

  // Cosine and sine of each position's angles: [position][head_dim / 2].
  const rotations = (size, theta) => {
    const half = size / 2, cos = new Float32Array(CAPACITY * half), sin = new Float32Array(CAPACITY * half);
    for (let position = 0; position < CAPACITY; position++) {
      for (let i = 0; i < half; i++) {
        const angle = position / Math.pow(theta, (2 * i) / size);
        cos[position * half + i] = Math.cos(angle);
        sin[position * half + i] = Math.sin(angle);
      }
    }
    return { cos, sin };
  };

  // The model of a packed script: weights, shape, tokenizer.
  live.readModel = (packed) => {
    const weights = unpack(packed), shape = packed.shape, vocabulary = packed.tokenizer.vocabulary.length;
    const size = Object.values(weights).reduce((sum, part) => sum + part.length, 0);
    const kernel = live.newKernel(4 * size + SCRATCH);
    const head = shape.hidden_size / shape.num_attention_heads;
    const layers = Array.from({ length: shape.num_hidden_layers }, (_, layer) => {
      const part = (name) => weights[`model.layers.${layer}.${name}`];
      const three = (kind) => stacked(kernel, ...["q", "k", "v"].map((name) => part(`self_attn.${name}_proj.${kind}`)));
      return {
        before: part("input_layernorm.weight"),
        qkv: three("weight"),
        bias: three("bias"),
        out: stacked(kernel, part("self_attn.o_proj.weight")),
        between: part("post_attention_layernorm.weight"),
        gateUp: stacked(kernel, part("mlp.gate_proj.weight"), part("mlp.up_proj.weight")),
        down: stacked(kernel, part("mlp.down_proj.weight")),
      };
    });
    return {
      layers,
      embed: weights["model.embed_tokens.weight"],
      norm: weights["model.norm.weight"],
      unembed: stacked(kernel, weights["lm_head.weight"]),
      kernel,
      tokenizer: live.readTokenizer(packed.tokenizer),
      rotation: rotations(head, shape.rope_theta),
      scratch: scratch(kernel.floats, shape, vocabulary),
      cues: packed.cues,
      problems: packed.problems,
      end: shape.eos_token_id,
      epsilon: shape.rms_norm_eps,
      hidden: shape.hidden_size,
      wide: shape.intermediate_size,
      heads: shape.num_attention_heads,
      keyHeads: shape.num_key_value_heads,
      head,
    };
  };

  const scratch = (floats, shape, vocabulary) => ({
    normed: floats(BLOCK * shape.hidden_size),
    three: floats(BLOCK * 3 * shape.hidden_size),
    mixed: floats(BLOCK * shape.hidden_size),
    added: floats(BLOCK * shape.hidden_size),
    gateUp: floats(BLOCK * 2 * shape.intermediate_size),
    gated: floats(BLOCK * shape.intermediate_size),
    logits: floats(vocabulary),
    weights: new Float32Array(FOUR * CAPACITY),
  });

  // --- the arithmetic -----------------------------------------------------------------------------

  const normalise = (source, from, gain, size, epsilon, target, to) => {
    let squares = 0;
    for (let i = 0; i < size; i++) squares += source[from + i] * source[from + i];
    const scale = 1 / Math.sqrt(squares / size + epsilon);
    for (let i = 0; i < size; i++) target[to + i] = source[from + i] * scale * gain[i];
  };

  // Turns the halves of each head by the position's angles.
  const rotate = (values, at, heads, size, { cos, sin }, position) => {
    const half = size / 2, angle = position * half;
    for (let h = 0; h < heads; h++, at += size) {
      for (let i = 0; i < half; i++) {
        const first = values[at + i], second = values[at + half + i];
        values[at + i] = first * cos[angle + i] - second * sin[angle + i];
        values[at + half + i] = second * cos[angle + i] + first * sin[angle + i];
      }
    }
  };

  // --- a pass -------------------------------------------------------------------------------------

  // An empty pass. `change` is what stays changed in it: see `interventions.js`.
  live.newPass = (model, change = live.unchanged) => {
    const rows = (n, width) => Array.from({ length: n }, () => new Float32Array(CAPACITY * width));
    const layers = model.layers.length, keys = model.keyHeads * model.head;
    return {
      model,
      change,
      ids: [],
      resid: rows(layers + 1, model.hidden), // inputs of the layers, then what the final norm reads
      q: rows(layers, model.hidden), // queries and keys behind the rotation
      k: rows(layers, keys),
      v: rows(layers, keys),
    };
  };

  // The same pass once more, under another change, with all that it has computed.
  live.copyOf = (pass, change = pass.change) => {
    const copy = live.newPass(pass.model, change);
    copy.ids = pass.ids.slice();
    return live.restore(copy, pass, 0);
  };

  // Takes over what another pass has computed for its positions from `from` on.
  live.restore = (copy, pass, from) => {
    for (const part of ["resid", "q", "k", "v"]) {
      copy[part].forEach((rows, i) => {
        const width = rows.length / CAPACITY;
        rows.set(pass[part][i].subarray(from * width, copy.ids.length * width), from * width);
      });
    }
    return copy;
  };

  // Reads further tokens.
  live.extend = (pass, ids) => {
    const from = pass.ids.length, size = pass.model.hidden;
    if (from + ids.length > CAPACITY) throw new Error(`a pass holds at most ${CAPACITY} tokens`);
    ids.forEach((id, i) => {
      pass.resid[0].set(pass.model.embed.subarray(id * size, (id + 1) * size), (from + i) * size);
    });
    pass.ids.push(...ids);
    live.compute(pass, from, 0);
    return pass;
  };

  // Forgets all tokens from position n on.
  live.truncate = (pass, n) => {
    pass.ids.length = Math.min(n, pass.ids.length);
    return pass;
  };

  // Computes all positions from `from` on, in the layers from `first` on.
  live.compute = (pass, from, first) => {
    for (let start = from; start < pass.ids.length; start += BLOCK) {
      const n = Math.min(BLOCK, pass.ids.length - start);
      for (let layer = first; layer < pass.model.layers.length; layer++) runLayer(pass, layer, start, n);
    }
  };

  const runLayer = (pass, layer, start, n) => {
    const { model } = pass, { linear } = model.kernel, { hidden, wide, heads, keyHeads, head, rotation, epsilon } = model;
    const { normed, three, mixed, added, gateUp, gated } = model.scratch;
    const weights = model.layers[layer], narrow = keyHeads * head, width = hidden + 2 * narrow;
    const input = pass.resid[layer], output = pass.resid[layer + 1];
    for (const patch of pass.change.patches) {
      if (patch.layer === layer && patch.position >= start && patch.position < start + n) {
        input.set(patch.value, patch.position * hidden);
      }
    }
    for (let t = 0; t < n; t++) normalise(input, (start + t) * hidden, weights.before, hidden, epsilon, normed, t * hidden);
    linear(weights.qkv, width, hidden, normed, n, three);
    for (let t = 0; t < n; t++) {
      const row = three.subarray(t * width, (t + 1) * width), position = start + t;
      for (let i = 0; i < width; i++) row[i] += weights.bias[i];
      rotate(row, 0, heads + keyHeads, head, rotation, position);
      pass.q[layer].set(row.subarray(0, hidden), position * hidden);
      pass.k[layer].set(row.subarray(hidden, hidden + narrow), position * narrow);
      pass.v[layer].set(row.subarray(hidden + narrow), position * narrow);
    }
    for (let t = 0; t < n; t++) attend(pass, layer, start + t, mixed.subarray(t * hidden, (t + 1) * hidden));
    linear(weights.out, hidden, hidden, mixed, n, added);
    for (let t = 0; t < n; t++) {
      const at = (start + t) * hidden;
      for (let i = 0; i < hidden; i++) output[at + i] = input[at + i] + added[t * hidden + i];
      normalise(output, at, weights.between, hidden, epsilon, normed, t * hidden);
    }
    linear(weights.gateUp, 2 * wide, hidden, normed, n, gateUp);
    for (let t = 0; t < n; t++) {
      for (let i = 0, at = 2 * t * wide; i < wide; i++) {
        const gate = gateUp[at + i];
        gated[t * wide + i] = (gate / (1 + Math.exp(-gate))) * gateUp[at + wide + i];
      }
    }
    linear(weights.down, hidden, wide, gated, n, added);
    for (let i = 0, at = start * hidden; i < n * hidden; i++) output[at + i] += added[i];
  };

  // What the heads of a layer report at one position (z), one after the other.
  const attend = (pass, layer, position, z) => {
    const { heads, keyHeads, head, scratch } = pass.model, narrow = keyHeads * head;
    const values = pass.v[layer], w = scratch.weights, w1 = CAPACITY, w2 = 2 * CAPACITY, w3 = 3 * CAPACITY;
    for (let h = 0; h < heads; h += FOUR) {
      attentionInto(w, pass, layer, h, position);
      for (let i = 0, from = ((h * keyHeads) / heads | 0) * head; i < head; i++) {
        let s0 = 0, s1 = 0, s2 = 0, s3 = 0;
        for (let key = 0, at = from + i; key <= position; key++, at += narrow) {
          const value = values[at];
          s0 += w[key] * value;
          s1 += w[w1 + key] * value;
          s2 += w[w2 + key] * value;
          s3 += w[w3 + key] * value;
        }
        z[h * head + i] = s0;
        z[(h + 1) * head + i] = s1;
        z[(h + 2) * head + i] = s2;
        z[(h + 3) * head + i] = s3;
      }
    }
    for (let h = 0; h < heads; h++) {
      if (pass.change.ablates(layer, h, position)) z.fill(0, h * head, (h + 1) * head);
    }
  };

  // The attention of four heads, which share their keys, at one query on all keys up to it: four
  // rows of `CAPACITY` weights.
  const attentionInto = (weights, pass, layer, first, query) => {
    const { heads, keyHeads, head, hidden } = pass.model, narrow = keyHeads * head, scale = 1 / Math.sqrt(head);
    const q = pass.q[layer], k = pass.k[layer];
    const q0 = query * hidden + first * head, q1 = q0 + head, q2 = q1 + head, q3 = q2 + head;
    for (let key = 0, at = ((first * keyHeads) / heads | 0) * head; key <= query; key++, at += narrow) {
      let s0 = 0, s1 = 0, s2 = 0, s3 = 0;
      for (let i = 0; i < head; i++) {
        const value = k[at + i];
        s0 += q[q0 + i] * value;
        s1 += q[q1 + i] * value;
        s2 += q[q2 + i] * value;
        s3 += q[q3 + i] * value;
      }
      weights[key] = s0 * scale;
      weights[CAPACITY + key] = s1 * scale;
      weights[2 * CAPACITY + key] = s2 * scale;
      weights[3 * CAPACITY + key] = s3 * scale;
    }
    for (let i = 0; i < FOUR; i++) {
      const start = i * CAPACITY, stop = start + query + 1;
      for (const { keys } of pass.change.cutsAt(layer, first + i, query)) {
        weights.fill(-Infinity, start + keys[0], Math.min(start + keys[1], stop));
      }
      softmax(weights, start, stop);
    }
  };

  const softmax = (values, start, stop) => {
    let most = -Infinity, sum = 0;
    for (let i = start; i < stop; i++) if (values[i] > most) most = values[i];
    for (let i = start; i < stop; i++) sum += values[i] = Math.exp(values[i] - most);
    for (let i = start; i < stop; i++) values[i] /= sum;
  };

  // --- what a pass says ---------------------------------------------------------------------------

  // The attention of a head at `query`, a weight for each position up to it.
  live.attentionRow = (pass, layer, head, query) => {
    const { weights } = pass.model.scratch, first = head - (head % FOUR);
    attentionInto(weights, pass, layer, first, query);
    return weights.slice((head - first) * CAPACITY, (head - first) * CAPACITY + query + 1);
  };

  // The logits of what follows `position`, over the vocabulary; overwritten by the next call.
  live.logitsAt = (pass, position) => {
    const { hidden, norm, epsilon, unembed, tokenizer, scratch, kernel } = pass.model;
    normalise(pass.resid.at(-1), position * hidden, norm, hidden, epsilon, scratch.normed, 0);
    kernel.linear(unembed, tokenizer.size, hidden, scratch.normed, 1, scratch.logits);
    return scratch.logits;
  };

  // The probability of each token to follow `position`.
  live.probabilitiesAt = (pass, position) => {
    const found = Float32Array.from(live.logitsAt(pass, position));
    softmax(found, 0, found.length);
    return found;
  };
})();
