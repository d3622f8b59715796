// The page under /docs: what /openapi.json says, for people. It only shows; it sends nothing.

import { byId, fill, h } from './dom.js';

const MAX_DEPTH = 6;

const response = await fetch('/openapi.json');
if (response.ok) show(await response.json());
else fill(byId('content'), h('p', { class: 'notice' }, `/openapi.json was answered with ${response.status}`));

function show(api) {
  const resolve = (part) => (part?.$ref ? part.$ref.slice(2).split('/').reduce((at, key) => at[key], api) : part);
  const operations = Object.entries(api.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ path, method, operation })));
  const sections = api.tags.map((tag) => h('section', {},
    h('h2', {}, tag.name),
    tag.description && h('p', { class: 'small' }, tag.description),
    operations.filter(({ operation }) => operation.tags.includes(tag.name)).map((one) => card(one, resolve))));
  fill(byId('content'), h('p', {}, api.info.description), sections);
}

function card({ path, method, operation }, resolve) {
  const parameters = (operation.parameters ?? []).map(resolve);
  const body = operation.requestBody;
  return h('details', {},
    h('summary', {},
      h('span', { class: 'method' }, method), h('code', {}, path), ' ',
      h('span', { class: 'says' }, operation.summary)),
    operation.description && h('p', {}, operation.description),
    h('dl', {},
      operation['x-corkboard-action'] && row('a key needs', operation['x-corkboard-action']),
      parameters.map((p) => row(p.name, `${p.in}${p.required ? '' : ', optional'}: ${p.description}`)),
      body && row('body', body.description, contents(body.content, resolve)),
      Object.entries(operation.responses).map(([status, answer]) => {
        const { description, content } = resolve(answer);
        return row(status, description, contents(content, resolve));
      })));
}

function row(name, ...about) {
  return [h('dt', {}, name), h('dd', {}, about)];
}

/** The media types, and below them the shape of the first that has one. */
function contents(content, resolve) {
  if (!content) return [];
  const schema = Object.values(content).map((media) => media.schema).find((found) => found);
  return [
    h('p', { class: 'small' }, h('code', {}, Object.keys(content).join(', '))),
    schema && h('pre', {}, h('code', {}, JSON.stringify(shape(schema, resolve, 0), null, 2))),
  ];
}

function said(part) {
  return typeof part === 'string' ? part : JSON.stringify(part);
}

/** A schema as an example of itself: what stands where, and of which type. */
function shape(given, resolve, depth) {
  const schema = resolve(given);
  if (depth > MAX_DEPTH) return '…';
  if (schema.allOf) return Object.assign({}, ...schema.allOf.map((part) => shape(part, resolve, depth)));
  if (schema.const !== undefined) return schema.const;
  if (schema.enum) return schema.enum.join(' | ');
  if (schema.properties) {
    return Object.fromEntries(Object.entries(schema.properties).map(([name, part]) => {
      const mark = schema.required?.includes(name) ? '' : '?';
      return [name + mark, shape(part, resolve, depth + 1)];
    }));
  }
  const choice = schema.oneOf ?? schema.anyOf;
  if (choice && !schema.type) return choice.map((part) => said(shape(part, resolve, depth + 1))).join(' | ');
  if (schema.items) return [shape(schema.items, resolve, depth + 1)];
  if (schema.additionalProperties) return { '…': shape(schema.additionalProperties, resolve, depth + 1) };
  return [schema.type ?? 'any'].flat().join(' | ') + (schema.description ? `: ${schema.description}` : '');
}
