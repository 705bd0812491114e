// The HTTP interface, from its own description (OpenAPI 3.1).

import { get } from './api.js';
import { draw } from './app.js';
import { h } from './dom.js';
import { section, trouble } from './parts.js';

const METHODS = ['get', 'post', 'patch', 'put', 'delete'];
const DEPTH_MAX = 6;

export function reference() {
  const state = { api: null, problem: null };

  async function load() {
    try {
      state.api = await get('/v1/openapi.json');
    } catch (error) {
      state.problem = error;
    }
    draw();
  }

  /** What a `$ref` stands for, with what is said beside it. */
  function follow(thing) {
    if (!thing?.$ref) return thing;
    const found = thing.$ref.replace('#/', '').split('/').reduce((at, name) => at?.[name], state.api);
    return { ...found, ...thing, $ref: undefined };
  }

  function kind(given) {
    const schema = follow(given) ?? {};
    if (schema.anyOf) return schema.anyOf.map(kind).join(' or ');
    const type = [schema.type].flat().filter(Boolean).join(' or ') || 'any';
    if (schema.enum) return schema.enum.map(String).join(' | ');
    if (schema.items) return `list of ${kind(schema.items)}`;
    return schema.format ? `${type}, ${schema.format}` : type;
  }

  /** The fields of an object, and of those in it. */
  function fields(given, depth = 0) {
    const schema = follow(given) ?? {};
    const inner = schema.anyOf ? schema.anyOf.map(follow).find((one) => one.properties) : schema;
    if (inner?.items) return fields(inner.items, depth);
    const list = Object.entries(inner?.properties ?? {});
    if (list.length === 0 || depth > DEPTH_MAX) return null;
    return h(
      'ul',
      { class: 'fields' },
      list.map(([name, value]) => {
        const said = follow(value).description;
        return h('li', null, h('code', null, name), (inner.required ?? []).includes(name) ? '' : '?', ' ', h('span', { class: 'quiet' }, kind(value)), said && ` – ${said}`, fields(value, depth + 1));
      }),
    );
  }

  const bodyOf = (content) => Object.entries(content ?? {}).map(([media, { schema }]) => [h('p', { class: 'quiet' }, media), fields(schema) ?? h('p', null, kind(schema))]);

  function answer(status, given) {
    const response = follow(given);
    const problem = response.content?.['application/problem+json'];
    return h('li', null, h('code', null, status), ' ', response.description, !problem && bodyOf(response.content));
  }

  const operation = (path, method, one) =>
    h(
      'details',
      { class: 'operation', 'data-key': `${method} ${path}` },
      h('summary', null, h('b', { class: `method ${method}` }, method.toUpperCase()), h('code', null, path), h('span', { class: 'quiet' }, one.summary)),
      one.description && h('p', null, one.description),
      one.parameters &&
        h('div', null, h('h3', null, 'Parameters'), h('ul', { class: 'fields' }, one.parameters.map(follow).map((parameter) => h('li', null, h('code', null, parameter.name), parameter.required ? '' : '?', ' ', h('span', { class: 'quiet' }, `${parameter.in}, ${kind(parameter.schema)}`), ` – ${parameter.description}`)))),
      one.requestBody && h('div', null, h('h3', null, one.requestBody.required ? 'Body' : 'Body, may be left out'), bodyOf(one.requestBody.content)),
      h('div', null, h('h3', null, 'Answers'), h('ul', { class: 'fields' }, Object.entries(one.responses).map(([status, response]) => answer(status, response)))),
    );

  function view() {
    if (!state.api) return state.problem ? trouble(state.problem) : h('p', { class: 'quiet' }, 'Loading …');
    const all = Object.entries(state.api.paths).flatMap(([path, methods]) => METHODS.filter((method) => methods[method]).map((method) => [path, method, methods[method]]));
    const tags = [...new Set(all.map(([, , one]) => one.tags[0]))];
    return [
      h('div', { class: 'head' }, h('h1', null, 'HTTP interface'), h('div', { class: 'actions' }, h('a', { href: '/v1/openapi.json' }, 'OpenAPI 3.1'))),
      section(null, h('p', null, state.api.info.description), h('p', { class: 'quiet' }, 'A ? marks what may be left out. Every refusal is a problem document with a code; it has changed nothing.')),
      tags.map((tag) => section(tag, all.filter(([, , one]) => one.tags[0] === tag).map(([path, method, one]) => operation(path, method, one)))),
    ];
  }

  load();
  return { view };
}
