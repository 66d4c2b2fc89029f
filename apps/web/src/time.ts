/** Times as people say them, in the browser's language. */

const relative = new Intl.RelativeTimeFormat(undefined, { numeric: "auto" });
const clockTime = new Intl.DateTimeFormat(undefined, { hour: "numeric", minute: "2-digit" });
const dayAndTime = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const full = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "medium" });
const dayName = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long", year: "numeric" });

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;

/** How many days lie between two times, by the calendar of this place. */
function daysBetween(earlier: Date, later: Date): number {
  const day = (date: Date) => Date.UTC(date.getFullYear(), date.getMonth(), date.getDate());
  return Math.round((day(later) - day(earlier)) / (24 * HOUR));
}

function capital(text: string): string {
  return text.charAt(0).toLocaleUpperCase() + text.slice(1);
}

/** "now", "5 minutes ago", "14:03", "Yesterday, 14:03", then the date. */
export function when(at: Date, now: number): string {
  const age = now - at.getTime();
  if (age < MINUTE) return relative.format(0, "second");
  if (age < HOUR) return relative.format(-Math.floor(age / MINUTE), "minute");
  const days = daysBetween(at, new Date(now));
  if (days === 0) return clockTime.format(at);
  if (days === 1) return `${capital(relative.format(-1, "day"))}, ${clockTime.format(at)}`;
  return dayAndTime.format(at);
}

/** The time of day. */
export function timeOfDay(at: Date): string {
  return clockTime.format(at);
}

/** All of it, for a tooltip. */
export function fullTime(at: Date): string {
  return full.format(at);
}

/** "Today", "Yesterday", or the date. */
export function dayOf(at: Date, now: number): string {
  const days = daysBetween(at, new Date(now));
  return days === 0 || days === 1 ? capital(relative.format(-days, "day")) : dayName.format(at);
}

/** Whether both are on one day of this place. */
export function sameDay(a: Date, b: Date): boolean {
  return daysBetween(a, b) === 0;
}
