/** A JSON value as the rows of a tree. */
export interface TreeRow {
  /** Where it is, as `jq` writes it: `.Config.Env[2]`. */
  path: string;
  depth: number;
  key: string;
  /** A leaf's value as JSON; how much is in a branch. */
  text: string;
  branch: boolean;
  open: boolean;
}

/** Rows that are drawn at most. What an engine knows of a container is a twentieth of it. */
const MOST = 5000;

function inner(value: unknown, path: string): [string, string, unknown][] {
  if (Array.isArray(value)) return value.map((item: unknown, index) => [String(index), `${path}[${index}]`, item]);
  if (typeof value !== "object" || value === null) return [];
  return Object.entries(value).map(([key, item]) => [key, `${path}${/^\w+$/.test(key) ? `.${key}` : `[${JSON.stringify(key)}]`}`, item]);
}

function describe(value: unknown): string {
  if (Array.isArray(value)) return `[${value.length}]`;
  if (typeof value === "object" && value !== null) return `{${Object.keys(value).length}}`;
  return JSON.stringify(value) ?? "null";
}

/**
 * The rows that are seen: those whose branches are open. While something is searched, those that hold it in their key
 * or value, the branches that lead there, and everything in a branch whose key holds it.
 */
export function treeRows(value: unknown, opened: ReadonlySet<string>, search: string): TreeRow[] {
  const wanted = search.trim().toLowerCase();
  const rows: TreeRow[] = [];
  /** Whether anything was added. */
  const add = (node: unknown, path: string, depth: number, all: boolean): boolean => {
    let any = false;
    for (const [key, at, item] of inner(node, path)) {
      if (rows.length >= MOST) return any;
      const branch = inner(item, at).length > 0;
      const text = describe(item);
      const found = wanted !== "" && (key.toLowerCase().includes(wanted) || (!branch && text.toLowerCase().includes(wanted)));
      const open = branch && (wanted !== "" || opened.has(at));
      const index = rows.length;
      rows.push({ path: at, depth, key, text, branch, open });
      const below = open && add(item, at, depth + 1, all || found);
      if (wanted !== "" && !found && !below && !all) rows.length = index;
      else any = true;
    }
    return any;
  };
  add(value, "", 0, false);
  return rows;
}
