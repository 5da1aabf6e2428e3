import type { status as words } from "./status.en";

/** Wie ein Container ist und seit wann. Zeiten stehen hinter „seit“ und „vor“. */
export const status: Record<keyof typeof words, string> = {
  statusUp: "Läuft seit {time}",
  statusPaused: "Läuft seit {time} (pausiert)",
  statusRestarting: "Startet neu ({code}), beendet vor {time}",
  statusExited: "Beendet ({code}) vor {time}",
  statusCreated: "Angelegt",
  statusDead: "Tot",
  statusRemoving: "Wird entfernt",
  health_starting: "wird noch geprüft",
  health_healthy: "gesund",
  health_unhealthy: "nicht gesund",
  timeInstant: "weniger als einer Sekunde",
  timeSecond: "1 Sekunde",
  timeSeconds: "{count} Sekunden",
  timeMinute: "etwa einer Minute",
  timeMinutes: "{count} Minuten",
  timeHour: "etwa einer Stunde",
  timeHours: "{count} Stunden",
  timeDays: "{count} Tagen",
  timeWeeks: "{count} Wochen",
  timeMonths: "{count} Monaten",
  timeYears: "{count} Jahren",
};
