/** Up to two letters of a name. */
export function initials(name: string): string {
  const words = name.split(/[\s._-]+/u).filter(Boolean);
  const letters = words.length > 1 ? [words[0], words.at(-1)] : [words[0]];
  return letters.map((word) => [...(word ?? "")][0]?.toLocaleUpperCase() ?? "").join("");
}

/** One of the avatars' colours, always the same for an id. */
export function tone(id: string): number {
  let sum = 0;
  for (const character of id) sum = (sum * 31 + character.charCodeAt(0)) % 8191;
  return sum % 8;
}

/** A name's initials on a colour. Says nothing to screen readers: the name stands beside it. */
export function Avatar({ id, name }: { id: string; name: string | undefined }) {
  return (
    <span className={`avatar tone-${tone(id)}`} aria-hidden="true">
      {name ? initials(name) : ""}
    </span>
  );
}
