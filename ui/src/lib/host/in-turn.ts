/**
 * Sends values one call at a time. What comes while a call is under way waits and is joined into the next one:
 * calls that are under way together may arrive in another order than they were made in.
 *
 * A call that fails does not hold up the next; telling of it is up to `send`.
 */
export function inTurn<T>(join: (waiting: T, next: T) => T, send: (value: T) => Promise<void>): (value: T) => void {
  let waiting: { value: T } | null = null;
  let sending = false;
  const carry = async (): Promise<void> => {
    sending = true;
    while (waiting !== null) {
      const { value } = waiting;
      waiting = null;
      await send(value).catch(() => undefined);
    }
    sending = false;
  };
  return (value) => {
    waiting = { value: waiting === null ? value : join(waiting.value, value) };
    if (!sending) void carry();
  };
}
