// Until it opens, until it closes.

import { h } from './dom.js';
import { duration } from './format.js';
import { live } from './live.js';

// The server's clock counts; a browser's may be minutes off.
const skew = () => (live.now ? new Date(live.now.at) - live.seenAt : 0);

export function countdown(sale) {
  const now = Date.now() + (Number.isFinite(skew()) ? skew() : 0);
  const [opens, closes] = [sale.opens_at, sale.closes_at].map((at) => (at ? new Date(at).getTime() : null));
  if (sale.status === 'closed') return null;
  if (opens && opens > now) return h('span', { class: 'countdown', title: sale.opens_at }, 'opens in ', h('b', null, duration(opens - now)));
  if (closes && closes > now) return h('span', { class: 'countdown', title: sale.closes_at }, 'closes in ', h('b', null, duration(closes - now)));
  if (closes) return h('span', { class: 'countdown' }, 'its time is over');
  return null;
}
