/** What is worked out when it is first asked for, if ever. */
export function once<V>(work: () => V): () => V {
  let known: { readonly value: V } | undefined;
  return () => (known ??= { value: work() }).value;
}

/** What is worked out for an object once, kept as long as the object lives. */
export function remembered<K extends object, V>(work: (key: K) => V): (key: K) => V {
  const known = new WeakMap<K, { readonly value: V }>();
  return (key) => {
    let found = known.get(key);
    if (!found) known.set(key, (found = { value: work(key) }));
    return found.value;
  };
}

/** The same for an object and a word or number beside it. */
export function rememberedFor<K extends object, P extends string | number, V>(
  work: (key: K, part: P) => V,
): (key: K, part: P) => V {
  const partsOf = remembered((_: K) => new Map<P, { readonly value: V }>());
  return (key, part) => {
    const parts = partsOf(key);
    let found = parts.get(part);
    if (!found) parts.set(part, (found = { value: work(key, part) }));
    return found.value;
  };
}
