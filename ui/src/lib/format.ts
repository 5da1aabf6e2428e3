/** Bytes in powers of 1024, as the command writes them: `611 MiB`. */
export function bytes(value: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${value < 10 && unit > 0 ? value.toFixed(1) : Math.round(value)} ${units[unit] ?? ""}`;
}

/** The two largest units of a time: `2 h 3 min`. */
export function duration(seconds: number): string {
  const units: [string, number][] = [["d", 86_400], ["h", 3600], ["min", 60], ["s", 1]];
  const parts: string[] = [];
  let rest = Math.max(0, Math.floor(seconds));
  for (const [unit, length] of units) {
    const count = Math.floor(rest / length);
    rest %= length;
    if (count > 0) parts.push(`${count} ${unit}`);
    else if (parts.length > 0) break;
    if (parts.length === 2) break;
  }
  return parts.join(" ") || "0 s";
}

/** Milliseconds as seconds with a tenth, or as the two largest units from a minute on. */
export function seconds(ms: number): string {
  return ms < 60_000 ? `${(ms / 1000).toFixed(1)} s` : duration(ms / 1000);
}

/** With noughts before it, as many digits as are asked for. */
const digits = (value: number, count: number): string => String(value).padStart(count, "0");

/** `2026-03-01`, where a person needs the day and no more, by the calendar of this computer. */
export function day(ms: number): string {
  const at = new Date(ms);
  if (Number.isNaN(at.getTime())) return "–";
  return `${digits(at.getFullYear(), 4)}-${digits(at.getMonth() + 1, 2)}-${digits(at.getDate(), 2)}`;
}

/** `2026-03-01 12:00`, where the hour matters, in the time of this computer. */
export function moment(ms: number): string {
  const at = new Date(ms);
  if (Number.isNaN(at.getTime())) return "–";
  return `${day(ms)} ${digits(at.getHours(), 2)}:${digits(at.getMinutes(), 2)}`;
}

/** `12:00:00.250`, where one comes right after the other, in the time of this computer. */
export function clock(ms: number): string {
  const at = new Date(ms);
  const parts = [at.getHours(), at.getMinutes(), at.getSeconds()].map((part) => digits(part, 2));
  return `${parts.join(":")}.${digits(at.getMilliseconds(), 3)}`;
}

/** What a browser calls a port of this computer at this address, or at every one. */
export function pageAt(address: string | null, port: number): string {
  return `${address === null ? "localhost" : address.includes(":") ? `[${address}]` : address}:${port}`;
}
