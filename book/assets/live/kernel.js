// Matrix times vectors, where nearly all of a pass's time goes. With WebAssembly's 128-bit numbers it is
// five to eight times as fast as plain JavaScript, which stays for browsers without them. It knows no
// model.
(() => {
  "use strict";
  const live = (globalThis.r2aLive ??= {});
  const PAGE = 65536; // bytes, WebAssembly's unit of memory
  const ALIGNED = 16; // bytes of a 128-bit number

  /* What SIMD holds, as `wat2wasm` of the WebAssembly Binary Toolkit compiles it:

     (module
       (import "page" "memory" (memory 1))
       (func (export "linear") (param $w i32) (param $rows i32) (param $columns i32)
                               (param $x i32) (param $n i32) (param $y i32)
         (local $r i32) (local $t i32) (local $i i32) (local $row i32) (local $in i32) (local $out i32)
         (local $v v128) (local $a v128) (local $b v128) (local $c v128) (local $d v128)
         (local.set $row (i32.shl (local.get $columns) (i32.const 2)))
         (loop $four_rows
           (local.set $in (local.get $x))
           (local.set $out (i32.add (local.get $y) (i32.shl (local.get $r) (i32.const 2))))
           (local.set $t (i32.const 0))
           (loop $tokens
             (local.set $a (v128.const i32x4 0 0 0 0))
             (local.set $b (v128.const i32x4 0 0 0 0))
             (local.set $c (v128.const i32x4 0 0 0 0))
             (local.set $d (v128.const i32x4 0 0 0 0))
             (local.set $i (i32.const 0))
             (loop $four_columns
               (local.set $v (v128.load (i32.add (local.get $in) (local.get $i))))
               (local.set $a (f32x4.add (local.get $a) (f32x4.mul (local.get $v)
                 (v128.load (i32.add (local.get $w) (local.get $i))))))
               (local.set $b (f32x4.add (local.get $b) (f32x4.mul (local.get $v)
                 (v128.load (i32.add (i32.add (local.get $w) (local.get $row)) (local.get $i))))))
               (local.set $c (f32x4.add (local.get $c) (f32x4.mul (local.get $v)
                 (v128.load (i32.add (i32.add (local.get $w) (i32.shl (local.get $row) (i32.const 1)))
                   (local.get $i))))))
               (local.set $d (f32x4.add (local.get $d) (f32x4.mul (local.get $v)
                 (v128.load (i32.add (i32.add (local.get $w) (i32.mul (local.get $row) (i32.const 3)))
                   (local.get $i))))))
               (local.set $i (i32.add (local.get $i) (i32.const 16)))
               (br_if $four_columns (i32.lt_u (local.get $i) (local.get $row))))
             (f32.store (local.get $out) (call $sum (local.get $a)))
             (f32.store offset=4 (local.get $out) (call $sum (local.get $b)))
             (f32.store offset=8 (local.get $out) (call $sum (local.get $c)))
             (f32.store offset=12 (local.get $out) (call $sum (local.get $d)))
             (local.set $in (i32.add (local.get $in) (local.get $row)))
             (local.set $out (i32.add (local.get $out) (i32.shl (local.get $rows) (i32.const 2))))
             (local.set $t (i32.add (local.get $t) (i32.const 1)))
             (br_if $tokens (i32.lt_u (local.get $t) (local.get $n))))
           (local.set $w (i32.add (local.get $w) (i32.shl (local.get $row) (i32.const 2))))
           (local.set $r (i32.add (local.get $r) (i32.const 4)))
           (br_if $four_rows (i32.lt_u (local.get $r) (local.get $rows)))))
       (func $sum (param $v v128) (result f32)
         (f32.add
           (f32.add (f32x4.extract_lane 0 (local.get $v)) (f32x4.extract_lane 1 (local.get $v)))
           (f32.add (f32x4.extract_lane 2 (local.get $v)) (f32x4.extract_lane 3 (local.get $v))))))
  */
  const SIMD =
    "AGFzbQEAAAABDwJgBn9/f39/fwBgAXsBfQIQAQRwYWdlBm1lbW9yeQIAAQMDAgABBwoBBmxpbmVhcgAACvACAtMCAgZ/BXsg" +
    "AkECdCEJA0AgAyEKIAUgBkECdGohC0EAIQcDQP0MAAAAAAAAAAAAAAAAAAAAACEN/QwAAAAAAAAAAAAAAAAAAAAAIQ79DAAA" +
    "AAAAAAAAAAAAAAAAAAAhD/0MAAAAAAAAAAAAAAAAAAAAACEQQQAhCANAIAogCGr9AAQAIQwgDSAMIAAgCGr9AAQA/eYB/eQB" +
    "IQ0gDiAMIAAgCWogCGr9AAQA/eYB/eQBIQ4gDyAMIAAgCUEBdGogCGr9AAQA/eYB/eQBIQ8gECAMIAAgCUEDbGogCGr9AAQA" +
    "/eYB/eQBIRAgCEEQaiEIIAggCUkNAAsgCyANEAE4AgAgCyAOEAE4AgQgCyAPEAE4AgggCyAQEAE4AgwgCiAJaiEKIAsgAUEC" +
    "dGohCyAHQQFqIQcgByAESQ0ACyAAIAlBAnRqIQAgBkEEaiEGIAYgAUkNAAsLGQAgAP0fACAA/R8BkiAA/R8CIAD9HwOSkgs=";

  // A kernel with room for `bytes` of numbers: `floats(n)` gives n of them, and
  // `linear(matrix, rows, columns, x, n, y)` makes y = W x for n vectors, where all three are of
  // `floats`, rows lie one after the other, and rows and columns are multiples of 4.
  live.newKernel = (bytes) => {
    const code = Uint8Array.from(atob(SIMD), (character) => character.charCodeAt(0));
    if (!globalThis.WebAssembly?.validate(code)) return { floats: (n) => new Float32Array(n), linear: plain };
    const memory = new WebAssembly.Memory({ initial: Math.ceil(bytes / PAGE) });
    const { linear } = new WebAssembly.Instance(new WebAssembly.Module(code), { page: { memory } }).exports;
    let used = 0;
    return {
      floats: (n) => {
        const found = new Float32Array(memory.buffer, used, n);
        used += Math.ceil((4 * n) / ALIGNED) * ALIGNED;
        return found;
      },
      linear: (matrix, rows, columns, x, n, y) =>
        linear(matrix.byteOffset, rows, columns, x.byteOffset, n, y.byteOffset),
    };
  };

  const plain = (matrix, rows, columns, x, n, y) => {
    for (let t = 0; t < n; t++) oneVector(matrix, rows, columns, x.subarray(t * columns), y.subarray(t * rows));
  };

  // Four sums at a time keep the processor busy.
  const oneVector = (w, rows, columns, x, y) => {
    for (let r = 0; r < rows; r += 4) {
      const a = r * columns, b = a + columns, c = b + columns, d = c + columns;
      let s = 0, t = 0, u = 0, v = 0;
      for (let i = 0; i < columns; i++) {
        const value = x[i];
        s += w[a + i] * value;
        t += w[b + i] * value;
        u += w[c + i] * value;
        v += w[d + i] * value;
      }
      y[r] = s;
      y[r + 1] = t;
      y[r + 2] = u;
      y[r + 3] = v;
    }
  };
})();
