// How everything stands, told by the server every second, and what of it changed: rates and percentiles.

const KEEP = 120; // seconds of history

export const live = { now: null, connected: false, problem: null, history: [] };
const listeners = new Set();

export function onChange(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

const tell = () => listeners.forEach((listener) => listener());

export function start() {
  const source = new EventSource('/v1/live');
  source.addEventListener('open', () => {
    live.connected = true;
    tell();
  });
  source.addEventListener('error', () => {
    live.connected = false;
    tell();
    // A browser gives up when it was refused outright.
    if (source.readyState === EventSource.CLOSED) setTimeout(start, 3000);
  });
  source.addEventListener('problem', (event) => {
    live.problem = JSON.parse(event.data).detail;
    tell();
  });
  source.addEventListener('overview', (event) => {
    live.connected = true;
    live.problem = null;
    take(JSON.parse(event.data));
    tell();
  });
}

function take(now) {
  const before = live.now;
  live.now = now;
  live.seenAt = Date.now();
  const seconds = before ? (new Date(now.at) - new Date(before.at)) / 1000 : 0;
  if (!before || before.node !== now.node || seconds <= 0) {
    live.history = [];
    return;
  }
  live.history.push(difference(before, now, seconds));
  if (live.history.length > KEEP) live.history.shift();
}

function difference(before, now, seconds) {
  const per = (a, b) => Math.max(0, (b ?? 0) - (a ?? 0)) / seconds;
  const counter = (name) => per(before.counters[name], now.counters[name]);
  const sales = {};
  for (const sale of now.sales) {
    const was = before.sales.find((other) => other.sale === sale.sale);
    if (!was) continue;
    const refused = {};
    for (const [reason, n] of Object.entries(sale.refused)) refused[reason] = per(was.refused[reason], n);
    sales[sale.sale] = {
      // Units that were taken: what came onto the shelf does not count.
      units: per(taken(was), taken(sale)),
      refused,
      refusedAll: Object.values(refused).reduce((sum, n) => sum + n, 0),
    };
  }
  return {
    admitted: counter('orders_admitted_total'),
    written: counter('records_written_total'),
    refused: Object.values(sales).reduce((sum, sale) => sum + sale.refusedAll, 0),
    admission: percentiles(before.histograms.admission_s, now.histograms.admission_s),
    delivery: percentiles(before.histograms.delivery_s, now.histograms.delivery_s),
    sales,
  };
}

const taken = (sale) => sale.items.reduce((sum, item) => sum + item.reserved + item.sold, 0);

/** p50 and p99 of what came in between, to the width of a bucket; null when nothing did. */
export function percentiles(before, now) {
  if (!before || !now || before.length !== now.length) return null;
  const counts = now.map(([bound, n], at) => [bound, n - before[at][1]]);
  const all = counts.at(-1)?.[1] ?? 0;
  if (all <= 0) return null;
  const at = (share) => {
    let low = 0;
    let below = 0;
    for (const [bound, n] of counts) {
      if (n >= all * share) {
        if (bound > 1e6) return low;
        return n === below ? bound : low + ((bound - low) * (all * share - below)) / (n - below);
      }
      low = bound > 1e6 ? low : bound;
      below = n;
    }
    return low;
  };
  return { p50: at(0.5), p99: at(0.99) };
}

/** The last known percentiles, for a second in which nothing came. */
export const lastOf = (name) => live.history.findLast((second) => second[name])?.[name] ?? null;
export const series = (pick) => live.history.map((second) => pick(second) ?? 0);
export const latest = (pick) => (live.history.length ? pick(live.history.at(-1)) : null);
