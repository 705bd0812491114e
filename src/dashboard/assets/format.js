// Numbers, times and durations as people read them.

const NUMBER = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const SMALL = new Intl.NumberFormat('en', { maximumSignificantDigits: 2 });
const CLOCK = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', second: '2-digit', hour12: false });
const DAY = new Intl.DateTimeFormat(undefined, { month: 'short', day: 'numeric' });
const YEAR = new Intl.DateTimeFormat(undefined, { year: 'numeric', month: 'short', day: 'numeric' });

export const count = (n) => (n === null || n === undefined ? '–' : NUMBER.format(n).replaceAll(',', '\u202f'));

export const perSecond = (n) => (n === null || n === undefined ? '–' : `${n > 0 && n < 10 ? SMALL.format(n) : count(n)}/s`);

/** Seconds as ms, or as seconds when there are many. */
export function latency(s) {
  if (s === null || s === undefined) return '–';
  const ms = s * 1000;
  if (ms >= 10000) return `${SMALL.format(s)} s`;
  return `${ms < 10 ? SMALL.format(ms) : count(ms)} ms`;
}

/** A time of today by its clock, any other with its day, and its year if that is another. */
export function when(iso) {
  if (!iso) return '–';
  const at = new Date(iso);
  const now = new Date();
  if (now.toDateString() === at.toDateString()) return CLOCK.format(at);
  const day = now.getFullYear() === at.getFullYear() ? DAY : YEAR;
  return `${day.format(at)} ${CLOCK.format(at)}`;
}

export function duration(ms) {
  const s = Math.max(0, Math.floor(ms / 1000));
  const parts = [Math.floor(s / 86400), Math.floor(s / 3600) % 24, Math.floor(s / 60) % 60, s % 60];
  const two = (n) => String(n).padStart(2, '0');
  const clock = `${two(parts[1])}:${two(parts[2])}:${two(parts[3])}`;
  return parts[0] > 0 ? `${parts[0]} d ${clock}` : clock;
}

export function ago(iso, now = Date.now()) {
  const s = Math.max(0, Math.round((now - new Date(iso)) / 1000));
  if (s < 60) return `${s} s ago`;
  if (s < 3600) return `${Math.floor(s / 60)} min ago`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ago`;
  return `${Math.floor(s / 86400)} d ago`;
}

/** JSON with its lines, anything else as it is. */
export function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

/** `sold_out` as `sold out`. */
export const words = (code) => String(code).replaceAll('_', ' ');

export const items = (list) => (list ?? []).map((item) => `${item.quantity} × ${item.sku}`).join(', ');
