// The model's own byte-level BPE: text to token ids and back. It knows no weights.
(() => {
  "use strict";
  const live = (globalThis.r2aLive ??= {});

  // Byte → the character that stands for it in the vocabulary (GPT-2's table).
  const CHARACTERS = (() => {
    const seen = [], printable = (b) => (b > 32 && b < 127) || (b > 160 && b < 256 && b !== 173);
    for (let byte = 0, next = 256; byte < 256; byte++) {
      seen.push(String.fromCharCode(printable(byte) ? byte : next++));
    }
    return seen;
  })();
  const BYTES = new Map(CHARACTERS.map((character, byte) => [character, byte]));

  // packed: `vocabulary` (texts, by id), `merges`, `whole` (texts that are one token), `split`.
  live.readTokenizer = ({ vocabulary, merges, whole, split }) => {
    const ids = new Map(vocabulary.map((text, id) => [text, id]));
    const ranks = new Map(merges.map((merge, rank) => [merge, rank]));
    const escaped = whole.map((text) => text.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&"));
    const specials = new RegExp(`(${escaped.join("|")})`, "u");
    const words = new RegExp(split, "gu");

    const merged = (word) => {
      const parts = Array.from(new TextEncoder().encode(word), (byte) => CHARACTERS[byte]);
      while (parts.length > 1) {
        let best = Infinity, at = -1;
        for (let i = 0; i + 1 < parts.length; i++) {
          const rank = ranks.get(parts[i] + " " + parts[i + 1]);
          if (rank < best) [best, at] = [rank, i];
        }
        if (at < 0) break;
        parts.splice(at, 2, parts[at] + parts[at + 1]);
      }
      return parts;
    };

    // Token ids of a text, with nothing added.
    const encode = (text) => text.split(specials).flatMap((piece) => {
      if (whole.includes(piece)) return [ids.get(piece)];
      return (piece.match(words) ?? []).flatMap(merged).map((part) => ids.get(part));
    });

    // The text of token ids.
    const decode = (tokenIds) => {
      const bytes = tokenIds.flatMap((id) => {
        const text = vocabulary[id];
        return whole.includes(text) ? [...new TextEncoder().encode(text)] : [...text].map((c) => BYTES.get(c));
      });
      return new TextDecoder().decode(new Uint8Array(bytes));
    };

    // What the model reads before it thinks: its chat template around a question.
    const prompt = (question) => {
      const [, bos, user, assistant, think] = whole;
      return encode(`${bos}${user}${question}${assistant}${think}\n`);
    };

    return { encode, decode, prompt, size: vocabulary.length };
  };
})();
