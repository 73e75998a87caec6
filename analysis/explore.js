"use strict";
// The page of analysis/explore.py. `data` is its payload; `S` is what is looked at, which the address keeps.
(async () => {
const MISSING = -32768, ZERO = -32767, INFINITE = 32767, FAINT = Math.log2(0.01);
const COLOURS = { light: ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#7a6a00"],
                  dark: ["#56b4e9", "#e69f00", "#2fc79b", "#e59ac4", "#f0e442", "#4f8fd0", "#e8e8e8", "#d55e00"] };
const DASHES = [[], [6, 2], [2, 2]];
const VIRIDIS = ["440154", "482878", "3e4a89", "31688e", "26828e", "1f9e89", "35b779", "6ece58", "b5de2b", "fde725"];
const DIVERGING = { light: ["053061", "2166ac", "4393c3", "92c5de", "d1e5f0", "f7f7f7", "fddbc7", "f4a582", "d6604d", "b2182b", "67001f"],
                    dark: ["a6d8ff", "6bb1ea", "3f86c2", "2a5f8c", "22405a", "26282b", "5a2c22", "8c3d2a", "c2573f", "ea8a6b", "ffc4a6"] };
const PANELS = ["loss", "clip_scale", "horizon", "spectral_radius", "grad_norm", "clipped", "test_loss", "test_accuracy"];
const LOGGED = new Set(["loss", "grad_norm", "test_loss", "spectral_radius"]);
const FONT = "12px system-ui, sans-serif", SMALL = "11px system-ui, sans-serif";
const data = JSON.parse(document.getElementById("data").textContent);
const NS = data.steps.length, NG = data.lags.length, NL = data.layers.length, C = data.coordinates;

// --- reading ---------------------------------------------------------------------------------------------------

async function inflated(text) {
  const packed = Uint8Array.from(atob(text), c => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}
for (const map of Object.values(data.maps)) {
  const bytes = await inflated(map.data), n = bytes.length / 2;
  map.codes = new Int16Array(n);
  for (let i = 0, sum = 0; i < n; i++) {
    sum = (i % NG ? sum : 0) + (bytes[i] | bytes[n + i] << 8);
    map.codes[i] = sum << 16 >> 16;
  }
  map.slot = new Int32Array(data.runs).fill(-1);
  map.runs.forEach((run, slot) => map.slot[run] = slot);
  map.unit = 2 ** -map.digits;
}
for (const of of Object.values(data.series)) {
  const planes = await inflated(of.data), n = planes.length / 4, bytes = new Uint8Array(planes.length);
  for (let i = 0; i < n; i++) for (let b = 0; b < 4; b++) bytes[4 * i + b] = planes[b * n + i];
  of.values = new Float32Array(bytes.buffer);
}

// --- what is looked at -----------------------------------------------------------------------------------------

const maps = Object.keys(data.maps), series = PANELS.filter(name => data.series[name]);
const coordinate = name => C.find(c => c.name === name);
const isSeed = c => ["seed", "run", "run_there"].includes(c.name);
const S = { q: maps[0] || "", layer: 0, col: "", row: "", u: Math.max(0, NS - 1), lag: -1, rel: 0, x: "log", seeds: "bands",
            theme: "", show: new Set(series.slice(0, 4)), picked: {} };
const settings = C.filter(c => !isSeed(c));
S.col = (settings[0] || C[0] || { name: "" }).name;
S.row = (settings.find(c => c.name === "experiment" && c.name !== S.col) || settings[1] || { name: "" }).name;
const follows = c => C.some(o => o !== c && o.values.length < data.runs && C.indexOf(o) < C.indexOf(c) && new Set(o.of.map((v, run) => v + " " + c.of[run])).size === o.values.length);
const all = c => new Set(c.values.keys());
for (const c of C) S.picked[c.name] = all(c);

function chosen() {
  return [...Array(data.runs).keys()].filter(run => C.every(c => S.picked[c.name].has(c.of[run])));
}
function groups() { // the runs of each panel: [row][column] -> runs
  const col = coordinate(S.col), row = coordinate(S.row), runs = chosen();
  const used = c => c ? [...S.picked[c.name]].sort((a, b) => a - b).filter(i => runs.some(r => c.of[r] === i)) : [-1];
  const cols = used(col), rows = used(row);
  const at = rows.map(i => cols.map(j => runs.filter(r => (!row || row.of[r] === i) && (!col || col.of[r] === j))));
  return { at, rows: rows.map(i => row ? label(row, i) : ""), cols: cols.map(j => col ? label(col, j) : ""), order: rows.map(i => Math.max(0, i)) };
}
const label = (c, i) => ["label", "experiment"].includes(c.name) ? c.values[i] : `${c.name.replaceAll("_", " ")} ${c.values[i]}`;
function narrow() { // to one value of whatever else would be pooled with seeds
  for (const c of settings) {
    if (c.name === S.col || c.name === S.row) continue;
    const mixed = groups().at.flat().some(runs => new Set(runs.map(r => c.of[r])).size > 1);
    if (mixed) S.picked[c.name] = new Set([c.of[chosen()[0]]]);
  }
}
function pooled(at) {
  return settings.filter(c => c.name !== S.col && c.name !== S.row && at.flat().some(runs => new Set(runs.map(r => c.of[r])).size > 1)).map(c => c.name.replaceAll("_", " "));
}

function remember() {
  const p = new URLSearchParams({ q: S.q, layer: S.layer, col: S.col, row: S.row, u: data.steps[S.u] ?? 0, lag: data.lags[S.lag] ?? "",
    rel: S.rel, x: S.x, seeds: S.seeds, theme: S.theme, show: [...S.show].join(",") });
  for (const c of C) if (S.picked[c.name].size < c.values.length) p.set("only." + c.name, [...S.picked[c.name]].sort((a, b) => a - b).join(","));
  const hash = "#" + p;
  if (hash !== location.hash) history.replaceState(null, "", hash);
}
function recall() {
  const p = new URLSearchParams(location.hash.slice(1)), named = n => n === "" || coordinate(n);
  if (data.maps[p.get("q")]) S.q = p.get("q");
  if (+p.get("layer") < NL) S.layer = Math.max(0, +p.get("layer") | 0);
  for (const k of ["col", "row"]) if (p.has(k) && named(p.get(k))) S[k] = p.get(k);
  if (S.row === S.col) S.row = "";
  if (p.get("u") && NS) S.u = nearest(data.steps, +p.get("u"));
  S.lag = p.get("lag") ? nearest(data.lags, +p.get("lag")) : -1;
  S.rel = p.get("rel") === "1" ? 1 : 0;
  if (["log", "linear"].includes(p.get("x"))) S.x = p.get("x");
  if (["bands", "lines"].includes(p.get("seeds"))) S.seeds = p.get("seeds");
  if (["light", "dark", ""].includes(p.get("theme") ?? "-")) S.theme = p.get("theme");
  if (p.has("show")) S.show = new Set(p.get("show").split(",").filter(n => series.includes(n)));
  let told = false;
  for (const c of C) {
    const only = (p.get("only." + c.name) ?? "").split(",").filter(Boolean).map(Number).filter(i => i in c.values);
    S.picked[c.name] = only.length ? new Set(only) : all(c);
    told ||= only.length > 0;
  }
  if (!p.size || (!told && !p.has("col"))) narrow();
}
function nearest(sorted, value) {
  let best = 0;
  sorted.forEach((v, i) => { if (Math.abs(v - value) < Math.abs(sorted[best] - value)) best = i; });
  return best;
}

// --- numbers ---------------------------------------------------------------------------------------------------

function quantile(sorted, n, q) { // of sorted[0 … n − 1]
  const rank = q * (n - 1), low = Math.floor(rank), a = sorted[low], b = sorted[Math.ceil(rank)];
  return a === b || rank === low ? a : a === -Infinity ? (rank - low < 0.5 ? a : b) : a + (b - a) * (rank - low);
}
const room = new Float64Array(Math.max(1, data.runs));
function ordered(n) { // sorts room[0 … n − 1]
  for (let i = 1; i < n; i++) { const v = room[i]; let j = i; while (j && room[j - 1] > v) { room[j] = room[j - 1]; j--; } room[j] = v; }
}
function bandOf(n) {
  if (!n) return [NaN, NaN, NaN];
  if (n > 24) room.subarray(0, n).sort(); else ordered(n);
  return [quantile(room, n, .25), quantile(room, n, .5), quantile(room, n, .75)];
}
function log2(map, run, u, g) { // log₂ norm of one run, relative to lag 0 where that is asked for
  const slot = map.slot[run];
  if (slot < 0) return NaN;
  const row = ((slot * NL + S.layer) * NS + u) * NG, v = value(map, row + g);
  return S.rel ? v - first(map, row) : v;
}
function value(map, i) {
  const code = map.codes[i];
  return code === MISSING ? NaN : code === ZERO ? -Infinity : code === INFINITE ? Infinity : code * map.unit;
}
function first(map, row) { // ∂L/∂c is 0 at lag 0, where h is held fixed
  const v = value(map, row), w = v === -Infinity && NG > 1 ? value(map, row + 1) : v;
  return Number.isFinite(w) ? w : NaN;
}
function bandAt(runs, u, g) {
  const map = data.maps[S.q];
  let n = 0;
  for (const run of runs) { const v = log2(map, run, u, g); if (v === v) room[n++] = v; }
  return bandOf(n);
}
const one = (of, run, i) => of.values[(run * of.layers + (of.layers > 1 ? S.layer : 0)) * of.at.length + i];
function seriesBand(of, runs, i) {
  let n = 0;
  for (const run of runs) { const v = one(of, run, i); if (v === v) room[n++] = v; }
  return bandOf(n);
}
function told(v) {
  return v !== v ? "–" : v === Infinity ? "∞" : v === 0 ? "0" : Math.abs(v) >= .01 && Math.abs(v) < 1e5 ? String(+v.toPrecision(4)) : v.toExponential(2).replace("e+", "e").replace("-", "−");
}
const toldLog = v => v !== v ? "–" : v === -Infinity ? "−∞ (0)" : v === Infinity ? "∞" : `${v.toFixed(2).replace("-", "−")} (${told(2 ** v)})`;
const many = n => n.toLocaleString("en-US");

// --- drawing: one set of calls for canvas and SVG --------------------------------------------------------------

class Svg { // what the drawing uses of a canvas's context
  constructor(w, h, measure) { this.w = w; this.h = h; this.m = measure; this.out = []; this.defs = []; this.stack = []; this.clips = 0; this.open = [0];
    Object.assign(this, { fillStyle: "#000", strokeStyle: "#000", lineWidth: 1, globalAlpha: 1, font: FONT, textAlign: "left", textBaseline: "alphabetic" }); this.dash = []; this.d = ""; this.turn = ""; }
  save() { this.stack.push({ ...Object.fromEntries(["fillStyle", "strokeStyle", "lineWidth", "globalAlpha", "font", "textAlign", "textBaseline", "dash", "turn"].map(k => [k, this[k]])) }); this.open.push(0); }
  restore() { for (let i = this.open.pop(); i; i--) this.out.push("</g>"); Object.assign(this, this.stack.pop()); }
  beginPath() { this.d = ""; }
  moveTo(x, y) { this.d += `M${n2(x)} ${n2(y)}`; }
  lineTo(x, y) { this.d += `L${n2(x)} ${n2(y)}`; }
  closePath() { this.d += "Z"; }
  rect(x, y, w, h) { this.d += `M${n2(x)} ${n2(y)}h${n2(w)}v${n2(h)}h${n2(-w)}Z`; }
  arc(x, y, r) { this.d += `M${n2(x - r)} ${n2(y)}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0Z`; }
  clip() { const id = `c${this.clips++}`; this.defs.push(`<clipPath id="${id}"><path d="${this.d}"/></clipPath>`); this.out.push(`<g clip-path="url(#${id})">`); this.open[this.open.length - 1]++; }
  setLineDash(dash) { this.dash = dash; }
  stroke() { this.out.push(`<path d="${this.d}" fill="none" stroke="${this.strokeStyle}" stroke-width="${this.lineWidth}" opacity="${this.globalAlpha}"${this.dash.length ? ` stroke-dasharray="${this.dash}"` : ""}/>`); }
  fill() { this.out.push(`<path d="${this.d}" fill="${this.fillStyle}" opacity="${this.globalAlpha}"/>`); }
  fillRect(x, y, w, h) { this.out.push(`<rect x="${n2(x)}" y="${n2(y)}" width="${n2(w)}" height="${n2(h)}" fill="${this.fillStyle}" opacity="${this.globalAlpha}"/>`); }
  strokeRect(x, y, w, h) { this.beginPath(); this.rect(x, y, w, h); this.stroke(); }
  translate(x, y) { this.turn += `translate(${n2(x)} ${n2(y)})`; }
  rotate(a) { this.turn += `rotate(${n2(a * 180 / Math.PI)})`; }
  measureText(t) { this.m.font = this.font; return this.m.measureText(t); }
  fillText(t, x, y) {
    const anchor = { left: "start", center: "middle", right: "end" }[this.textAlign], shift = { middle: ".35em", top: ".8em" }[this.textBaseline] || "0";
    const size = this.font.match(/\d+px/)[0], weight = this.font.startsWith("600") ? 600 : 400, safe = t.replace(/[&<>"]/g, c => `&#${c.charCodeAt(0)};`);
    this.out.push(`<text x="${n2(x)}" y="${n2(y)}" dy="${shift}" font-family="system-ui, sans-serif" font-size="${size}" font-weight="${weight}" text-anchor="${anchor}" fill="${this.fillStyle}" opacity="${this.globalAlpha}"${this.turn ? ` transform="${this.turn}"` : ""}>${safe}</text>`);
  }
  drawImage(image, x, y, w, h) { this.out.push(`<image x="${n2(x)}" y="${n2(y)}" width="${n2(w)}" height="${n2(h)}" preserveAspectRatio="none" href="${image.toDataURL()}"/>`); }
  text() { return `<svg xmlns="http://www.w3.org/2000/svg" width="${this.w}" height="${this.h}" viewBox="0 0 ${this.w} ${this.h}"><defs>${this.defs.join("")}</defs>${this.out.join("")}</svg>`; }
}
const n2 = v => +v.toFixed(2);

const isDark = () => S.theme ? S.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
function look() {
  const dark = isDark();
  return { dark, page: dark ? "#15171a" : "#ffffff", ink: dark ? "#e8e8e8" : "#1a1a1a", soft: dark ? "#a3a7ad" : "#5c5c5c",
           line: dark ? "#3a3e44" : "#d4d4d4", none: dark ? "#4a4e54" : "#dcdcdc", lines: COLOURS[dark ? "dark" : "light"] };
}
function table(stops) { // 256 colours
  const rgb = stops.map(s => [0, 2, 4].map(i => parseInt(s.slice(i, i + 2), 16)));
  return Array.from({ length: 256 }, (_, i) => {
    const at = i / 255 * (rgb.length - 1), k = Math.min(rgb.length - 2, Math.floor(at)), f = at - k;
    return rgb[k].map((v, j) => Math.round(v + (rgb[k + 1][j] - v) * f));
  });
}
function ticks(lo, hi, most) {
  const raw = (hi - lo) / Math.max(1, most), base = 10 ** Math.floor(Math.log10(raw || 1)), step = [1, 2, 5, 10].map(m => m * base).find(s => s >= raw) || base * 10, found = [];
  for (let v = Math.ceil(lo / step) * step; v <= hi + step * 1e-6; v += step) found.push(Math.abs(v) < step * 1e-6 ? 0 : v);
  return found;
}

function logTicks(lo, hi) { // powers of ten, or 1, 2, 5 of them, or plain numbers, whichever are enough
  for (const of of [[1], [1, 2, 5]]) {
    const found = [];
    for (let e = Math.floor(lo); e <= hi; e++) for (const m of of) { const v = e + Math.log10(m); if (v >= lo && v <= hi) found.push(v); }
    if (found.length > 1) return found.filter((_, i) => i % Math.ceil(found.length / 4) === 0);
  }
  return ticks(10 ** lo, 10 ** hi, 3).filter(v => v > 0).map(Math.log10);
}

let plan = null; // all that does not depend on the update: groups, medians, scales, places, pictures
function extent(values, cut) {
  const there = Float64Array.from(values.filter(Number.isFinite)).sort();
  if (!there.length) return [0, 1];
  let lo = quantile(there, there.length, cut), hi = quantile(there, there.length, 1 - cut);
  if (hi - lo < 1e-9) { lo -= .5; hi += .5; }
  return [lo, hi];
}
const padded = ([lo, hi]) => [lo - (hi - lo) * .06, hi + (hi - lo) * .06];
function prepare(width) {
  const g = groups(), L = look(), nc = g.cols.length, nr = g.rows.length, map = data.maps[S.q];
  const p = { g, L, left: 58, right: 104, gap: 14, top: 72, rows: [], pictures: [], pooled: pooled(g.at), image: null };
  p.width = Math.max(width, p.left + p.right + nc * 110 + (nc - 1) * p.gap);
  p.cw = (p.width - p.left - p.right - (nc - 1) * p.gap) / nc;
  p.x = j => p.left + j * (p.cw + p.gap);
  const last = Math.max(2, data.updates);
  p.ux = step => S.x === "log" ? Math.log(step + 1) / Math.log(last) : step / Math.max(1, last - 1);
  p.colour = i => L.lines[g.order[i] % L.lines.length];
  p.dash = i => DASHES[Math.floor(g.order[i] / L.lines.length) % DASHES.length];
  const lastLag = Math.max(1, data.lags[NG - 1] || 1);
  p.gx = lag => lag / lastLag;
  let y = p.top;
  if (map && NS) {
    const drawn = []; // by the curves over lags: ends of bands, or the single runs at some updates
    p.medians = g.at.map(row => row.map(runs => {
      const m = new Float32Array(NS * NG);
      for (let u = 0; u < NS; u++) for (let k = 0; k < NG; k++) { const b = bandAt(runs, u, k); m[u * NG + k] = b[1]; drawn.push(b[0], b[2]); }
      if (S.seeds === "lines") for (let u = 0; u < NS; u += Math.ceil(NS / 25)) for (let k = 0; k < NG; k++) for (const run of runs) drawn.push(log2(map, run, u, k));
      return m;
    }));
    p.curve = padded(extent(drawn, .003));
    const some = [];
    for (const m of p.medians.flat()) for (let i = 0; i < m.length; i++) if (Number.isFinite(m[i])) some.push(m[i]);
    let [lo, hi] = extent(some, .003);
    if (S.rel) { const far = Math.min(20, Math.max(Math.abs(lo), Math.abs(hi), 1)); [lo, hi] = [-far, far]; }
    p.lo = lo; p.hi = hi;
    p.colours = table(S.rel ? DIVERGING[L.dark ? "dark" : "light"] : VIRIDIS);
    const height = nr <= 2 ? 150 : nr <= 4 ? 112 : 84;
    for (let i = 0; i < nr; i++, y += height + 12) p.rows.push({ kind: "map", i, y, h: height, last: i === nr - 1 });
    y += 32;
    p.rows.push({ kind: "curve", y, h: 200, last: true });
    y += 200 + 50;
    p.pictures = p.medians.map(row => row.map(m => picture(p, m, height)));
  }
  const shown = series.filter(name => S.show.has(name));
  shown.forEach((name, k) => {
    const of = data.series[name], logged = LOGGED.has(name) && !of.values.some(v => v < 0), bands = g.at.map(row => row.map(runs => of.at.map((_, i) => seriesBand(of, runs, i).map(v => logged ? Math.log10(v) : v))));
    const single = S.seeds === "lines" ? g.at.flat(2).flatMap(run => of.at.map((_, i) => logged ? Math.log10(one(of, run, i)) : one(of, run, i))) : [];
    const [lo, hi] = extent([...bands.flat(3), ...single], .002), [low, high] = padded([lo, hi]);
    p.rows.push({ kind: "series", name, of, logged, bands, lo: ["clip_scale", "clipped", "test_accuracy"].includes(name) ? Math.min(0, lo) : low, hi: high, y, h: 92, last: k === shown.length - 1 });
    y += 92 + 18;
  });
  p.height = y + 26;
  return p;
}
function lagEdges(p, h) { // borders, in pixels from below, of what each recorded lag stands for
  const at = data.lags, mid = at.map((v, i) => i ? (v + at[i - 1]) / 2 : v);
  return [...mid.map(v => p.gx(v) * h), h];
}
function picture(p, m, h) {
  const w = Math.max(1, Math.round(p.cw)), c = document.createElement("canvas"); c.width = w; c.height = h;
  const ctx = c.getContext("2d"), image = ctx.createImageData(w, h), none = [1, 3, 5].map(i => parseInt(p.L.none.slice(i, i + 2), 16));
  const made = Math.max(data.steps[NS - 1], 0), cols = new Int32Array(w), rows = new Int32Array(h), edges = lagEdges(p, h);
  const xs = data.steps.map(s => p.ux(s) * w), end = p.ux(made) * w;
  for (let x = 0, u = 0; x < w; x++) { while (u + 1 < NS && (xs[u] + xs[u + 1]) / 2 <= x + .5) u++; cols[x] = x > end + 1.5 ? -1 : u; }
  for (let y = 0, k = 0; y < h; y++) { while (k + 1 < NG && edges[k + 1] <= y + .5) k++; rows[h - 1 - y] = k; }
  for (let y = 0; y < h; y++) for (let x = 0; x < w; x++) {
    const v = cols[x] < 0 ? NaN : m[cols[x] * NG + rows[y]], at = 4 * (y * w + x);
    const c3 = v !== v ? none : p.colours[Math.max(0, Math.min(255, Math.round((v - p.lo) / (p.hi - p.lo) * 255)))];
    image.data[at] = c3[0]; image.data[at + 1] = c3[1]; image.data[at + 2] = c3[2]; image.data[at + 3] = 255;
  }
  ctx.putImageData(image, 0, 0);
  return c;
}

function text(ctx, t, x, y, { align = "left", base = "middle", colour, font = FONT, most = 0 } = {}) {
  ctx.font = font; ctx.textAlign = align; ctx.textBaseline = base; ctx.fillStyle = colour;
  if (most && ctx.measureText(t).width > most) { while (t.length > 1 && ctx.measureText(t + "…").width > most) t = t.slice(0, -1); t += "…"; }
  ctx.fillText(t, x, y);
}
function path(ctx, points) {
  ctx.beginPath();
  let on = false;
  for (const [x, y] of points) { if (y !== y) { on = false; continue; } if (on) ctx.lineTo(x, y); else ctx.moveTo(x, y); on = true; }
}
function area(ctx, xs, low, high) { // between two curves, in stretches where both are
  for (let a = 0; a < xs.length; a++) {
    if (low[a] !== low[a]) continue;
    let b = a;
    while (b + 1 < xs.length && low[b + 1] === low[b + 1]) b++;
    ctx.beginPath();
    for (let i = a; i <= b; i++) ctx[i === a ? "moveTo" : "lineTo"](xs[i], high[i]);
    for (let i = b; i >= a; i--) ctx.lineTo(xs[i], low[i]);
    ctx.closePath(); ctx.fill();
    a = b;
  }
}
function cross(ctx, x, y, r) { ctx.beginPath(); ctx.moveTo(x - r, y - r); ctx.lineTo(x + r, y + r); ctx.moveTo(x - r, y + r); ctx.lineTo(x + r, y - r); ctx.stroke(); }
function triangle(ctx, x, y, r) { ctx.beginPath(); ctx.moveTo(x, y + r); ctx.lineTo(x - r, y - r); ctx.lineTo(x + r, y - r); ctx.closePath(); ctx.fill(); ctx.stroke(); }
function within(ctx, x, y, w, h, draw) { ctx.save(); ctx.beginPath(); ctx.rect(x, y, w, h); ctx.clip(); draw(); ctx.restore(); }

const clampY = (v, lo, hi, y, h) => y + h - (Math.max(-9, Math.min(10, (v - lo) / (hi - lo)))) * h;
const shown = (v, k) => v === -Infinity && k === 0 ? NaN : v; // at lag 0 nothing comes from a next step
const symbol = () => (data.maps[S.q] || { name: "" }).name;
const quantity = () => "log₂ " + symbol() + (S.rel ? " over lag 0" : "");

function axes(ctx, p, r, { yt, yl, xt, xl, form }) {
  const { L, g } = p;
  for (let j = 0; j < g.cols.length; j++) {
    const x = p.x(j);
    ctx.strokeStyle = L.line; ctx.lineWidth = 1; ctx.setLineDash([]);
    for (const v of yt) { const at = clampY(v, yl[0], yl[1], r.y, r.h); if (r.kind !== "map") { ctx.globalAlpha = .6; path(ctx, [[x, at], [x + p.cw, at]]); ctx.stroke(); ctx.globalAlpha = 1; }
      if (!j) text(ctx, form(v), x - 7, at, { align: "right", colour: L.soft, font: SMALL }); }
    ctx.strokeStyle = L.soft; path(ctx, [[x, r.y], [x, r.y + r.h], [x + p.cw, r.y + r.h]]); ctx.stroke();
    for (const [at, t] of xt) { path(ctx, [[x + at * p.cw, r.y + r.h], [x + at * p.cw, r.y + r.h + 4]]); ctx.stroke();
      if (r.last) text(ctx, t, x + at * p.cw, r.y + r.h + 13, { align: at > .97 ? "right" : at < .03 && j ? "left" : "center", colour: L.soft, font: SMALL }); }
    if (r.last) text(ctx, xl, x + p.cw / 2, r.y + r.h + 28, { align: "center", colour: L.ink });
  }
}
function side(ctx, t, y, h, L) {
  ctx.save(); ctx.translate(12, y + h / 2); ctx.rotate(-Math.PI / 2); text(ctx, t, 0, 0, { align: "center", colour: L.ink, font: SMALL, most: h + 14 }); ctx.restore();
}
function updateTicks(p) {
  if (S.x === "linear") return ticks(0, data.updates, Math.max(2, Math.floor(p.cw / 60))).map(v => [p.ux(Math.max(0, v - 1)), many(v)]).filter(t => t[0] <= 1.001);
  const found = [];
  for (let v = 1; v <= data.updates; v *= 10) found.push([p.ux(v - 1), many(v)]);
  return p.cw / found.length < 34 ? found.filter((_, i) => i % 2 === 0) : found;
}
const tenth = v => { const e = Math.round(v); return Math.abs(v - e) < 1e-9 && (e < -2 || e > 4) ? `10${[...String(e)].map(c => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(c)]).join("")}` : told(10 ** v); };
const plain = v => String(+v.toPrecision(6)).replace("-", "−");

function still(ctx, p) { // all but the cursor and the curve over lags
  const { L, g } = p, xt = updateTicks(p), steps = data.steps;
  ctx.fillStyle = L.page; ctx.fillRect(0, 0, p.width, p.height);
  legend(ctx, p);
  g.cols.forEach((t, j) => text(ctx, t, p.x(j) + p.cw / 2, p.top - 11, { align: "center", colour: L.ink, font: "600 12px system-ui, sans-serif", most: p.cw + p.gap - 4 }));
  for (const r of p.rows) {
    if (r.kind === "map") {
      const most = data.lags[NG - 1];
      axes(ctx, p, r, { yt: ticks(0, most, 3), yl: [0, most || 1], xt, xl: "update", form: plain });
      if (r.i === Math.floor((g.rows.length - 1) / 2)) side(ctx, "lag T − t (steps)", r.y, r.h, L);
      rowName(ctx, p, r.i, r.y + r.h / 2);
      g.at[r.i].forEach((runs, j) => {
        const x = p.x(j);
        if (!runs.length) { text(ctx, "no runs", x + p.cw / 2, r.y + r.h / 2, { align: "center", colour: L.soft, font: SMALL }); return; }
        ctx.drawImage(p.pictures[r.i][j], x, r.y, p.cw, r.h);
        within(ctx, x, r.y, p.cw, r.h, () => {
          const of = data.series.horizon;
          if (of && S.q === "adjoint_norm") {
            const at = of.at.map((s, i) => [x + p.ux(s) * p.cw, r.y + r.h - p.gx(seriesBand(of, runs, i)[1]) * r.h]);
            path(ctx, at); ctx.setLineDash([]); ctx.strokeStyle = "#000"; ctx.globalAlpha = .55; ctx.lineWidth = 2.6; ctx.stroke();
            ctx.globalAlpha = 1; ctx.strokeStyle = "#fff"; ctx.lineWidth = 1.2; ctx.stroke();
          }
        });
        const cut = data.series.clipped;
        if (cut) cut.at.forEach((s, i) => { // a strip below: share of the updates clipped
          const share = mean(runs, run => one(cut, run, i));
          if (!(share > 0)) return;
          const a = p.ux(i ? (cut.at[i - 1] + s) / 2 : s), b = p.ux(i + 1 < cut.at.length ? (cut.at[i + 1] + s) / 2 : s);
          ctx.globalAlpha = share; ctx.fillStyle = L.soft; ctx.fillRect(x + a * p.cw, r.y + r.h + 1, Math.max(.5, (b - a) * p.cw), 4); ctx.globalAlpha = 1;
        });
        marks(ctx, p, runs, x, r.y + 7);
      });
    } else if (r.kind === "series") {
      const yt = r.logged ? logTicks(r.lo, r.hi) : ticks(r.lo, r.hi, 3);
      axes(ctx, p, r, { yt, yl: [r.lo, r.hi], xt, xl: "update", form: r.logged ? tenth : plain });
      side(ctx, r.of.name, r.y, r.h, L);
      g.rows.forEach((_, i) => g.at[i].forEach((runs, j) => {
        const x = p.x(j), xs = r.of.at.map(s => x + p.ux(s) * p.cw), py = v => clampY(v, r.lo, r.hi, r.y, r.h);
        within(ctx, x, r.y - 1, p.cw, r.h + 2, () => {
          lines(ctx, p, i, runs, xs, r.bands[i][j].map(b => b.map(py)), run => r.of.at.map((_, k) => py(r.logged ? Math.log10(one(r.of, run, k)) : one(r.of, run, k))));
        });
        if (r.name === "loss") { ctx.strokeStyle = p.colour(i); ctx.lineWidth = 1.4; ctx.setLineDash([]); runs.forEach(run => { if (data.broke[run] >= 0) cross(ctx, x + p.ux(data.broke[run]) * p.cw, r.y + 2, 3.5); }); }
      }));
    } else {
      axes(ctx, p, r, { yt: ticks(...p.curve, 5), yl: p.curve, xt: ticks(0, data.lags[NG - 1], Math.max(2, Math.floor(p.cw / 60))).map(v => [p.gx(v), plain(v)]), xl: "lag T − t (steps)", form: plain });
      side(ctx, quantity(), r.y, r.h, L);
    }
  }
}
function mean(runs, of) { let n = 0, sum = 0; for (const run of runs) { const v = of(run); if (v === v) { n++; sum += v; } } return sum / n; }
function marks(ctx, p, runs, x, y) {
  ctx.setLineDash([]);
  for (const run of runs) {
    if (data.learned[run] >= 0) { ctx.fillStyle = "#fff"; ctx.strokeStyle = "#000"; ctx.lineWidth = 1; triangle(ctx, x + Math.min(1, p.ux(data.learned[run])) * p.cw, y, 4); }
    if (data.broke[run] >= 0) { ctx.strokeStyle = "#000"; ctx.lineWidth = 4; cross(ctx, x + p.ux(data.broke[run]) * p.cw, y, 4); ctx.strokeStyle = "#fff"; ctx.lineWidth = 1.8; cross(ctx, x + p.ux(data.broke[run]) * p.cw, y, 4); }
  }
}
function lines(ctx, p, i, runs, xs, bands, each) {
  ctx.strokeStyle = ctx.fillStyle = p.colour(i); ctx.setLineDash(p.dash(i));
  if (S.seeds === "lines") {
    ctx.lineWidth = 1; ctx.globalAlpha = runs.length > 12 ? .35 : .75;
    for (const run of runs) { const ys = each(run); path(ctx, xs.map((x, k) => [x, ys[k]])); ctx.stroke(); }
  } else {
    ctx.globalAlpha = .2; area(ctx, xs, bands.map(b => b[0]), bands.map(b => b[2]));
    ctx.globalAlpha = 1; ctx.lineWidth = xs.length > 150 ? 1.1 : 1.6; path(ctx, xs.map((x, k) => [x, bands[k][1]])); ctx.stroke();
  }
  ctx.globalAlpha = 1; ctx.setLineDash([]);
}
function rowName(ctx, p, i, y) {
  if (!p.g.rows[i]) return;
  const t = p.g.rows[i], x = p.width - p.right + 10;
  ctx.strokeStyle = p.colour(i); ctx.lineWidth = 2.4; ctx.setLineDash(p.dash(i)); path(ctx, [[x, y], [x + 16, y]]); ctx.stroke(); ctx.setLineDash([]);
  text(ctx, t, x + 21, y, { colour: p.L.ink, font: SMALL, most: p.right - 33 });
}
function legend(ctx, p) {
  const { L } = p, y = 38;
  let x = p.left;
  const item = (draw, t) => { draw(x, y); text(ctx, t, x + 18, y, { colour: L.soft, font: SMALL }); x += 18 + ctx.measureText(t).width + 18; };
  ctx.setLineDash([]);
  if (data.maps[S.q] && NS) {
    if (data.learned.some(v => v >= 0)) item((x, y) => { ctx.fillStyle = "#fff"; ctx.strokeStyle = L.dark ? "#fff" : "#000"; ctx.lineWidth = 1; triangle(ctx, x + 7, y, 4); }, "learned");
    if (data.broke.some(v => v >= 0)) item((x, y) => { ctx.strokeStyle = L.ink; ctx.lineWidth = 1.8; cross(ctx, x + 7, y, 4); }, "broke (Inf or NaN)");
    if (data.series.clipped?.values.some(v => v > 0)) item((x, y) => { ctx.fillStyle = L.soft; ctx.fillRect(x, y - 2, 13, 4); }, "clipped");
    if (data.series.horizon && S.q === "adjoint_norm") item((x, y) => { ctx.strokeStyle = "#000"; ctx.lineWidth = 3.4; path(ctx, [[x, y], [x + 13, y]]); ctx.stroke(); ctx.strokeStyle = "#fff"; ctx.lineWidth = 1.4; path(ctx, [[x, y], [x + 13, y]]); ctx.stroke(); }, "horizon (1% of lag 0)");
    item((x, y) => { ctx.fillStyle = L.none; ctx.fillRect(x, y - 5, 13, 10); }, "nothing recorded");
    const w = Math.min(230, p.width / 4), x0 = p.width - w - 14;
    p.colours.forEach((c, i) => { ctx.fillStyle = `rgb(${c})`; ctx.fillRect(x0 + i * w / 256, 7, w / 256 + .6, 10); });
    for (const v of ticks(p.lo, p.hi, 4)) text(ctx, plain(v), x0 + (v - p.lo) / (p.hi - p.lo) * w, 25, { align: "center", colour: L.soft, font: SMALL });
    text(ctx, quantity(), x0 - 8, 12, { align: "right", colour: L.ink, font: SMALL });
  }
  x = p.left;
  text(ctx, S.seeds === "lines" ? "A line a run." : "Maps and lines: median over runs; bands: the middle half.", x, 14, { colour: L.soft, font: SMALL });
}
function moving(ctx, p) { // the cursor and the curve over lags, the same in each frame but for these
  const { L, g } = p;
  const step = data.steps[S.u];
  for (const r of p.rows) {
    g.cols.forEach((_, j) => {
      const x = p.x(j);
      if (r.kind !== "curve") {
        const at = x + p.ux(step) * p.cw;
        ctx.setLineDash([]);
        if (r.kind === "map") { ctx.strokeStyle = "#000"; ctx.globalAlpha = .5; ctx.lineWidth = 3; path(ctx, [[at, r.y], [at, r.y + r.h]]); ctx.stroke(); ctx.globalAlpha = 1; }
        ctx.strokeStyle = r.kind === "map" ? "#fff" : L.ink; ctx.lineWidth = 1.2; path(ctx, [[at, r.y], [at, r.y + r.h]]); ctx.stroke();
        if (r.kind === "map" && S.lag >= 0) {
          const y = r.y + r.h - p.gx(data.lags[S.lag]) * r.h;
          ctx.strokeStyle = "#000"; ctx.globalAlpha = .4; ctx.lineWidth = 2.6; path(ctx, [[x, y], [x + p.cw, y]]); ctx.stroke(); ctx.globalAlpha = 1; ctx.strokeStyle = "#fff"; ctx.lineWidth = 1; ctx.setLineDash([4, 3]); path(ctx, [[x, y], [x + p.cw, y]]); ctx.stroke(); ctx.setLineDash([]);
        }
        return;
      }
      const xs = data.lags.map(v => x + p.gx(v) * p.cw), py = v => clampY(v, ...p.curve, r.y, r.h);
      within(ctx, x, r.y - 1, p.cw, r.h + 2, () => {
        if (S.lag >= 0) { ctx.strokeStyle = L.soft; ctx.lineWidth = 1; ctx.setLineDash([4, 3]); path(ctx, [[xs[S.lag], r.y], [xs[S.lag], r.y + r.h]]); ctx.stroke(); ctx.setLineDash([]); }
        g.rows.forEach((_, i) => {
          const runs = g.at[i][j];
          if (!runs.length) return;
          lines(ctx, p, i, runs, xs, data.lags.map((_, k) => bandAt(runs, S.u, k).map(v => py(shown(v, k)))), run => data.lags.map((_, k) => py(shown(log2(data.maps[S.q], run, S.u, k), k))));
        });
      });
      const of = data.series.horizon;
      if (of && S.q === "adjoint_norm" && S.seeds === "bands") g.rows.forEach((_, i) => {
        const runs = g.at[i][j], lag = runs.length ? seriesBand(of, runs, S.u)[1] : NaN, k = data.lags.findLastIndex(v => v <= lag);
        if (!(lag < data.lags[NG - 1]) || k < 0) return;
        const share = (lag - data.lags[k]) / (data.lags[k + 1] - data.lags[k]); // a median may lie between two lags
        const v = bandAt(runs, S.u, k)[1] * (1 - share) + (share && bandAt(runs, S.u, k + 1)[1] * share);
        if (!(v >= p.curve[0] && v <= p.curve[1])) return;
        ctx.beginPath(); ctx.arc(x + p.gx(lag) * p.cw, py(v), 3.5, 0, 7); ctx.fillStyle = p.colour(i); ctx.fill(); ctx.strokeStyle = L.ink; ctx.lineWidth = .8; ctx.stroke();
      });
    });
    if (r.kind === "curve") {
      text(ctx, `update ${many(step + 1)}`, p.width - p.right + 10, r.y + 8, { colour: L.ink, font: "600 11px system-ui, sans-serif" });
      g.rows.forEach((name, i) => { if (i < 10) rowName(ctx, p, i, r.y + 30 + i * 17); });
      if (data.series.horizon && S.q === "adjoint_norm" && S.seeds === "bands") text(ctx, "○ horizon", p.width - p.right + 10, r.y + 34 + Math.min(10, g.rows.length) * 17, { colour: L.soft, font: SMALL });
    }
  }
}

// --- the page --------------------------------------------------------------------------------------------------

const make = (tag, props = {}, ...inside) => { const e = Object.assign(document.createElement(tag), props); e.append(...inside); return e; };
const canvas = make("canvas", { tabIndex: 0 }), ctx = canvas.getContext("2d"), tip = make("div", { id: "tip", hidden: true });
canvas.setAttribute("role", "img"); canvas.setAttribute("aria-label", "Maps of gradient norms over lag and update, and curves; arrow keys move the update and the lag");
const slider = make("input", { type: "range", id: "slider", min: 0, max: Math.max(0, NS - 1), step: 1 }), now = make("span", { id: "now" }), play = make("button", { id: "play", textContent: "▶ Play" });
slider.setAttribute("aria-label", "update");
const note = make("p", { id: "note" }), bar = make("div", { className: "bar", id: "choices" }), chips = make("div", { className: "bar", id: "runs" }), plot = make("div", { id: "plot" }, canvas);
const theme = make("button", { id: "theme", textContent: "Dark / light" });
document.body.append(
  make("div", { id: "top" }, make("div", {}, make("h1", { textContent: data.title }), make("p", { textContent: data.about })),
    make("div", {}, make("button", { id: "png", textContent: "PNG", onclick: () => keep("png") }), make("button", { id: "svg", textContent: "SVG", onclick: () => keep("svg") }), theme)),
  bar, chips, make("div", { className: "bar", id: "time" }, play, slider, now), note, plot,
  make("details", {}, make("summary", { textContent: "Keys, and what is shown" }),
    make("p", { textContent: "← → update (with Shift ten) · Home End · Space play · ↑ ↓ lag, Esc none · Q quantity · L layer · R relative to lag 0 · X update axis · S seeds · T dark or light. A click on a map sets update and lag." }),
    make("p", { textContent: `Each value is one record of one update, none averaged; shown are ${NS} of ${many(data.updates)} updates and ${NG} lags in maps, up to 300 updates in curves, half of them evenly spaced, half on a log axis. Norms are root mean squares over the batch, before clipping. The horizon is the first lag below 1% of lag 0 (T where none is); the circle marks its median. Spectral radius is the largest over gates.` })),
  tip);
function picker(name, text, options, value, set) {
  const s = make("select", { id: name, onchange: () => set(s.value) }, ...options.map(([v, t]) => make("option", { value: v, textContent: t })));
  s.value = value;
  return make("label", {}, text, s);
}
function toggle(id, text, on, click) {
  const b = make("button", { id, textContent: text, onclick: click });
  b.setAttribute("aria-pressed", on);
  return b;
}
function facet(which, name) {
  const old = S[which], other = which === "col" ? "row" : "col";
  if (name && name === S[other]) S[other] = old;
  S[which] = name;
  for (const n of [S.col, S.row]) if (n && S.picked[n].size === 1) S.picked[n] = all(coordinate(n));
  narrow(); renew();
}
function controls() {
  const focus = document.activeElement && document.activeElement.id;
  const names = [["", "none"], ...C.map(c => [c.name, c.name.replaceAll("_", " ")])];
  bar.replaceChildren(...[
    maps.length > 1 && picker("quantity", "Norm of", maps.map(m => [m, data.maps[m].name]), S.q, v => { S.q = v; renew(); }),
    NL > 1 && picker("layer", "Layer", data.layers.map((t, i) => [i, t]), S.layer, v => { S.layer = +v; renew(); }),
    C.length > 0 && picker("col", "Columns", names, S.col, v => facet("col", v)), C.length > 0 && picker("row", "Rows", names, S.row, v => facet("row", v)),
    picker("seeds", "Seeds", [["bands", "bands"], ["lines", "lines"]], S.seeds, v => { S.seeds = v; renew(); }),
    picker("x", "Update axis", [["log", "log"], ["linear", "linear"]], S.x, v => { S.x = v; renew(); }),
    toggle("rel", "Relative to lag 0", !!S.rel, () => { S.rel = 1 - S.rel; renew(); }),
    series.length > 0 && make("span", { className: "of" }, "Curves", ...series.map(n => toggle("show-" + n, data.series[n].name, S.show.has(n), () => { S.show.has(n) ? S.show.delete(n) : S.show.add(n); renew(); }))),
  ].filter(Boolean));
  chips.replaceChildren(...C.filter(c => c.values.length <= 24 && !follows(c)).map(c => make("span", { className: "of" }, c.name.replaceAll("_", " "),
    ...c.values.map((v, i) => toggle(`pick-${c.name}-${i}`, v || "–", S.picked[c.name].has(i), event => {
      const set = S.picked[c.name];
      if (event.shiftKey) S.picked[c.name] = new Set([i]); else if (set.has(i)) set.delete(i); else set.add(i);
      if (!S.picked[c.name].size) S.picked[c.name] = all(c);
      renew();
    })))));
  if (focus) document.getElementById(focus)?.focus({ preventScroll: true });
}
let base = null; // the still part of the picture
function renew() {
  document.documentElement.classList.toggle("dark", isDark());
  controls();
  const scale = devicePixelRatio || 1;
  plan = prepare(Math.max(860, plot.clientWidth));
  canvas.width = Math.round(plan.width * scale); canvas.height = Math.round(plan.height * scale);
  canvas.style.width = plan.width + "px"; canvas.style.height = plan.height + "px";
  base = document.createElement("canvas"); base.width = canvas.width; base.height = canvas.height;
  const under = base.getContext("2d"); under.scale(scale, scale);
  still(under, plan);
  const n = chosen().length;
  note.textContent = !n ? "No runs are picked." : !NS ? "No norms over lags are recorded here." : plan.pooled.length ? `Pooled over ${plan.pooled.join(", ")} as over seeds: pick one value, or make it rows or columns.` : "";
  draw();
}
function draw() {
  const begun = performance.now(), scale = devicePixelRatio || 1;
  ctx.setTransform(1, 0, 0, 1, 0, 0); ctx.drawImage(base, 0, 0); ctx.setTransform(scale, 0, 0, scale, 0, 0);
  if (NS) moving(ctx, plan);
  slider.value = S.u;
  now.textContent = NS ? `update ${many(data.steps[S.u] + 1)} of ${many(data.updates)}` : "";
  slider.setAttribute("aria-valuetext", now.textContent);
  remember.later ??= setTimeout(() => { remember.later = null; remember(); }, 150); // browsers limit how often
  document.documentElement.dataset.frame = (performance.now() - begun).toFixed(2);
}
function go(u) { S.u = Math.max(0, Math.min(NS - 1, u)); draw(); }
let playing = 0;
function toggled() {
  playing = playing ? 0 : performance.now();
  play.textContent = playing ? "❚❚ Pause" : "▶ Play"; play.setAttribute("aria-pressed", !!playing);
  if (!playing) return;
  if (S.u >= NS - 1) S.u = 0;
  const frame = at => {
    if (!playing) return;
    if (at - playing >= 1000 / 15) { playing = at; if (S.u >= NS - 1) return toggled(); go(S.u + 1); }
    requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
}
function place(event) { // what lies under the pointer
  const box = canvas.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top, p = plan;
  const j = p.g.cols.findIndex((_, j) => x >= p.x(j) && x <= p.x(j) + p.cw), r = p.rows.find(r => y >= r.y && y <= r.y + r.h);
  return j < 0 || !r ? null : { j, r, fx: (x - p.x(j)) / p.cw, fy: 1 - (y - r.y) / r.h };
}
const stepAt = (fx, at) => nearest(at.map(plan.ux), fx);
const lagAt = f => nearest(data.lags.map(plan.gx), f);
canvas.addEventListener("pointerdown", event => {
  const at = place(event);
  if (!at || !NS) return;
  if (at.r.kind === "curve") S.lag = lagAt(at.fx);
  else { S.u = stepAt(at.fx, data.steps); if (at.r.kind === "map") S.lag = lagAt(at.fy); }
  canvas.setPointerCapture(event.pointerId);
  draw();
});
canvas.addEventListener("pointermove", event => {
  const at = place(event);
  if (event.buttons && at && NS && at.r.kind !== "curve") go(stepAt(at.fx, data.steps));
  hint(event, at);
});
canvas.addEventListener("pointerleave", () => tip.hidden = true);
function hint(event, at) {
  tip.hidden = !at;
  if (!at) return;
  const { g } = plan, here = (i, body) => `${[g.cols[at.j], g.rows[i]].filter(Boolean).join(", ")}: ${body}`, all = [];
  const seeds = (runs, of) => runs.length > 1 && runs.length < 9 ? `\n   ${runs.map(of).join("; ")}` : "";
  if (at.r.kind === "series") {
    const k = stepAt(at.fx, at.r.of.at);
    all.push(`${at.r.of.name}${at.r.of.units ? ` (${at.r.of.units})` : ""}, update ${many(at.r.of.at[k] + 1)}`);
    g.rows.forEach((_, i) => { const runs = g.at[i][at.j]; if (runs.length) all.push(here(i, told(seriesBand(at.r.of, runs, k)[1]) + seeds(runs, run => told(one(at.r.of, run, k))))); });
  } else {
    const map = at.r.kind === "map", u = map ? stepAt(at.fx, data.steps) : S.u, k = lagAt(map ? at.fy : at.fx);
    all.push(`${quantity()}, update ${many(data.steps[u] + 1)}, lag ${data.lags[k]}`);
    (map ? [at.r.i] : g.rows.map((_, i) => i)).forEach(i => { const runs = g.at[i][at.j]; if (runs.length) all.push(here(i, toldLog(bandAt(runs, u, k)[1]) + seeds(runs, run => toldLog(log2(data.maps[S.q], run, u, k))))); });
    if (map) for (const run of g.at[at.r.i][at.j]) {
      if (data.learned[run] >= 0) all.push(`run ${run} learned by update ${many(data.learned[run])}`);
      if (data.broke[run] >= 0) all.push(`run ${run} broke at update ${many(data.broke[run] + 1)}`);
    }
  }
  tip.textContent = all.slice(0, 16).join("\n");
  const box = tip.getBoundingClientRect();
  tip.style.left = Math.max(4, event.clientX + 14 + box.width > innerWidth ? event.clientX - box.width - 14 : event.clientX + 14) + "px";
  tip.style.top = Math.max(4, Math.min(innerHeight - box.height - 4, event.clientY + 14)) + "px";
}
function pictured(kind) { // the file of what is seen, as a data address
  if (kind === "svg") {
    const s = new Svg(plan.width, plan.height, document.createElement("canvas").getContext("2d"));
    still(s, plan); if (NS) moving(s, plan);
    return "data:image/svg+xml;charset=utf-8," + encodeURIComponent(s.text());
  }
  const c = document.createElement("canvas"); c.width = plan.width * 2; c.height = plan.height * 2;
  const two = c.getContext("2d"); two.scale(2, 2); still(two, plan); if (NS) moving(two, plan);
  return c.toDataURL("image/png");
}
async function keep(kind) {
  const a = make("a", { href: pictured(kind), download: `explore-update-${(data.steps[S.u] ?? 0) + 1}.${kind}` });
  a.click();
}
const next = (list, v) => list[(list.indexOf(v) + 1) % list.length];
function themed() { S.theme = isDark() ? "light" : "dark"; renew(); }
theme.onclick = themed; play.onclick = toggled; slider.oninput = () => go(+slider.value);
addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "SELECT") return;
  const far = event.shiftKey ? 10 : 1, keys = {
    ArrowLeft: () => go(S.u - far), ArrowRight: () => go(S.u + far), Home: () => go(0), End: () => go(NS - 1),
    ArrowUp: () => { S.lag = Math.min(NG - 1, S.lag + far); draw(); }, ArrowDown: () => { S.lag = Math.max(0, (S.lag < 0 ? NG : S.lag) - far); draw(); },
    Escape: () => { S.lag = -1; draw(); }, " ": toggled, q: () => { S.q = next(maps, S.q) ?? ""; renew(); }, l: () => { S.layer = (S.layer + 1) % NL; renew(); },
    r: () => { S.rel = 1 - S.rel; renew(); }, x: () => { S.x = next(["log", "linear"], S.x); renew(); }, s: () => { S.seeds = next(["bands", "lines"], S.seeds); renew(); }, t: themed };
  if (event.key === " " && event.target.tagName === "BUTTON") return;
  const act = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (act) { event.preventDefault(); act(); }
});
addEventListener("hashchange", () => { recall(); renew(); });
addEventListener("resize", () => { clearTimeout(renew.later); renew.later = setTimeout(renew, 100); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", renew);
recall();
renew();
async function follow() { // the run that this page's server watches; what is looked at stays, and the newest update newest
  try {
    const newest = await (await fetch("version")).text();
    if (newest !== data.version && !playing && !held) {
      remember();
      if (S.u === NS - 1) history.replaceState(null, "", location.hash.replace(/([#&])u=\d+/, "$1u="));
      location.reload();
    }
  } catch { note.textContent = "The server of this page has ended; the page stays as it is."; }
}
let held = false;
addEventListener("pointerdown", () => held = true);
for (const end of ["pointerup", "pointercancel"]) addEventListener(end, () => held = false);
if (data.version) setInterval(follow, 3000);
window.explore = { S, data, go, renew, pictured, plan: () => plan };
document.documentElement.dataset.ready = "1";
})();
