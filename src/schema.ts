/** Documents against their JSON Schema: refused with the path of the offending field. */
import { Ajv, type ErrorObject, type SchemaObject, type ValidateFunction } from 'ajv';
import { FlexplanError } from './errors.js';

/**
 * A check for one kind of document, compiled at its first use (compiling costs more than most commands).
 * `what` names the document in errors, `remedy` says what to do. Throws `bad-input`.
 */
export function documentCheck<T>(schema: SchemaObject, what: string, remedy: string): (document: unknown) => T {
  let validate: ValidateFunction | undefined;
  return (document) => {
    validate ??= new Ajv({ allErrors: false, strict: true, allowUnionTypes: true, inlineRefs: false }).compile(schema);
    if (validate(document)) return document as T;
    throw new FlexplanError('bad-input', `${describe(validate.errors![0]!, document, what)}; ${remedy}`);
  };
}

/** `/memory/cpuBytes/value` -> `memory.cpuBytes.value`. */
function fieldName(pointer: string): string {
  return pointer
    .split('/')
    .slice(1)
    .map((part) => part.replace(/~1/g, '/').replace(/~0/g, '~'))
    .join('.');
}

function valueAt(document: unknown, pointer: string): unknown {
  return fieldName(pointer)
    .split('.')
    .filter((part) => part !== '')
    .reduce<unknown>((value, part) => (value as Record<string, unknown> | undefined)?.[part], document);
}

function describe(error: ErrorObject, document: unknown, what: string): string {
  const { keyword, params, instancePath } = error;
  const field = fieldName(instancePath);
  const within = (name: string) => (field === '' ? name : `${field}.${name}`);
  if (keyword === 'additionalProperties')
    return `expected only known fields in the ${what}, got "${within(String(params['additionalProperty']))}"`;
  if (keyword === 'required')
    return `expected field "${within(String(params['missingProperty']))}" in the ${what}, got none`;
  const place = field === '' ? `the ${what}` : `field "${field}" of the ${what}`;
  return `expected ${place} to be ${expectation(error)}, got ${shown(valueAt(document, instancePath))}`;
}

function expectation({ keyword, params, message }: ErrorObject): string {
  if (keyword === 'type') return `of type ${[params['type']].flat().join(' or ')}`;
  if (keyword === 'const') return JSON.stringify(params['allowedValue']);
  if (keyword === 'enum')
    return `one of ${(params['allowedValues'] as unknown[]).map((v) => JSON.stringify(v)).join(', ')}`;
  if (keyword === 'minItems') return `a list of at least ${params['limit']}`;
  if ('comparison' in params) return `${params['comparison']} ${params['limit']}`;
  return message ?? keyword;
}

function shown(value: unknown): string {
  const text = JSON.stringify(value) ?? 'nothing';
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}
