/** The layers of every image of the host in memory: a base, a package and a file of one's own. */
import type { FileChange, LayerFileRow, LayerRows, LayerView } from "./types.gen";

const KIB = 1024;

interface Layer {
  command: string;
  /** Nothing where it is packed in a way that is not read. */
  files: readonly [path: string, size: number, change: FileChange][] | null;
}

/** The lowest first. */
const LAYERS: readonly Layer[] = [
  {
    command: "ADD alpine-minirootfs-3.23.0-x86_64.tar.gz /",
    files: [
      ["/bin/busybox", 804 * KIB, "added"],
      ["/etc/alpine-release", 7, "added"],
      ["/etc/motd", 283, "added"],
      ["/etc/passwd", 702, "added"],
      ["/lib/libcrypto.so.3", 4358 * KIB, "added"],
      ["/lib/ld-musl-x86_64.so.1", 662 * KIB, "added"],
    ],
  },
  {
    command: "RUN set -x && addgroup -g 101 -S nginx && adduser -S -D -H -u 101 -G nginx nginx && apk add --no-cache nginx",
    files: [
      ["/etc/motd", 283, "deleted"],
      ["/etc/nginx/nginx.conf", 648, "added"],
      ["/etc/passwd", 803, "changed"],
      ["/usr/lib/libpcre2-8.so.0", 622 * KIB, "added"],
      ["/usr/sbin/nginx", 1424 * KIB, "added"],
    ],
  },
  { command: "COPY docker-entrypoint.sh /", files: null },
];

export function layerViews(digestOf: (name: string) => string): LayerView[] {
  return LAYERS.map(({ command, files }) => {
    const count = (wanted: FileChange) => (files ?? []).filter(([, , change]) => change === wanted).length;
    return {
      digest: digestOf(command),
      command,
      size: (files ?? []).reduce((sum, [, size, change]) => sum + (change === "deleted" ? 0 : size), 0),
      added: count("added"),
      changed: count("changed"),
      deleted: count("deleted"),
      readable: files !== null,
      leftOut: 0,
    };
  });
}

export function layerRows(layer: number, folder: string | null, search: string): LayerRows {
  const words = search.toLowerCase().split(/\s+/).filter(Boolean);
  const files = (LAYERS[layer]?.files ?? []).filter(([path]) => words.every((word) => path.toLowerCase().includes(word)));
  const rows = new Map<string, LayerFileRow>();
  const within = folder === null ? null : `${folder.replace(/\/+$/, "")}/`;
  for (const [path, size, change] of files) {
    if (within !== null && !path.startsWith(within)) continue;
    const end = within === null ? -1 : path.indexOf("/", within.length);
    const at = end === -1 ? path : path.slice(0, end);
    const row = rows.get(at) ?? { path: at, folder: at !== path, size: 0, change: at === path ? change : null };
    if (at === path || change !== "deleted") row.size += size;
    rows.set(at, row);
  }
  return { rows: [...rows.values()].sort((a, b) => b.size - a.size || (a.path < b.path ? -1 : 1)), cut: false };
}
