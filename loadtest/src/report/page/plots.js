'use strict';
// Draws the runs of #data. No library: a plot is a few lines of SVG, made anew when the width changes.

const runs = JSON.parse(document.getElementById('data').textContent);
const two = runs.length === 2;
const $ = id => document.getElementById(id);

// Text goes in as text, never as HTML: names and reasons come from servers.
function make(tag, attributes = {}, ...children) {
  const svg = ['svg', 'g', 'path', 'line', 'text', 'rect'].includes(tag);
  const node = svg ? document.createElementNS('http://www.w3.org/2000/svg', tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children.map(child => typeof child === 'number' ? String(child) : child));
  return node;
}

const count = n => Math.round(n).toLocaleString('en');
const short = n => n >= 1e6 ? +(n / 1e6).toPrecision(3) + ' M' : n >= 1e4 ? +(n / 1e3).toPrecision(3) + ' k' : count(n);
function time(ms) {
  if (ms >= 1000) return +(ms / 1000).toPrecision(3) + ' s';
  return ms >= 1 ? +ms.toPrecision(3) + ' ms' : +(ms * 1000).toPrecision(3) + ' µs';
}
const sum = map => Object.values(map).reduce((a, b) => a + b, 0);
const yes = c => c.admitted + c.created + c.done;
const color = n => `var(--s${n})`;

// ---- plots

function niceTicks(low, high, wanted) {
  const rough = (high - low) / wanted, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find(n => n * power >= rough) * power;
  const ticks = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step / 1e6; at += step) ticks.push(+at.toPrecision(12));
  return ticks;
}

function logTicks(low, high) {
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++)
    for (const n of high / low > 1e3 ? [1] : [1, 2, 5]) ticks.push(n * 10 ** power);
  return ticks.filter(at => at >= low * .999 && at <= high * 1.001);
}

// plot: {series: [{name, color, points: [[x, y]], dashed, area}], x, y: axes with {log, text, ticks, from}}
function draw(box, plot) {
  const series = plot.series.filter(s => s.points.length);
  box.replaceChildren();
  if (!series.length) return box.append(make('p', {class: 'none'}, plot.none || 'Nothing to show.'));
  const width = Math.max(box.clientWidth, 240), height = Math.min(300, Math.max(190, width * .42));
  const left = 58, right = 12, top = 10, bottom = 26;
  const all = series.flatMap(s => s.points);
  let [x0, x1] = [Math.min(...all.map(p => p[0])), Math.max(...all.map(p => p[0]))];
  let [y0, y1] = [Math.min(...all.map(p => p[1]).filter(y => !plot.y.log || y > 0)), Math.max(...all.map(p => p[1]))];
  if (x0 === x1) x1 = plot.x.log ? x0 * 10 : x0 + 1;
  if (plot.y.log) { y0 = y0 / 1.3; y1 = Math.max(y1 * 1.3, y0 * 10); } else { y0 = 0; y1 = y1 > 0 ? y1 * 1.08 : 1; }
  const scale = (axis, from, to, a, b) => axis.log
    ? v => a + (Math.log(Math.max(v, from)) - Math.log(from)) / (Math.log(to) - Math.log(from)) * (b - a)
    : v => a + (v - from) / (to - from) * (b - a);
  const x = scale(plot.x, x0, x1, left, width - right), y = scale(plot.y, y0, y1, height - bottom, top);
  const svg = make('svg', {viewBox: `0 0 ${width} ${height}`, height, role: 'img', 'aria-label': plot.label});
  const yTicks = plot.y.log ? logTicks(y0, y1) : niceTicks(y0, y1, 5);
  for (const at of yTicks) {
    svg.append(make('line', {class: 'grid', x1: left, x2: width - right, y1: y(at), y2: y(at)}));
    svg.append(make('text', {x: left - 6, y: y(at) + 4, 'text-anchor': 'end'}, plot.y.text(at)));
  }
  const xTicks = (plot.x.ticks || niceTicks(x0, x1, width / 90)).filter(at => at >= x0 && at <= x1);
  let free = 0; // a label must not touch the one before it
  xTicks.forEach((at, n) => {
    const text = plot.x.text(at), half = text.length * 3.2, anchor = x(at) > width - right - half ? 'end' : 'middle';
    const from = x(at) - (anchor === 'end' ? 2 * half : half);
    if (from >= free) {
      svg.append(make('text', {x: x(at), y: height - 8, 'text-anchor': anchor}, text));
      free = from + 2 * half + 6;
    }
    if (plot.x.log && n) svg.append(make('line', {class: 'grid', x1: x(at), x2: x(at), y1: top, y2: height - bottom}));
  });
  svg.append(make('line', {class: 'axis', x1: left, x2: width - right, y1: height - bottom, y2: height - bottom}));
  for (const s of series) {
    const path = s.points.map(([px, py], n) => `${n ? 'L' : 'M'}${x(px).toFixed(1)},${y(py).toFixed(1)}`).join('');
    if (s.area) {
      const base = s.area.map(([px, py]) => `L${x(px).toFixed(1)},${y(py).toFixed(1)}`).reverse().join('');
      svg.append(make('path', {d: path + base + 'Z', fill: s.color, 'fill-opacity': .55}));
    }
    const line = {d: path, fill: 'none', stroke: s.color, 'stroke-width': 1.8, 'stroke-linejoin': 'round'};
    if (s.dashed) line['stroke-dasharray'] = '5 4';
    if (!s.area) svg.append(make('path', line));
    if (s.points.length === 1) svg.append(make('rect', {x: x(s.points[0][0]) - 3, y: y(s.points[0][1]) - 3, width: 6, height: 6, fill: s.color}));
  }
  const cursor = make('line', {class: 'cursor', y1: top, y2: height - bottom, visibility: 'hidden'});
  svg.append(cursor);
  const tip = make('div', {class: 'tip'});
  tip.hidden = true;
  const legend = make('div', {class: 'legend'}, ...series.map(s =>
    make('span', {}, make('i', s.dashed ? {class: 'dashed', style: `border-color:${s.color}`} : {style: `background:${s.color}`}), s.name)));
  box.append(svg, legend, tip);
  svg.addEventListener('pointermove', event => {
    const rect = svg.getBoundingClientRect(), at = (event.clientX - rect.left) * width / rect.width;
    const near = s => s.points.reduce((best, p) => Math.abs(x(p[0]) - at) < Math.abs(x(best[0]) - at) ? p : best);
    const here = near(series[0])[0];
    cursor.setAttribute('x1', x(here)); cursor.setAttribute('x2', x(here)); cursor.setAttribute('visibility', 'visible');
    tip.replaceChildren(make('div', {class: 'dim'}, plot.x.tip(here)), ...series.map(s => {
      const point = near(s), value = s.own ? s.own.get(point[0]) : point[1];
      return make('div', {}, make('i', {style: `background:${s.color}`}), s.name + ' ', make('b', {}, plot.y.tip ? plot.y.tip(value) : plot.y.text(value)));
    }));
    tip.hidden = false;
    const beside = x(here) / width * rect.width;
    tip.style.top = '6px';
    const wanted = beside > rect.width / 2 ? beside - tip.offsetWidth - 10 : beside + 10;
    tip.style.left = `${Math.max(0, Math.min(wanted, rect.width - tip.offsetWidth))}px`;
  });
  svg.addEventListener('pointerleave', () => { tip.hidden = true; cursor.setAttribute('visibility', 'hidden'); });
}

const seconds = {text: at => `${+at.toFixed(1)} s`, tip: at => `at ${+at.toFixed(1)} s`};
const named = (run, name) => two ? `${run.about.name}: ${name}` : name;

function latencyPlot() {
  const lines = two ? [['p50', 'p50'], ['p99', 'p99']] : [['p50', 'p50'], ['p90', 'p90'], ['p99', 'p99'], ['max', 'max']];
  const series = runs.flatMap((run, r) => lines.map(([key, name], n) => ({
    name: named(run, name), color: two ? color(r + 1) : color([1, 3, 2, 6][n]), dashed: two && n === 0,
    points: run.slices.filter(s => yes(s.counts) + sum(s.counts.refused) + sum(s.counts.unknown) > 0).map(s => [s.at_s, s[key]]),
  })));
  return {series, x: seconds, y: {log: true, text: time}, label: 'Latency percentiles over time'};
}

function percentilePlot() {
  const series = runs.flatMap((run, r) => {
    const curve = of => of.curve.map(([q, ms]) => [1 / (1 - q), ms]);
    const lines = [{name: named(run, 'all requests'), color: color(r + 1), points: curve(run.latency)}];
    if (!two && run.order_made.count) lines.push({name: 'until the order was made', color: color(3), points: curve(run.order_made)});
    if (!two) lines.push({name: 'harness late by', color: color(6), dashed: true, points: curve(run.schedule_error)});
    return lines;
  });
  const part = at => at <= 1 ? '0%' : at <= 2 ? '50%' : `${+(100 - 100 / at).toFixed(4)}%`;
  const ticks = [2, 10, 100, 1e3, 1e4, 1e5, 1e6];
  return {series, x: {log: true, text: part, tip: part, ticks}, y: {log: true, text: time}, label: 'Latency by percentile'};
}

function throughputPlot() {
  const parts = [['said yes', c => yes(c), 3], ['refused', c => sum(c.refused), 6], ['no answer', c => sum(c.unknown), 5]];
  const rate = (run, n) => n / run.slice_s;
  const per = {text: short, tip: n => `${count(n)}/s`};
  if (two) return {series: runs.flatMap((run, r) => [
    {name: named(run, 'answers'), color: color(r + 1), points: run.slices.map(s => [s.at_s, rate(run, parts.reduce((n, [, of]) => n + of(s.counts), 0))])},
    {name: named(run, 'orders made'), color: color(r + 1), dashed: true, points: run.slices.map(s => [s.at_s, rate(run, s.made)])},
  ]), x: seconds, y: per, label: 'Throughput'};
  const run = runs[0];
  let base = run.slices.map(s => [s.at_s, 0]);
  const series = parts.map(([name, of, n]) => {
    const own = new Map(run.slices.map(s => [s.at_s, rate(run, of(s.counts))]));
    const points = base.map(([at, below]) => [at, below + own.get(at)]);
    const s = {name, color: color(n), points, area: base, own};
    base = points;
    return s;
  }).filter(s => sum(Object.fromEntries(s.own)) > 0);
  series.push({name: 'orders made', color: color(1), dashed: true, points: run.slices.map(s => [s.at_s, rate(run, s.made)])});
  return {series, x: seconds, y: per, label: 'Throughput'};
}

function stockPlot() {
  const series = runs.flatMap((run, r) => {
    const last = {}, lines = {available: [], reserved: [], sold: []};
    for (const sample of [...run.stock].sort((a, b) => a.at_us - b.at_us)) {
      last[sample.sku] = sample;
      for (const [what, points] of Object.entries(lines)) {
        const at = sample.at_us / 1e6, units = Object.values(last).reduce((n, s) => n + s[what], 0);
        if (points.length && points.at(-1)[0] === at) points.at(-1)[1] = units; else points.push([at, units]);
      }
    }
    const shown = two ? ['available'] : ['available', 'reserved', 'sold'];
    const all = shown.map((what, n) => ({name: named(run, what), color: two ? color(r + 1) : color([1, 2, 3][n]), points: lines[what]}));
    let made = 0;
    const points = [[0, 0], ...run.slices.map(s => [s.at_s + run.slice_s, made += s.made])];
    if (made) all.push({name: named(run, 'orders made'), color: two ? color(r + 1) : color(4), dashed: true, points});
    return all.filter(s => s.points.some(p => p[1] > 0));
  });
  return {series, x: seconds, y: {text: short, tip: count}, label: 'Stock', none: 'The shop did not say.'};
}

// ---- the rest of the page

function outcomesOf(run) {
  const c = run.counts, spaced = word => word.replaceAll('_', ' ');
  return [['admitted', c.admitted, 3], ['created', c.created, 3], ['confirmed or cancelled', c.done, 1],
    ...Object.entries(c.refused).map(([why, n]) => [spaced(why), n, 6]),
    ...Object.entries(c.unknown).map(([why, n]) => ['no answer: ' + spaced(why), n, 5])].filter(([, n]) => n > 0);
}

function outcomes() {
  const names = [...new Set(runs.flatMap(run => outcomesOf(run).map(([what]) => what)))];
  const most = Math.max(1, ...runs.flatMap(run => outcomesOf(run).map(([, n]) => n)));
  for (const name of names) for (const [r, run] of runs.entries()) {
    const [, n, tone] = outcomesOf(run).find(([what]) => what === name) || [name, 0, 6];
    const label = two ? `${name} · ${run.about.name}` : name;
    $('outcomes').append(make('div', {class: 'bar'},
      make('div', {class: 'what'}, make('span', {}, label), make('span', {}, `${count(n)}  (${(100 * n / run.requests || 0).toFixed(1)} %)`)),
      make('div', {class: 'track'}, make('div', {class: 'fill', style: `width:${100 * n / most}%;background:${color(two ? r + 1 : tone)}`}))));
  }
}

function verdicts() {
  for (const run of runs) {
    const v = run.verdict, charges = Object.entries(v.charges);
    const word = charges.length ? 'violated' : v.not_judged.length ? 'undecided' : 'clean';
    const cases = charges.reduce((n, [, charge]) => n + charge.cases, 0);
    const text = {clean: '✓ Nothing is wrong', violated: `✗ Violated: ${count(cases)} cases`, undecided: '? Not decided'}[word];
    const card = make('div', {class: `card verdict ${word}`}, make('h2', {}, named(run, text)),
      make('p', {class: 'hint'}, 'The oracle looked at ' + Object.entries(v.looked_at).map(([what, n]) => `${count(n)} ${what}`).join(', ') + '.'));
    for (const [name, charge] of charges) {
      card.append(make('h3', {}, `${name.replaceAll('_', ' ')}: ${count(charge.cases)}`));
      card.append(make('ul', {}, ...charge.evidence.map(e => make('li', {},
        [`${(e.at_us / 1e6).toFixed(3)} s`, e.gid && `order ${e.gid}`, e.buyer, e.what].filter(Boolean).join(' · ')))));
    }
    if (v.not_judged.length) card.append(make('h3', {}, 'Not judged'), make('ul', {}, ...v.not_judged.map(why => make('li', {}, why))));
    if (v.notes.length) card.append(make('h3', {}, 'Notes'), make('ul', {}, ...v.notes.map(note => make('li', {}, note))));
    $('verdicts').append(card);
  }
}

const figures = [ // name, value, text, 1 if more is better, -1 if less is
  ['requests/s', r => r.requests_per_s, count, 1], ['orders told', r => r.orders_told, count, 0],
  ['orders told/s', r => r.orders_per_s, count, 1], ['p50', r => r.latency.p50, time, -1], ['p90', r => r.latency.p90, time, -1],
  ['p99', r => r.latency.p99, time, -1], ['p99.9', r => r.latency.p999, time, -1], ['max', r => r.latency.max, time, -1],
  ['order made after, p50', r => r.order_made.p50, time, -1], ['order made after, p99', r => r.order_made.p99, time, -1],
  ['schedule error p99', r => r.schedule_error.p99, time, 0], ['requests', r => r.requests, count, 0],
  ['duration', r => r.duration_s * 1000, time, 0],
];

function tiles() {
  const shown = ['requests/s', 'orders told', 'p50', 'p99', 'p99.9', 'order made after, p99', 'schedule error p99'];
  for (const [name, of, text] of figures.filter(([name]) => shown.includes(name)))
    $('tiles').append(make('div', {class: 'tile'}, make('b', {}, text(of(runs[0]))), make('span', {}, name)));
}

function difference() {
  const [a, b] = runs;
  const rows = figures.map(([name, of, text, better]) => {
    const [from, to] = [of(a), of(b)], change = from ? (to - from) / from : 0;
    const tone = Math.abs(change) < .02 || !better ? '' : change * better > 0 ? 'better' : 'worse';
    return make('tr', {}, make('td', {}, name), make('td', {}, text(from)), make('td', {}, text(to)),
      make('td', {class: tone}, from ? `${change >= 0 ? '+' : '−'}${Math.abs(change * 100).toFixed(1)} %` : '–'));
  });
  const head = make('tr', {}, ...['', a.about.name, b.about.name, 'change'].map(text => make('th', {}, text)));
  $('difference').hidden = false;
  $('difference').querySelector('.scroll').append(make('table', {}, head, ...rows));
}

function details() {
  const columns = ['mean', 'p50', 'p90', 'p95', 'p99', 'p999', 'p9999', 'max'];
  const head = make('tr', {}, ...['', 'count', ...columns.map(c => c.replace(/^p(\d\d)(\d+)$/, 'p$1.$2'))].map(text => make('th', {}, text)));
  const box = $('details').querySelector('.scroll');
  for (const run of runs) {
    const row = (name, of) => of.count ? [make('tr', {}, make('td', {}, named(run, name)), make('td', {}, count(of.count)),
      ...columns.map(c => make('td', {}, time(of[c]))))] : [];
    box.append(make('table', {}, head.cloneNode(true), ...row('all requests', run.latency),
      ...Object.entries(run.latency_of).flatMap(([name, of]) => row(name, of)),
      ...row('until the order was made', run.order_made), ...row('harness late by', run.schedule_error)));
    const facts = {target: run.about.target, scenario: run.about.scenario, seed: run.about.seed, date: run.date, ...run.about.settings,
      ...run.machine, 'order service': Object.entries(run.order_service).map(([k, n]) => `${k.replaceAll('_', ' ')} ${count(n)}`).join(', ')};
    $('details').append(make('dl', {}, ...Object.entries(facts).flatMap(([k, v]) => [make('dt', {}, k), make('dd', {}, String(v))])));
  }
}

function head() {
  const names = runs.map(run => run.about.name).join(' and ');
  $('head').append(make('h1', {}, names));
  for (const run of runs) {
    $('head').append(make('p', {class: 'dim'}, named(run, `${run.about.scenario} on ${run.about.target} · ${run.date} · ${run.machine.cores} cores`)));
    if (run.about.about) $('head').append(make('p', {class: 'dim'}, run.about.about));
    for (const warning of run.about.warnings) $('head').append(make('p', {class: 'warning'}, '⚠ ' + named(run, warning)));
  }
}

head();
verdicts();
if (two) difference(); else tiles();
outcomes();
details();
const plots = [['latency', latencyPlot()], ['percentiles', percentilePlot()], ['throughput', throughputPlot()], ['stock', stockPlot()]];
const drawAll = () => plots.forEach(([id, plot]) => draw($(id), plot));
let width = 0;
new ResizeObserver(() => {
  if (document.body.clientWidth !== width) { width = document.body.clientWidth; drawAll(); }
}).observe(document.body);
drawAll();
